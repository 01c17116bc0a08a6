"""An answer as JSON, where a request gives the schema of one.

The answer goes where it fits best: into the first choice among names that holds it, else into a text. A model that is
held to a schema cannot say what the schema does not allow, so neither does this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from stillroom.loopback.minds import Piece, Said, in_pieces

THOUGHT = re.compile(r"<think>\s*(.*?)\s*</think>\s*", re.DOTALL)
THOUGHT_NAMES = ("thought", "thinking", "reason", "reasoning", "rationale", "explanation", "steps", "why")
LAST_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?!.*\d)", re.DOTALL)
FREE: dict[str, Any] = {"answer": {"type": "string"}}
"""Where a request only says that it wants an object."""


def shaped(said: Said, schema: Mapping[str, Any]) -> Said:
    """The answer in the form of an object's schema; as it is where the schema is empty."""
    if not schema:
        return said
    properties: Mapping[str, Any] = schema.get("properties") or FREE
    text = "".join(piece.text for piece in said.pieces)
    thought = THOUGHT.search(text)
    rest = THOUGHT.sub("", text).strip()
    pieces = [Piece("{")]
    place = _place_of_answer(properties)
    for position, (name, one) in enumerate(properties.items()):
        pieces += in_pieces(("" if position == 0 else ", ") + json.dumps(name, ensure_ascii=False) + ": ")
        if name == place:
            pieces += _answer(said, rest, one)
        elif name.lower() in THOUGHT_NAMES and one.get("type") == "string":
            pieces += in_pieces(json.dumps(thought[1] if thought else "It follows from the text.", ensure_ascii=False))
        else:
            pieces += in_pieces(json.dumps(_filler(one), ensure_ascii=False))
    return Said([*pieces, Piece("}")], said.finished)


def _place_of_answer(properties: Mapping[str, Any]) -> str:
    """The property that takes the answer: one with a choice of values, else the first that is no thought."""
    names = list(properties)
    with_choice = [name for name in names if "enum" in properties[name]]
    plain = [name for name in names if name.lower() not in THOUGHT_NAMES]
    return str((with_choice or plain or names)[0])


def _answer(said: Said, text: str, schema: Mapping[str, Any]) -> list[Piece]:
    choice = schema.get("enum")
    kind = schema.get("type")
    if choice:
        return _chosen(said, text, [str(value) for value in choice], choice)
    if kind in ("number", "integer"):
        number = LAST_NUMBER.search(text)
        value = float(number[0]) if number else 0.0
        return in_pieces(json.dumps(int(value) if kind == "integer" or value.is_integer() else value))
    if kind == "array":
        lines = [line for line in text.splitlines() if line.strip()]
        return in_pieces(json.dumps(lines, ensure_ascii=False))
    if kind == "boolean":
        return in_pieces(json.dumps(text.lower().startswith(("true", "yes", "1"))))
    if len(said.pieces) == 1:
        piece = said.pieces[0]
        return [Piece('"'), Piece(json.dumps(piece.text, ensure_ascii=False)[1:-1], piece.distribution), Piece('"')]
    return in_pieces(json.dumps(text, ensure_ascii=False))


def _chosen(said: Said, text: str, names: list[str], values: list[Any]) -> list[Piece]:
    """One of the schema's choices: what was said, else the likeliest of them, else the first."""
    known = next((piece.distribution for piece in said.pieces if piece.distribution), None) or {}
    allowed = {name: known[name] for name in names if name in known}
    total = sum(allowed.values())
    allowed = {name: p / total for name, p in allowed.items()} if total > 0 else {}
    spoken = next((piece.text for piece in said.pieces if piece.text in names), text)
    if spoken not in names:
        spoken = max(allowed, key=lambda name: allowed[name]) if allowed else names[0]
    value = values[names.index(spoken)]
    if not isinstance(value, str):
        return [Piece(json.dumps(value), {json.dumps(values[names.index(k)]): p for k, p in allowed.items()} or None)]
    inside = Piece(json.dumps(value, ensure_ascii=False)[1:-1], allowed or None)
    return [Piece('"'), inside, Piece('"')]


def _filler(schema: Mapping[str, Any]) -> Any:
    """A value that a schema allows and that says nothing."""
    if schema.get("enum"):
        return schema["enum"][0]
    empty = {"number": 0.5, "integer": 1, "boolean": True, "array": [], "object": {}}
    kind = schema.get("type")
    return empty.get(kind, "") if isinstance(kind, str) else ""
