"""One student of the benchmark: trained from its first weights by the product's own loop, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.inputs import Numbers
from stillroom.kinds import Model, Objective, parse
from stillroom.models.classifier import Classifier
from stillroom.models.device import Device
from stillroom.recipe import Training
from stillroom.rows import Array, Pool, Questions
from stillroom.training.batches import Batches, Source
from stillroom.training.fit import Lesson, prepare
from stillroom.training.loop import Hooks, Trainer
from stillroom.transfer_set.store import Reader

NOWHERE = Path("nowhere")
NEVER_S = 1e9
NO_LOOKS = 1
HARD: Sequence[Objective] = (parse("objective", {"kind": "hard_label", "from": "teacher"}),)


@dataclass(frozen=True)
class Design:
    """How the students of a task are made and trained; all of them alike, whatever they learn from."""

    hidden: tuple[int, ...]
    steps: int
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    dropout: float = 0.0

    @property
    def model(self) -> Model:
        """The architecture."""
        found: Model = parse("model", {"kind": "mlp", "hidden": self.hidden, "dropout": self.dropout})
        return found

    @property
    def knobs(self) -> Training:
        """Of the loop."""
        return Training(
            batch_size=self.batch_size, learning_rate=self.learning_rate, weight_decay=self.weight_decay,
            checkpoint_seconds=NEVER_S,
        )  # fmt: skip


def plain(width: int) -> Numbers:
    """Inputs that are ready as they come."""
    return Numbers(mean_D=(0.0,) * width, std_D=(1.0,) * width)


def trained(design: Design, rows_ND: Array, said_N: Array, classes: int, seed: int) -> Classifier:
    """A student of these rows and the classes that the teacher chose for them."""
    logs_NC = np.full((len(rows_ND), classes), -20.0, np.float16)
    logs_NC[np.arange(len(rows_ND)), said_N] = 0
    nothing = np.zeros(len(rows_ND))
    questions = Questions(rows_ND, nothing, np.full(len(rows_ND), -1), np.ones(len(rows_ND), np.float32), nothing)
    place_N = np.arange(len(rows_ND))
    reader = Reader([{"log_probabilities": logs_NC}], np.zeros(len(rows_ND), np.int32), place_N)
    inputs, width = plain(rows_ND.shape[1]), rows_ND.shape[1]
    lesson = Lesson(
        design.model, lambda: design.model.build((width,), classes), HARD, design.knobs, Source(questions, inputs, [reader]),
        list(range(classes)), questions.take(place_N[:0]), seed, design.steps, Device(),
    )  # fmt: skip
    classifier, loss = prepare(lesson)
    batches = Batches(lesson.source, design.batch_size, seed, classifier.device)  # type: ignore[arg-type]
    Trainer(
        classifier.network, loss, batches, design.knobs, design.steps, classifier.device, NOWHERE, Hooks(looks=NO_LOOKS)
    ).train()
    classifier.network.eval()
    return classifier


def looked(students: Sequence[Classifier], pool_ND: Array, asked_MD: Array) -> Pool:
    """The pool as these students see it."""
    outputs = [one.forward(pool_ND) for one in students]
    said_SNC = np.stack([one.logits_BC.softmax(1).numpy() for one in outputs if one.logits_BC is not None])
    features, before = outputs[0].hidden_BH, students[0].forward(asked_MD).hidden_BH
    assert features is not None
    assert before is not None
    return Pool(len(pool_ND), said_SNC, features.numpy(), before.numpy())


def accuracy(student: Any, rows_ND: Array, label_N: Array) -> float:
    """The share of rows whose label it names."""
    return float((student.log_probabilities(rows_ND).argmax(1) == label_N).mean())
