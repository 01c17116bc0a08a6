"""Is there something wrong with this run, and what would mend it? One small rule for each way it goes wrong.

Each rule is a pure function of a scorecard and its details that gives one Finding or None. Its threshold stands above
it with the reason. A rule that lacks what it needs keeps silent. This file knows no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stillroom.report import numbers as n
from stillroom.report.findings import Finding, Rule, class_count, log_loss_told, mean_of, told
from stillroom.report.numbers import Tree
from stillroom.report.training_diagnosis import DIVERGED, diverged, falls_short, inert_soft_term, undertrained
from stillroom.report.words import alone

STILL_SAID = frozenset({DIVERGED, "answers shuffled", "validation leaks", "no control"})
"""Of a run whose training diverged, from which all else that is seen in its figures comes."""


def diagnose(scorecard: Tree, details: Tree, rules: Sequence[Rule] | None = None) -> list[Finding]:
    """Every finding of the rules (none given: RULES, those of every task), problems first."""
    clean = n.tidy(scorecard)
    found = [finding for rule in (RULES if rules is None else rules) if (finding := rule(clean, details))]
    if any(finding.rule == DIVERGED for finding in found):
        found = [finding for finding in found if finding.rule in STILL_SAID]
    order = {"problem": 0, "note": 1, "good": 2}
    return sorted(found, key=lambda finding: order[finding.level])


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


COLD, HOT = 0.02, 0.995
"""Shares of the largest possible entropy, log C. Below 2 % (of ten classes the top one then holds about 0.994) a soft
target says no more than a label. Above 99.5 % the classes differ by less than rounding leaves in half precision; T = 20
on handwritten digits, which works, stays below."""


def unsuited_temperature(scorecard: Tree, details: Tree) -> Finding | None:
    """The soft targets are nearly one class each, or nearly the same for all classes."""
    share, classes = _unsure(scorecard, details), class_count(scorecard, details)
    if share is None or COLD <= share <= HOT:
        return None
    at = n.number((details.get("about") or {}).get("temperature"))
    temperature = f" at T = {n.significant(at)}" if at else ""
    low, mean = share < COLD, share * math.log(classes)
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


def _unsure(scorecard: Tree, details: Tree) -> float | None:
    """The soft targets' mean entropy as a share of the largest possible; None where there are none."""
    mean, classes = n.number((details.get("entropy") or {}).get("mean_nats")), class_count(scorecard, details)
    if mean is None or classes < 2 or (details.get("about") or {}).get("soft") is False:
        return None
    return mean / math.log(classes)


LOST, LEARNED = 0.25, 0.5
"""Skill is accuracy on a scale where guessing is 0 and perfect is 1. Shuffled answers leave next to none of it."""


def _skill(share: float, classes: int) -> float:
    return (share - 1 / classes) / (1 - 1 / classes)


def shuffled_answers(scorecard: Tree, details: Tree) -> Finding | None:
    """The stored answers do not belong to the rows they are read with."""
    classes = class_count(scorecard, details)
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


SURE = 0.25
"""Share of the largest possible entropy: of ten classes, as if each soft target hesitated between 1.8."""


# The interval of the difference reaches 0: the twin that never saw a soft target may be as good.
def more_questions(scorecard: Tree, details: Tree) -> Finding | None:
    """The hard-teacher student does as well, so soft targets are not where a gain came from."""
    found = n.gain(scorecard, "student", "hard_teacher")
    if not found or found.low is None or found.low > 0:
        return None
    gained = n.gain(scorecard, "student", "control")
    proved = gained is not None and gained.low is not None and gained.low > 0
    source = (
        "the gain over the control comes from having more questions answered, not from the soft part of the answers"
        if proved
        else "the soft part of the answers brought no more right ones here"
    )
    better = found.high is not None and found.high < 0
    often = "is right more often, and not by chance" if better else "is right as often"
    surer, loss = log_loss_told(scorecard, "hard_teacher")
    honest = " The soft part did make its confidence more honest." if surer > 0 else ""
    cure = ["Do not claim this gain for soft targets."] if proved else []
    return Finding(
        "hard teacher does as well",
        "note",
        f"A student told only the teacher's top answers {often}: {source}.{honest}",
        f"Student over hard teacher: {told(scorecard, found)}.{loss}",
        " ".join([*cure, *_more_to_say(scorecard, details)]),
    )


