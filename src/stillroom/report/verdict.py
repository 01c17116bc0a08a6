"""A scorecard in one sentence, four figures, and money.

This file decides which numbers a hurried reader sees, and says so when they prove nothing. It knows no HTML.
"""

from __future__ import annotations

from dataclasses import dataclass

from stillroom.report import numbers as n
from stillroom.report.numbers import Stat, Tree
from stillroom.report.words import join

BILLION = 1e9
EVEN = 0.05
"""Two figures within 5 % of each other are called the same."""


@dataclass(frozen=True)
class Figure:
    """One large number with a line that says what it is."""

    value: str
    what: str
    detail: str


def _times(ratio: float) -> str:
    return f"{n.decimal(ratio, 0)}×" if ratio >= 9.95 else f"{n.decimal(ratio, 1)}×"


def _ratio(scorecard: Tree, *keys: str) -> tuple[float, str, Stat, Stat] | None:
    """Teacher over student for the first of these fields that both have, with that field's name."""
    for key in keys:
        teacher, student = n.measured(scorecard, "teacher", key), n.measured(scorecard, "student", key)
        if teacher and student and teacher.mean > 0 and student.mean > 0:
            return teacher.mean / student.mean, key, teacher, student
    return None


def _compared(ratio: float, more: str, less: str, same: str) -> str:
    if abs(ratio - 1) <= EVEN:
        return same
    return f"{_times(ratio)} {more}" if ratio > 1 else f"{_times(1 / ratio)} {less}"


def _amount(scorecard: Tree, value: float) -> str:
    """A difference of the primary metric, without sign, with its unit."""
    metric = n.primary(scorecard)
    if metric.unit == "share":
        text = n.decimal(100 * abs(value), n.share_digits(scorecard))
        return f"{text} point{'' if text in ('1.0', '1.00') else 's'}"
    return n.significant(abs(value))


def _bound(scorecard: Tree, value: float) -> str:
    if n.primary(scorecard).unit == "share":
        return n.signed(100 * value, n.share_digits(scorecard))
    return n.significant(value)


def _range(scorecard: Tree, found: Stat) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"95% interval {_bound(scorecard, found.low)} to {_bound(scorecard, found.high)}"


def _cheaper(scorecard: Tree) -> str:
    size = _ratio(scorecard, "size_bytes", "parameters")
    speed = _ratio(scorecard, "latency_ms_p50", "rows_per_s")
    price = _ratio(scorecard, "usd_per_million_rows")
    parts = []
    if size:
        parts.append(_compared(size[0], "smaller", "larger", "as large"))
    if speed:
        ratio = 1 / speed[0] if speed[1] == "rows_per_s" else speed[0]
        parts.append(_compared(ratio, "faster", "slower", "as fast"))
    if price:
        parts.append(_compared(price[0], "cheaper to run", "dearer to run", "as cheap to run"))
    return join(parts)


def _loss(scorecard: Tree) -> str:
    """What the student gives up against the teacher, as a clause that follows `it`."""
    metric = n.primary(scorecard)
    teacher, student = n.measured(scorecard, "teacher", metric.key), n.measured(scorecard, "student", metric.key)
    found = n.gain(scorecard, "student", "teacher")
    if not teacher or not student or not found:
        return ""
    digits = n.share_digits(scorecard)
    both = f"{n.printed(student.mean, metric.unit, digits)} against {n.printed(teacher.mean, metric.unit, digits)}"
    name = metric.name.lower()
    if _amount(scorecard, found.mean) == _amount(scorecard, 0.0):
        return f"has the same {name} ({both})"
    amount = _amount(scorecard, found.mean)
    if metric.lower_is_better:
        return f"has {amount} {'less' if found.mean > 0 else 'more'} {name} ({both})"
    return f"{'gains' if found.mean > 0 else 'gives up'} {amount} of {name} ({both})"


def _against_control(scorecard: Tree) -> str:
    found = n.gain(scorecard, "student", "control")
    twin = "the same network trained on the labels alone"
    if not found:
        return "no control was trained, so nobody can say how much of that the teacher gave"
    amount, bounds = _amount(scorecard, found.mean), _range(scorecard, found)
    sign = "+" if found.mean > 0 else n.MINUS if found.mean < 0 else ""
    if found.low is None or found.high is None:
        side = "ahead of" if found.mean > 0 else "behind"
        return f"it is {amount} {side} {twin}, measured without an interval, so that may be chance"
    if found.low > 0:
        return f"it is {amount} better than {twin} ({bounds})"
    if found.high < 0:
        return f"it is {amount} worse than {twin} ({bounds}), so the teacher did harm"
    return f"whether it beats {twin} stays open: {sign}{amount}, and the {bounds} includes 0"


