"""Is there something wrong with this run of language models, and what would mend it? Rules as in diagnosis.py.

Each rule is a pure function of a scorecard and its details; its threshold stands above it with the reason. A rule that
lacks what it needs keeps silent. `details` come as language_sections.plain gives them. This file knows no HTML.
"""

from __future__ import annotations

from stillroom.report import numbers as n
from stillroom.report.diagnosis import gain_over_control, leaks, no_control
from stillroom.report.findings import Finding, Rule, distance, mean_of, told
from stillroom.report.numbers import Tree
from stillroom.report.training_diagnosis import INERT, STILL_FALLING, behind_teacher, late_fall, median_norm


# A gap whose interval reaches 0 may be no gap at all, so nothing can be said about how much of it was closed.
def no_gap(scorecard: Tree, details: Tree) -> Finding | None:
    """The control already predicts text about as well as the teacher."""
    gap = n.gain(scorecard, "teacher", "control")
    if not gap or gap.low is None or gap.mean <= 0 or gap.low > 0:
        return None
    return Finding(
        "no gap to close",
        "note",
        "The control already predicts this text about as well as the teacher, so there is little that a teacher could "
        "add.",
        f"Teacher over control: {told(scorecard, gap)}.",
        "Take a larger teacher, a smaller student, or less text; or keep the control, which needs no teacher.",
    )


# At or below 0 on average: whatever the interval, there is no evidence of anything to pass on.
def weak_teacher(scorecard: Tree, details: Tree) -> Finding | None:
    """The teacher predicts text no better than the control."""
    gap = n.gain(scorecard, "teacher", "control")
    if not gap or gap.mean > 0:
        return None
    metric = n.primary(scorecard)
    return Finding(
        "teacher no better than control",
        "problem",
        "The teacher predicts this text no better than the small network that learned from the text alone.",
        f"{metric.name}: teacher {mean_of(scorecard, 'teacher', metric)}, control "
        f"{mean_of(scorecard, 'control', metric)}; {told(scorecard, gap)}.",
        "Take a teacher that knows text of this kind, or train it on such text first.",
    )


def inert_soft_term(scorecard: Tree, details: Tree) -> Finding | None:
    """The soft term pulls so little beside the strongest other term that it may as well be absent."""
    norms = details.get("gradient_norms") or {}
    soft = median_norm(norms, "soft")
    others = {
        str(term): median_norm({term: norms[term]}, str(term)) for term in norms if not str(term).startswith("soft")
    }
    known = {term: value for term, value in others.items() if value is not None}
    if soft is None or not known:
        return None
    strongest = max(known, key=lambda term: known[term])
    if known[strongest] <= 0 or soft >= INERT * known[strongest]:
        return None
    return Finding(
        "soft term inert",
        "problem",
        f"The soft targets hardly move the student: {strongest.replace('_', ' ')} drowns them.",
        f"Median gradient norm {n.significant(soft)} of the soft term, {n.significant(known[strongest])} of "
        f"{strongest.replace('_', ' ')}: {n.percent(soft / known[strongest])}, and below {n.percent(INERT, 0)} a term "
        "does next to nothing.",
        f"Lower the weight of {strongest}, or raise that of soft_target.",
    )


POOR_FIDELITY = 0.3
"""Nats. Top-128 of a vocabulary, at 344 bytes, loses about as much (SmolLM2 on WikiText-2); a hidden tail of 32 bytes
loses 0.27. A student that is taught with more loss than this is taught something else than the teacher said."""


def poor_fidelity(scorecard: Tree, details: Tree) -> Finding | None:
    """What was kept of the soft targets is too far from what the teacher said."""
    stored = scorecard.get("transfer_set") or {}
    given = stored.get("fidelity") or details.get("fidelity") or {}
    told = [*(given.get("by_source") or {}).items(), *(given.get("by_slice") or {}).items()]
    sources = {f"on {source}": found for source, found in told}
    lost = {
        place: value
        for place, found in {"over all": given, **sources}.items()
        if isinstance(found, dict) and (value := n.stat(found.get("kl")))
    }
    if not lost:
        return None
    worst = max(lost, key=lambda place: lost[place].mean)
    if lost[worst].mean <= POOR_FIDELITY:
        return None
    kept = n.number(stored.get("bytes_per_token"))
    size = f" in {n.count(kept)} bytes for each token" if kept is not None else ""
    return Finding(
        "fidelity poor",
        "problem",
        "What was kept of the teacher's answers is too far from what it said.",
        f"KL(teacher, kept) is {n.decimal(lost[worst].mean, 2)} nats {worst}{size}; above {POOR_FIDELITY:g} a student "
        "learns something else than the teacher said.",
        "Spend more bytes: raise tail_bytes (or head) in transfer_set and ask again. Where only one source falls short, "
        "put text like it among the questions, so that the basis is fitted on it too.",
    )


