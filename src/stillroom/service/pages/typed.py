"""What was typed into a form: a browser sends texts alone, and the interface behind the page tells numbers from texts."""

from __future__ import annotations

import math

from pydantic import ValidationError


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
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}." if place else f"{first['msg']}."
