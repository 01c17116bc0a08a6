"""What answers cost, from seconds, rows a second and the price of an hour; and after how many rows a student has paid.

Plain arithmetic. This file measures nothing, and what it has no price or no speed for is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def usd(seconds: float, usd_per_hour: float) -> float:
    """What a machine costs for so many seconds."""
    return seconds * usd_per_hour / 3600


def usd_per_million_rows(rows_per_s: Mapping[str, Any], usd_per_hour: float) -> dict[str, Any]:
    """A figure {"mean", "ci95", "per_seed"} of rows a second as one of USD for a million rows.

    The mean is the cost at the mean speed, so that the two figures of a model agree; the ends swap places.
    """

    def cost(speed: float) -> float:
        return usd(1e6 / speed, usd_per_hour)

    figure: dict[str, Any] = {"mean": cost(rows_per_s["mean"])}
    if "ci95" in rows_per_s:
        low, high = rows_per_s["ci95"]
        figure["ci95"] = [cost(high), cost(low)]
    return figure | {"per_seed": [cost(speed) for speed in rows_per_s["per_seed"]]}


@dataclass(frozen=True)
class Spent:
    """What a run spent, as far as it is known; None is unknown, and what depends on it is left out."""

    asking_s: float | None = None
    training_s: float | None = None
    """All training of the run: teacher, every seed, controls and arms."""
    needed_training_s: float | None = None
    """The part of it that a user of the student cannot do without, such as one seed of the student; None: all of it."""
    teacher_calls: int | None = None
    teacher_tokens: int | None = None
    teacher_bill_usd: float | None = None
    """What a teacher charged by itself; none: asking took this machine's time, at the recipe's price."""


def cost(
    spent: Spent,
    *,
    usd_per_hour: float | None = None,
    teacher_usd_per_million_rows: float | None = None,
    student_usd_per_million_rows: float | None = None,
) -> dict[str, Any]:
    """The `cost` of a scorecard.

    teacher_usd                   the teacher's bill, or the time of asking at the price of an hour
    training_usd                  the time of all training at that price
    saved_usd_per_million_rows    teacher - student for a million rows; negative where the student costs more
    break_even_rows               (teacher_usd + the training that was needed) / saved for a row, rounded up; absent
                                  where nothing is saved
    `teacher_calls`, `teacher_tokens`, `asking_s` and `training_s` are passed on. Unknown is absent.
    """
    asking_usd = spent.teacher_bill_usd
    if asking_usd is None and spent.asking_s is not None and usd_per_hour is not None:
        asking_usd = usd(spent.asking_s, usd_per_hour)
    training_usd = needed_usd = saved = break_even = None
    if spent.training_s is not None and usd_per_hour is not None:
        training_usd = usd(spent.training_s, usd_per_hour)
        needed_s = spent.training_s if spent.needed_training_s is None else spent.needed_training_s
        needed_usd = usd(needed_s, usd_per_hour)
    if teacher_usd_per_million_rows is not None and student_usd_per_million_rows is not None:
        saved = teacher_usd_per_million_rows - student_usd_per_million_rows
        if saved > 0 and asking_usd is not None and needed_usd is not None:
            break_even = math.ceil((asking_usd + needed_usd) / (saved / 1e6))
    figures = {
        "teacher_usd": asking_usd,
        "teacher_calls": spent.teacher_calls,
        "teacher_tokens": spent.teacher_tokens,
        "asking_s": spent.asking_s,
        "training_s": spent.training_s,
        "training_usd": training_usd,
        "saved_usd_per_million_rows": saved,
        "break_even_rows": break_even,
    }
    return {name: value for name, value in figures.items() if value is not None}
