"""A scorecard -> the model card beside the student's weights: Markdown under a YAML head.

It says what the student learned from, under which licences, how good it is, and what nobody tested. A licence that is
not known is printed as unknown; none is guessed for the student. This file knows no HTML page.
"""

from __future__ import annotations

import re

from stillroom.report import numbers as n
from stillroom.report.language_verdict import verdict as language_verdict
from stillroom.report.language_words import masked
from stillroom.report.numbers import Metric, Stat, Tree
from stillroom.report.sections import UNKNOWN, licence_of, tested_on, words_of
from stillroom.report.verdict import verdict
from stillroom.report.words import join, roles

USE = """## Use

What it may be used for is for you to say: fill this in before you pass it on. The figures above hold for {like}, and for
nothing else. A student can repeat its teacher's mistakes and prejudices."""
UNTESTED = "It was **not tested for safety, bias or robustness**."


def model_card(given: Tree, about: Tree) -> str:
    """The README of the student, from a scorecard and the part of the report's details that is called `about`."""
    scorecard = n.tidy(given)
    name = _plain(scorecard.get("name") or "student")
    parts = [
        _head(scorecard, about),
        f"# {name}",
        _plain((language_verdict if n.of_language(scorecard) else verdict)(scorecard)),
        f"Made by knowledge distillation: a small model trained on the answers of a larger one. {UNTESTED}",
        _origin(scorecard, about),
        _licences(about),
        _figures(scorecard),
        USE.format(like="text like the test text" if n.of_language(scorecard) else "rows like the test rows"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(scorecard: Tree, about: Tree) -> str:
    import yaml

    head: Tree = {"tags": ["knowledge-distillation", "stillroom"]}
    licence = licence_of((about.get("licences") or {}).get("student") or about.get("licence"))
    if licence != UNKNOWN:
        head = {"license": "-".join(licence.lower().split()), **head}
    if scorecard.get("task") == "classification":
        head["tags"].append("classification")
    if n.of_language(scorecard):
        head["pipeline_tag"] = "fill-mask" if masked(scorecard) else "text-generation"
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _plain(value: object) -> str:
    """Text from data on one line, with what Markdown or HTML would act on made harmless."""
    words = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", words)


def _origin(scorecard: Tree, about: Tree) -> str:
    data = _data(scorecard)
    data += [words_of(note) for note in about.get("notes") or [] if words_of(note)]
    omitted = [str(name) for name in scorecard.get("omitted_classes") or []]
    if omitted:
        data.append(f"Classes left out of the transfer set: {join(omitted)}")
    temperature = n.number(about.get("temperature"))
    lines = [
        ("Teacher", words_of(about.get("teacher")) or UNKNOWN),
        ("Student", words_of(about.get("student")) or UNKNOWN),
        ("Temperature", f"{temperature:g}" if temperature is not None else None),
        ("Soft targets", _kept(scorecard)),
        ("Data", ". ".join(data) or UNKNOWN),
    ]
    return "## What it learned from\n\n" + "\n".join(f"- {key}: {_plain(value)}" for key, value in lines if value)


def _data(scorecard: Tree) -> list[str]:
    rows = scorecard.get("rows") or {}
    train, labelled, tokens = (n.number(rows.get(key)) for key in ("train", "labelled", "train_tokens"))
    if train is None:
        return []
    kind = "windows of text" if n.of_language(scorecard) else "rows"
    counted = f" ({n.big(tokens)} tokens)" if tokens is not None else ""
    known = f", {n.big(labelled)} of them labelled" if labelled is not None else ""
    return [f"{n.big(train)} training {kind}{counted}{known}"]


def _kept(scorecard: Tree) -> str | None:
    """How much of a language teacher's answers the student was given."""
    stored = scorecard.get("transfer_set") or {}
    size, dense = n.number(stored.get("bytes_per_token")), n.number(stored.get("dense_bytes_per_token"))
    lost = n.stat((stored.get("fidelity") or {}).get("kl"))
    if size is None or not n.of_language(scorecard):
        return None
    whole = f" of {n.decimal(dense, 0)}" if dense is not None else ""
    said = f"; KL(teacher, kept) {n.significant(lost.mean)} nats" if lost else ""
    return f"{n.count(size)}{whole} bytes kept for each token{said}"


def _licences(about: Tree) -> str:
    found = {"teacher": None, "data": None, **(about.get("licences") or {})}
    lines = [f"- {_plain(name)}: {_plain(licence_of(value))}" for name, value in found.items()]
    after = "Terms of the teacher and of the data may bind what is done with the student. Read them."
    return "## Licences\n\n" + "\n".join(lines) + f"\n\n{after}"


def _figures(scorecard: Tree) -> str:
    models = roles(scorecard.get("models", {}))
    shown = {key: role for key, role in models.items() if key == "student" or not role.tag}
    rows = []
    for metric in n.metrics_of(scorecard).values():
        found = {key: n.measured(scorecard, key, metric.key) for key in shown}
        if any(found.values()):
            rows.append([metric.name, *[_cell(scorecard, key, value, metric) for key, value in found.items()]])
    for omitted in scorecard.get("omitted_classes") or []:
        metric = Metric("recall", "", "", "share", n.RIGHT)
        cells = [_cell(scorecard, key, n.recall(scorecard, key, str(omitted)), metric) for key in shown]
        rows.append([f"Recall of {_plain(omitted)}, a class no student saw", *cells])
    if not rows:
        return ""
    head = ["", *[_plain(role.title) for role in shown.values()]]
    lines = [head, ["---", *["---:"] * len(shown)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seeds = scorecard.get("seeds") or []
    over = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    oracle = "" if len(shown) == len(models) else " Variants chosen with test labels are left out."
    spans = "; 95% intervals in brackets" if any(cell.endswith("]") for row in rows for cell in row[1:]) else ""
    return f"## Figures\n\nOn {tested_on(scorecard)}{over}{spans}.{oracle}\n\n{table}"


def _cell(scorecard: Tree, model: str, found: Stat | None, metric: Metric) -> str:
    if not found:
        return "itself" if model == "teacher" and metric.key in n.FITTED_TO else n.NOT_MEASURED
    digits = n.share_digits(scorecard) if metric.unit == "share" else int(metric.key == "errors")
    bounds = n.interval(found, metric.unit, digits)
    return n.printed(found.mean, metric.unit, digits) + (f" [{bounds}]" if bounds else "")
