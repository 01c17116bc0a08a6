"""What was typed into a form: a browser sends texts alone, and the interface behind the page tells numbers from texts."""

from __future__ import annotations

import math

from pydantic import ValidationError

from stillroom.service.door.fault_answers import invalid

FIELDS = {
    "distillation.teacher": "teacher", "validation_file": "validation", "distillation.student": "student", "model": "student",
    "suffix": "name", "distillation.budget.usd": "budget_usd", "distillation.budget.minutes": "budget_minutes",
    "distillation.labels": "labels", "distillation.soft_targets": "soft_targets", "distillation.seeds": "seeds",
    "distillation.cascade": "risk", "column": "column",
}  # fmt: skip
"""Fields of the interface, and where on the page New distillation they are typed."""
LABELS = {
    "teacher": "Who answers", "validation": "What is right", "student": "What learns", "name": "A name",
    "budget_usd": "At most, in dollars", "budget_minutes": "At most, in minutes", "labels": "What the teacher may answer",
    "soft_targets": "Learn too how sure the teacher is", "seeds": "Students to train and compare",
    "risk": "Share of wrong answers allowed", "column": "Column to predict",
}  # fmt: skip
"""What is written beside them there."""


def field_of(param: str) -> str:
    """Where a field of the interface is typed; empty where it is not."""
    return next((name for path, name in FIELDS.items() if param == path or param.startswith(f"{path}.")), "")


def number(text: str) -> int | float | str:
    """The number that a text says; where it says none, the text, for the interface to refuse."""
    for kind in (int, float):
        try:
            found = kind(text)
        except ValueError:
            continue
        return found if math.isfinite(found) else text
    return text


def said(error: ValidationError) -> str:
    """A pydantic error in one sentence."""
    return f"{invalid(error.errors()[0]).message}."


def place_of(error: ValidationError) -> str:
    """The field of the interface that a pydantic error is about."""
    return ".".join(str(part) for part in error.errors()[0]["loc"])
