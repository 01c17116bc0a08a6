"""Reads a scorecard's numbers and prints them: what is absent stays absent, what is there keeps its interval.

This file knows the fields of scorecard.json and their units. It knows no HTML, no chart and no advice.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Tree: TypeAlias = dict[str, Any]
Unit = Literal["share", "count", "number", "fine", "ms", "rate", "usd", "bytes", "mib"]
"""`fine` is a number of which the third decimal counts, such as bits per byte."""
MINUS = "\N{MINUS SIGN}"
NOT_MEASURED = "not measured"
Z95 = 1.96
"""Half the width of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Stat:
    """A mean with its 95 % interval, where there is one, and the value of each seed."""

    mean: float
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()

    def negated(self) -> Stat:
        """The same number counted the other way."""
        low = None if self.high is None else -self.high
        high = None if self.low is None else -self.low
        return Stat(-self.mean, low, high, tuple(-value for value in self.seeds))


@dataclass(frozen=True)
class Metric:
    """A field of a model in the scorecard: how it is called, what it says, how it is printed."""

    key: str
    name: str
    gloss: str
    unit: Unit
    group: str
    main: bool = True
    lower_is_better: bool = False


RIGHT, SURE, RUN, ALIKE = "Right answers", "Honest confidence", "Size and cost", "Likeness to the teacher"
READS, SPEED = "Predicting text", "Size and speed"
METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "Accuracy", "share of the test rows answered right", "share", RIGHT),
    Metric("exact_match", "Exact match", "share of the questions with exactly the right answer", "share", RIGHT),
    Metric("errors", "Errors", "test rows answered wrong", "count", RIGHT, lower_is_better=True),
    Metric("perplexity", "Perplexity", "words it hesitates between, as it were", "number", RIGHT, lower_is_better=True),
    Metric("bits_per_byte", "Bits per byte", "surprise at each byte of text", "number", RIGHT, lower_is_better=True),
    Metric("macro_f1", "Macro F1", "precision and recall, every class counting the same", "share", RIGHT, main=False),
    Metric("worst_class_recall", "Worst class", "share found of the class it finds least", "share", RIGHT, main=False),
    Metric("mistake_severity", "Mistake severity", "how unlike the truth a wrong answer is; 0 is near, 1 far", "number",
           RIGHT, main=False, lower_is_better=True),
    Metric("nll", "Log loss", "surprise at the right answer, in nats", "number", SURE, lower_is_better=True),
    Metric("ece", "Calibration error", "how far stated confidence is from the share that is right (ECE)", "share", SURE,
           lower_is_better=True),
    Metric("ece_scaled", "Calibration error, scaled", "the same after temperature scaling on validation rows", "share",
           SURE, main=False, lower_is_better=True),
    Metric("parameters", "Parameters", "numbers the model holds", "count", RUN, lower_is_better=True),
    Metric("size_bytes", "Size", "of its weights", "bytes", RUN, lower_is_better=True),
    Metric("latency_ms_p50", "Latency", "one row, median", "ms", RUN, lower_is_better=True),
    Metric("latency_ms_p95", "Latency, 95th percentile", "one row; one answer in twenty takes longer", "ms", RUN,
           main=False, lower_is_better=True),
    Metric("latency_ms_p50_batch32", "Latency, 32 rows", "32 rows at once, median", "ms", RUN, main=False,
           lower_is_better=True),
    Metric("rows_per_s", "Rows per second", "answered in bulk", "rate", RUN, main=False),
    Metric("usd_per_million_rows", "Cost of a million rows", "in US dollars", "usd", RUN, lower_is_better=True),
    Metric("agreement", "Agreement", "share of test rows where it says what the teacher says", "share", ALIKE),
    Metric("agreement_with_independent_teacher", "Agreement with an independent teacher",
           "share of test rows where it says what a teacher says that taught none of these", "share", ALIKE, main=False),
    Metric("kl_to_teacher", "KL from the teacher", "distance of its probabilities from the teacher's",
           "number", ALIKE, main=False, lower_is_better=True),
    Metric("error_agreement", "Shared mistakes", "share of the teacher's errors that it makes in the same way", "share",
           ALIKE, main=False),
)  # fmt: skip
BY_KEY: dict[str, Metric] = {metric.key: metric for metric in METRICS}
LANGUAGE_METRICS: tuple[Metric, ...] = (
    Metric("bits_per_byte", "Bits per byte", "surprise at each byte of unseen text; lower is better", "fine", READS,
           lower_is_better=True),
    Metric("perplexity", "Perplexity", "tokens it hesitates between, as it were; lower is better", "number", READS,
           lower_is_better=True),
    Metric("accuracy", "Top-1 accuracy", "share of tokens that were its first guess", "share", READS),
    Metric("nll", "Log loss", "surprise at each token, in nats; lower is better", "fine", READS, lower_is_better=True),
    Metric("agreement", "Agreement", "share of places where its first guess is the teacher's", "share", ALIKE),
    Metric("kl_to_teacher", "KL from the teacher", "distance of its probabilities from the teacher's, in nats; 0 is "
           "the same", "fine", ALIKE, lower_is_better=True),
    Metric("parameters", "Parameters", "numbers the model holds", "count", SPEED, lower_is_better=True),
    Metric("size_bytes", "Size", "of its weights", "bytes", SPEED, lower_is_better=True),
    Metric("tokens_per_s", "Tokens per second", "reading in bulk", "rate", SPEED),
    Metric("latency_ms_per_token", "Time for a token", "writing one after the other", "ms", SPEED,
           lower_is_better=True),
    Metric("usd_per_million_tokens", "Cost of a million tokens", "in US dollars", "usd", SPEED, lower_is_better=True),
    Metric("latency_ms_first_token", "Time to the first token", "of an answer to a short prompt", "ms", SPEED,
           main=False, lower_is_better=True),
    Metric("latency_ms_p50", "Time for a window", "reading one window, median", "ms", SPEED, main=False,
           lower_is_better=True),
    Metric("peak_memory_mib", "Memory", "growth of the process while it loads and answers", "mib", SPEED, main=False,
           lower_is_better=True),
)  # fmt: skip
OF_LANGUAGE: dict[str, Metric] = {metric.key: metric for metric in LANGUAGE_METRICS}
OF_REASONING: dict[str, Metric] = {
    "exact_match": BY_KEY["exact_match"],
    "unreadable": Metric("unreadable", "Unreadable", "share of the answers that were cut, or say no answer", "share", RIGHT,
                         main=False, lower_is_better=True),
    "answer_tokens": Metric("answer_tokens", "Tokens of an answer", "written, the reasoning included", "number", RUN,
                            lower_is_better=True),
    **{key: BY_KEY[key] for key in ("parameters", "size_bytes", "rows_per_s", "usd_per_million_rows")},
    "latency_ms_p50": Metric("latency_ms_p50", "Latency", "one question, median", "ms", RUN, lower_is_better=True),
}  # fmt: skip
FITTED_TO = frozenset({"agreement", "kl_to_teacher", "error_agreement"})
"""Measured against the teacher, so they do not apply to the teacher itself."""


