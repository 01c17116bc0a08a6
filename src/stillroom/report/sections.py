"""A scorecard -> what the upper and lower parts of the page show: table, money, gap, unseen classes, how it was made.

Each function gives plain data for the template, or None where there is nothing to show. The parts that need `details`
most are in evidence.py. This file knows no HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stillroom.report import numbers as n
from stillroom.report import plots, svg
from stillroom.report.diagnosis import diagnose
from stillroom.report.findings import Rule
from stillroom.report.language_words import masked
from stillroom.report.numbers import Metric, Stat, Tree
from stillroom.report.verdict import answers, bills, pays
from stillroom.report.words import Role, join, roles

KNOWN = frozenset({*n.BY_KEY, *n.OF_LANGUAGE, *n.OF_REASONING, "recall_by_class", "asked"})
UNKNOWN = "unknown"
TWINS = ("student", "control", "hard_teacher")
"""The same network, taught differently: it costs the same to run."""


def cast(scorecard: Tree, details: Tree) -> list[dict[str, Any]]:
    """Who is who: each model with its mark, what it is, and what the recipe made it of."""
    about = details.get("about") or {}
    hard, arms = about.get("soft") is False, about.get("arms") or {}
    return [
        {
            "role": role,
            "swatch": svg.swatch(role),
            "meaning": LEARNS_ANSWERS if hard and key == "student" else _arm(arms, key) or role.meaning,
            "made_of": words_of(about.get(key)),
        }
        for key, role in roles(scorecard.get("models", {})).items()
    ]


def _arm(arms: Tree, name: str) -> str:
    differs = words_of(arms.get(name))
    return f"An arm of the experiment: a further student, made as the student is but for {differs}." if differs else ""


LEARNS_ANSWERS = "Small. It learns what the teacher answers, and not how likely the teacher finds the other classes."
"""Of a student without soft targets."""


def words_of(value: object) -> str:
    """What a person wrote, without its full stop; empty for whatever is no text."""
    return value.strip().rstrip(".") if isinstance(value, str) else ""


def table(scorecard: Tree, details: Tree) -> dict[str, Any] | None:
    """The models' table: a row for each measure, a column for each model; and a second one for the lesser measures."""
    models = roles(scorecard.get("models", {}))
    if not models:
        return None
    columns = [{"role": role, "swatch": svg.swatch(role)} for role in models.values()]
    metrics = [*n.metrics_of(scorecard).values(), *_foreign(scorecard)]
    groups: list[dict[str, Any]] = []
    more: list[dict[str, Any]] = []
    for name in dict.fromkeys(metric.group for metric in metrics):
        for main, target in ((True, groups), (False, more)):
            rows = [
                _row(scorecard, models, metric) for metric in metrics if metric.group == name and metric.main == main
            ]
            if main and name == n.RIGHT:
                rows += [
                    _unseen_row(scorecard, models, str(omitted)) for omitted in scorecard.get("omitted_classes") or []
                ]
            shown = [row for row in rows if row["measured"]]
            if shown:
                target.append({"name": name, "rows": shown})
    seeds = scorecard.get("seeds") or []
    over = f", {len(seeds)} seeds" if len(seeds) > 1 else ", one seed" if seeds else ""
    single = (scorecard.get("rows") or {}).get("drawn") == "windows"
    drawn = " over windows, for the test text is one document" if single else ""
    spans = any(cell["interval"] for group in groups for row in group["rows"] for cell in row["cells"])
    small = f" Small figures are 95% intervals{drawn}." if spans else ""
    return {
        "columns": columns,
        "groups": groups,
        "more": more,
        "caption": f"On {tested_on(scorecard)}{_asked_of_teacher(scorecard)}{over}.{small}{_held_against(models, details)}",
        "absent": join(_absent(scorecard)),
        "oracle": join([role.title for role in models.values() if role.tag]),
    }


def _asked_of_teacher(scorecard: Tree) -> str:
    """Of a teacher that was asked some of the test questions only: how many."""
    asked = n.number((scorecard.get("models", {}).get("teacher") or {}).get("asked"))
    return f", the teacher on {n.big(asked)} of them" if asked else ""


