"""What was typed into a form: a browser sends texts alone, and the interface behind the page tells numbers from texts."""

from __future__ import annotations

import math

from pydantic import ValidationError

from stillroom.service.door.fault_answers import invalid


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
