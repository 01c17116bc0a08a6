"""Asking a student by hand: which fields its form has, known without loading it, and what it says of what was typed or drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillroom.rundir import read_json
from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row

MOST_FIELDS, FIELD_BYTES, MOST_COLUMNS, MOST_SHOWN = 400, 1 << 18, 60, 6
GRID = 8
"""Squares a side of the field that is filled in with the keyboard."""
MOST_TOKENS = 128
BRIGHT = 255.0


def takes(row: Row, folder: Path) -> dict[str, Any]:
    """What a student is asked with: {"kind": "text" | "columns" | "drawing" | "none", ..}."""
    if row["kind"] != "classifier":
        return {"kind": "text", "words": "What it goes on from"}
    path = folder / "inputs.json"
    found = read_json(path) if path.is_file() else {}
    kind = found.get("kind") if isinstance(found, dict) else None
    if kind == "images":
        size = list(found.get("size") or [])
        grey = len(size) == 2 or size[2:] == [1]
        return {"kind": "drawing", "size": size} if grey and size[0] == size[1] else {"kind": "none"}
    if kind == "table":
        columns = [{"name": one["name"], "text": one["kind"] != "number"} for one in found["columns"]]
        if len(columns) == 1 and columns[0]["text"]:
            return {"kind": "text", "words": "A text", "column": columns[0]["name"]}
        return {"kind": "columns", "columns": columns} if len(columns) <= MOST_COLUMNS else {"kind": "none"}
    if kind == "numbers":
        names = found.get("columns") or [str(place + 1) for place in range(len(found.get("mean_D") or []))]
        columns = [{"name": name, "text": False} for name in names]
        return {"kind": "columns", "columns": columns} if len(columns) <= MOST_COLUMNS else {"kind": "none"}
    return {"kind": "text", "words": "A text"} if kind == "texts" else {"kind": "none"}


def call(model_id: str, wanted: Mapping[str, Any]) -> dict[str, str]:
    """What a program sends to ask a student: where to, and the JSON of it with dots for what it fills in."""
    if wanted["kind"] in ("drawing", "none"):
        return {"to": "/api/predict", "body": f'{{"model": {json.dumps(model_id)}, "rows": [[...], ...]}}'}
    columns = wanted.get("columns", ())
    row = {one["name"]: "..." if one["text"] else 0.0 for one in columns}
    said = json.dumps(row, ensure_ascii=False) if len(columns) > 1 else "..."
    asked = {"model": model_id, "messages": [{"role": "user", "content": said}]}
    return {"to": "/v1/chat/completions", "body": json.dumps(asked, ensure_ascii=False)}


def answer(state: Any, row: Row, given: Mapping[str, str]) -> dict[str, Any]:
    """What a student says of a filled-in form: {"text"} or {"label", "shares"}. Raises ApiError, StillroomError."""
    wanted = takes(row, state.settings.root / row["folder"])
    if row["kind"] != "classifier":
        from stillroom.service.students.speaking import Wish

        messages = [{"role": "user", "content": _text(given)}]
        return {"text": state.shelf.say(row, messages, Wish(most=MOST_TOKENS, temperature=0.0)).text}
    found = state.shelf.labels(row, _rows(wanted, given))
    shares = sorted(
        zip(found.classes, (math.exp(log_p) for log_p in found.log_probabilities_NC[0].tolist()), strict=True),
        key=lambda pair: -pair[1],
    )
    return {"label": shares[0][0], "shares": shares[:MOST_SHOWN], "left": max(0, len(shares) - MOST_SHOWN)}


def _rows(wanted: Mapping[str, Any], given: Mapping[str, str]) -> Any:
    """One row, as a student takes it."""
    if wanted["kind"] == "text":
        text = _text(given)
        return [{wanted["column"]: text}] if "column" in wanted else [text]
    if wanted["kind"] == "columns":
        return [
            {one["name"]: _value(one, given.get(f"column-{place}", "")) for place, one in enumerate(wanted["columns"])}
        ]
    if wanted["kind"] == "drawing":
        import numpy as np

        return np.asarray([drawn(wanted["size"], given)], dtype=np.uint8)
    raise ApiError(400, "This student cannot be asked by hand; use /api/predict.", param="model")


def _text(given: Mapping[str, str]) -> str:
    text = given.get("text", "").strip()
    if not text:
        raise ApiError(400, "Write something first.", param="text")
    return text


def _value(column: Mapping[str, Any], typed: str) -> Any:
    if column["text"]:
        return typed
    try:
        return float(typed)
    except ValueError:
        return typed


def drawn(size: list[int], given: Mapping[str, str]) -> Any:
    """Brightness 0..255 of each pixel: what a canvas sent, or the squares that were marked, spread over the picture."""
    side = size[0]
    pixels = given.get("pixels", "")
    if pixels:
        values = [int(value) for value in pixels.split(",") if value.isdecimal() and len(value) <= 3]
        if len(values) != side * side or max(values) > BRIGHT:
            raise ApiError(400, f"A drawing has {side} times {side} values from 0 to 255.", param="pixels")
    else:
        marked = {name for name in given if name.startswith("square-")}
        values = [
            int(BRIGHT) if f"square-{GRID * y // side}-{GRID * x // side}" in marked else 0
            for y in range(side)
            for x in range(side)
        ]
    if not any(values):
        raise ApiError(400, "Draw something first, or mark some squares.", param="pixels")
    rows = [values[side * y : side * (y + 1)] for y in range(side)]
    return rows if len(size) == 2 else [[[value] for value in row] for row in rows]