def _held_against(models: dict[str, Role], details: Tree) -> str:
    """Of arms that learned from another teacher: whom their agreement is with."""
    own = (details.get("about") or {}).get("own_teacher")
    arms = [role.title for name, role in models.items() if isinstance(own, list) and name in own]
    whose = "which has a teacher of its own" if len(arms) == 1 else "which have teachers of their own"
    return f" Agreement is with the teacher in this table, for {join(arms)} too, {whose}." if arms else ""


def _absent(scorecard: Tree) -> list[str]:
    """Measures that a reader would look for, and that no model of this run has."""
    expected: tuple[str, ...] = ("latency_ms_p50", "usd_per_million_rows", "size_bytes", "ece")
    if n.of_language(scorecard):
        expected = ("kl_to_teacher", "size_bytes", "tokens_per_s", "usd_per_million_tokens")
    if n.of_reasoning(scorecard):
        expected = ("latency_ms_p50", "usd_per_million_rows", "size_bytes")
    models, known = scorecard.get("models", {}), n.metrics_of(scorecard)
    return [
        known[key].name.lower() for key in expected if not any(n.measured(scorecard, model, key) for model in models)
    ]


FEW_ROWS = 30
"""Of fewer rows, one more or less right moves accuracy by over three points."""


def few_rows(scorecard: Tree) -> str:
    """That the test rows are too few for the figures to mean much; empty where they are enough."""
    tested = n.number((scorecard.get("rows") or {}).get("test"))
    if not tested or tested >= FEW_ROWS:
        return ""
    return f"{tested_on(scorecard)}, so no figure here means much. Give more with questions.split, or a test file."


def tested_on(scorecard: Tree) -> str:
    """What the models were tested on, counted where the scorecard counts it."""
    rows = scorecard.get("rows") or {}
    tested, tokens = n.number(rows.get("test")), n.number(rows.get("test_scored", rows.get("test_tokens")))
    if not n.of_language(scorecard):
        noun = "questions" if n.of_reasoning(scorecard) else "rows"
        return f"{n.big(tested)} test {noun if tested != 1 else noun[:-1]}" if tested else f"the test {noun}"
    if tokens:
        # Of a masked run only the hidden tokens are scored.
        kind = "hidden" if "test_scored" in rows and masked(scorecard) else "test"
        return f"{n.big(tokens)} {kind} tokens" + (f" in {n.big(tested)} windows of text" if tested else "")
    return f"{n.big(tested)} windows of test text" if tested else "the test text"


def _foreign(scorecard: Tree) -> list[Metric]:
    """Measures that this page has no words for, under the names the scorecard gives them."""
    keys: dict[str, None] = {}
    for model in scorecard.get("models", {}).values():
        for key, value in model.items():
            if key not in KNOWN and n.stat(value):
                keys[key] = None
    return [Metric(key, key.replace("_", " "), "", "number", "Other measures", main=False) for key in keys]


def _row(scorecard: Tree, models: dict[str, Role], metric: Metric) -> dict[str, Any]:
    digits = n.share_digits(scorecard)
    cells = []
    if metric.unit == "count":
        means = [found.mean for key in models if (found := n.measured(scorecard, key, metric.key))]
        digits = int(any(mean != round(mean) for mean in means))
    for key, role in models.items():
        found = n.measured(scorecard, key, metric.key)
        words = n.printed(found.mean, metric.unit, digits) if found else n.NOT_MEASURED
        if not found and key == "teacher" and metric.key in n.FITTED_TO:
            words = "itself"
        elif not found and metric.group in (n.RUN, n.SPEED) and n.measured(scorecard, role.variant_of, metric.key):
            words = f"as {models[role.variant_of].title.lower()}"
        cells.append(
            {
                "role": role,
                "value": words,
                "interval": n.interval(found, metric.unit, digits) if found else "",
                "absent": not found,
            }
        )
    return {
        "name": metric.name,
        "gloss": metric.gloss,
        "cells": cells,
        "measured": any(not cell["absent"] for cell in cells),
    }


