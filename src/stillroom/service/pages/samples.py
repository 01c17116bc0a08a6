"""Distillations of data and teachers that come with the program, so that a first student needs nothing brought along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stillroom.service.door.faults import not_found


@dataclass(frozen=True)
class Sample:
    """A whole recipe, and what a newcomer should know of it."""

    name: str
    title: str
    words: str
    measure: str
    action: str
    model: str
    recipe: dict[str, Any]


def _recipe(name: str, questions: dict[str, Any], teacher: dict[str, Any], hidden: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "seeds": 1,
        "questions": {"kind": "dataset", "licence": "Apache-2.0", **questions},
        "teacher": {"kind": "ensemble", "licence": "Apache-2.0 (trained here)", **teacher},
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [hidden]}},
        "evaluation": {"price": {"usd_per_hour": 0.1}},
        **more,
    }


def _member(hidden: list[int], dropout: float, **knobs: Any) -> dict[str, Any]:
    return {"kind": "trained", "model": {"kind": "mlp", "hidden": hidden, "dropout": dropout}, **knobs}


TEXTS = Sample(
    "texts", "Read what a customer wants",
    "Short messages to a bank's help desk, and twelve things they may be about. Three networks are the teacher; the student "
    "has a twenty-fourth of their weights.",
    "4,000 messages made by this program. About a minute on two cores; nothing is paid to anyone.",
    "Distil the messages", "small-text-classifier",
    _recipe(
        "first-texts",
        {"source": "builtin:intents", "labelled": 200, "split": {"test": 600, "validation": 200}},
        {"size": 3, "member": _member([128], 0.3, epochs=150, learning_rate=5e-3)}, 16,
        objectives=[
            {"kind": "soft_target", "temperature": 1, "weight": 1.0}, {"kind": "hard_label", "weight": 0.1},
        ],
        training={"epochs": 30, "batch_size": 64, "learning_rate": 3e-3},
    ),
)  # fmt: skip
DIGITS = Sample(
    "digits", "Read a handwritten digit",
    "Small pictures of digits, a hundred of them with their label. Five large networks are the teacher; the student is one "
    "small network, and afterwards you can draw for it.",
    "1,797 pictures that ship with scikit-learn. About a minute on two cores; nothing is paid to anyone.",
    "Distil the digits", "image-classifier",
    _recipe(
        "first-digits",
        {"source": "builtin:digits", "labelled": 100, "licence": "CC BY 4.0"},
        {"size": 5, "member": _member([256, 256], 0.2, epochs=60, batch_size=32)}, 32,
        objectives=[{"kind": "soft_target", "temperature": 2}],
        training={"epochs": 24, "batch_size": 32, "learning_rate": 5e-3},
    ),
)  # fmt: skip
SAMPLES = (TEXTS, DIGITS)


def sample(name: str) -> Sample:
    """A sample by its name. Raises ApiError 404."""
    for one in SAMPLES:
        if one.name == name:
            return one
    raise not_found("sample", name, "source")
