"""The scorecard and details of a run whose teacher reasons -> what reasoning.html shows, part by part. Knows no HTML."""

from __future__ import annotations

from typing import Any

from stillroom.report import asking, evidence, further_tables, plots, sections, svg
from stillroom.report import numbers as n
from stillroom.report.differences import differences
from stillroom.report.findings import Finding, Rule, mean_of, told
from stillroom.report.language_sections import plain
from stillroom.report.numbers import Stat, Tree
from stillroom.report.reasoning_words import learned, reasoning_roles
from stillroom.report.sections import Facts, words_of
from stillroom.report.verdict import Figure, cheaper, figure_of, ratio_of, sentence
from stillroom.report.words import Role, roles

LONGEST = 1200
"""Letters of a text that is shown."""
OUTCOMES = {"accepted": "good", "rejected": "problem", "unsure": "note"}
"""The colour of each verdict, which is no model's."""
TWIN = "the same network taught the answers of the same traces without the reasoning"


def contents(scorecard: Tree, given: Tree, ident: str) -> dict[str, Any]:
    """The parts of one run's report; `scorecard` is tidy, `given` are the details as they were written."""
    details = plain(given)
    about = details.get("about") or {}
    return {
        "verdict": verdict(scorecard),
        "figures": figures(scorecard),
        "table": sections.table(scorecard, details),
        "cast": [
            {"role": role, "swatch": svg.swatch(role), "meaning": role.meaning, "made_of": words_of(about.get(key))}
            for key, role in reasoning_roles(scorecard.get("models", {}), details).items()
        ],
        "differences": differences(scorecard, ident),
        "gap": sections.gap(scorecard, ident),
        "slices": further_tables.slices(scorecard),
        "traces": traces(scorecard, details, ident),
        "taught": taught(scorecard, details),
        "examples": examples(scorecard, details),
        "training": evidence.training(scorecard, details, ident),
        "findings": sections.findings(scorecard, details, RULES),
        "asking": asking.spent(scorecard),
        "money": sections.money(scorecard, ident),
        "made": {**sections.made(scorecard, details), "transfer": []},
    }


def verdict(scorecard: Tree) -> str:
    """How much smaller and faster, at what loss, and what the reasoning gave: one sentence."""
    if "student" not in scorecard.get("models", {}):
        return "This scorecard has no student, so there is nothing to compare yet."
    return sentence(cheaper(scorecard), _loss(scorecard), _against_control(scorecard))


def _points(scorecard: Tree, value: float) -> str:
    text = n.decimal(100 * abs(value), n.share_digits(scorecard))
    return f"{text} point{'' if text in ('1.0', '1.00') else 's'}"


def _both(scorecard: Tree, model: str, other: str) -> str:
    metric = n.primary(scorecard)
    return f"{mean_of(scorecard, model, metric)} against {mean_of(scorecard, other, metric)}"


def _loss(scorecard: Tree) -> str:
    found = n.gain(scorecard, "student", "teacher")
    if not found:
        return ""
    amount, both = _points(scorecard, found.mean), _both(scorecard, "student", "teacher")
    if amount == _points(scorecard, 0.0):
        return f"is right as often ({both})"
    return f"is right {amount} {'more' if found.mean > 0 else 'less'} often ({both})"


def _against_control(scorecard: Tree) -> str:
    found = n.gain(scorecard, "student", "control")
    if not found:
        return "no control was trained, so nobody can say what the reasoning gave"
    amount, both = _points(scorecard, found.mean), _both(scorecard, "student", "control")
    if found.low is None or found.high is None:
        level = amount == _points(scorecard, 0.0)
        side = "level with" if level else f"{amount} ahead of" if found.mean > 0 else f"{amount} behind"
        return f"it is {side} {TWIN} ({both}), measured without an interval, so that may be chance"
    bounds = f"95% interval {n.difference(scorecard, found.low)} to {n.difference(scorecard, found.high)}"
    if found.low > 0:
        return f"it is {amount} better than {TWIN} ({both}; {bounds})"
    if found.high < 0:
        return f"it is {amount} worse than {TWIN} ({both}; {bounds}), so the reasoning did harm"
    return (
        f"whether it beats {TWIN} stays open: {n.difference(scorecard, found.mean)} points, and the {bounds} includes 0"
    )


