"""Is there something wrong with this run, and what would mend it? One small rule for each way it goes wrong.

Each rule is a pure function of a scorecard and its details that gives one Finding or None. Its threshold stands above
it with the reason. A rule that lacks what it needs keeps silent. This file knows no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal, TypeAlias

from stillroom.report import numbers as n
from stillroom.report.numbers import Metric, Stat, Tree
from stillroom.report.words import alone, class_names

Level = Literal["good", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found, on what evidence, and what to do about it."""

    rule: str
    level: Level
    what: str
    evidence: str
    cure: str = ""


Rule: TypeAlias = Callable[[Tree, Tree], Finding | None]


def diagnose(scorecard: Tree, details: Tree, rules: Sequence[Rule] | None = None) -> list[Finding]:
    """Every finding of the rules (none given: RULES, those of every task), problems first."""
    clean = n.tidy(scorecard)
    found = [finding for rule in (RULES if rules is None else rules) if (finding := rule(clean, details))]
    order = {"problem": 0, "note": 1, "good": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def told(scorecard: Tree, found: Stat) -> str:
    """A difference of the primary metric with its interval; above 0 is better."""
    metric = n.primary(scorecard)
    unit = "points" if metric.unit == "share" else metric.name.lower()
    mean, low, high = (None if v is None else n.difference(scorecard, v) for v in (found.mean, found.low, found.high))
    if low is None or high is None:
        return f"{mean} {unit}, without an interval"
    return f"{mean} {unit}, 95% interval {low} to {high}"


def distance(scorecard: Tree, found: Stat) -> str:
    """The same where the words beside it say which way: without signs."""
    return told(scorecard, found).replace("+", "")


def mean_of(scorecard: Tree, model: str, metric: Metric) -> str:
    """A model's figure as text."""
    found = n.measured(scorecard, model, metric.key)
    return n.printed(found.mean, metric.unit, n.share_digits(scorecard)) if found else n.NOT_MEASURED


# A gap whose interval reaches 0 may be no gap at all, so nothing can be said about how much of it was closed.
def no_gap(scorecard: Tree, details: Tree) -> Finding | None:
    """The teacher was not shown to be better than the control."""
    gap = n.gain(scorecard, "teacher", "control")
    if not gap or gap.low is None or gap.mean <= 0 or gap.low > 0:
        return None
    return Finding(
        "no gap to close",
        "note",
        "This run does not show that the teacher is better than the control, so there is no gap to be seen closing.",
        f"Teacher over control: {told(scorecard, gap)}.",
        "Take a better teacher, a smaller student, or fewer labels with more unlabelled questions; or keep the "
        "control, which is as small and needs no teacher.",
    )


# At or below 0 on average: whatever the interval, there is no evidence of anything to pass on.
def weak_teacher(scorecard: Tree, details: Tree) -> Finding | None:
    """The teacher is no better than the control."""
    gap = n.gain(scorecard, "teacher", "control")
    if not gap or gap.mean > 0:
        return None
    metric = n.primary(scorecard)
    return Finding(
        "teacher no better than control",
        "problem",
        "The teacher is no better than a small network trained on the labels alone.",
        f"Teacher {mean_of(scorecard, 'teacher', metric)}, control {mean_of(scorecard, 'control', metric)}: "
        f"{told(scorecard, gap)}.",
        "Look at its training curve: where its validation loss rises again, stop it earlier (patience), else train it "
        "longer, make it larger or average several. And check that teacher and data mean the same by each class.",
    )


INERT = 0.05
"""A term whose gradient is under a twentieth of the other's moves the weights by less than the noise of one batch."""


def inert_soft_term(scorecard: Tree, details: Tree) -> Finding | None:
    """The soft term pulls so little beside the hard term that it may as well be absent."""
    norms = details.get("gradient_norms") or {}
    soft, hard = median_norm(norms, "soft"), median_norm(norms, "hard")
    if soft is None or not hard or soft >= INERT * hard:
        return None
    return Finding(
        "soft term inert",
        "problem",
        "The soft targets hardly move the student: the hard labels drown them.",
        f"Median gradient norm {n.significant(soft)} of the soft term, {n.significant(hard)} of the hard term: "
        f"{n.percent(soft / hard)}, and below {n.percent(INERT, 0)} a term does next to nothing.",
        "Lower the weight of hard_label, or raise that of soft_target.",
    )


def median_norm(norms: Tree, start: str) -> float | None:
    """The median norm of the gradients of the terms whose name starts so."""
    found = [
        value
        for term, values in norms.items()
        if str(term).startswith(start)
        for value in map(n.number, values)
        if value is not None
    ]
    return median(found) if found else None


COLD, HOT = 0.02, 0.995
"""Shares of the largest possible entropy, log C. Below 2 % (of ten classes the top one then holds about 0.994) a soft
target says no more than a label. Above 99.5 % the classes differ by less than rounding leaves in half precision; T = 20
on handwritten digits, which works, stays below."""


def unsuited_temperature(scorecard: Tree, details: Tree) -> Finding | None:
    """The soft targets are nearly one class each, or nearly the same for all classes."""
    mean = n.number((details.get("entropy") or {}).get("mean_nats"))
    classes = _class_count(scorecard, details)
    if mean is None or classes < 2 or (details.get("about") or {}).get("soft") is False:
        return None
    share = mean / math.log(classes)
    if COLD <= share <= HOT:
        return None
    at = n.number((details.get("about") or {}).get("temperature"))
    temperature = f" at T = {n.significant(at)}" if at else ""
    low = share < COLD
    return Finding(
        "temperature unsuited",
        "problem",
        "The temperature is too low: the soft targets say hardly more than labels."
        if low
        else "The temperature is too high: the soft targets say nearly the same of every class.",
        f"Mean entropy{temperature} is {n.significant(mean)} nats, {n.percent(share)} of the largest possible with "
        f"{classes} classes; healthy is {n.percent(COLD, 0)} to {n.percent(HOT)}.",
        "Raise the temperature (temperature: auto tries several on validation rows)."
        if low
        else "Lower the temperature (temperature: auto tries several on validation rows).",
    )


def _class_count(scorecard: Tree, details: Tree) -> int:
    names = class_names(scorecard, details)
    if names:
        return len(names)
    for example in details.get("examples") or []:
        for row in (example.get("probabilities") or {}).values():
            return len(row)
    return 0


BEHIND, FAR_BEHIND = 0.01, 0.03
STILL_FALLING = 0.02
"""Share of the whole fall of the training loss that the last fifth of the steps brought. Measured on small networks that
learned digits: 3 to 6 % where ten epochs left four points of accuracy to gain, under 1 % where forty had left none."""
LOW_AGREEMENT = 0.9


def undertrained(scorecard: Tree, details: Tree) -> Finding | None:
    """The student is behind the teacher, and its training loss was still falling when training stopped."""
    late = late_fall((details.get("curves") or {}).get("student") or [])
    behind = behind_teacher(scorecard, BEHIND)
    if late is None or late[0] <= STILL_FALLING or not behind:
        return None
    return Finding(
        "student undertrained",
        "problem",
        "The student was still learning when training stopped.",
        f"The last fifth of the steps brought {n.percent(late[0], 0)} of the whole fall of its training loss; the student "
        f"is behind the teacher by {distance(scorecard, behind)}.",
        "Train for more epochs, or raise the learning rate.",
    )


def too_small(scorecard: Tree, details: Tree) -> Finding | None:
    """The student has finished learning, is far behind the teacher, and does not even say what the teacher says."""
    late = late_fall((details.get("curves") or {}).get("student") or [])
    behind = behind_teacher(scorecard, FAR_BEHIND)
    if scorecard.get("omitted_classes") or not behind or (late is not None and late[0] > STILL_FALLING):
        return None
    agreement, where = n.number(details.get("train_agreement")), "training"
    if agreement is None:
        found, where = n.measured(scorecard, "student", "agreement"), "test"
        agreement = found.mean if found else None
    if agreement is None or agreement >= LOW_AGREEMENT:
        return None
    return Finding(
        "student too small",
        "problem",
        "The student is too small for what the teacher knows, or is trained too timidly.",
        f"It agrees with the teacher on {n.percent(agreement)} of the {where} rows, and is behind by "
        f"{distance(scorecard, behind)}, though its training has levelled off.",
        "Widen or deepen the student, or train it longer with more questions.",
    )


def behind_teacher(scorecard: Tree, least: float) -> Stat | None:
    """How far the student is behind the teacher, where that is beyond doubt and matters."""
    found = n.gain(scorecard, "teacher", "student")
    if not found or (found.low is not None and found.low <= 0):
        return None
    return found if n.primary(scorecard).unit != "share" or found.mean >= least else None


def late_fall(runs: list[list[Tree]], key: str = "loss") -> tuple[float, float] | None:
    """What the last fifth (at least two records) brought of the whole fall of the loss, on average over seeds.

    As a share of the whole fall, and in the loss's own unit.
    """
    shares, falls = [], []
    for run in runs:
        losses = [value for point in run if (value := n.number(point.get(key))) is not None]
        if len(losses) < 5:
            continue
        fifth = max(2, len(losses) // 5)
        half = max(1, fifth // 2)
        before, end = fmean(losses[-fifth - half : -fifth]), fmean(losses[-half:])
        whole = losses[0] - end
        shares.append((before - end) / whole if whole > 0 else 0.0)
        falls.append(before - end)
    return (fmean(shares), fmean(falls)) if shares else None


LOST, LEARNED = 0.25, 0.5
"""Skill is accuracy on a scale where guessing is 0 and perfect is 1. Shuffled answers leave next to none of it."""


def _skill(share: float, classes: int) -> float:
    return (share - 1 / classes) / (1 - 1 / classes)


def shuffled_answers(scorecard: Tree, details: Tree) -> Finding | None:
    """The stored answers do not belong to the rows they are read with."""
    classes = _class_count(scorecard, details)
    if classes < 2:
        return None
    teacher, control = (n.measured(scorecard, model, "accuracy") for model in ("teacher", "control"))
    agreement, stored = n.measured(scorecard, "student", "agreement"), n.number(details.get("teacher_train_accuracy"))
    if stored is not None and teacher and _skill(teacher.mean, classes) > LOST:
        evidence = (
            f"Stored answers match {n.percent(stored)} of the training labels; of the test rows it gets "
            f"{n.percent(teacher.mean)} right."
        )
        fires = _skill(stored, classes) < LOST * _skill(teacher.mean, classes)
    elif agreement and control:
        evidence = (
            f"The student agrees with the teacher on {n.percent(agreement.mean)} of the test rows, near chance, while "
            f"the control reaches {n.percent(control.mean)}."
        )
        fires = _skill(agreement.mean, classes) < LOST and _skill(control.mean, classes) > LEARNED
    else:
        return None
    if not fires:
        return None
    return Finding(
        "answers shuffled",
        "problem",
        "The teacher's answers seem to belong to other rows than those they are read with.",
        evidence,
        "Check the order of recorded answers and of the class columns; ask again into a new transfer set.",
    )


def leaks(scorecard: Tree, details: Tree) -> Finding | None:
    """Rows of validation or test stand in the training rows too. One is too many: it can be told by eye."""
    count = n.number((details.get("validation") or {}).get("leaks"))
    if not count or count <= 0:
        return None
    return Finding(
        "validation leaks",
        "problem",
        "Some rows that should be unseen are also training rows, so the figures here are too good.",
        f"{n.big(count)} {'row is' if count == 1 else 'rows are'} in two splits.",
        "Remove duplicates before splitting, or give the splits as separate files.",
    )


# The interval of the difference reaches 0: the twin that never saw a soft target may be as good.
def more_questions(scorecard: Tree, details: Tree) -> Finding | None:
    """The hard-teacher student does as well, so soft targets are not where a gain came from."""
    found = n.gain(scorecard, "student", "hard_teacher")
    if not found or found.low is None or found.low > 0:
        return None
    gained = n.gain(scorecard, "student", "control")
    proved = gained is not None and gained.low is not None and gained.low > 0
    surer = _nll_gain(scorecard)
    source = (
        "the gain over the control comes from having more questions answered, not from the soft part of the answers"
        if proved
        else "the soft part of the answers brought no more right ones here"
    )
    better = found.high is not None and found.high < 0
    often = "is right more often, and not by chance" if better else "is right as often"
    honest = " The soft part did make its confidence more honest: its log loss is lower beyond doubt." if surer else ""
    return Finding(
        "hard teacher does as well",
        "note",
        f"A student told only the teacher's top answers {often}: {source}.{honest}",
        f"Student over hard teacher: {told(scorecard, found)}.",
        ("Do not claim this gain for soft targets. " if proved else "")
        + "With few classes and a sure teacher the top answer says nearly everything; more classes, or a higher "
        "temperature, give soft targets more to say.",
    )


def _nll_gain(scorecard: Tree) -> bool:
    """The student's log loss is below the hard-teacher student's, the interval excluding 0."""
    ends = ((scorecard.get("differences") or {}).get("student-hard_teacher") or {}).get("nll", {}).get("ci95")
    return bool(ends) and n.number(ends[1]) is not None and ends[1] < 0


def gain_over_control(scorecard: Tree, details: Tree) -> Finding | None:
    """Whether the student beats its control: good beyond doubt, bad beyond doubt, or open."""
    found = n.gain(scorecard, "student", "control")
    if not found or found.low is None or found.high is None:
        return None
    evidence = f"Student over control: {told(scorecard, found)}."
    if found.low > 0:
        return Finding(
            "gain over the control", "good", "The teacher helped, and by more than chance would explain.", evidence
        )
    if found.high < 0:
        what = f"Learning from the teacher made the student worse than learning from {alone(scorecard)}."
        cure = "See the other findings; if there are none, try another temperature and less weight on the soft targets."
        return Finding("worse than the control", "problem", what, evidence, cure)
    what = "Whether the teacher helped cannot be told from this run."
    return Finding("gain not shown", "note", what, evidence, "More seeds and more test rows narrow the interval.")


def no_control(scorecard: Tree, details: Tree) -> Finding | None:
    """Without a control no gain can be claimed."""
    models: Any = scorecard.get("models", {})
    if "student" not in models or "control" in models:
        return None
    what = "There is no control, so nothing here shows that the teacher helped."
    return Finding(
        "no control", "note", what, "The scorecard has no model named control.", "Train one: stillroom train RUN."
    )


RULES: tuple[Rule, ...] = (
    no_gap, weak_teacher, inert_soft_term, unsuited_temperature, undertrained, too_small, shuffled_answers, leaks,
    more_questions, gain_over_control, no_control,
)  # fmt: skip
