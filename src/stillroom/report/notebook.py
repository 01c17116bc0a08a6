"""The models' table of a scorecard as a bare HTML table, for a notebook's output cell."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

SHOWN = (
    ("accuracy", "{:.4f}"),
    ("errors", "{:,.1f}"),
    ("nll", "{:.3f}"),
    ("agreement", "{:.3f}"),
    ("latency_ms_p50", "{:.3f}"),
)
OF_LANGUAGE = (
    ("bits_per_byte", "{:.3f}"),
    ("perplexity", "{:,.2f}"),
    ("nll", "{:.3f}"),
    ("accuracy", "{:.4f}"),
    ("agreement", "{:.3f}"),
    ("kl_to_teacher", "{:.3f}"),
    ("tokens_per_s", "{:,.0f}"),
    ("latency_ms_per_token", "{:.2f}"),
)


def table(scorecard: dict[str, Any]) -> str:
    """One row a model; a figure that was not measured is an empty cell, and for language models no column."""
    models: dict[str, dict[str, Any]] = scorecard["models"]
    shown: tuple[tuple[str, str], ...] = SHOWN
    if scorecard.get("task") == "language":
        shown = tuple(pair for pair in OF_LANGUAGE if any(pair[0] in figures for figures in models.values()))
    head = "".join(f"<th>{name}</th>" for name in ["model", *(key for key, _ in shown), "parameters"])
    body = ""
    for name, figures in models.items():
        cells = [escape(name), *(_cell(figures.get(key), form) for key, form in shown)]
        cells.append(f"{figures['parameters']:,}" if "parameters" in figures else "")
        body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f"<table><caption>{escape(scorecard['name'])}</caption><tr>{head}</tr>{body}</table>"


def unfinished(run: Path) -> str:
    """What stands in the place of the table while there is no scorecard."""
    return f"<p><code>{escape(str(run))}</code> has no scorecard yet. The same call with <code>until='report'</code> goes on.</p>"


def _cell(figure: Any, form: str) -> str:
    if not isinstance(figure, dict):
        return ""
    low, high = figure.get("ci95", [None, None])
    span = "" if low is None else f" <small>[{form.format(low)}, {form.format(high)}]</small>"
    return form.format(figure["mean"]) + span