def figures(scorecard: Tree) -> list[Figure]:
    """The numbers of the verdict, large; what was not measured is not among them."""
    found = []
    size = ratio_of(scorecard, "size_bytes", "parameters")
    if size:
        ratio, key, teacher, student = size
        unit = n.OF_REASONING[key].unit
        parts = f"{n.printed(student.mean, unit)} against {n.printed(teacher.mean, unit)}"
        found.append(figure_of(ratio, "smaller", "larger", f"than the teacher: {parts}"))
    for other, what in (("teacher", "against the teacher"), ("control", "over answers without the reasoning")):
        difference = n.gain(scorecard, "student", other)
        if difference:
            bounds = n.interval(difference, "share", n.share_digits(scorecard)).removesuffix("%")  # points
            value = n.difference(scorecard, difference.mean)
            detail = f"points; 95% interval {bounds}" if bounds else "points; without an interval"
            found.append(Figure(value, f"points of exact match {what}", detail.removeprefix("points; ")))
    kept = scorecard.get("transfer_set") or {}
    cost = n.number(kept.get("usd_per_kept"))
    if cost is not None:
        found.append(Figure(n.usd(cost), "for one kept trace, the rejected ones included", _samples(kept)))
    return found


def _samples(kept: Tree) -> str:
    calls = n.number(kept.get("calls_per_kept"))
    return f"{n.significant(calls)} samples for each" if calls is not None else ""


def traces(scorecard: Tree, details: Tree, ident: str) -> dict[str, Any] | None:
    """What was sampled: accepted and rejected by reason, what one kept trace cost, and some of each."""
    kept = scorecard.get("transfer_set") or {}
    outcomes = {key: n.number((kept.get("outcomes") or {}).get(key)) for key in OUTCOMES}
    total = sum(count for count in outcomes.values() if count)
    if not total:
        return None
    bars = [
        plots.Bar(
            key.capitalize(), f"{n.big(count)} ({n.percent(count / total, 0)})", Stat(count), Role(key, key, "", colour)
        )
        for key, colour in OUTCOMES.items()
        if (count := outcomes[key])
    ]
    reasons = [
        (outcome, reason, n.big(count))
        for outcome, several in (kept.get("reasons") or {}).items()
        if outcome != "accepted"
        for reason, count in several.items()
    ]
    return {
        "chart": plots.bars(f"{ident}-verdicts", "What the verifier said of the sampled traces", bars),
        "verifier": kept.get("verifier"),
        "questions": n.big(n.number(kept.get("questions")) or 0),
        "reasons": reasons,
        "facts": cost_of_kept(kept),
        "examples": [_trace(one) for one in details.get("traces") or [] if isinstance(one, dict)],
    }


def cost_of_kept(kept: Tree) -> Facts:
    """The full cost of one kept trace."""
    parts = (
        ("samples", "samples asked for", n.big),
        ("kept", "traces kept", n.big),
        ("calls_per_kept", "samples for each kept trace", n.significant),
        ("tokens_in", "tokens the teacher read", n.big),
        ("tokens_out", "tokens the teacher wrote", n.big),
        ("tokens_per_kept", "tokens for each kept trace", n.big),
        ("usd", "all samples cost", n.usd),
        ("usd_per_kept", "each kept trace cost", n.usd),
        ("repeats", "traces left out that repeat another", n.big),
        ("overlapping", "traces left out that share words with a test question", n.big),
        ("bad_gold", "questions left out, whose gold answers cannot be read", n.big),
    )
    return sections.facts_of(kept, parts)


def _trace(one: Tree) -> dict[str, Any]:
    outcome = str(one.get("outcome"))
    return {
        "colour": OUTCOMES.get(outcome, OUTCOMES["unsure"]),
        "outcome": outcome,
        "reason": str(one.get("reason") or ""),
        "question": evidence.shortened(one.get("question"), LONGEST),
        "text": evidence.shortened(one.get("text"), LONGEST) or "(nothing)",
        "cost": n.usd(usd) if (usd := n.number(one.get("usd"))) else "",
    }


