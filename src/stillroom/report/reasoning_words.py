"""What the models of a run are whose teacher reasons, in words; what each learned from; and the glossary.

This file knows no chart.
"""

from __future__ import annotations

from dataclasses import replace

from stillroom.report.numbers import Tree, big
from stillroom.report.words import GLOSSARY, Role, roles

LEARNED = {
    "trace": "traces",
    "answer": "the answers of the traces, without the reasoning",
    "gold": "gold answers, without reasoning",
    "filler": "filler of the traces' length, then the answer",
    "shuffled": "traces with their steps in another order",
    "rationale": "answer and reasoning as two tasks; it writes the answer alone",
}
MEANINGS = {
    "teacher": "It works problems out in words, and is paid by the word. From what it wrote, where the answer was right, the "
    "student learns.",
    "student": "Small. It learns to write what the teacher wrote: the way to the answer, and the answer.",
    "control": "The student's twin that hears the answers of the very same traces, and not how they were found. What the "
    "student has over it is what the reasoning gave.",
}
SHARED = ("Distillation", "95% interval", "Point")
REASONING_GLOSSARY: tuple[tuple[str, str], ...] = (
    *(pair for pair in GLOSSARY if pair[0] in SHARED),
    ("Teacher", "The large model that works problems out in words. It is asked; it does not change."),
    ("Student", "The small model that learns to write what the teacher wrote, and is what you keep."),
    (
        "Control",
        "The same small model taught the answers of the same traces alone, with the same steps and seeds. Without it nobody "
        "could tell what the reasoning gave.",
    ),
    ("Trace", "What the teacher wrote in answer to a problem: its reasoning, and the answer at the end."),
    (
        "Verifier",
        "A rule that compares an answer with the known one. It accepts, rejects, or says that it cannot tell; only accepted "
        "traces are learned from, unless the recipe says otherwise.",
    ),
    ("Exact match", "The share of the test problems whose final answer is right. How it was found does not count."),
    (
        "Filler",
        "Tokens without content, as many as a trace has. A model that does as well with filler needed time to compute, and "
        "not the reasoning.",
    ),
)


def reasoning_roles(models: Tree, details: Tree) -> dict[str, Role]:
    """The roles of such a run, said in its words; an arm says what it learned from."""
    forms = details.get("taught") or {}
    found = {}
    for key, role in roles(models).items():
        meaning = MEANINGS.get(key)
        if meaning is None and isinstance(forms.get(key), dict):
            meaning = f"An arm of the experiment, taught {learned(forms[key])}."
        found[key] = role if meaning is None else replace(role, meaning=meaning)
    return found


def learned(facts: Tree) -> str:
    """What a role learned from, in words."""
    words = LEARNED.get(str(facts.get("learn")), "traces")
    if facts.get("learn") == "gold":
        return words
    of = {"every": ", whatever the verifier said", "rejected": ", rejected ones alone"}.get(str(facts.get("of")), "")
    which = {"short": ", the shortest", "long": ", the longest", "mixed": ", one in five the longest"}
    cut = ", cut after the answer was found" if facts.get("shorten") else ""
    left_out = facts.get("left_out")
    left = (
        "".join(f"; left out: {big(count)} {why}" for why, count in left_out.items())
        if isinstance(left_out, dict)
        else ""
    )
    return f"{words}{of}{which.get(str(facts.get('length')), '')}{cut}{left}"