# A sparse target that nobody compared with the whole one may be far from it.
def unknown_fidelity(scorecard: Tree, details: Tree) -> Finding | None:
    """Soft targets were kept in part, and what that lost was not measured."""
    stored = scorecard.get("transfer_set") or {}
    kept, dense = n.number(stored.get("bytes_per_token")), n.number(stored.get("dense_bytes_per_token"))
    fidelity = stored.get("fidelity") or details.get("fidelity") or {}
    # The KL of a sample, which leaves tokens out, is infinite; its total variation is measured.
    known = n.stat(fidelity.get("kl")) or n.stat(fidelity.get("total_variation"))
    if kept is None or dense is None or kept >= dense or known:
        return None
    return Finding(
        "fidelity not measured",
        "note",
        "Soft targets were kept in part, and nobody compared them with the teacher's whole answer.",
        f"{n.count(kept)} of {n.decimal(dense, 0)} bytes were kept for each token.",
        "Ask again with a teacher that can give every probability, so that a sample can be compared.",
    )


LEAST_FALL = 0.02
"""Nats: a fiftieth of perplexity. A student that starts from trained weights falls little in all, so a share alone would
call every such run unfinished."""


def undertrained(scorecard: Tree, details: Tree) -> Finding | None:
    """The student is behind the teacher, and its validation loss was still falling when training stopped."""
    runs = (details.get("curves") or {}).get("student") or []
    name, late = "validation loss", late_fall(runs, "validation_loss")
    if late is None:
        name, late = "training loss", late_fall(runs)
    behind = behind_teacher(scorecard, 0.0)
    if late is None or late[0] <= STILL_FALLING or late[1] <= LEAST_FALL or not behind:
        return None
    return Finding(
        "student undertrained",
        "problem",
        "The student was still learning when training stopped.",
        f"The last fifth of the steps lowered its {name} by {n.significant(late[1], 2)} nats, {n.percent(late[0], 0)} of "
        f"the whole fall; it is behind the teacher by {distance(scorecard, behind)}.",
        "Train for more epochs, on more text, or with a higher learning rate. The stored answers are paid for and can be "
        "read again.",
    )


# The interval of the difference reaches 0: the twin that never saw a soft target may be as good.
def top_answer_enough(scorecard: Tree, details: Tree) -> Finding | None:
    """The hard-teacher student does as well, so soft targets are not where a gain came from."""
    found = n.gain(scorecard, "student", "hard_teacher")
    if not found or found.low is None or found.low > 0:
        return None
    gained = n.gain(scorecard, "student", "control")
    proved = gained is not None and gained.low is not None and gained.low > 0
    source = (
        "the gain over the control comes from the teacher's likeliest tokens, not from the soft part of its answers"
        if proved
        else "the soft part of the answers brought nothing that can be shown"
    )
    return Finding(
        "hard teacher does as well",
        "note",
        f"A student told only the teacher's likeliest tokens does as well: {source}.",
        f"Student over hard teacher: {told(scorecard, found)}.",
        ("Do not claim this gain for soft targets. " if proved else "")
        + "See whether the soft term pulls at all, whether enough bytes are kept, and whether training went on long "
        "enough.",
    )


def no_other_words(scorecard: Tree, details: Tree) -> Finding | None:
    """A student of a teacher's words, beside no other words, has no control but itself before its first step."""
    models = scorecard.get("models", {})
    if "control" in models or "before" not in models:
        return no_control(scorecard, details)
    return Finding(
        "no control",
        "note",
        "The questions hold no other words than the teacher's, so there is no control: the student is compared with itself "
        "before its first step.",
        "Whether other words would have taught it as much, nothing here says.",
        "For a control, give questions with answers of their own, such as people's.",
    )


LANGUAGE_RULES: tuple[Rule, ...] = (
    no_gap, weak_teacher, inert_soft_term, poor_fidelity, unknown_fidelity, undertrained, leaks, top_answer_enough,
    gain_over_control, no_other_words,
)  # fmt: skip