def verdict(scorecard: Tree) -> str:
    """How much smaller, faster and cheaper, at what loss, and whether the teacher helped: one sentence."""
    if "student" not in scorecard.get("models", {}):
        return "This scorecard has no student, so there is nothing to compare yet."
    cheaper, loss, control = _cheaper(scorecard), _loss(scorecard), _against_control(scorecard)
    if cheaper and loss:
        return f"The student is {cheaper} than its teacher and {loss}; {control}."
    if cheaper:
        return f"The student is {cheaper} than its teacher; {control}."
    if loss:
        return f"Against its teacher the student {loss}; {control}."
    return f"Of the student: {control}."


def figures(scorecard: Tree) -> list[Figure]:
    """The numbers of the verdict, large; what was not measured is not among them."""
    found = []
    size = _ratio(scorecard, "size_bytes", "parameters")
    if size:
        ratio, key, teacher, student = size
        unit = n.BY_KEY[key].unit
        parts = f"{n.printed(student.mean, unit)} against {n.printed(teacher.mean, unit)}"
        found.append(_figure(ratio, "smaller", "larger", f"than the teacher: {parts}"))
    speed = _ratio(scorecard, "latency_ms_p50")
    if speed:
        ratio, _, teacher, student = speed
        parts = f"{n.printed(student.mean, 'ms')} for one row against {n.printed(teacher.mean, 'ms')}"
        found.append(_figure(ratio, "faster", "slower", f"than the teacher: {parts}"))
    for other, what in (("teacher", "against the teacher"), ("control", "against the control")):
        difference = n.gain(scorecard, "student", other)
        if difference:
            metric = n.primary(scorecard)
            value = _bound(scorecard, difference.mean)
            name = f"points of {metric.name.lower()}" if metric.unit == "share" else f"better in {metric.name.lower()}"
            found.append(Figure(value, f"{name} {what}", _range(scorecard, difference)))
    for omitted in scorecard.get("omitted_classes") or []:
        ours, theirs = (n.recall(scorecard, model, str(omitted)) for model in ("student", "hard_teacher"))
        if ours:
            detail = f"taught by top answers alone: {n.percent(theirs.mean, 0)}" if theirs else ""
            found.append(Figure(n.percent(ours.mean, 0), f"of class {omitted} found, never having seen one", detail))
    return found


def _figure(ratio: float, more: str, less: str, detail: str) -> Figure:
    return Figure(_times(ratio), more, detail) if ratio >= 1 else Figure(_times(1 / ratio), less, detail)


@dataclass(frozen=True)
class Bill:
    """What a billion answers take from one model; None where it was not measured."""

    model: str
    usd: float | None
    seconds: float | None


def bills(scorecard: Tree) -> list[Bill]:
    """A billion answers from each model whose speed or cost was measured."""
    found = []
    for model in scorecard.get("models", {}):
        price = n.measured(scorecard, model, "usd_per_million_rows")
        rate = n.measured(scorecard, model, "rows_per_s")
        if price or (rate and rate.mean > 0):
            seconds = BILLION / rate.mean if rate and rate.mean > 0 else None
            found.append(Bill(model, price.mean * 1000 if price else None, seconds))
    return found


def pays(scorecard: Tree) -> str:
    """After how many rows the student has paid for itself, or why that cannot be said."""
    cost = scorecard.get("cost", {})
    saved, after = n.number(cost.get("saved_usd_per_million_rows")), n.number(cost.get("break_even_rows"))
    if saved is None:
        return (
            "The run was given no price, so no sum is shown. With evaluation: {price: {usd_per_hour: …}} in the "
            "recipe, this part says what a billion answers cost, and when the student has paid for itself."
        )
    if saved <= 0:
        return "The student is no cheaper to run than the teacher, so it never pays for itself."
    spent = sum(found for key in ("teacher_usd", "training_usd") if (found := n.number(cost.get(key))) is not None)
    made = f"Asking and training cost {n.usd(spent)}. " if spent else ""
    each = f"Each million rows answered by the student instead of the teacher saves {n.usd(saved)}"
    if after is None:
        return f"{made}{each}."
    return f"{made}{each}, so the student has paid for itself after {n.big(float(f'{after:.3g}'))} rows."