def _unseen_row(scorecard: Tree, models: dict[str, Role], name: str) -> dict[str, Any]:
    found = {key: n.recall(scorecard, key, name) for key in models}
    cells = [
        {
            "role": role,
            "value": n.percent(value.mean) if (value := found[key]) else n.NOT_MEASURED,
            "interval": n.interval(value, "share", 1) if value else "",
            "absent": not value,
        }
        for key, role in models.items()
    ]
    gloss = "share found of a class that no student saw"
    return {"name": f"Recall of {name}", "gloss": gloss, "cells": cells, "measured": any(found.values())}


def money(scorecard: Tree, ident: str) -> dict[str, Any]:
    """What a billion answers, or tokens, cost or take from each model, and when the student has paid for itself."""
    what = answers(scorecard)
    everyone = roles(scorecard.get("models", {}))
    twins = (
        {key for key, role in everyone.items() if key != "student" and role.colour in TWINS}
        if "student" in everyone
        else set()
    )
    models = {key: role for key, role in everyone.items() if key not in twins}
    found = {bill.model: bill for bill in bills(scorecard)}
    priced = [
        plots.Bar(role.title, n.usd(usd), Stat(usd), role)
        for key, role in models.items()
        if key in found and (usd := found[key].usd) is not None
    ]
    timed = [
        plots.Bar(role.title, n.duration(seconds), Stat(seconds), role)
        for key, role in models.items()
        if key in found and (seconds := found[key].seconds) is not None
    ]
    return {
        "pays": pays(scorecard),
        "twins": _twins([everyone[key].title.lower() for key in ("control", "hard_teacher") if key in twins]),
        "what": what,
        "spent": cost_facts(scorecard.get("cost") or {}) if n.of_language(scorecard) else [],
        "usd": plots.bars(f"{ident}-usd", f"What a billion {what} cost", priced) if priced else None,
        "time": plots.bars(f"{ident}-time", f"How long a billion {what} take on one such machine", timed)
        if timed
        else None,
    }


def _twins(names: list[str]) -> str:
    return (
        f"The {join(names)} {'are' if len(names) > 1 else 'is'} the student's network taught differently"
        if names
        else ""
    )


def gap(scorecard: Tree, ident: str) -> dict[str, Any] | None:
    """How much of the way from control to teacher the student went, or why that is not said."""
    recovered = scorecard.get("gap_recovered")
    if not isinstance(recovered, dict):
        return None
    if "absent" in recovered:
        return {"absent": str(recovered["absent"]).strip().rstrip(".")}
    found = n.stat(recovered)
    models = roles(scorecard.get("models", {}))
    if not found or not {"control", "teacher", "student"} <= set(models):
        return None
    bounds = n.interval(found, "share", 0)
    words = f"The student went {n.percent(found.mean, 0)} of the way from its control to its teacher"
    words += f" (95% interval {bounds})." if bounds else "."
    picture = plots.gap(f"{ident}-gap", found, words, models["control"], models["teacher"], models["student"])
    return {"words": words, "chart": picture}


def findings(scorecard: Tree, details: Tree, rules: Sequence[Rule] | None = None) -> list[dict[str, str]]:
    """The diagnosis by these rules, problems first, each with its level in words and as a sign."""
    words = {"problem": ("Problem", "!"), "note": ("Note", "i"), "good": ("Good", "✓")}
    return [
        {**vars(found), "word": words[found.level][0], "sign": words[found.level][1]}
        for found in diagnose(scorecard, details, rules)
    ]


Facts = list[tuple[str, str]]


def made(scorecard: Tree, details: Tree) -> dict[str, Any]:
    """Rows, splits, notes, licences, cost, transfer set and versions."""
    about = details.get("about") or {}
    notes = [note for note in about.get("notes") or [] if isinstance(note, str) and note]
    omitted = [str(name) for name in scorecard.get("omitted_classes") or []]
    if omitted:
        notes.append(f"Left out of the transfer set, so that no student saw a row of them: {join(omitted)}.")
    licences = {"teacher": None, "data": None, **(about.get("licences") or {})}
    versions = [
        (str(name), str(version)) for name, version in (scorecard.get("versions") or {}).items() if version is not None
    ]
    return {
        "rows": _rows(scorecard),
        "models": _models(scorecard, about),
        "licences": [(name.replace("_", " "), licence_of(value)) for name, value in licences.items()],
        "cost": cost_facts(scorecard.get("cost") or {}),
        "transfer": _transfer(scorecard.get("transfer_set") or {}),
        "versions": versions,
        "notes": notes,
        "recipe": about.get("recipe_yaml") if isinstance(about.get("recipe_yaml"), str) else None,
    }


