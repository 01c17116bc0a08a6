"""A run cut down to a few rows and steps, in a folder of its own: what a rehearsal has the stages work on.

The parts are the recipe's own and whole (teachers, students, objectives, batches as far as they are quick); what is cut is
how often something is done. Knows no figure of a plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.budget import Clock
from stillroom.evaluation.processes import forget_most, give_back, held_bytes, most_held_bytes
from stillroom.kinds import Model, Objective, Student, Teacher
from stillroom.progress import Done
from stillroom.recipe import Recipe, Training
from stillroom.rows import Answers, Array, Questions
from stillroom.rundir import RunDir
from stillroom.stages.opening import Run

STEPS = 6
"""Of a training that is practised, where they are quick."""
QUICK_FLOPS = 1e12
"""Of the practised steps of one training: some fifteen seconds on one core."""
FLOPS_A_WEIGHT = 6
"""Of each weight and token in a training step: two forward, four backward."""
QUICK_S = 2.0
"""Rows are answered, more each time, for about so long."""


@dataclass(frozen=True)
class Line:
    """Bytes held by a batch of so many rows: measured for two sizes, and between and beyond them a straight line."""

    rows: int
    grown_bytes: int
    per_row_bytes: float = 0.0

    @classmethod
    def through(cls, points: Sequence[tuple[int, int]]) -> Line:
        """From (rows, bytes) with rising rows; one point alone is a level line."""
        rows, grown = points[-1]
        if len(points) < 2:
            return cls(rows, grown)
        before, less = points[-2]
        return cls(rows, grown, max(0, grown - less) / (rows - before))

    def at(self, rows: int) -> int:
        """Bytes of a batch of so many."""
        return max(0, round(self.grown_bytes + self.per_row_bytes * (rows - self.rows)))


def most_bytes(work: Callable[[], object]) -> int:
    """What the process holds at most while this is done. What it had freed is given back before, as between a run's stages."""
    give_back()
    forget_most()
    work()
    return most_held_bytes()


def rising(work: Callable[[int], object], whole: int) -> tuple[Line, float]:
    """Do it with 1, 2, 4, .. rows up to `whole`, or as long as it is quick: how it grows, and the seconds a row takes.

    What is quick is told by this thread's own time, so that a busy machine is not shown fewer rows, and so less memory.
    """
    points: list[tuple[int, int]] = []
    rows, row_s, spent_s = min(2, whole), 0.0, 0.0
    work(1)  # loads and compiles, and is no part of an answer
    give_back()
    before = held_bytes()
    while True:
        started, worked = time.perf_counter(), time.thread_time()
        points.append((rows, most_bytes(partial(work, rows)) - before))
        took_s, own_s = time.perf_counter() - started, time.thread_time() - worked
        row_s, spent_s = took_s / rows, spent_s + own_s
        more = min(2 * rows, whole)
        if more == rows or spent_s + own_s / rows * more > QUICK_S:
            return Line.through(points), row_s
        rows = more


