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


def times(ratio: float) -> str:
    """A factor as people say it."""
    return f"{n.decimal(ratio, 0)}×" if ratio >= 9.95 else f"{n.decimal(ratio, 1)}×"


def ratio_of(scorecard: Tree, *keys: str) -> tuple[float, str, Stat, Stat] | None:
    """Teacher over student for the first of these fields that both have, with that field's name."""
    for key in keys:
        teacher, student = n.measured(scorecard, "teacher", key), n.measured(scorecard, "student", key)
        if teacher and student and teacher.mean > 0 and student.mean > 0:
            return teacher.mean / student.mean, key, teacher, student
    return None


def _amount(scorecard: Tree, value: float) -> str:
    """A difference of the primary metric, without sign, with its unit."""
    metric = n.primary(scorecard)
    if metric.unit == "share":
        text = n.decimal(100 * abs(value), n.share_digits(scorecard))
        return f"{text} point{'' if text in ('1.0', '1.00') else 's'}"
    return n.significant(abs(value))


def _range(scorecard: Tree, found: Stat) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"95% interval {n.difference(scorecard, found.low)} to {n.difference(scorecard, found.high)}"


def cheaper(scorecard: Tree) -> str:
    """How much smaller, faster and cheaper the student is than its teacher, after `it is`; empty where unmeasured."""
    size, speed = ratio_of(scorecard, "size_bytes", "parameters"), ratio_of(scorecard, *speed_keys(scorecard))
    price = ratio_of(scorecard, _price_and_rate(scorecard)[0])
    more, same = list[str](), list[str]()
    for found, words in (
        (size, ("smaller", "larger", "as large")),
        (speed, ("faster", "slower", "as fast")),
        (price, ("cheaper to run", "dearer to run", "as cheap to run")),
    ):
        if not found:
            continue
        ratio = 1 / found[0] if n.metrics_of(scorecard)[found[1]].unit == "rate" else found[0]
        if abs(ratio - 1) <= EVEN:
            same.append(words[2])
        else:
            once = " (timed once)" if found is speed and None in (found[2].low, found[3].low) else ""
            more.append((f"{times(ratio)} {words[0]}" if ratio > 1 else f"{times(1 / ratio)} {words[1]}") + once)
    if more and same:
        return f"{join(more)} than its teacher, {join(same)} as it,"
    return f"{join(more)} than its teacher" if more else f"{join(same)} as its teacher" if same else ""


def speed_keys(scorecard: Tree) -> tuple[str, ...]:
    """What tells how fast a model is, best first."""
    if n.of_language(scorecard):
        return ("latency_ms_per_token", "tokens_per_s", "latency_ms_p50")
    return ("latency_ms_p50", "rows_per_s")


def _price_and_rate(scorecard: Tree) -> tuple[str, str]:
    if n.of_language(scorecard):
        return "usd_per_million_tokens", "tokens_per_s"
    return "usd_per_million_rows", "rows_per_s"


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
    chance = ""
    if found.low is None or found.high is None:
        chance = ", measured without an interval"
    elif found.low <= 0 <= found.high:
        chance = ", which chance alone could do"
    if metric.lower_is_better:
        return f"has {amount} {'less' if found.mean > 0 else 'more'} {name} ({both}){chance}"
    return f"{'gains' if found.mean > 0 else 'gives up'} {amount} of {name} ({both}){chance}"


def _against_control(scorecard: Tree) -> str:
    found = n.gain(scorecard, "student", "control")
    twin = "the same network trained on the labels alone"
    if not found:
        return "no control was trained, so nobody can say how much of that the teacher gave"
    amount, bounds = _amount(scorecard, found.mean), _range(scorecard, found)
    sign = "+" if found.mean > 0 else n.MINUS if found.mean < 0 else ""
    if found.low is None or found.high is None:
        level = amount == _amount(scorecard, 0.0)
        side = "level with" if level else f"{amount} ahead of" if found.mean > 0 else f"{amount} behind"
        return f"it is {side} {twin}, measured without an interval, so that may be chance"
    if found.low > 0:
        return f"it is {amount} better than {twin} ({bounds}){_stronger_twin(scorecard)}"
    if found.high < 0:
        return f"it is {amount} worse than {twin} ({bounds}), so the teacher did harm"
    return f"whether it beats {twin} stays open: {sign}{amount}, and the {bounds} includes 0"


def _stronger_twin(scorecard: Tree) -> str:
    """Where the control is better without its moved class biases, that it is: the student is held against the moved ones."""
    metric = n.primary(scorecard)
    moved, plain = (n.measured(scorecard, name, metric.key) for name in ("control", "control_uncorrected"))
    student = n.measured(scorecard, "student", metric.key)
    if not moved or not plain or not student or metric.lower_is_better or plain.mean <= moved.mean:
        return ""
    return f", and {_amount(scorecard, student.mean - plain.mean)} better than that network with its biases as trained"


