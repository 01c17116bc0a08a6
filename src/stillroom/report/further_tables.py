"""A scorecard -> what not every run has: accuracy slice by slice, the exported files, and unseen classes.

The tables are in the form of the models' table. This file knows no HTML.
"""

from __future__ import annotations

from typing import Any

from stillroom.report import numbers as n
from stillroom.report import plots, svg
from stillroom.report.numbers import Metric, Stat, Tree
from stillroom.report.words import Role, roles

EXPORTED: dict[str, Role] = {
    "onnx": Role("onnx", "ONNX", "", "arm1", "hexagon"),
    "int8": Role("int8", "ONNX, 8 bits", "", "arm2", "plus"),
}
CHECKED = (
    Metric("agreement", "Agreement with the student", "share of test rows where both say the same", "share", ""),
    Metric("largest_difference", "Largest difference", "of any output from the student's, on real rows", "number", ""),
)


def _cell(role: Role, found: Stat | None, metric: Metric, digits: int) -> dict[str, Any]:
    return {
        "role": role,
        "value": _printed(found, metric, digits) if found else n.NOT_MEASURED,
        "interval": n.interval(found, metric.unit, digits) if found else "",
        "absent": not found,
    }


def _printed(found: Stat, metric: Metric, digits: int) -> str:
    return (
        n.significant(found.mean, 2)
        if metric.key == "largest_difference"
        else n.printed(found.mean, metric.unit, digits)
    )


def _column(role: Role) -> dict[str, Any]:
    return {"role": role, "swatch": svg.swatch(role)}


def slices(scorecard: Tree) -> dict[str, Any] | None:
    """The deciding metric on each slice of the test rows or text, from each model; None where the run has no slices."""
    metric, digits = n.primary(scorecard), n.share_digits(scorecard)
    language = scorecard.get("task") == "language"
    unit, tested = ("token", "text") if language else ("row", "rows")
    given = {
        str(model): {str(name): figures for name, figures in found.items() if isinstance(figures, dict)}
        for model, found in (scorecard.get("slices") or {}).items()
        if isinstance(found, dict)
    }
    models = {key: role for key, role in roles(given).items() if given[key]}
    names = dict.fromkeys(name for key in models for name in given[key])
    found = {name: {key: n.stat(given[key].get(name, {}).get(metric.key)) for key in models} for name in names}
    shown = [name for name in names if any(found[name].values())]
    if not shown:
        return None
    ours = {name: value.mean for name in shown if (value := found[name].get("student"))}
    worst = (max if metric.lower_is_better else min)(ours, key=lambda name: ours[name]) if len(ours) > 1 else None
    rows: list[dict[str, Any]] = []
    for name in shown:
        counts = [n.number(given[key].get(name, {}).get(f"{unit}s")) for key in models]
        count = next((count for count in counts if count is not None), None)
        notes = [] if count is None else [f"{n.big(count)} {unit if count == 1 else f'{unit}s'}"]
        notes += ["the student's weakest"] if name == worst else []
        cells = [_cell(role, found[name][key], metric, digits) for key, role in models.items()]
        rows.append({"name": name, "gloss": ", ".join(notes), "cells": cells})
    small = (
        " Small figures are 95% intervals." if any(cell["interval"] for row in rows for cell in row["cells"]) else ""
    )
    return {
        "columns": [_column(role) for role in models.values()],
        "groups": [{"name": metric.name, "rows": rows}],
        "caption": f"{metric.name} on each slice of the test {tested}.{small}",
        "first": "Slice",
        "worst": worst,
    }


def exported(scorecard: Tree) -> dict[str, Any] | None:
    """The student beside the files that were exported from it; None where nothing was exported."""
    given = scorecard.get("export") or {}
    files = {key: role for key, role in EXPORTED.items() if isinstance(given.get(key), dict) and given[key]}
    if not files:
        return None
    columns = {**{key: role for key, role in roles(["student"]).items() if key in scorecard.get("models", {})}, **files}
    digits = n.share_digits(scorecard)
    rows, is_first = [], False
    for metric in (*n.metrics_of(scorecard).values(), *CHECKED):
        fitted = metric.key in n.FITTED_TO and metric not in CHECKED
        found = {key: n.stat(given[key].get(metric.key)) for key in files}
        if fitted or not any(found.values()):
            continue
        cells = []
        for key, role in columns.items():
            if key in files:
                cells.append(_cell(role, found[key], metric, digits))
            elif metric in CHECKED:
                cells.append({"role": role, "value": "itself", "interval": "", "absent": True})
            else:
                whole = n.measured(scorecard, key, metric.key)
                own = _of_first_seed(whole, metric)
                is_first = is_first or own != whole
                cells.append(_cell(role, own, metric, digits))
        rows.append({"name": metric.name, "gloss": metric.gloss, "cells": cells})
    if not rows:
        return None
    which = (
        "the student of the first seed, which they were made from," if is_first else "the student as it was trained,"
    )
    caption = f"The exported files beside {which} on the same test rows"
    return {
        "columns": [_column(role) for role in columns.values()],
        "groups": [{"name": "Exported files", "rows": rows}],
        "caption": caption,
    }


def _of_first_seed(whole: n.Stat | None, metric: n.Metric) -> n.Stat | None:
    """What the exported student itself scored; of time and size, which hardly differ by seed, the mean."""
    if whole is None or len(whole.seeds) < 2 or metric.group in (n.RUN, n.SPEED):
        return whole
    return n.Stat(whole.seeds[0])


def unseen(scorecard: Tree, ident: str) -> dict[str, Any] | None:
    """How each model does on classes that were left out of the transfer set."""
    omitted = [str(name) for name in scorecard.get("omitted_classes") or []]
    models = roles(scorecard.get("models", {}))
    charts = []
    for place, name in enumerate(omitted):
        rows = []
        for key, role in models.items():
            found = n.recall(scorecard, key, name)
            if found:
                bounds = n.interval(found, "share", 0)
                words = n.percent(found.mean, 1) + (f" ({bounds})" if bounds else "")
                rows.append(plots.Bar(f"{role.title} (test labels)" if role.tag else role.title, words, found, role))
        if rows:
            title = f"Share of the test rows of class {name} that each model finds"
            chart = plots.intervals(
                f"{ident}-unseen{place}", title, rows, "recall", lambda v: n.percent(v, 0), False, (0.0, 1.0)
            )
            charts.append({"title": title, "chart": chart})
    return {"classes": omitted, "charts": charts, "recall": recall_table(scorecard)} if omitted else None


def recall_table(scorecard: Tree) -> dict[str, Any] | None:
    """Recall of every class from every model that has it."""
    models = {
        key: role
        for key, role in roles(scorecard.get("models", {})).items()
        if scorecard["models"][key].get("recall_by_class")
    }
    names = list(dict.fromkeys(str(name) for key in models for name in scorecard["models"][key]["recall_by_class"]))
    if not names:
        return None
    omitted = {str(name) for name in scorecard.get("omitted_classes") or []}
    rows = []
    for name in names:
        found = {key: n.recall(scorecard, key, name) for key in models}
        cells = [
            {
                "role": role,
                "value": n.percent(value.mean) if (value := found[key]) else n.NOT_MEASURED,
                "absent": not value,
            }
            for key, role in models.items()
        ]
        rows.append({"name": name, "omitted": name in omitted, "cells": cells})
    return {"columns": [{"role": role, "swatch": svg.swatch(role)} for role in models.values()], "rows": rows}
