"""The teacher of the reasoning bench: a transformer trained in the run on gold scratchpads, good but not perfect, and served
as an API on this machine. Students never see a scratchpad, only what it writes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reasoning_data import lesson
from benchmarks.reasoning_sizes import AT_ONCE, PRICE, Shape, Sizes
from stillroom.evaluation.reasoning_answers import answer_all
from stillroom.kinds import Ground, parse
from stillroom.loopback.serving import Loopback
from stillroom.models.characters import characters
from stillroom.models.device import Device
from stillroom.models.language import LanguageModel
from stillroom.questions.arithmetic import Problem, Task, problems
from stillroom.questions.dialogues import dialogues, prompts
from stillroom.recipe import Training
from stillroom.rows import Array
from stillroom.rundir import MANIFEST, fingerprint, is_sealed, seal
from stillroom.training.fit import Lesson, fit
from stillroom.training.language_batches import WindowSource
from stillroom.training.loop import Hooks

OTHER_SEED = 1
"""The teacher's questions are drawn by another seed than the students'; those kept for test are in neither."""
MOST_TOKENS = 140


def trained(
    folder: Path, task: Task, shape: Shape, steps: int, rate: float, long_share: float = 0.0, batch: int = 64
) -> Path:
    """The teacher's folder, trained if it is not there yet: each scratchpad once, in an order drawn by seed."""
    made_from = fingerprint(task.__dict__, shape.config, steps, rate, long_share, batch)
    if is_sealed(folder, made_from):
        return folder
    (folder / MANIFEST).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(OTHER_SEED)
    several = problems(task, steps * batch, OTHER_SEED)
    pairs = [lesson(one, dice, long_share) for one in several]
    windows = dialogues(characters(), pairs, shape.config["max_position_embeddings"])
    model: Any = parse("model", shape.model)
    knobs = Training(epochs=1, batch_size=batch, learning_rate=rate, clip=1.0, weight_decay=0.01)
    inputs = model.inputs({}, Ground([]))

    def first_weights() -> torch.nn.Module:
        network: torch.nn.Module = model.network(inputs, 0, Ground([], "causal"))
        return network

    part = Lesson(
        model, first_weights, (parse("objective", {"kind": "trace"}),), knobs, WindowSource(windows), [],
        windows.take(np.arange(0)), 0, steps, Device(),
    )  # fmt: skip
    fit(part, folder, folder / ".work", Hooks())
    seal(folder, made_from)
    return folder


def greedy(folder: Path, several: Sequence[Problem]) -> Array:
    """Which problems it gets right, bool [N], writing its likeliest tokens."""
    model = LanguageModel.load(folder, "causal")
    asked = prompts(model.tokenizer, [one.question for one in several])
    verifier: Any = parse("verifier", {"kind": "numeric"})
    return answer_all(model, asked, [one.answer for one in several], verifier, MOST_TOKENS, lambda done: None).right_N


def served(folder: Path, port: int) -> Loopback:
    """The teacher behind an endpoint on this machine; a context that gives its address."""
    mind = {"kind": "language", "model": str(folder.resolve()), "at_once": AT_ONCE, "max_tokens": MOST_TOKENS}
    return Loopback({"model": "loopback", "mind": mind, "price": PRICE}, port=port)


def parameters(folder: Path) -> int:
    """Its weights, counted."""
    return LanguageModel.load(folder, "causal").parameters


def of_sizes(sizes: Sizes, base: Path, task: Task, name: str, long_share: float = 0.0) -> Path:
    """The teacher of a task at a preset."""
    return trained(base / "teachers" / name, task, sizes.teacher, sizes.teacher_steps, sizes.teacher_rate, long_share)
