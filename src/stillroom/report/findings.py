"""What a diagnosis finds, and how a difference stands in it in words. The rules are in diagnosis.py and its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stillroom.report import numbers as n
from stillroom.report.numbers import Metric, Stat, Tree
from stillroom.report.words import class_names

Level = Literal["good", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found, on what evidence, and what to do about it."""

    rule: str
    level: Level
    what: str
    evidence: str
    cure: str = ""


Rule: TypeAlias = Callable[[Tree, Tree], Finding | None]


def told(scorecard: Tree, found: Stat) -> str:
    """A difference of the primary metric with its interval; above 0 is better."""
    metric = n.primary(scorecard)
    unit = "points" if metric.unit == "share" else metric.name.lower()
    mean, low, high = (None if v is None else n.difference(scorecard, v) for v in (found.mean, found.low, found.high))
    if low is None or high is None:
        return f"{mean} {unit}, without an interval"
    return f"{mean} {unit}, 95% interval {low} to {high}"


def distance(scorecard: Tree, found: Stat) -> str:
    """The same where the words beside it say which way: without signs."""
    return told(scorecard, found).replace("+", "")


def mean_of(scorecard: Tree, model: str, metric: Metric) -> str:
    """A model's figure as text."""
    found = n.measured(scorecard, model, metric.key)
    return n.printed(found.mean, metric.unit, n.share_digits(scorecard)) if found else n.NOT_MEASURED


def log_loss_told(scorecard: Tree, other: str) -> tuple[int, str]:
    """The student's log loss against another model's, beside accuracy: 1 where lower beyond doubt, -1 where higher, else 0.

    With a sentence that says so.
    """
    metric = n.metrics_of(scorecard)["nll"] if n.primary(scorecard).key == "accuracy" else None
    found = n.paired(scorecard, "student", other, metric) if metric else None
    if not found or found.low is None or found.high is None:
        return 0, ""
    sign = 1 if found.low > 0 else -1 if found.high < 0 else 0
    higher = found.negated()
    mean, low, high = (n.signed(value or 0.0, 3) for value in (higher.mean, higher.low, higher.high))
    beyond = {1: "lower beyond doubt", -1: "higher beyond doubt", 0: "which may be chance"}[sign]
    return sign, f" In log loss {mean} nats, 95% interval {low} to {high}: {beyond}."


def class_count(scorecard: Tree, details: Tree) -> int:
    """How many classes there are, by name or by the answers shown; 0 where nothing says."""
    names = class_names(scorecard, details)
    if names:
        return len(names)
    for example in details.get("examples") or []:
        for row in (example.get("probabilities") or {}).values():
            return len(row)
    return 0