def number(value: object) -> float | None:
    """A finite number, or None for whatever else stands there."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def tidy(tree: Tree) -> Tree:
    """The tree without entries that are None or not finite: what was not measured is absent, however it was written."""
    return {key: tidy(value) if isinstance(value, dict) else value for key, value in tree.items() if not _empty(value)}


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, numbers.Real) and not math.isfinite(float(value)))


def stat(value: object) -> Stat | None:
    """A field of the scorecard, be it a plain number or a mean with interval and seeds."""
    if not isinstance(value, dict):
        plain = number(value)
        return None if plain is None else Stat(plain)
    mean = number(value.get("mean"))
    if mean is None:
        return None
    bounds = value.get("ci95")
    low, high = (
        (number(bounds[0]), number(bounds[1]))
        if isinstance(bounds, list | tuple) and len(bounds) == 2
        else (None, None)
    )
    if low is None or high is None:
        low = high = None
    seeds = tuple(found for found in map(number, value.get("per_seed") or ()) if found is not None)
    return Stat(mean, low, high, seeds)


def measured(scorecard: Tree, model: str, key: str) -> Stat | None:
    """What the scorecard says of one model, or None where it was not measured."""
    return stat(scorecard.get("models", {}).get(model, {}).get(key))


def recall(scorecard: Tree, model: str, name: str) -> Stat | None:
    """Which share of the test rows of a class the model finds; classes are told by their text."""
    recalls = scorecard.get("models", {}).get(model, {}).get("recall_by_class") or {}
    return stat({str(key): value for key, value in recalls.items()}.get(name))


def of_language(scorecard: Tree) -> bool:
    """Whether the scorecard is of models that predict text, token by token."""
    return scorecard.get("task") == "language"


def of_reasoning(scorecard: Tree) -> bool:
    """Whether the scorecard is of models that write an answer with the reasoning that leads to it."""
    return scorecard.get("task") == "reasoning"


def metrics_of(scorecard: Tree) -> dict[str, Metric]:
    """The measures of this task, by key, in the order of the page."""
    if of_reasoning(scorecard):
        return OF_REASONING
    return OF_LANGUAGE if of_language(scorecard) else BY_KEY


def primary(scorecard: Tree) -> Metric:
    """The metric that decides for this task: accuracy, exact match, bits per byte, or log loss where words are masked."""
    known = metrics_of(scorecard)
    wanted = {"language": ("bits_per_byte", "nll", "perplexity"), "reasoning": ("exact_match",)}
    for key in (*wanted.get(str(scorecard.get("task")), ()), "accuracy"):
        if any(measured(scorecard, model, key) for model in scorecard.get("models", {})):
            return known[key]
    return known["exact_match" if of_reasoning(scorecard) else "accuracy"]


def paired(scorecard: Tree, model: str, other: str, metric: Metric) -> Stat | None:
    """How much better `model` is than `other` on the same rows (positive is better), where the scorecard says so."""
    differences = scorecard.get("differences", {})
    for name, turned in ((f"{model}-{other}", False), (f"{other}-{model}", True)):
        found = stat(differences.get(name, {}).get(metric.key))
        if found:
            return found.negated() if turned != metric.lower_is_better else found
    return None


def gain(scorecard: Tree, model: str, other: str) -> Stat | None:
    """How much better `model` is than `other` in the primary metric (positive is better).

    The scorecard's paired difference where it has one. Else the difference of the means, with an interval as if the two
    were measured on different rows, which is wider than the truth.
    """
    metric = primary(scorecard)
    if found := paired(scorecard, model, other, metric):
        return found
    ours, theirs = measured(scorecard, model, metric.key), measured(scorecard, other, metric.key)
    if not ours or not theirs:
        return None
    mean = theirs.mean - ours.mean if metric.lower_is_better else ours.mean - theirs.mean
    errors = [_standard_error(scorecard, found, metric) for found in (ours, theirs)]
    if any(error is None for error in errors):
        return Stat(mean)
    half = Z95 * math.hypot(*(error for error in errors if error is not None))
    return Stat(mean, mean - half, mean + half)


def _standard_error(scorecard: Tree, found: Stat, metric: Metric) -> float | None:
    if found.low is not None and found.high is not None:
        return (found.high - found.low) / (2 * Z95)
    rows = number(scorecard.get("rows", {}).get("test"))
    if metric.unit != "share" or not rows or not 0 <= found.mean <= 1:
        return None
    return math.sqrt(found.mean * (1 - found.mean) / rows)


def share_digits(scorecard: Tree) -> int:
    """Decimals that a percentage of the test rows can carry."""
    rows = number(scorecard.get("rows", {}).get("test")) or 0
    return 2 if rows >= 5000 else 1


def _signed(text: str) -> str:
    """A real minus sign, and none before a zero."""
    if text.startswith("-"):
        return text[1:] if not any(digit in "123456789" for digit in text) else MINUS + text[1:]
    return text


def decimal(value: float, digits: int) -> str:
    """A number with so many decimals, thousands marked."""
    return _signed(f"{value:,.{digits}f}")


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, never in powers of ten."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return decimal(value, min(places, 12))


def count(value: float) -> str:
    """A count that may be a mean: decimals only where it has some."""
    return decimal(value, int(value != round(value)))


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{decimal(100 * value, digits)}%"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign written out."""
    text = decimal(value, digits)
    return text if text.startswith(MINUS) or not any(digit in "123456789" for digit in text) else f"+{text}"


