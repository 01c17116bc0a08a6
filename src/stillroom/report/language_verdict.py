"""A language run in one sentence and a few figures: how much smaller and faster, at what loss, and who gets the credit.

It says so where the student does not beat its control. This file knows no HTML.
"""

from __future__ import annotations

from stillroom.report import numbers as n
from stillroom.report.language_words import masked
from stillroom.report.numbers import Stat, Tree
from stillroom.report.verdict import Figure, cheaper, figure_of, ratio_of, sentence, speed_keys

TWIN = "the same network trained on the text alone"
EARLIER = "the same network before its first step"


def verdict(scorecard: Tree) -> str:
    """How much smaller, faster and cheaper, at what loss, and whether the teacher helped: one sentence."""
    if "student" not in scorecard.get("models", {}):
        return "This scorecard has no student, so there is nothing to compare yet."
    return sentence(cheaper(scorecard), _loss(scorecard), _against_control(scorecard))


def _amount(scorecard: Tree, value: float) -> str:
    """A difference of the deciding metric without its sign."""
    return n.difference(scorecard, abs(value)).removeprefix("+")


def _unit(scorecard: Tree, text: str) -> str:
    """What a difference of the deciding metric is counted in, after its amount."""
    key = n.primary(scorecard).key
    if key == "accuracy":
        return "points of accuracy" if text not in ("1.0", "1.00") else "point of accuracy"
    return {"bits_per_byte": "bits per byte", "nll": "nats of log loss", "perplexity": "of perplexity"}[key]


def _loss(scorecard: Tree) -> str:
    """What the student gives up against the teacher, as a clause that follows `it`."""
    metric, found = n.primary(scorecard), n.gain(scorecard, "student", "teacher")
    both = _side_by_side(scorecard, "student", "teacher")
    if not found or not both:
        return ""
    amount = _amount(scorecard, found.mean)
    if amount == _amount(scorecard, 0.0):
        return f"predicts text as well ({both})"
    ahead = found.mean > 0
    if metric.key == "bits_per_byte":
        return f"needs {amount} {'fewer' if ahead else 'more'} bits for each byte of unseen text ({both})"
    if metric.key == "nll":
        kind = "hidden" if masked(scorecard) else "next"
        return f"has {amount} nats {'less' if ahead else 'more'} log loss on each {kind} token ({both})"
    if metric.key == "perplexity":
        return f"has {amount} {'less' if ahead else 'more'} perplexity ({both})"
    return f"{'gains' if ahead else 'gives up'} {amount} {_unit(scorecard, amount)} ({both})"


def _side_by_side(scorecard: Tree, model: str, other: str) -> str:
    """`1.213 against 1.092; perplexity 31.2 against 22.4`, as far as it was measured."""
    parts: list[str] = []
    for metric in dict.fromkeys((n.primary(scorecard), n.OF_LANGUAGE["perplexity"])):
        ours, theirs = n.measured(scorecard, model, metric.key), n.measured(scorecard, other, metric.key)
        if ours and theirs:
            name = "perplexity " if parts else ""
            parts.append(f"{name}{n.printed(ours.mean, metric.unit)} against {n.printed(theirs.mean, metric.unit)}")
    return "; ".join(parts)


def _range(scorecard: Tree, found: Stat, signed: bool = True) -> str:
    if found.low is None or found.high is None:
        return ""
    low, high = n.difference(scorecard, found.low), n.difference(scorecard, found.high)
    return f"95% interval {low} to {high}" if signed else f"95% interval {low.lstrip('+')} to {high.lstrip('+')}"


def _against_control(scorecard: Tree) -> str:
    """What the student has over its control; where it learned a teacher's words and there are no others, over its beginning."""
    other = "control" if "control" in scorecard.get("models", {}) else "before"
    found, twin = n.gain(scorecard, "student", other), TWIN if other == "control" else EARLIER
    if not found:
        return "no control was trained, so nobody can say how much of that the teacher gave"
    text = _amount(scorecard, found.mean)
    amount = f"{text} {_unit(scorecard, text)}"
    theirs = _side_by_side(scorecard, "student", other)
    beside = f"{theirs}; " if theirs else ""
    if found.low is None or found.high is None:
        side = "ahead of" if found.mean > 0 else "behind"
        told = f" ({theirs})" if theirs else ""
        return f"it is {amount} {side} {twin}{told}, measured without an interval, so that may be chance"
    if found.low > 0:
        return f"it is {amount} better than {twin} ({beside}{_range(scorecard, found)})"
    if found.high < 0:
        worse = _range(scorecard, found.negated())
        return f"it is {amount} worse than {twin} ({beside}{worse}), so the teacher did harm"
    sign = "+" if found.mean > 0 else n.MINUS if found.mean < 0 else ""
    return f"whether it beats {twin} stays open: {sign}{amount}, and the {_range(scorecard, found)} includes 0"


def figures(scorecard: Tree) -> list[Figure]:
    """The numbers of the verdict, large; what was not measured is not among them."""
    found = []
    size = ratio_of(scorecard, "size_bytes", "parameters")
    if size:
        ratio, key, teacher, student = size
        unit = n.OF_LANGUAGE[key].unit
        parts = f"{n.printed(student.mean, unit)} against {n.printed(teacher.mean, unit)}"
        found.append(figure_of(ratio, "smaller", "larger", f"than the teacher: {parts}"))
    speed = ratio_of(scorecard, *speed_keys(scorecard))
    if speed:
        ratio, key, teacher, student = speed
        metric = n.OF_LANGUAGE[key]
        ratio = 1 / ratio if metric.unit == "rate" else ratio
        what = {"rate": "tokens a second", "ms": "for a token" if key == "latency_ms_per_token" else "for a window"}
        parts = f"{n.printed(student.mean, metric.unit)} {what[metric.unit]} against "
        found.append(figure_of(ratio, "faster", "slower", f"{parts}{n.printed(teacher.mean, metric.unit)}"))
    for other, name in (("teacher", "the teacher"), ("control", "the control"), ("before", "before its first step")):
        difference = n.gain(scorecard, "student", other)
        if difference:
            found.append(_apart(scorecard, difference, name))
    stored = scorecard.get("transfer_set") or {}
    kept, dense = n.number(stored.get("bytes_per_token")), n.number(stored.get("dense_bytes_per_token"))
    if kept is not None:
        detail = f"every probability would take {n.decimal(dense, 0)}" if dense else ""
        found.append(Figure(n.count(kept), "bytes kept of each answer of the teacher", detail))
    return found


def _apart(scorecard: Tree, difference: Stat, name: str) -> Figure:
    """How far the student is from another model, counted towards the side on which it is."""
    better = difference.mean > 0
    text = _amount(scorecard, difference.mean)
    turned = difference if better else difference.negated()
    unit = _unit(scorecard, text).removeprefix("of ")
    if text == _amount(scorecard, 0.0):
        return Figure(text, f"{unit} between it and {name}", _range(scorecard, turned, signed=False))
    what = f"{unit} {'better' if better else 'worse'} than {name}"
    return Figure(text, what, _range(scorecard, turned, signed=False))
