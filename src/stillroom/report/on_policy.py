"""What a student wrote in rounds on policy, and what each round brought: plain data for on_policy.html, or None.

This file knows no HTML.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from stillroom.report import evidence, plots
from stillroom.report import numbers as n
from stillroom.report.language_words import language_roles
from stillroom.report.numbers import Tree

MOST_SAMPLES, MOST_LETTERS = 4, 500


def on_policy(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """How much was written in each round, the loss on validation text after it, and samples in words."""
    found = details.get("on_policy") or {}
    rounds, knobs = found.get("rounds") or [], found.get("knobs") or {}
    if not rounds:
        return None
    models = language_roles(scorecard.get("models", {}))
    losses = {key: runs for key in models if (runs := _runs((found.get("validation_loss") or {}).get(key)))}
    lines = [
        plots.Runs(models[key], [list(enumerate(run)) for run in runs])
        for key, runs in losses.items()
        if len(runs[0]) > 1
    ]
    chart = None
    if lines:
        chart = plots.curves(
            f"{ident}-on-policy", "Validation loss after each round", lines, "log loss in nats", lambda v: f"{v:.3g}",
            "rounds done",
        )  # fmt: skip
    return {
        "rounds": n.count(len(rounds)),
        "share": n.percent(float(knobs.get("share", 1.0)), 0),
        "temperature": n.decimal(float(knobs.get("temperature", 1.0)), 1),
        "seeds": n.count(found.get("seeds", 1)),
        "columns": [
            "windows written",
            "tokens written",
            "ended by itself",
            "windows of the text",
            *_titles(models, losses),
        ],
        "rows": [
            {"name": "before", "cells": ["", "", "", "", *_after(losses, 0)]},
            *(
                {"name": f"round {number}", "cells": [*_counts(one), *_after(losses, number)]}
                for number, one in enumerate(rounds, 1)
            ),
        ],
        "chart": chart,
        "legend": evidence.legend(line.role for line in lines),
        "samples": [
            {
                "round": n.count(one.get("round", 0)),
                "prompt": evidence.shortened(one.get("prompt"), MOST_LETTERS),
                "written": evidence.shortened(one.get("written"), MOST_LETTERS) or "(nothing)",
            }
            for one in _shown(found.get("samples") or [])
        ],
    }


def _shown(samples: list[Tree]) -> list[Tree]:
    """The first and the last of them."""
    return samples if len(samples) <= MOST_SAMPLES else [*samples[: MOST_SAMPLES // 2], *samples[-MOST_SAMPLES // 2 :]]


def _runs(given: object) -> list[list[float]]:
    """The losses of each seed, as far as they are numbers."""
    runs = [run for run in given if isinstance(run, list)] if isinstance(given, list) else []
    found = [[value for value in map(n.number, run) if value is not None] for run in runs]
    return [run for run in found if run]


def _titles(models: dict[str, Any], losses: dict[str, list[list[float]]]) -> list[str]:
    return [f"loss, {models[key].title.lower()}" for key in losses]


def _counts(one: Tree) -> list[str]:
    return [n.big(one.get(name) or 0) for name in ("windows", "tokens", "ended", "beside")]


def _after(losses: dict[str, list[list[float]]], number: int) -> list[str]:
    """Each model's mean loss after so many rounds."""
    known = {key: [run[number] for run in runs if len(run) > number] for key, runs in losses.items()}
    return [n.decimal(fmean(values), 3) if values else n.NOT_MEASURED for values in known.values()]
