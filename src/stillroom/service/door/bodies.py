"""Reading JSON that anyone may have sent: bounded in depth and parts, no NaN, doubled names or numbers that no float holds."""

from __future__ import annotations

import json
import math
import re
from typing import Any

DEEPEST = 64
MOST_PARTS = 1_000_000
"""Objects, lists and names in one text: each takes some twenty times the memory of its letters. Ten thousand rows of a table
in the longest body have fewer."""
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A text in JSON, up to its end or that of everything: read once, however it is written."""
MOST_DIGITS = 400
ODD = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""How NUL and surrogates are written in JSON. Without these, and without brackets enough to be deep, all is well."""


class BadJson(ValueError):
    """What is wrong with it, in words."""


def read(data: bytes, deepest: int = DEEPEST, most_parts: int | None = None) -> Any:
    """The value of UTF-8 JSON; `most_parts`: where others than MOST_PARTS are taken. Raises BadJson."""
    most_parts = MOST_PARTS if most_parts is None else most_parts
    if _parts(data) > most_parts and _parts(TEXT.sub(b"", data)) > most_parts:
        raise BadJson(f"this has more than {most_parts:,} objects, lists and names")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"this is not UTF-8 (byte {error.start + 1})") from error
    if text.startswith("\ufeff"):
        raise BadJson("this starts with a byte order mark; save it as UTF-8 without one")
    try:
        found = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson(f"this is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise BadJson(f"this is nested more than {deepest} deep") from error
    if data.count(b"[") + data.count(b"{") > deepest or ODD.search(data):
        _look_at(found, deepest)
    return found


def _parts(data: bytes) -> int:
    """No fewer than there are; just as many where no text is left in it."""
    return data.count(b"{") + data.count(b"[") + data.count(b":")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BadJson(f"the name {name[:100]!r} stands twice in one object")
            seen.add(name)
    return found


def _no_constant(word: str) -> Any:
    raise BadJson(f"{word} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise BadJson(f"a number of {len(digits):,} digits")
    return int(digits)


def _float(digits: str) -> float:
    found = float(digits)
    if not math.isfinite(found):
        raise BadJson(f"the number {digits[:40]} is too large")
    return found


def _look_at(value: Any, deepest: int) -> None:
    """Raise BadJson for what is nested too deep, and for text that no file or database would keep as it is."""
    left = [(value, 0)]
    while left:
        one, depth = left.pop()
        if isinstance(one, str):
            if "\x00" in one:
                raise BadJson("a text holds the NUL character")
            if not one.isascii() and any("\ud800" <= letter <= "\udfff" for letter in one):
                raise BadJson("a text holds half of a surrogate pair")
        elif isinstance(one, dict | list):
            if depth == deepest:
                raise BadJson(f"this is nested more than {deepest} deep")
            inside = [*one, *one.values()] if isinstance(one, dict) else one
            left += [(part, depth + 1) for part in inside]


_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_integer, parse_float=_float
)
