"""Did training do its work? Rules as in diagnosis.py, on learning rates, terms, and how far a student came."""

from __future__ import annotations

import math
from statistics import fmean, median

from stillroom.report import numbers as n
from stillroom.report.findings import Finding, class_count, distance
from stillroom.report.numbers import Stat, Tree
from stillroom.report.words import Role, join, roles

DIVERGED, DIVERGED_BESIDE = "training diverged", "training of an arm diverged"
LEADING = ("teacher", "student", "control")
"""The models that all other findings rest on; where another one diverged, those stand."""
HOPELESS = 20.0
"""Nats of log loss above that of knowing nothing, log C. Overconfident networks that did learn stay below: a mean of 20
nats is a chance of one in half a billion given to the truth, row by row."""
NOTHING, PEAK = 0.9, 2.0
"""A model whose log loss is over 0.9 log C knows next to nothing; if its training loss also rose to twice its first record,
it was the steps that were too large. Weights kept from before such a rise may be good, so the rise alone says nothing."""


def diverged(scorecard: Tree, details: Tree) -> Finding | None:
    """Training blew up: the log loss is absurd, or there is no knowledge in a model whose training loss rose.

    Only of models that this run trained: an answer of probability 0 in a teacher's own figures is no training's fault.
    """
    curves, classes = details.get("curves") or {}, class_count(scorecard, details)
    if classes < 2 or scorecard.get(
        "omitted_classes"
    ):  # who never saw a class may be absurdly sure that it is not there
        return None
    nothing, found = math.log(classes), dict[str, tuple[Role, str]]()
    for name, role in roles(scorecard.get("models", {})).items():
        loss, peak = n.measured(scorecard, name, "nll"), _peak(curves.get(name) or [])
        if not loss or role.variant_of or not curves.get(name):
            continue
        hopeless = loss.mean > nothing + HOPELESS
        if hopeless or (loss.mean > NOTHING * nothing and peak > PEAK):
            size = n.significant(loss.mean) if loss.mean < 1000 else n.big(loss.mean)
            after = (
                f", after its training loss rose to {n.significant(peak, 2)} times its first record"
                if not hopeless
                else ""
            )
            found[name] = (role, f"{role.title.lower()} {size} nats{after}")
    if not found:
        return None
    lost = any(name in LEADING for name in found)
    so = ", so the figures say nothing of teacher or temperature" if lost else ""
    return Finding(
        DIVERGED if lost else DIVERGED_BESIDE,
        "problem",
        f"Training diverged{so}: {join([role.title for role, _ in found.values()])}.",
        f"Log loss, where knowing nothing gives {n.significant(nothing)}: {'; '.join(words for _, words in found.values())}.",
        "Lower the learning rate (training.learning_rate, or that of the teacher), or set training.clip: 1.0.",
    )


def _peak(runs: list[list[Tree]]) -> float:
    """The highest training loss as a multiple of the first record, in the worst run; 0 where there is no curve."""
    losses = [[value for point in run if (value := n.number(point.get("loss"))) is not None] for run in runs]
    return max((max(run) / run[0] for run in losses if run and run[0] > 0), default=0.0)


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


# At the end of a schedule the learning rate is 0, and any curve is level: that a loss has levelled off proves nothing.
def falls_short(scorecard: Tree, details: Tree) -> Finding | None:
    """The student is far behind the teacher and does not even say what the teacher says: too small, or trained too little."""
    runs = (details.get("curves") or {}).get("student") or []
    late, behind = late_fall(runs), behind_teacher(scorecard, FAR_BEHIND)
    if scorecard.get("omitted_classes") or not behind or (late is not None and late[0] > STILL_FALLING):
        return None
    agreement, where = n.number(details.get("train_agreement")), "training"
    if agreement is None:
        found, where = n.measured(scorecard, "student", "agreement"), "test"
        agreement = found.mean if found else None
    if agreement is None or agreement >= LOW_AGREEMENT:
        return None
    last = [run[-1] for run in runs if run]
    steps = max((value for one in last if (value := n.number(one.get("step"))) is not None), default=None)
    after = f" after {n.big(steps)} steps" if steps else ""
    level = ": its training loss is level, but at the end of a schedule any is, learned out or not" if late else ""
    return Finding(
        "student falls short",
        "problem",
        "The student does not come near its teacher: it is too small for what the teacher knows, or was trained too little.",
        f"It agrees with the teacher on {n.percent(agreement)} of the {where} rows{after}, and is behind by "
        f"{distance(scorecard, behind)}. One run cannot tell which{level}.",
        "First train three times as many epochs. Where that brings it no nearer, widen or deepen the student.",
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
