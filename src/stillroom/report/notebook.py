"""The models' table of a scorecard as a bare HTML table, for a notebook's output cell."""

from __future__ import annotations

from html import escape
from typing import Any

SHOWN = (
    ("accuracy", "{:.4f}"),
    ("errors", "{:,.1f}"),
    ("nll", "{:.3f}"),
    ("agreement", "{:.3f}"),
    ("latency_ms_p50", "{:.3f}"),
)


def table(scorecard: dict[str, Any]) -> str:
    """One row a model; a figure that was not measured is an empty cell."""
    head = "".join(f"<th>{name}</th>" for name in ["model", *(key for key, _ in SHOWN), "parameters"])
    body = ""
    for name, figures in scorecard["models"].items():
        cells = [escape(name), *(_cell(figures.get(key), form) for key, form in SHOWN)]
        cells.append(f"{figures['parameters']:,}" if "parameters" in figures else "")
        body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f"<table><caption>{escape(scorecard['name'])}</caption><tr>{head}</tr>{body}</table>"


def _cell(figure: Any, form: str) -> str:
    if not isinstance(figure, dict):
        return ""
    low, high = figure.get("ci95", [None, None])
    span = "" if low is None else f" <small>[{form.format(low)}, {form.format(high)}]</small>"
    return form.format(figure["mean"]) + span
