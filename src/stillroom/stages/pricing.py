"""What the calls of a paid teacher would take, for `check`: a guess that costs nothing, or the figures of a small pilot.

A pilot asks held-out rows with labels first, so that it also tells how good the teacher is, beside a control where one is
trained in no time; its answers are bought for good, and a run later finds them in its ledger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import RecipeError
from stillroom.kinds import Teacher, parse
from stillroom.rows import Array, Questions, joined
from stillroom.stages.paying import ledger_path, paying
from stillroom.training.steps import steps_in

if TYPE_CHECKING:
    from stillroom.stages.opening import Run
    from stillroom.teachers.api_estimates import Expected, Pilot, Range

FEW_ROWS = 30
"""Of fewer held-out rows a pilot's comparison may be chance."""
CONTROL_S = 20.0
"""A control that takes longer is not trained for a pilot."""


def expected_calls(
    run: Run, teacher: Teacher, pilot_calls: int, control_s: float | None = None
) -> tuple[Expected, list[str]]:
    """What a teacher takes that is paid by the call, and what to say of it; makes at most `pilot_calls` calls.

    `control_s`: how long the run's control would train; None where it has none. Raises what asking raises.
    """
    from stillroom.teachers.api_estimates import expected, wanted_by

    asked: Any = teacher.build(run.dir.path, run.folders, run.splits.classes)
    questions = [_to_learn(run), run.splits.validation, run.splits.test]
    if not pilot_calls:
        found = expected(asked, wanted_by(asked, questions))
        notes = [f"calls, tokens, USD and minutes of the teacher are {found.basis} (--pilot 20)"]
        return found, [*notes, *_rounds_note(run)]
    # The answers are the run's, so the folder is from now on; a run that is at work is not disturbed.
    with run.dir.hold(run.recipe.name), paying(run):
        assert run.ledger is not None, "a teacher that is paid has one"
        charged = asked.charge(run.ledger, "pilot")
        piloted, notes = _piloted(run, charged, pilot_calls, control_s)
        found = expected(charged, wanted_by(charged, questions, run.ledger), piloted)
        spent = run.ledger.spent("pilot")
    bought = f"the pilot made {spent.calls:,} calls" + (f" for {spent.usd:.4g} USD" if found.usd is not None else "")
    told = f"{bought}; its answers are kept in {ledger_path(run)} and paid for once"
    basis = f"calls, tokens, USD and minutes of the teacher are what is still to come, by {found.basis}"
    return found, [told, basis, *notes, *_rounds_note(run)]


def _to_learn(run: Run) -> Questions:
    """The training rows that are asked at most; in rounds the last budget, of all strategies that are compared."""
    rounds, train = run.recipe.rounds, run.splits.train
    if rounds is None:
        return train
    most = min(len(train), rounds.budgets[-1] * (1 + len(rounds.compare)))
    return train.take(np.random.default_rng(0).permutation(len(train))[:most])


def _rounds_note(run: Run) -> list[str]:
    if run.recipe.rounds is None:
        return []
    return ["in rounds that is the most they can ask; strategies that choose the same questions share their calls"]


def _piloted(run: Run, charged: Any, calls: int, control_s: float | None) -> tuple[Pilot, list[str]]:
    """A pilot on held-out rows, on training rows where there are too few, and how many labels it got right."""
    from stillroom.evaluation.proportions import wilson
    from stillroom.teachers.api_estimates import pilot

    held_out, train = run.splits.validation, run.splits.train
    questions = held_out if len(held_out) >= calls else joined(held_out, train)
    piloted = pilot(charged, questions, calls)
    labelled = questions.take(np.flatnonzero(questions.labelled_N))
    # What the pilot bought is read again, out of the ledger; nothing else is asked.
    keys = [one.key for one in charged.wanted(labelled.raw)]
    kept = charged.ledger.kept_among(keys)
    known_N = np.array([key in kept for key in keys], bool).reshape(len(labelled), -1).all(1)
    there = labelled.take(np.flatnonzero(known_N))
    if not len(there):
        return piloted, ["the pilot asked no row with a label, so it does not tell how good the teacher is"]
    said = charged.answer(there)
    right_N = (said.log_probabilities_NC.argmax(1) == there.label_N) & said.answered_N
    low, high = wilson(int(right_N.sum()), len(there))
    most = int(np.bincount(there.label_N).max())
    told = (
        f"of {len(there):,} rows with labels the teacher got {int(right_N.sum()):,} right ({low:.0%} to {high:.0%}); the "
        f"most frequent label alone would get {most:,}"
    )
    if high <= most / len(there):
        told += ". It is no better than that: look at prompt and labels before asking more"
    return piloted, [told, *_beside_control(run, there, right_N, control_s)]