def licence_of(value: object) -> str:
    """A licence, or those of all members of an ensemble or mix; what was not said is unknown."""
    if isinstance(value, list | tuple):
        return join([licence_of(part) for part in value]) or UNKNOWN
    return value.strip() if isinstance(value, str) and value.strip() else UNKNOWN


def _rows(scorecard: Tree) -> Facts:
    rows = scorecard.get("rows") or {}
    kind = "windows" if n.of_language(scorecard) else "rows"
    names = (
        ("train", f"training {kind}"),
        ("train_tokens", "tokens in them"),
        ("labelled", "of those, labelled"),
        ("validation", f"validation {kind}"),
        ("test", f"test {kind}"),
        ("test_tokens", "tokens in them"),
        ("test_scored", "of those, scored"),
        ("test_sampled", "of those, compared with the teacher in full"),
        ("documents", "test documents"),
    )
    found = [(name, n.big(value)) for key, name in names if (value := n.number(rows.get(key))) is not None]
    seeds = [str(seed) for seed in scorecard.get("seeds") or [] if n.number(seed) is not None]
    return found + ([("seeds", f"{len(seeds)} ({', '.join(seeds)})")] if seeds else [])


def _models(scorecard: Tree, about: Tree) -> Facts:
    found = [(key, words_of(about[key])) for key in ("teacher", "student") if words_of(about.get(key))]
    temperature = n.number(about.get("temperature"))
    return found + ([("temperature", f"{temperature:g}")] if temperature is not None else [])


def cost_facts(cost: Tree) -> Facts:
    """What asking and training took."""
    parts = (
        ("asking_s", "asking took", n.duration),
        ("teacher_calls", "calls to the teacher", n.big),
        ("teacher_tokens", "tokens of the teacher", lambda value: n.big(value) if value else ""),
        ("teacher_usd", "asking cost", n.usd),
        ("training_s", "training took", n.duration),
        ("training_usd", "training cost", n.usd),
        ("saved_usd_per_million_rows", "saved by each million rows", n.usd),
        ("break_even_rows", "paid for itself after (rows)", n.roughly),
        ("saved_usd_per_million_tokens", "saved by each million tokens", n.usd),
        ("break_even_tokens", "paid for itself after (tokens)", n.roughly),
    )
    return facts_of(cost, parts)


def facts_of(tree: Tree, parts: tuple[tuple[str, str, Callable[[float], str]], ...]) -> Facts:
    """The numbers of a tree under their names; what is not there is left out."""
    found = [(name, words(value)) for key, name, words in parts if (value := n.number(tree.get(key))) is not None]
    return [(name, value) for name, value in found if value]


def _transfer(stored: Tree) -> Facts:
    parts = (
        ("rows", "answers of this run", n.big),
        ("stored_rows", "answers in the store", n.big),
        ("bytes", "size on disk", n.size_of),
        ("bytes_per_token", "for one position", lambda v: f"{n.count(v)} bytes"),
        ("shared_bytes", "shared by all answers", lambda value: n.size_of(value) if value else ""),
    )
    found = facts_of(stored, parts)
    rows, size = n.number(stored.get("stored_rows", stored.get("rows"))), n.number(stored.get("bytes"))
    if rows and size and "bytes_per_token" not in stored:
        found.append(("for one answer", n.size_of(size / rows)))
    for key, name in (
        ("kl", "KL lost in storing"),
        ("total_variation", "total variation lost in storing"),
        ("bias", "bias of storing"),
    ):
        value = n.number((stored.get("fidelity") or {}).get(key))
        if value is not None:
            found.append((name, n.significant(value)))
    return found
