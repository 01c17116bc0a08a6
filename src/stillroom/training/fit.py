"""One network from its first weights to its finished folder: what flow asks for once for each teacher, student, seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from stillroom.kinds import Model, Objective, Setting
from stillroom.models.classifier import Classifier, evaluating, to_device
from stillroom.models.device import Device, threads
from stillroom.objectives.weighted_sum import WeightedSum
from stillroom.recipe import Training
from stillroom.rows import Array, Questions
from stillroom.rundir import write_json
from stillroom.training.batches import Batches, Source
from stillroom.training.class_prior import match_prior
from stillroom.training.loop import History, Hooks, Trainer

HISTORY = "history.json"


@dataclass(frozen=True)
class Prior:
    """What mean predictions on unlabelled questions are to be: a share for each class [C]."""

    questions: Questions
    share_C: Array
    moved: list[int] | None
    """The classes whose biases move: those the student never saw; None: all."""


@dataclass(frozen=True)
class Lesson:
    """All that one training is made of."""

    model: Model
    build: Callable[[tuple[int, ...], int], torch.nn.Module]
    """First weights for an input shape and a number of classes; torch is seeded before it is called."""
    objectives: Sequence[Objective]
    knobs: Training
    source: Source
    classes: list[object]
    validation: Questions
    seed: int
    steps: int
    device: Device
    dtype: str = "auto"
    prior: Prior | None = None
    """Afterwards the class biases are moved until the mean prediction matches it."""


def steps_in(knobs: Training, rows: int) -> int:
    """Optimiser steps of a training on so many rows."""
    batches = -(-rows // min(knobs.batch_size, rows))
    return -(-knobs.epochs * batches // knobs.accumulate)


def fit(lesson: Lesson, folder: Path, work: Path, hooks: Hooks) -> History:
    """Train, correct for the class prior where asked, and write the classifier and its history into `folder`."""
    classifier, loss = prepare(lesson)
    batches = Batches(lesson.source, lesson.knobs.batch_size, lesson.seed, classifier.device, lesson.knobs.mixup)
    work.mkdir(parents=True, exist_ok=True)
    hooks = replace(hooks, validate=_validator(lesson, classifier))
    trainer = Trainer(classifier.network, loss, batches, lesson.knobs, lesson.steps, classifier.device, work, hooks)
    with threads(classifier.device.threads):
        history = trainer.train()
    if lesson.prior is not None:
        prior = lesson.prior
        bias_C = match_prior(classifier.log_probabilities(prior.questions.raw), prior.share_C, prior.moved)
        classifier.class_bias_C = torch.from_numpy(bias_C.astype(np.float32)).to(classifier.device.name)
    classifier.save(folder)
    write_json(folder / HISTORY, history.__dict__)
    return history


def prepare(lesson: Lesson) -> tuple[Classifier, WeightedSum]:
    """The network with its first weights, seeded, and the loss it will be trained under."""
    torch.manual_seed(lesson.seed)
    network = lesson.build(tuple(lesson.source.inputs.shape), len(lesson.classes))
    parameters = sum(weights.numel() for weights in network.parameters())
    device = lesson.device.for_size(parameters, lesson.dtype)
    classifier = Classifier(lesson.model, network, lesson.source.inputs, list(lesson.classes), device)
    source = lesson.source
    teacher_hidden = source.live.hidden_width if source.live is not None else None
    if source.readers and source.with_hidden:
        teacher_hidden = source.readers[0].take(np.arange(1), "hidden").shape[1]
    answers = source.readers[0].all() if source.readers else None
    setting = Setting(len(lesson.classes), classifier.hidden_width, teacher_hidden, answers)
    return classifier, WeightedSum(lesson.objectives, setting)


def _validator(lesson: Lesson, classifier: Classifier) -> Callable[[torch.nn.Module], dict[str, float]] | None:
    """Looks at the labelled validation rows, which are encoded once."""
    rows = lesson.validation.take(np.flatnonzero(lesson.validation.labelled_N))
    if not len(rows):
        return None
    input_N = to_device(classifier.inputs.encode(rows.raw), classifier.device)
    label_N = torch.from_numpy(rows.label_N).to(classifier.device.name)

    def look(network: torch.nn.Module) -> dict[str, float]:
        with evaluating(network):
            logits_NC = torch.cat([network(part).logits_BC.float() for part in torch.split(input_N, 1024)])
        loss = float(functional.cross_entropy(logits_NC, label_N))
        return {"validation_loss": loss, "validation_accuracy": float((logits_NC.argmax(1) == label_N).float().mean())}

    return look
