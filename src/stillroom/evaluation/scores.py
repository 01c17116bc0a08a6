"""Everything a scorecard says of predictions on test rows: figures with intervals, differences, and the gap recovered.

Predictions are made once, elsewhere; here is only arithmetic on log-probabilities. This file knows no model, no folder
and nothing of speed or cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stillroom.errors import DataError, WrongAnswer
from stillroom.evaluation.intervals import TEACHER, bootstrap, differences, figures, gaps_recovered, pairs
from stillroom.evaluation.metrics import Tally, Truth, checked, fit_temperature
from stillroom.rows import UNLABELLED, Array

COMPARED = ("accuracy", "errors", "nll", "mistake_severity")


@dataclass(frozen=True)
class Said:
    """What the seeds of one model said: log-probabilities [S, N, C] on test rows and [S, M, C] on validation rows."""

    test_SNC: Array
    validation_SNC: Array | None = None
    """None where there are no validation predictions: then `ece_scaled` is absent."""

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.test_SNC)


@dataclass(frozen=True)
class Scores:
    """Plain data for scorecard.json; what could not be measured is not in it."""

    models: dict[str, dict[str, Any]]
    """model -> figure -> {"mean", "ci95" (more than one seed), "per_seed"}."""
    differences: dict[str, dict[str, Any]]
    """"first-second" -> figure -> {"mean", "ci95" (where either has more than one seed)}."""
    gap_recovered: dict[str, Any]
    """Of the student: {"mean", "ci95"}, or {"absent": why}."""
    gaps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The same for the student, the hard-teacher student and each arm."""
    temperatures: dict[str, list[float]] = field(default_factory=dict)
    """model -> the temperature fitted on validation, for each seed."""


def score(
    said: Mapping[str, Said],
    label_test_N: Array,
    label_validation_N: Array,
    classes: Sequence[Any],
    *,
    similarity_CC: Array | None = None,
    draws: int = 10_000,
    seed: int = 0,
    more_pairs: Sequence[tuple[str, str]] = (),
) -> Scores:
    """Score every model on the same N test rows, M validation rows and C classes.

    `said` is keyed by "teacher", "student", "control", "hard_teacher" and the arms' names, any of which may be missing.
    Labels are 0..C-1, or -1 for none; a test row without a label counts for `agreement` and `kl_to_teacher` alone, a
    validation row without one for nothing. A seed is held against the teacher's seed in the same place, or against its
    only one. `similarity_CC` is in [0, 1]. A figure that any seed of a model lacks is absent for that model; in a draw,
    seeds that lack it are left out. Temperatures stay as fitted on validation in all draws. `more_pairs` adds
    differences. Raises DataError without test rows, WrongAnswer for shapes that do not fit, NotFinite for NaN, RunError
    for what are no log-probabilities.
    """
    _check_labels(label_test_N, label_validation_N, len(classes), similarity_CC)
    truth = Truth.of(label_test_N, len(classes), similarity_CC)
    temperatures = {
        name: fitted
        for name, model in said.items()
        if (fitted := _temperatures(name, model, label_validation_N, len(classes))) is not None
    }
    tallies = _tallies(said, truth, temperatures)
    measured = {name: [tally.measure() for tally in seeds] for name, seeds in tallies.items()}
    several = any(model.seeds > 1 for model in said.values())
    drawn = bootstrap(tallies, truth, draws=draws, seed=seed) if several else {}
    models = {name: figures(measured[name], drawn.get(name, {})) for name in said}
    student, gaps = gaps_recovered(models, drawn, "accuracy", "accuracy")
    return Scores(
        models=models,
        differences=differences(models, drawn, COMPARED, list(dict.fromkeys([*pairs(list(said)), *more_pairs]))),
        gap_recovered=student,
        gaps=gaps,
        temperatures=temperatures,
    )


def _check_labels(label_test_N: Array, label_validation_N: Array, classes: int, similarity_CC: Array | None) -> None:
    if not len(label_test_N):
        raise DataError("there are no test rows", where="questions.split", cure="Give a test split, or its share")
    for name, label_N in (("test", label_test_N), ("validation", label_validation_N)):
        if len(label_N) and (label_N.min() < UNLABELLED or label_N.max() >= classes):
            raise WrongAnswer(
                f"a label is none of the {classes} classes", where=f"{name} rows", cure="Read the data again"
            )
    if similarity_CC is not None and similarity_CC.shape != (classes, classes):
        raise WrongAnswer(
            f"a similarity of shape {list(similarity_CC.shape)} for {classes} classes",
            where="similarity",
            cure="Make it for the classes of these rows",
        )


def _temperatures(name: str, model: Said, label_M: Array, classes: int) -> list[float] | None:
    if model.validation_SNC is None:
        return None
    fitted = [
        fit_temperature(checked(log_p_MC, len(label_M), classes, f"{name}, seed {place}, validation"), label_M)
        for place, log_p_MC in enumerate(model.validation_SNC)
    ]
    known = [temperature for temperature in fitted if temperature is not None]
    return known if len(known) == model.seeds else None


def _tallies(said: Mapping[str, Said], truth: Truth, temperatures: Mapping[str, list[float]]) -> dict[str, list[Tally]]:
    """One Tally for each seed of each model, in the order of `said`."""

    def log_p(name: str, place: int) -> Array:
        return checked(said[name].test_SNC[place], len(truth.label_N), truth.classes, f"{name}, seed {place}, test")

    teachers = [log_p(TEACHER, place) for place in range(said[TEACHER].seeds)] if TEACHER in said else []
    tallies: dict[str, list[Tally]] = {}
    for name, model in said.items():
        if not model.seeds:
            raise WrongAnswer("a model without a seed", where=name, cure="Leave it out")
        if name != TEACHER and 1 < len(teachers) < model.seeds:
            raise WrongAnswer(
                f"{model.seeds} seeds cannot be held against {len(teachers)} seeds of the teacher",
                where=name,
                cure="Give one teacher for all seeds, or one for each",
            )
        tallies[name] = []
        for place in range(model.seeds):
            teacher_NC = None if name == TEACHER or not teachers else teachers[place if len(teachers) > 1 else 0]
            own_NC = teachers[place] if name == TEACHER else log_p(name, place)
            temperature = temperatures[name][place] if name in temperatures else None
            tallies[name].append(Tally.of(own_NC, truth, teacher_log_p_NC=teacher_NC, temperature=temperature))
    return tallies