def _beside_control(run: Run, asked: Questions, right_N: Array, control_s: float | None) -> list[str]:
    """How the teacher did beside a control, on those of these rows that the control did not learn from."""
    if control_s is None:
        return ["no training row has a label, so there is no control to compare the teacher with"]
    if control_s > CONTROL_S:
        return [
            f"the teacher was not compared with the control, the student trained on labels alone: about {control_s:,.0f} s"
        ]
    learned_from = {key.tobytes() for key in run.splits.train.key_N}
    new = np.flatnonzero([key.tobytes() not in learned_from for key in asked.key_N])
    if not len(new):
        return ["the pilot asked no held-out row, so the teacher was not compared with the control"]
    known = run.splits.train.take(np.flatnonzero(run.splits.train.labelled_N))
    control, teacher = int((_control_says(run, known, asked.take(new)) == asked.label_N[new]).sum()), right_N[new].sum()
    told = (
        f"the control, the student trained on {len(known):,} labels alone, got {control:,} of {len(new):,} held-out ones "
        f"right, the teacher {teacher:,}"
    )
    if teacher <= control:
        chance = ", which on so few rows may be chance" if len(new) < FEW_ROWS else ""
        told += (
            f". The teacher is no better than the control{chance}: look at prompt and labels, or ask more in the pilot"
        )
    return [told]


def _control_says(run: Run, known: Questions, asked: Questions) -> Array:
    """The class [N] that the student takes each row for when it has learned from labels alone; nothing of it is kept."""
    from stillroom.models.classifier import Classifier
    from stillroom.models.device import threads
    from stillroom.training.batches import Source
    from stillroom.training.fit import Lesson, fit
    from stillroom.training.loop import Hooks

    recipe, splits, ground = run.recipe, run.splits, run.ground(untaught=True)
    learned = run.inputs(recipe.student, splits.train.raw, ground)
    source = Source(known, learned, seen=run.seen_as(recipe.questions.augment) if recipe.questions.augment else None)
    lesson = Lesson(
        recipe.student.architecture(), lambda: recipe.student.network(learned, len(splits.classes), ground),
        (parse("objective", {"kind": "hard_label"}),), recipe.training, source, splits.classes, splits.validation, 0,
        steps_in(recipe.training, len(splits.train)), run.device, recipe.dtype,
    )  # fmt: skip
    with threads(run.device.threads), TemporaryDirectory() as place:
        fit(lesson, Path(place) / "control", Path(place) / "work", Hooks())
        said: Array = Classifier.load(Path(place) / "control", run.device).log_probabilities(asked.raw).argmax(1)
    return said


def figures_of(found: Expected) -> dict[str, Any]:
    """For people: each figure with the ends of its interval."""
    figures: dict[str, Any] = {
        "teacher calls": found.calls,
        "teacher tokens": ends(found.tokens, 0),
        "teacher minutes": ends(found.minutes, 1),
    }
    return figures if found.usd is None else {**figures, "teacher usd": ends(found.usd, 4)}


def together(each: Sequence[Expected]) -> dict[str, list[float]]:
    """The same of all paid teachers, as numbers: `calls`, `tokens` and `usd`, each [low, middle, high].

    Nothing where there is none; no USD where a price is not known.
    """
    if not each:
        return {}
    low, middle, high = (sum(end) for end in zip(*(one.tokens for one in each), strict=True))
    found: dict[str, list[float]] = {
        "calls": [sum(one.calls for one in each)] * 3,
        "tokens": [math.floor(low), round(middle), math.ceil(high)],
    }
    paid = [one.usd for one in each if one.usd is not None]
    if len(paid) == len(each):
        found["usd"] = [round(sum(end), 9) for end in zip(*paid, strict=True)]
    return found


def ends(found: Range, digits: int) -> str:
    """A figure between its ends, for people."""
    low, middle, high = (f"{value:,.{digits}f}" for value in found)
    return f"{middle} ({low} to {high})"


def refuse_pilot(calls: int, paid: bool) -> None:
    """Raise RecipeError for a pilot of a teacher that costs nothing to ask."""
    if calls and not paid:
        raise RecipeError(
            "a pilot is for a teacher that is paid by the call, and this one is not",
            where="--pilot",
            cure="Leave it out",
        )
