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
from stillroom.evaluation.intervals import (
    CONTROL,
    HARD_TEACHER,
    STUDENT,
    TEACHER,
    differences,
    drawn_rows,
    figures,
    gaps_recovered,
    over_draws,
)  # fmt: skip
from stillroom.evaluation.scores import Scores
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
    drawn = {}
    if max(one.seeds for one in marks.values()) > 1:
        drawn = over_draws(
            {name: [np.stack(list(parts.values()), 1) for parts in several] for name, several in columns.items()},
            drawn_rows,
            lambda name, place, _, sums_BK, rows_B: dict(zip(columns[name][place], (sums_BK / rows_B[:, None]).T, strict=True)),
            draws=draws, seed=seed,
        )  # fmt: skip
    models = {
        name: figures(
            [{one: float(value_N.mean()) for one, value_N in parts.items()} for parts in several], drawn.get(name, {})
        )
        for name, several in columns.items()
    }
    student, gaps = gaps_recovered(models, drawn, "exact_match", "exact match")
    return Scores(models, differences(models, drawn, COMPARED, _pairs(list(marks))), student, gaps)


def by_slice(marks: Mapping[str, Marks], slice_N: Array) -> dict[str, dict[str, Any]]:
    """model -> slice of the test questions -> exact match and number of rows."""
    found: dict[str, dict[str, Any]] = {}
    told_N = np.array([str(one) for one in slice_N.tolist()])
    for value in sorted({str(one) for one in slice_N.tolist() if one is not None}):
        rows = np.flatnonzero(told_N == value)
        for name, measured in score_reasoning({name: one.of(rows) for name, one in marks.items()}).models.items():
            found.setdefault(name, {})[value] = {"exact_match": measured["exact_match"], "rows": len(rows)}
    return found


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The student, then each arm, against what it is to be compared with; and the teacher against the control."""
    arms = [name for name in names if name not in (TEACHER, STUDENT, CONTROL, HARD_TEACHER)]
    pairs = [(STUDENT, CONTROL), (STUDENT, TEACHER), (TEACHER, CONTROL), *((STUDENT, arm) for arm in arms)]
    pairs += [(arm, other) for arm in arms for other in (CONTROL, TEACHER)]
    return [(first, second) for first, second in pairs if first in names and second in names]
