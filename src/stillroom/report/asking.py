"""A scorecard and its details -> what a paid teacher was asked, what that cost, and what rounds of asking brought.

Plain data for asking.html, or None for a run that has none of it. This file knows no HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stillroom.report import numbers as n
from stillroom.report import plots, svg
from stillroom.report.numbers import Tree
from stillroom.report.words import Role

PURPOSES = {
    "label": "answers to learn from",
    "score": "held-out rows, to see how good it is",
    "start": "the first questions, drawn at random",
    "audit": "the audit slice: random questions that judge the rounds",
    "pilot": "a pilot before the run",
    "write": "writing new questions",
    "trace": "worked answers to learn from",
    "rewrite": "writing worked answers again",
    "cascade": "questions the student left to it",
}
COLOURS = ("control", "arm1", "arm2", "arm3", "hard_teacher", "teacher")
MOST_QUESTIONS = 8


def spent(scorecard: Tree) -> dict[str, Any] | None:
    """The calls by what they were for, with tokens and USD; what was refused, and what was lost."""
    asking = scorecard.get("asking") or {}
    if not asking:
        return None
    rows = [
        {"name": words_for(name), "cells": _cells(figures)}
        for name, figures in sorted((asking.get("purposes") or {}).items(), key=lambda pair: _when(pair[0]))
        if figures.get("calls")
    ]
    priced = n.number(asking.get("usd")) is not None
    refused = [(str(reason), n.big(count)) for reason, count in (asking.get("refused") or {}).items()]
    lost = (asking.get("lost") or {}).get("calls")
    return {
        "columns": ["calls", "tokens", *(["US dollars"] if priced else [])],
        "rows": [*rows, *([{"name": "in all", "cells": _cells(asking)}] if len(rows) > 1 else [])],
        "priced": priced,
        "refused": refused,
        "lost": n.big(lost) if lost else "",
    }


def _when(purpose: str) -> tuple[int, int, str]:
    """The order of the table: what came before the rounds, the rounds, all else."""
    if purpose.startswith("round "):
        number, _, beside = purpose.removeprefix("round ").partition(", ")
        return 1, int(number), beside
    return 0 if purpose in ("pilot", "start", "audit") else 2, 0, ""


def words_for(purpose: str) -> str:
    """What calls were for; a round, and a strategy that was only compared, by their names."""
    if purpose.startswith("round "):
        number, _, beside = purpose.removeprefix("round ").partition(", ")
        return f"round {number}" + (f", chosen by {beside} for comparison" if beside else "")
    return PURPOSES.get(purpose, purpose)


def _cells(figures: Tree) -> list[str]:
    usd = n.number(figures.get("usd"))
    return [n.big(figures["calls"]), n.big(figures["tokens"]), *([] if usd is None else [n.usd(usd)])]


def rounds(details: Tree, ident: str) -> dict[str, Any] | None:
    """The learning curves of rounds, the strategy beside those it is compared with, and what the last round asked."""
    found = details.get("rounds") or {}
    if not found.get("rounds"):
        return None
    strategies = {str(found["strategy"]["kind"]): found["rounds"], **(found.get("compare") or {})}
    priced = any(n.number(one.get("usd")) is not None for one in found["rounds"])
    lines, tables = [], []
    for place, (name, records) in enumerate(strategies.items()):
        colour = "student" if place == 0 else COLOURS[(place - 1) % len(COLOURS)]
        role = Role(name, name.replace("_", " "), "", colour, "circle" if place == 0 else "triangle")
        points = [(float(one["calls"]), float(one[KEY])) for one in records if KEY in one]
        if points:
            known = [(float(one["calls"]), *one["ci95"]) for one in records if KEY in one and one.get("ci95")]
            lines.append(plots.Runs(role, [points], known))
        tables.append((role, records))
    chart = None
    if lines:
        cost = _cost(found["rounds"])
        axis = "calls to the teacher" + (", and what so many cost" if cost else "")
        chart = plots.curves(
            f"{ident}-rounds", "Accuracy as more is asked", lines, "accuracy on the audit slice", n.percent, axis, cost
        )
    return {
        "strategy": str(found["strategy"]["kind"]).replace("_", " "),
        "stopped": str(found.get("stopped") or ""),
        "pool": n.big(found["pool"]),
        "shared": priced and len(strategies) > 1,
        "audit": n.big(len((found.get("audit") or {}).get("rows") or [])),
        "chart": chart,
        "legend": [{"role": line.role, "swatch": svg.swatch(line.role)} for line in lines],
        "columns": ["calls", *(["US dollars"] if priced else []), "rows learned from", "accuracy on the audit slice"],
        "rows": [{"name": role.title, "cells": _round(one, priced)} for role, records in tables for one in records],
        "asked": [
            {
                "question": str(one["question"]),
                "said": str(one["said"]),
                "guessed": str(one["guessed"]),
                "why": _why(found["strategy"], n.number(one.get("doubt"))),
            }
            for one in (details.get("asked_last") or [])[:MOST_QUESTIONS]
        ],
    }


CASCADE = (
    ("coverage", "answered by the student"),
    ("risk", "answers that differ from the teacher's"),
    ("accuracy", "accuracy of the whole"),
    ("accuracy_lost", "points of accuracy below the teacher alone"),
)
KEY = "audit_accuracy"
WHY: dict[str, Callable[[float], str]] = {
    "entropy": lambda doubt: f"the entropy of its answer was {n.significant(doubt, 2)} nats",
    "margin": lambda doubt: f"its two likeliest answers lay {n.percent(1 - doubt)} apart",
    "committee": lambda doubt: f"its committee disagreed by {n.significant(doubt, 2)} nats",
    "diverse": lambda doubt: f"the nearest question asked before it was {n.significant(doubt, 2)} away",
    "margin_diverse": lambda doubt: (
        f"its two likeliest answers lay {n.percent(1 - doubt)} apart, and it is unlike the others"
    ),
}
"""What a strategy's wish for a question means, in words."""