def verdict(scorecard: Tree) -> str:
    """How much smaller, faster and cheaper, at what loss, and whether the teacher helped: one sentence."""
    if "student" not in scorecard.get("models", {}):
        return "This scorecard has no student, so there is nothing to compare yet."
    return sentence(cheaper(scorecard), _loss(scorecard), _against_control(scorecard))


def sentence(gained: str, loss: str, control: str) -> str:
    """The three clauses of a verdict as one sentence; the last is always there."""
    if gained and loss:
        return f"The student is {gained} and {loss}; {control}."
    if gained:
        return f"The student is {gained.rstrip(',')}; {control}."
    if loss:
        return f"Against its teacher the student {loss}; {control}."
    return f"Of the student: {control}."


def figures(scorecard: Tree) -> list[Figure]:
    """The numbers of the verdict, large; what was not measured is not among them."""
    found = []
    size = ratio_of(scorecard, "size_bytes", "parameters")
    if size:
        ratio, key, teacher, student = size
        unit = n.BY_KEY[key].unit
        parts = f"{n.printed(student.mean, unit)} against {n.printed(teacher.mean, unit)}"
        found.append(figure_of(ratio, "smaller", "larger", f"than the teacher: {parts}"))
    speed = ratio_of(scorecard, "latency_ms_p50")
    if speed:
        ratio, _, teacher, student = speed
        parts = f"{n.printed(student.mean, 'ms')} for one row against {n.printed(teacher.mean, 'ms')}"
        found.append(figure_of(ratio, "faster", "slower", f"than the teacher: {parts}"))
    for other, what in (("teacher", "against the teacher"), ("control", "against the control")):
        difference = n.gain(scorecard, "student", other)
        if difference:
            metric = n.primary(scorecard)
            value = n.difference(scorecard, difference.mean)
            name = f"points of {metric.name.lower()}" if metric.unit == "share" else f"better in {metric.name.lower()}"
            found.append(Figure(value, f"{name} {what}", _range(scorecard, difference)))
    for omitted in scorecard.get("omitted_classes") or []:
        ours, theirs = (n.recall(scorecard, model, str(omitted)) for model in ("student", "hard_teacher"))
        if ours:
            detail = f"taught by top answers alone: {n.percent(theirs.mean, 0)}" if theirs else ""
            found.append(Figure(n.percent(ours.mean, 0), f"of class {omitted} found, never having seen one", detail))
    return found


def figure_of(ratio: float, more: str, less: str, detail: str) -> Figure:
    """A factor as a large number."""
    return Figure(times(ratio), more, detail) if ratio >= 1 else Figure(times(1 / ratio), less, detail)


@dataclass(frozen=True)
class Bill:
    """What a billion answers, or tokens, take from one model; None where it was not measured."""

    model: str
    usd: float | None
    seconds: float | None


def bills(scorecard: Tree) -> list[Bill]:
    """A billion answers, or tokens, from each model whose speed or cost was measured."""
    found = []
    for model in scorecard.get("models", {}):
        price, rate = (n.measured(scorecard, model, key) for key in _price_and_rate(scorecard))
        if price or (rate and rate.mean > 0):
            seconds = BILLION / rate.mean if rate and rate.mean > 0 else None
            found.append(Bill(model, price.mean * 1000 if price else None, seconds))
    return found


def answers(scorecard: Tree) -> str:
    """What a model gives that can be counted."""
    return "tokens" if n.of_language(scorecard) else "answers"


TIMED_ONCE = "The times in that were taken once; a second timing may differ severalfold."


def _small(words: str) -> str:
    return words[0].lower() + words[1:]


def pays(scorecard: Tree) -> str:
    """After how many rows, or tokens, the student has paid for itself, or why that cannot be said."""
    cost = scorecard.get("cost", {})
    unit = "tokens" if "saved_usd_per_million_tokens" in cost else "rows"
    saved, after = n.number(cost.get(f"saved_usd_per_million_{unit}")), n.number(cost.get(f"break_even_{unit}"))
    if saved is None:
        return (
            "The run was given no price of this machine, so nothing is said of what the student costs or saves. "
            "With evaluation: {price: {usd_per_hour: …}} in the "
            f"recipe, this part says what a billion {answers(scorecard)} cost, and when the student has paid for "
            "itself."
        )
    if saved <= 0:
        return "The student is no cheaper to run than the teacher, so it never pays for itself."
    spent = sum(found for key in ("teacher_usd", "training_usd") if (found := n.number(cost.get(key))) is not None)
    made = f"Asking and all training cost {n.usd(spent)}. " if spent else ""
    each = f"Each million {unit} answered by the student instead of the teacher saves {n.usd(saved)}"
    if after is None:
        return f"{made}{each}."
    rows, needed = f"{n.roughly(after)} {unit}", after * saved / 1e6
    if needed >= 0.95 * spent:
        return f"{made}{each}, so the student has paid for itself after {rows}. {TIMED_ONCE}"
    # Controls and further seeds were trained to measure; whoever wants the student alone need not pay for them.
    return f"{made}What one student takes of that, {n.usd(needed)}, it has paid for after {rows}: {_small(each)}. {TIMED_ONCE}"
