"""A scorecard and its details -> the pictures of the page: soft targets, curves, calibration, sizes.

Each function gives plain data for the template, or None where there is nothing to show. A picture whose numbers are
missing or not finite is left out. This file knows no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

from markupsafe import Markup

from stillroom.report import numbers as n
from stillroom.report import pictures, plots, svg
from stillroom.report.numbers import Tree
from stillroom.report.words import MAIN, Role, class_names, join, roles

PLAIN_EXAMPLE = 0.9
"""The row that explains soft targets is one where the teacher is right and the top class of its soft target holds less."""
MOST_COLUMNS = 12
MOST_TEXT = 600
LONG_CELL = 40
"""A longer text in a column is read as a text, not looked up as a value."""


def legend(found: Iterable[Role]) -> list[dict[str, Any]]:
    """Marks and names of the models in a picture."""
    return [{"role": role, "swatch": svg.swatch(role)} for role in found]


def idea(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """One row with its label and its soft target side by side: the whole idea at a glance."""
    names = class_names(scorecard, details)
    temperature = n.number((details.get("about") or {}).get("temperature")) or 1.0
    unseen = {str(name) for name in scorecard.get("omitted_classes") or []}
    fit = []
    for place, example in enumerate(details.get("examples") or []):
        row, label = _row(example, "teacher"), _label(example, names)
        if row is None or label is None or len(row) != len(names) or max(row) != row[label] or names[label] in unseen:
            continue
        soft = pictures.warmed(row, temperature)
        if soft[label] < PLAIN_EXAMPLE and len(row) > 1:
            fit.append((-sorted(soft)[-2], place, example, row, label, soft))
    if not fit:
        return None
    _, _, example, row, label, soft = min(fit, key=lambda found: found[:2])
    warm = soft if temperature > 1 else None
    says, teacher = Role("label", "The label", "", "ink"), roles(["teacher"])["teacher"]
    classes = pictures.bar_classes([row, *([warm] if warm else [])], label, 0.0)

    def bars(name: str, title: str, role: Role, shares: list[float]) -> Markup:
        return pictures.soft_bars(f"{ident}-{name}", title, [(role, shares)], names, classes, label, 240.0)

    likeliest = sorted(classes, key=lambda place: -row[place])
    ranked = [f"{n.percent(row[place], 0)} {names[place]}" for place in likeliest if row[place] >= 0.005]
    return {
        "picture": _picture(example, names[label]),
        "texts": _split_columns(example)[0],
        "label": names[label],
        "says": join(ranked[:4]),
        "hard": bars("hard", "What the label says", says, [float(place == label) for place in range(len(row))]),
        "soft": bars("soft", "What the teacher says", teacher, row),
        "temperature": f"{temperature:g}",
        "warm": bars("warm", "What the teacher says, softened for training", teacher, warm) if warm else None,
    }


def _row(example: Tree, model: str) -> list[float] | None:
    values = [n.number(value) for value in (example.get("probabilities") or {}).get(model) or []]
    found = [value for value in values if value is not None]
    return found if found and len(found) == len(values) else None


def _label(example: Tree, names: list[str]) -> int | None:
    label = str(example.get("label"))
    return names.index(label) if example.get("label") is not None and label in names else None


def _picture(example: Tree, label: str | None) -> dict[str, str] | None:
    image = example.get("image")
    uri = pictures.png(image.get("pixels")) if isinstance(image, dict) else None
    name = _name(example)
    return {"uri": uri, "alt": f"{name}, labelled {label}" if label is not None else name} if uri else None


def _name(example: Tree) -> str:
    row = example.get("row")
    if isinstance(row, str):
        return f"Row {row}"
    # Written from 0, shown from 1, as error messages count.
    place = n.number(row)
    return "A row" if place is None else f"Row {int(place) + 1}"


def beyond(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """What the teacher knows beyond the labels: which classes are alike, and how unsure it is."""
    similarity, unsure = _similarity(scorecard, details, ident), entropy(scorecard, details, ident)
    return {"similarity": similarity, "entropy": unsure} if similarity or unsure else None


def _similarity(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    given = details.get("similarity") or {}
    names = [str(name) for name in given.get("classes") or class_names(scorecard, details)]
    matrices = {
        key: found
        for key, value in (given.get("matrices") or {}).items()
        if key in MAIN and (found := _matrix(value, len(names)))
    }
    if not matrices or len(names) < 3:
        return None
    models = roles(matrices)
    first = matrices.get("teacher") or next(iter(matrices.values()))
    classes = pictures.shown_classes(first)
    given_ranks = given.get("rank_correlation") or {}
    correlation = {key: rank for key in matrices if (rank := n.number(given_ranks.get(key))) is not None}
    maps = []
    for place, (key, role) in enumerate(models.items()):
        values = [value for value, _, _ in pictures.off_diagonal(matrices[key])]
        least, most = min(values), max(values)
        ranked = f"rank correlation with the teacher {n.decimal(correlation[key], 2)}" if key in correlation else ""
        chart = pictures.heat(
            f"{ident}-heat{place}", f"Likeness of classes: {role.title}", matrices[key], names, classes, (least, most)
        )
        maps.append(
            {
                "role": role,
                "swatch": svg.swatch(role),
                "chart": chart,
                "note": ranked,
                "range": f"{n.percent(least)} to {n.percent(most)}",
            }
        )
    untested = [name for name in class_names(scorecard, details) if name not in names]
    whose = "teacher" if "teacher" in matrices else next(iter(models.values())).title.lower()
    return {"maps": maps, "whose": whose, "alike": pictures.alike(first, names),
            "labels": _from_labels(correlation, len(classes)),
            "every": len(names) * (len(names) - 1) // 2 <= pictures.MOST_PAIRS,
            "cut": len(names) if len(classes) < len(names) else 0,
            "shown": len(classes), "ranked": bool(correlation), "untested": join(untested)}  # fmt: skip


SAME_ORDER = 0.9
"""A rank correlation from here on: the control finds the classes alike that the teacher finds alike."""


FEWEST_RANKED = 5
"""Classes, and so ten pairs: of fewer a rank correlation says little."""


def _from_labels(correlation: dict[str, float], classes: int) -> str:
    """Whether labels alone teach which classes are alike, by the control that learned from nothing else."""
    if "control" not in correlation or classes < FEWEST_RANKED:
        return ""
    same = correlation["control"] >= SAME_ORDER
    what = "ranks the pairs as the teacher does" if same else "ranks the pairs otherwise"
    told = f"The control, which learned from labels alone, {what} (rank correlation {n.decimal(correlation['control'], 2)})"
    return f"{told}: here the labels taught that too." if same else f"{told}: here labels alone did not show it all."


def _matrix(value: object, count: int) -> list[list[float]] | None:
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    rows = [[n.number(cell) for cell in row] for row in value]
    # A diagonal may be absent: it is not shown.
    if any(len(row) != count for row in rows) or any(
        cell is None for i, row in enumerate(rows) for j, cell in enumerate(row) if i != j
    ):
        return None
    return [[cell or 0.0 for cell in row] for row in rows]


def entropy(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """How unsure the soft targets are, from details {mean_nats, edges, counts}."""
    given = details.get("entropy") or {}
    edges = [value for value in map(n.number, given.get("edges") or []) if value is not None]
    counts = [value for value in map(n.number, given.get("counts") or []) if value is not None]
    mean = n.number(given.get("mean_nats"))
    if len(counts) < 1 or len(edges) != len(counts) + 1 or max(counts) <= 0 or not edges[-1] > edges[0]:
        return None
    of = "places" if n.of_language(scorecard) else "rows"
    chart = plots.histogram(
        f"{ident}-entropy", "How unsure the soft targets are", edges, counts, mean, "entropy in nats", of
    )
    names = class_names(scorecard, details)
    return {
        "chart": chart,
        "mean": None if mean is None else n.significant(mean),
        "spread": None if mean is None else n.decimal(math.exp(mean), 1),
        "classes": len(names) or None,
        "most": n.significant(math.log(len(names))) if len(names) > 1 else None,
    }


def examples(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """Single rows with what each model makes of them."""
    models, seen, cards = roles(scorecard.get("models", {})), dict[str, Role](), []
    wanted = ("teacher", "student", "control")
    for place, example in enumerate(details.get("examples") or []):
        rows = {key: row for key in wanted if key in models and (row := _row(example, key))}
        if not rows or len({len(row) for row in rows.values()}) != 1:
            continue
        names = class_names(scorecard, details) or [f"class {c}" for c in range(len(next(iter(rows.values()))))]
        if any(len(row) != len(names) for row in rows.values()):
            continue
        label = _label(example, names)
        series = [(models[key], row) for key, row in rows.items()]
        seen |= {key: models[key] for key in rows}
        title = f"{_name(example)}: what each model says"
        texts, columns = _split_columns(example)
        classes = pictures.bar_classes(list(rows.values()), label, 0.01)
        cards.append(
            {
                "heading": _name(example),
                "label": names[label] if label is not None else None,
                "why": str(example["why"]) if example.get("why") else "",
                "picture": _picture(example, names[label] if label is not None else None),
                "texts": texts,
                "columns": columns,
                "chart": pictures.soft_bars(f"{ident}-row{place}", title, series, names, classes, label),
                "cut": _left_out(len(names) - len(classes)),
            }
        )
    return {"cards": cards, "legend": legend(seen.values())} if cards else None


def _left_out(count: int) -> str:
    return (
        "" if not count else "Not shown: one unlikely class." if count == 1 else f"Not shown: {count} unlikely classes."
    )


def shortened(value: object, most: int = MOST_TEXT) -> str:
    """Text from data, not longer than this."""
    words = value.strip() if isinstance(value, str) else ""
    return words if len(words) <= most else f"{words[:most]}…"


Named = list[tuple[str, str]]


def _split_columns(example: Tree) -> tuple[Named, Named]:
    """What of a row is text to be read, with its name where there is more than one column; and its other columns."""
    given = example.get("columns")
    columns = given if isinstance(given, dict) else {}
    texts = {
        str(name): cell
        for name, cell in columns.items()
        if isinstance(cell, str) and cell.strip() and (len(columns) == 1 or len(cell) > LONG_CELL)
    }
    others = {str(name): cell for name, cell in columns.items() if str(name) not in texts}
    found = [("" if len(columns) == 1 else name, shortened(cell)) for name, cell in texts.items()]
    alone = shortened(example.get("text"))
    return [*([("", alone)] if alone else []), *found], _columns(others)


def _columns(given: Tree) -> Named:
    found = []
    for name, cell in given.items():
        count = n.number(cell)
        empty = cell is None or (isinstance(cell, float) and not math.isfinite(cell))
        found.append(
            (
                str(name),
                "missing"
                if empty
                else n.significant(count, 4)
                if isinstance(cell, float) and count is not None
                else str(cell),
            )
        )
    return found[:MOST_COLUMNS]


def training(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """Loss and validation curves of every model that was trained, and how hard each term pulled."""
    given = details.get("curves") or {}
    models = roles(given)
    wanted = (
        ("loss", "Training loss", lambda v: f"{v:.3g}"),
        ("validation_accuracy", "Validation accuracy", lambda v: n.percent(v, 0)),
        ("validation_loss", "Validation loss", lambda v: f"{v:.3g}"),
    )
    charts: list[Markup] = []
    drawn: dict[str, Role] = {}
    for key, name, words in wanted:
        lines = [plots.Runs(role, runs) for model, role in models.items() if (runs := runs_of(given[model], key))]
        if lines and len(charts) < 2:
            drawn |= {line.role.key: line.role for line in lines}
            charts.append(
                plots.curves(f"{ident}-{key.replace('_', '-')}", f"{name} by training step", lines, name, words)
            )
    norms = []
    for term, values in (details.get("gradient_norms") or {}).items():
        found = [value for value in map(n.number, values or []) if value is not None]
        if found:
            norms.append((str(term).replace("_", " "), n.significant(median(found))))
    if not charts and not norms:
        return None
    return {"charts": charts, "legend": legend(drawn.values()), "norms": norms}


def runs_of(runs: Any, key: str) -> list[list[tuple[float, float]]]:
    """Step and value of each record, for each seed."""
    found = []
    for run in runs or []:
        points = [(n.number(point.get("step")), n.number(point.get(key))) for point in run]
        line = [(x, y) for x, y in points if x is not None and y is not None]
        if line:
            found.append(line)
    return found


def calibration(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """For each model, how often it is right when it says how sure it is."""
    given = details.get("reliability") or {}
    charts = []
    for place, (key, role) in enumerate(roles(given).items()):
        if role.variant_of:
            continue
        columns = [
            [n.number(value) for value in given[key].get(part) or []] for part in ("confidence", "accuracy", "count")
        ]
        bins = [
            (sure, right, count)
            for sure, right, count in zip(*columns, strict=False)
            if sure is not None and right is not None and count is not None and count > 0
        ]
        if not bins:
            continue
        found = n.measured(scorecard, key, "ece")
        note = f"Calibration error {n.percent(found.mean)}." if found else ""
        charts.append(
            {
                "role": role,
                "swatch": svg.swatch(role),
                "note": note,
                "chart": plots.reliability(f"{ident}-cal{place}", role, bins, note),
            }
        )
    return {"charts": charts} if charts else None


def sizes(scorecard: Tree, ident: str) -> Markup | None:
    """Quality against size, where at least two models have both; variants are of one size with their model."""
    metric = n.primary(scorecard)
    models = {key: role for key, role in roles(scorecard.get("models", {})).items() if not role.variant_of}
    for key, name in (("size_bytes", "size"), ("parameters", "parameters")):
        found = [
            (role, size.mean, value)
            for model, role in models.items()
            if (size := n.measured(scorecard, model, key))
            and size.mean > 0
            and (value := n.measured(scorecard, model, metric.key))
        ]
        if len(found) > 1:
            words = (lambda v: n.size_of(v, 1)) if key == "size_bytes" else (lambda v: n.big(v, 1))
            quality = (lambda v: n.percent(v, 0)) if metric.unit == "share" else (lambda v: n.significant(v))
            title = f"{metric.name} against {name}"
            return plots.sizes(f"{ident}-sizes", title, found, name, words, metric.name, quality)
    return None