def taught(scorecard: Tree, details: Tree) -> list[dict[str, Any]]:
    """What each model learned from, and how much of it: rows, steps and tokens, since they are not all equal."""
    forms = details.get("taught") or {}
    found = []
    for key, role in roles(scorecard.get("models", {})).items():
        facts = forms.get(key)
        if isinstance(facts, dict):
            cells = [n.big(value) if (value := n.number(facts.get(name))) is not None else "" for name in
                     ("rows", "steps", "tokens_read")]  # fmt: skip
            found.append({"role": role, "swatch": svg.swatch(role), "learned": learned(facts), "cells": cells})
    return found


def examples(scorecard: Tree, details: Tree) -> list[dict[str, Any]]:
    """Test problems with what each model wrote."""
    models, cards = roles(scorecard.get("models", {})), []
    for example in details.get("examples") or []:
        said = example.get("said") or {}
        columns = [
            {
                "role": role,
                "swatch": svg.swatch(role),
                "text": evidence.shortened(said[key].get("text"), LONGEST) or "(nothing)",
                "right": said[key].get("outcome") == "accepted",
            }
            for key, role in models.items()
            if isinstance(said.get(key), dict)
        ]
        if columns:
            question = evidence.shortened(example.get("question"), LONGEST)
            cards.append({"question": question, "gold": str(example.get("gold")), "columns": columns})
    return cards


# Half of what was paid for and more was thrown away: the prompt, the teacher or the questions are worth a look.
MOST_REJECTED = 0.5


def mostly_rejected(scorecard: Tree, details: Tree) -> Finding | None:
    """Most traces were not accepted."""
    outcomes = (scorecard.get("transfer_set") or {}).get("outcomes") or {}
    total = sum(n.number(count) or 0 for count in outcomes.values())
    accepted = n.number(outcomes.get("accepted")) or 0
    if not total or accepted / total >= MOST_REJECTED:
        return None
    return Finding(
        "most traces rejected",
        "note",
        "More than half of the sampled traces were not accepted, and each was paid for.",
        f"{n.big(accepted)} of {n.big(total)} samples accepted.",
        "Look at the rejected traces above: a prompt that says how to write the answer, or a stronger teacher, may be cheaper.",
    )


def reasoning_gain(scorecard: Tree, details: Tree) -> Finding | None:
    """The reasoning taught something beyond the answers, or did not."""
    found = n.gain(scorecard, "student", "control")
    if not found or found.low is None or found.high is None:
        return None
    if found.low > 0:
        return Finding(
            "reasoning helps", "good", "The reasoning taught more than the answers did.", f"{told(scorecard, found)}."
        )
    return Finding(
        "no gain from reasoning",
        "problem" if found.high < 0 else "note",
        "The student is no better than its twin that saw the answers alone.",
        f"{told(scorecard, found)}.",
        "Take the control, which writes less; or harder questions, more of them, or shorter traces for a small student.",
    )


def only_computation(scorecard: Tree, details: Tree) -> Finding | None:
    """An arm with filler does as well: what helped was the room to compute."""
    found = n.stat((scorecard.get("differences", {}).get("student-filler") or {}).get("exact_match"))
    if not found or found.low is None or found.low > 0:
        return None
    return Finding(
        "filler does as well",
        "note",
        "Filler tokens of the traces' length do as well as the traces: the extra computation helps, not what is written.",
        f"{told(scorecard, found)}.",
        "Do not pay for traces here.",
    )


def unreadable(scorecard: Tree, details: Tree) -> Finding | None:
    """Many of the student's answers are cut or say no answer."""
    found = n.measured(scorecard, "student", "unreadable")
    if not found or found.mean < 0.02:
        return None
    return Finding(
        "unreadable answers",
        "note",
        "Some of the student's answers were cut by the limit of tokens, or say no answer.",
        f"{n.percent(found.mean)} of the test questions.",
        "Train longer, or raise traces.write where the answers are cut.",
    )


RULES: tuple[Rule, ...] = (mostly_rejected, reasoning_gain, only_computation, unreadable)