def difference(scorecard: Tree, value: float) -> str:
    """A difference of the primary metric with its sign: points where it is a share, else in the metric's own unit."""
    unit = primary(scorecard).unit
    if unit == "share":
        return signed(100 * value, share_digits(scorecard))
    if unit == "fine":
        return signed(value, 3)
    text = significant(value)
    return text if value <= 0 else f"+{text}"


def tick(value: float) -> str:
    """A round number on the axis of a difference, with its sign."""
    return "0" if value == 0 else _signed(f"{value:+g}")


def big(value: float, digits: int = 3) -> str:
    """A large count as people say it."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{significant(value / size, digits)} {word}"
    return decimal(value, 0)


def roughly(value: float) -> str:
    """A count that one measurement cannot tell exactly: its first digit."""
    return f"about {big(float(f'{value:.0e}'), 1)}"


def size_of(value: float, digits: int = 3) -> str:
    """Bytes in the unit that suits them."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size:
            return f"{significant(value / size, digits)} {unit}"
    return f"{decimal(value, 0)} bytes"


def usd(value: float) -> str:
    """US dollars; small sums keep two significant digits."""
    size = abs(value)
    text = decimal(size, 2) if size >= 1 else significant(size, 2)
    return f"{MINUS if value < 0 else ''}${text}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for size, unit in ((31_557_600.0, "years"), (86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{significant(seconds / size, 2)} {unit}"
    return f"{significant(seconds, 2)} s" if seconds < 10 else f"{decimal(seconds, 0)} s"


def printed(value: float, unit: Unit, digits: int = 1) -> str:
    """A value of a metric in its unit; `digits` are the decimals of a percentage and of a count."""
    if unit == "share":
        return percent(value, digits)
    if unit == "count":
        return decimal(value, digits) if abs(value) < 1e6 else big(value)
    if unit == "fine":
        return decimal(value, 3)
    if unit == "mib":
        return f"{significant(value)} MiB"
    if unit == "ms":
        return f"{significant(value)} ms" if abs(value) >= 0.1 else f"{significant(1000 * value)} µs"
    if unit == "rate":
        return big(float(f"{value:.3g}"))
    if unit == "usd":
        return usd(value)
    return size_of(value) if unit == "bytes" else significant(value)


def interval(found: Stat, unit: Unit, digits: int = 1) -> str:
    """The interval of a value, without the unit where the value beside it has one; empty where there is none to see."""
    if found.low is None or found.high is None:
        return ""
    low, high = (printed(bound, unit, digits) for bound in (found.low, found.high))
    for suffix in ("%", " ms", " µs", " MiB"):
        low = low.removesuffix(suffix) if high.endswith(suffix) else low
    return f"{low} to {high.removeprefix('$')}" if low != high else ""
