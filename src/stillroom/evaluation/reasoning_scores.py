"""What a scorecard says of written answers: exact match with intervals, differences, the gap recovered, and by slice.

    exact_match     share of the test questions whose answer the verifier accepts
    answer_tokens   tokens written for an answer, the one that ends it included
    unreadable      share of the answers that were cut by the limit, or say no answer

A draw of the bootstrap takes as many questions as there are, with replacement, and as many seeds, the same for all models,
as in intervals.py. Knows no model, no folder and no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.errors import WrongAnswer
from stillroom.evaluation.intervals import Draws, _over_seeds, _row_weights, gap_recovered, interval
from stillroom.evaluation.scores import CONTROL, HARD_TEACHER, STUDENT, TEACHER, Scores
from stillroom.rows import Array

COMPARED = ("exact_match", "answer_tokens")
FIGURES = ("exact_match", "answer_tokens", "unreadable")


@dataclass(frozen=True)
class Marks:
    """Of each seed and test question: right, bool [S, N]; tokens written [S, N]; and whether nothing could be read [S, N]."""

    right_SN: Array
    tokens_SN: Array | None = None
    unreadable_SN: Array | None = None

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.right_SN)

    def of(self, index: Array) -> Marks:
        """Of these questions alone."""
        tokens, unreadable = (None if part is None else part[:, index] for part in (self.tokens_SN, self.unreadable_SN))
        return Marks(self.right_SN[:, index], tokens, unreadable)

    def columns(self, seed: int) -> dict[str, Array]:
        """What is averaged, by figure, each [N]."""
        parts = zip(FIGURES, (self.right_SN, self.tokens_SN, self.unreadable_SN), strict=True)
        return {name: part[seed].astype(np.float64) for name, part in parts if part is not None}


def score_reasoning(marks: Mapping[str, Marks], *, draws: int = 10_000, seed: int = 0) -> Scores:
    """Score every model on the same questions; fields as in scores.py. The teacher may be missing."""
    counts = {name: one.right_SN.shape[1] for name, one in marks.items()}
    if len(set(counts.values())) > 1:
        raise WrongAnswer(f"the models answered different questions: {counts}", where="answers", cure="Evaluate again")
    columns = {name: [one.columns(place) for place in range(one.seeds)] for name, one in marks.items()}
    seeds = {name: one.seeds for name, one in marks.items()}
    drawn = _bootstrap(columns, next(iter(counts.values())), draws, seed) if max(seeds.values()) > 1 else {}
    models = {name: _figures(several, drawn.get(name, {})) for name, several in columns.items()}
    differences = {
        f"{first}-{second}": _difference(models, drawn, first, second) for first, second in _pairs(list(marks))
    }
    means = {name: figures["exact_match"]["mean"] for name, figures in models.items()}
    right_B = {name: figures["exact_match"] for name, figures in drawn.items()}
    gaps = {name: gap_recovered(means, right_B, seeds, name) for name in marks if name not in (TEACHER, CONTROL)}
    return Scores(
        models, {name: found for name, found in differences.items() if found},
        gaps.get(STUDENT) or gap_recovered(means, right_B, seeds), gaps,
    )  # fmt: skip


def by_slice(marks: Mapping[str, Marks], slice_N: Array) -> dict[str, dict[str, Any]]:
    """model -> slice of the test questions -> exact match and number of rows."""
    found: dict[str, dict[str, Any]] = {}
    told_N = np.array([str(one) for one in slice_N.tolist()])
    for value in sorted({str(one) for one in slice_N.tolist() if one is not None}):
        rows = np.flatnonzero(told_N == value)
        for name, figures in score_reasoning({name: one.of(rows) for name, one in marks.items()}).models.items():
            found.setdefault(name, {})[value] = {"exact_match": figures["exact_match"], "rows": len(rows)}
    return found


def _bootstrap(columns: Mapping[str, Sequence[dict[str, Array]]], rows: int, draws: int, seed: int) -> Draws:
    """Every figure of every model in each draw."""
    values: dict[str, list[dict[str, Array]]] = {name: [{} for _ in several] for name, several in columns.items()}
    for start, weight_BN in _row_weights(rows, draws, seed):
        for name, several in columns.items():
            for place, parts in enumerate(several):
                for figure, value_N in parts.items():
                    kept_B = values[name][place].setdefault(figure, np.empty(draws))
                    kept_B[start : start + len(weight_BN)] = weight_BN @ value_N / rows
    return {name: _over_seeds(several, draws, seed) for name, several in values.items()}


def _figures(several: Sequence[dict[str, Array]], drawn: Mapping[str, Array]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in several[0]:
        values = [float(parts[name].mean()) for parts in several]
        figures[name] = {"mean": float(np.mean(values)), "per_seed": values}
        ends = interval(drawn[name]) if len(values) > 1 else None
        if ends is not None:
            figures[name] = {"mean": figures[name]["mean"], "ci95": ends, "per_seed": values}
    return figures


def _difference(models: Mapping[str, dict[str, Any]], drawn: Draws, first: str, second: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in COMPARED:
        if name in models[first] and name in models[second]:
            found[name] = {"mean": models[first][name]["mean"] - models[second][name]["mean"]}
            if drawn and max(len(models[one][name]["per_seed"]) for one in (first, second)) > 1:
                ends = interval(drawn[first][name] - drawn[second][name])
                found[name] |= {"ci95": ends} if ends is not None else {}
    return found


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The student, then each arm, against what it is to be compared with; and the teacher against the control."""
    arms = [name for name in names if name not in (TEACHER, STUDENT, CONTROL, HARD_TEACHER)]
    pairs = [(STUDENT, CONTROL), (STUDENT, TEACHER), (TEACHER, CONTROL), *((STUDENT, arm) for arm in arms)]
    pairs += [(arm, other) for arm in arms for other in (CONTROL, TEACHER)]
    return [(first, second) for first, second in pairs if first in names and second in names]
