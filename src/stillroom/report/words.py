"""What each model of a scorecard is, in words, with its colour and mark; and the glossary.

This file knows the names that a scorecard gives its models. It knows no number and no chart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stillroom.report.numbers import Tree

Shape = Literal["square", "circle", "triangle", "diamond", "plus", "down", "hexagon"]
MAIN = ("teacher", "student", "control", "hard_teacher")
VARIANTS = ("_uncorrected", "_oracle")
ARM_SHAPES: tuple[Shape, ...] = ("down", "hexagon", "plus")


@dataclass(frozen=True)
class Role:
    """A model as the page shows it: the same colour and mark everywhere."""

    key: str
    title: str
    meaning: str
    colour: str
    shape: Shape = "circle"
    hollow: bool = False
    tag: str = ""
    """A warning that goes wherever the name goes."""
    variant_of: str = ""
    """The model whose weights these are, but for the class biases; empty for a model of its own."""


_FIRST: dict[str, tuple[str, Shape, str]] = {
    "teacher": (
        "Teacher",
        "square",
        "What is asked. It answers the questions, and from its answers the student learns.",
    ),
    "student": (
        "Student",
        "circle",
        "Small. It learns from the teacher's soft targets: how likely the teacher finds each class, not only "
        "which is right.",
    ),
    "control": (
        "Control",
        "triangle",
        "The student's twin without a teacher: the same network, steps and seeds, on the labels alone. What the "
        "student has over it is what the teacher gave.",
    ),
    "hard_teacher": (
        "Hard teacher",
        "diamond",
        "The student's twin that hears only the teacher's top answer for the same questions. What the student has over "
        "it is what the soft part of the soft targets gave.",
    ),
}
_CORRECTED = (
    " Its class biases were then moved, without any label, until it gives each class the mean probability that the "
    "class should have on unlabelled rows."
)
_UNCORRECTED = "The {} as it came out of training, before its class biases were moved."
_ORACLE = (
    "The {} with class biases chosen with the test labels. A ceiling to compare with, never a result: in use there are "
    "no test labels to choose with."
)

GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Distillation",
        "Training a small model on the answers of a large one, so that the small one does nearly as well at a fraction "
        "of the cost.",
    ),
    ("Teacher", "The large model, or several models whose answers are averaged. It is asked; it does not change."),
    ("Student", "The small model that learns from the teacher's answers, and is what you keep."),
    (
        "Soft targets",
        "The teacher's answer as one probability for each class. A label says “this is a 4”. A soft target says “a 4, "
        "nearly a 9, and nothing like a 0”.",
    ),
    (
        "Temperature",
        "A number T that the teacher's scores are divided by before they become probabilities. At T = 1 they are what "
        "the teacher says; a higher T lifts the small ones, so that the student can see which wrong answers are less "
        "wrong.",
    ),
    (
        "Transfer set",
        "The questions together with the teacher's answers. Questions need no labels, so they can be many more than "
        "the labelled rows.",
    ),
    (
        "Control",
        "The same small model trained on the labels alone, with the same steps and seeds. Without it nobody could tell "
        "whether the teacher helped.",
    ),
    (
        "95% interval",
        "The range that holds the true value in 95 of 100 such experiments, drawn anew over seeds and test rows. Where "
        "the interval of a difference includes 0, the difference may be chance.",
    ),
    ("Point", "One hundredth: from 91% to 92% is one point."),
    (
        "Calibration",
        "Whether a model that says “90% sure” is right in nine of ten such cases. The calibration error (ECE) is the "
        "mean distance from that.",
    ),
)


def _base(key: str) -> tuple[str, str]:
    for variant in VARIANTS:
        if key.endswith(variant):
            return key.removesuffix(variant), variant
    return key, ""


def roles(models: Iterable[str]) -> dict[str, Role]:
    """Each model's role, in the order of the page: the four of every run, then arms, then variants, the oracle last."""
    names = list(models)
    arms = [name for name in names if _base(name)[0] not in MAIN]
    ranked = sorted(names, key=lambda name: _rank(name, names))
    return {name: _role(name, names, arms) for name in ranked}


def _rank(name: str, names: list[str]) -> tuple[int, int, int]:
    base, variant = _base(name)
    place = MAIN.index(base) if base in MAIN else len(MAIN)
    return (VARIANTS.index(variant) + 2 if variant else int(place == len(MAIN)), place, names.index(name))


def _role(name: str, names: list[str], arms: list[str]) -> Role:
    base, variant = _base(name)
    if base in _FIRST:
        title, shape, meaning = _FIRST[base]
        colour = base
    else:
        first = next(arm for arm in arms if _base(arm)[0] == base)
        place = arms.index(first)
        title, shape, colour = base.replace("_", " "), ARM_SHAPES[place % len(ARM_SHAPES)], f"arm{place % 3 + 1}"
        meaning = f"An arm of the experiment: a further student, made as arms.{base} of the recipe says."
    if variant == "_uncorrected":
        return Role(
            name,
            f"{title}, uncorrected",
            _UNCORRECTED.format(title.lower()),
            colour,
            shape,
            hollow=True,
            variant_of=base,
        )
    if variant == "_oracle":
        return Role(
            name, f"{title}, oracle", _ORACLE.format(title.lower()), colour, shape, True, "uses test labels", base
        )
    corrected = base in MAIN and f"{base}_uncorrected" in names
    return Role(name, title, meaning + (_CORRECTED if corrected else ""), colour, shape)


def class_names(scorecard: Tree, details: Tree) -> list[str]:
    """The classes as text, from whichever part names them; empty where none does."""
    for found in (details.get("classes"), (details.get("similarity") or {}).get("classes"), scorecard.get("classes")):
        if found:
            return [str(name) for name in found]
    for model in scorecard.get("models", {}).values():
        if model.get("recall_by_class"):
            return [str(name) for name in model["recall_by_class"]]
    return []


def alone(scorecard: Tree) -> str:
    """What the control learns from, which is what the student would have without a teacher."""
    alone_of = {"language": "the text alone", "reasoning": "the answers alone"}
    return alone_of.get(str(scorecard.get("task")), "the labels alone")


def join(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