def _more_to_say(scorecard: Tree, details: Tree) -> list[str]:
    """What could give soft targets more to say, by how unsure they are; an unsuited temperature has its own finding."""
    share, classes = _unsure(scorecard, details), class_count(scorecard, details)
    if share is None:
        return ["More seeds and more test rows narrow the interval."]
    if not COLD <= share <= HOT:
        return ["See to the temperature first."]
    measured = f"a mean entropy of {n.percent(share)} of the largest possible"
    if share < SURE:
        return [
            f"The teacher is sure of itself ({measured}), so its top answer says nearly everything; a higher temperature, "
            "or questions it finds harder, give soft targets more to say."
        ]
    return [
        f"The soft targets hesitate between {n.decimal(classes**share, 1)} of {classes} classes ({measured}), so they do "
        "say more than a top answer; it made no more answers right on these test rows."
    ]


def gain_over_control(scorecard: Tree, details: Tree) -> Finding | None:
    """Whether the student beats its control: good beyond doubt, bad beyond doubt, or open."""
    found = n.gain(scorecard, "student", "control")
    if not found or found.low is None or found.high is None:
        return None
    surer, loss = log_loss_told(scorecard, "control")
    evidence = f"Student over control: {told(scorecard, found)}.{loss}"
    if found.low > 0:
        return Finding(
            "gain over the control", "good", "The teacher helped, and by more than chance would explain.", evidence
        )
    if found.high < 0:
        what = f"Learning from the teacher made the student worse than learning from {alone(scorecard)}."
        cure = "See the other findings; if there are none, try another temperature and less weight on the soft targets."
        return Finding("worse than the control", "problem", what, evidence, cure)
    what = "Whether the teacher helped cannot be told from this run."
    if surer:
        what = "Whether the teacher brought more right answers cannot be told from this run, but " + (
            "it did make the student's confidence more honest."
            if surer > 0
            else "it made the student's confidence less honest."
        )
    return Finding("gain not shown", "note", what, evidence, "More seeds and more test rows narrow the interval.")


def no_control(scorecard: Tree, details: Tree) -> Finding | None:
    """Without a control no gain can be claimed."""
    models: Any = scorecard.get("models", {})
    if "student" not in models or "control" in models:
        return None
    what = "There is no control, so nothing here shows that the teacher helped."
    cure = "Train one: stillroom train RUN."
    if n.number(_rows(scorecard).get("labelled")) == 0:
        cure = "No row to learn from has a label, so there is nothing to train one on: label some."
    return Finding("no control", "note", what, "The scorecard has no model named control.", cure)


def judged_by_its_teacher(scorecard: Tree, details: Tree) -> Finding | None:
    """Where labels are what the teacher said, right means as the teacher."""
    labelled, tested = (n.number(_rows(scorecard).get(name)) for name in ("labelled", "test"))
    right = n.measured(scorecard, "teacher", "accuracy")
    if labelled != 0 or not tested or right is None or right.mean < 1:
        return None
    what = "What counts as right here may be no more than what the teacher said: it is right in every test row."
    evidence = (
        f"No row to learn from has a label, and the teacher agrees with the labels of all {n.count(tested)} test rows."
    )
    cure = "Test on rows that people labelled to learn how often teacher and student are right."
    return Finding("judged by its teacher", "note", what, evidence, cure)


def _rows(scorecard: Tree) -> Tree:
    found = scorecard.get("rows")
    return found if isinstance(found, dict) else {}


RULES: tuple[Rule, ...] = (
    diverged, no_gap, weak_teacher, inert_soft_term, unsuited_temperature, undertrained, falls_short, shuffled_answers,
    leaks, more_questions, gain_over_control, no_control, judged_by_its_teacher,
)  # fmt: skip