def _why(strategy: Tree, doubt: float | None) -> str:
    """Why a question was asked; nothing of a strategy that has no reason, such as a random one."""
    others = strategy.get("others")  # of a strategy that has questions written: how the rest of a round is chosen
    if doubt is None:
        return "the teacher wrote it for this round" if others else ""
    words = WHY.get(str((others or strategy)["kind"]))
    return words(doubt) if words else ""


def _cost(records: list[Tree]) -> Callable[[float], str] | None:
    """What so many calls cost, between the rounds by straight lines; none where no price is known."""
    paid = [(float(one["calls"]), n.number(one.get("usd"))) for one in records]
    if any(usd is None for _, usd in paid):
        return None
    calls, usd = [0.0, *(at for at, _ in paid)], [0.0, *(float(usd or 0) for _, usd in paid)]

    def words(value: float) -> str:
        return n.usd(float(np.interp(value, calls, usd))) if value <= calls[-1] else ""

    return words


def _round(one: Tree, priced: bool) -> list[str]:
    usd = n.number(one.get("usd"))
    cost = ["shared" if usd is None else n.usd(usd)] if priced else []
    return [n.big(one["calls"]), *cost, n.big(one["learned"]), _accuracy(one)]


def _accuracy(record: Tree) -> str:
    if KEY not in record:
        return n.NOT_MEASURED
    low, high = record.get("ci95") or (None, None)
    ends = "" if low is None or high is None else f" ({n.percent(low)} to {n.percent(high)})"
    rows = record.get("audit_answered")
    return n.percent(record[KEY]) + (f" of {n.big(rows)}" if rows else "") + ends


def cascade(scorecard: Tree) -> dict[str, Any] | None:
    """What the student answers itself, and what the whole is worth; None for a run without a cascade."""
    found = scorecard.get("cascade") or {}
    stats = {key: n.stat(found.get(key)) for key, _ in CASCADE}
    allowed = n.number(found.get("risk_allowed"))
    risk = stats["risk"]
    if allowed is None or risk is None:
        return None
    rows = []
    for key, words in CASCADE:
        one = stats[key]
        if one is not None:
            bounds = n.interval(one, "share")
            cell = n.percent(one.mean) + (f" ({bounds})" if bounds else "")
            rows.append({"name": words, "cells": [cell.replace("%", "") if "points" in words else cell]})
    held_out = n.number(found.get("held_out_rows"))
    return {
        "allowed": n.percent(allowed),
        "risk": n.percent(risk.mean),
        "rows": rows,
        "held_out": n.big(held_out or 0),
    }