@dataclass
class Watch:
    """Shows nothing, but counts how long each step of a training takes."""

    steps_s: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[Done]:
        last = time.perf_counter()

        def done(more: int, before: bool = False) -> None:
            nonlocal last
            now = time.perf_counter()
            if unit == "steps":
                self.steps_s.append(now - last)
            last = now

        yield done

    def typical_s(self) -> float:
        """The median, the first left out where there are more: it loads and compiles."""
        known = sorted(self.steps_s[1:] or self.steps_s)
        return known[len(known) // 2] if known else 0.0


class StandIn:
    """Answers as a teacher that is not asked now: every class is as probable as any other."""

    by_key = False
    hidden_width: int | None = None
    gives = frozenset({"answers", "probabilities"})
    fingerprint = "stand-in"

    def __init__(self, classes: list[Any]) -> None:
        self.classes = classes

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """Even log-probabilities [N, C]."""
        count = len(self.classes)
        return Answers(np.full((len(questions), count), -np.log(count), np.float32))


@dataclass(frozen=True)
class Sizes:
    """Batch sizes to practise with, rising, and how many steps of each."""

    batches: tuple[int, ...]
    steps: int

    @classmethod
    def of(cls, knobs: Training, rows: int, weights: int, width: int) -> Sizes:
        """For a network of so many weights and rows of `width` tokens; 0: no tokens, whose steps are taken for quick."""
        batch = min(knobs.batch_size, rows)
        flops = FLOPS_A_WEIGHT * weights * width * batch
        if flops <= 1.5 * QUICK_FLOPS:
            return cls((batch,), max(1, min(STEPS, int(QUICK_FLOPS / flops))) if flops else STEPS)
        most = max(2, int(batch * QUICK_FLOPS / (1.5 * flops)))
        return cls(tuple(sorted({min(batch, max(1, most // 2)), min(batch, most)})), 1)


def few(questions: Questions, count: int, batch: int = 0, width_N: Array | None = None) -> Questions:
    """So many of them, from all over, those with a label before those without; the longest `batch` are among them."""
    order_N = np.argsort(~questions.labelled_N, kind="stable")
    longest_N = np.empty(0, np.int64)
    if width_N is not None:
        longest_N = np.argsort(-width_N, kind="stable")[: min(batch, count)]
        order_N = order_N[~np.isin(order_N, longest_N)]
    left = max(0, min(count, len(questions)) - len(longest_N))
    labelled = int(questions.labelled_N[order_N].sum())
    among = labelled if labelled >= left else len(order_N)
    return questions.take(np.concatenate([longest_N, order_N[np.linspace(0, among - 1, left).astype(np.int64)]]))


def lengths(questions: Questions) -> Array | None:
    """Letters of each row, where rows are texts and nothing else: those of most letters are those of most tokens."""
    raw = questions.raw
    if not isinstance(raw, dict) or len(raw) != 1:
        return None
    (column,) = raw.values()
    return np.array([len(str(text)) for text in column.tolist()]) if column.dtype.kind == "O" else None


def repeated(questions: Questions, count: int) -> Questions:
    """So many rows of these few."""
    return questions.take(np.resize(np.arange(len(questions)), count))


def small_run(run: Run, place: Path, show: Any, train: Questions, held_out: int = 0, batch: int | None = None) -> Run:
    """The run on these training rows and a few of each other split, for one epoch, in a folder of its own."""
    splits, recipe = run.splits, _small_recipe(run.recipe, batch or run.recipe.training.batch_size)
    found = replace(run, recipe=recipe, dir=RunDir(place), show=show, clock=Clock(None, "", place), ledger=None)
    found.__dict__["splits"] = replace(
        splits,
        train=train,
        validation=few(splits.validation, held_out),
        test=few(splits.test, held_out),
        omitted=splits.omitted.take(np.arange(0)),
        slice_N=None,
    )
    return found


def _small_recipe(recipe: Recipe, batch: int) -> Recipe:
    return recipe.model_copy(
        update={
            "seeds": 1,
            # An arm of a language model may lay a part of its rounds over the run's.
            "rounds": recipe.rounds if recipe.is_language else None,
            "questions": recipe.questions.model_copy(update={"views": 1}),
            "training": small_training(recipe.training, batch),
            "transfer_set": recipe.transfer_set.model_copy(update={"store": None, "fidelity": None}),
        }
    )


def small_training(knobs: Any, batch: int) -> Any:
    """The same, or a teacher that is so trained, for one epoch without a checkpoint, in batches of so many."""
    return knobs.model_copy(
        update={
            "epochs": 1, "batch_size": batch, "accumulate": 1, "patience": None, "class_prior": "none",
            "checkpoint_seconds": 1e9,
        }
    )  # fmt: skip


def settled_at(objectives: Sequence[Objective], temperature: float) -> tuple[Objective, ...]:
    """The objectives, with a temperature that is yet to be chosen set to this one."""
    return tuple(
        one.model_copy(update={"temperature": temperature}) if one.heat() == "auto" else one for one in objectives
    )


def likeness(part: Student | Model | Teacher, knobs: Training | None = None) -> str:
    """Equal for parts that hold as much and take as long, whatever their seeds."""
    told = part.model_dump(mode="json", exclude={"seed", "licence"})
    more = None if knobs is None else knobs.model_dump(mode="json", exclude={"checkpoint_seconds", "epochs"})
    return repr((told, more))
