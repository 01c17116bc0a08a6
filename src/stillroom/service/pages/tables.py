"""Tables that were uploaded: their columns, and distilling one as `stillroom distill DATA.csv --label COLUMN` does."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from stillroom.service.door.faults import ApiError
from stillroom.starters import for_table

PURPOSE = "user_data"
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
"""Of files that a recipe reads as tables: those of stillroom.tables, which loads NumPy, and a server starts without it."""
MODEL = "table-classifier"
"""The name that a student of a table bears."""
SHOWN_ROWS, HEAD_BYTES = 20, 1 << 16
MOST_COLUMNS = 200
"""So many are shown; where there are more, the name of one is typed."""
MOST_FOOTER_BYTES = 4 << 20
"""Of a Parquet file, whose columns are told at its end; a server reads no more than that of anyone's file."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a letter, as JSON can have it; no page could be sent with one."""


def is_table(file: Mapping[Any, Any]) -> bool:
    """It was uploaded as one, and is called so."""
    return file["purpose"] == PURPOSE and suffix_of(file["filename"]) in SUFFIXES


def suffix_of(filename: str) -> str:
    """Such as .csv; a client's name is a label, and nothing else is read from it."""
    return PurePath(filename).suffix.lower()


def misfit(path: Path, filename: str) -> str:
    """Why a file that is called one can be no table, by its first bytes; empty where that is not so plain. Raises OSError."""
    suffix = suffix_of(filename)
    if suffix not in (".csv", ".tsv", ".jsonl"):
        return ""
    try:
        start = _start(path)
    except UnicodeDecodeError:
        return f"{filename} is not UTF-8 text. Save it as such: a spreadsheet calls it “CSV UTF-8”."
    if "\0" in start:
        return f"{filename} is no text."
    line = next((line for line in start.splitlines() if line.strip()), "")
    try:
        is_talk = suffix == ".jsonl" and isinstance(json.loads(line).get("messages"), list)
    except (ValueError, AttributeError, RecursionError):
        is_talk = False
    return f"{filename} holds conversations." if is_talk else ""


def _start(path: Path) -> str:
    """The first lines of a text, as many as are read. Raises UnicodeDecodeError, OSError."""
    with open(path, "rb") as file:
        start = file.read(HEAD_BYTES)
        if file.read(1):
            start = start[: start.rfind(b"\n") + 1]  # the last line may be cut
    return start.decode("utf-8-sig")


def head(path: Path, filename: str) -> tuple[list[str], list[list[str]]]:
    """The names of a table's columns and the first rows of those that are shown, as texts; nothing of either where the file
    is no such table.
    """
    suffix = suffix_of(filename)
    try:
        if suffix in (".csv", ".tsv"):
            return _separated(path, "\t" if suffix == ".tsv" else ",")
        if suffix == ".jsonl":
            return _objects(path)
        if suffix == ".parquet":
            return _parquet_columns(path), []
    except (ValueError, OSError, RecursionError, csv.Error):
        return [], []  # the estimate says what is wrong with it
    return [], []


def _separated(path: Path, delimiter: str) -> tuple[list[str], list[list[str]]]:
    lines = io.StringIO(_start(path), newline="")
    names, *rows = islice(csv.reader(lines, delimiter=delimiter), SHOWN_ROWS + 1)
    return names, [row[:MOST_COLUMNS] for row in rows]


def _objects(path: Path) -> tuple[list[str], list[list[str]]]:
    with open(path, encoding="utf-8-sig") as file:
        lines = [file.readline(HEAD_BYTES) for _ in range(SHOWN_ROWS)]
    read = [json.loads(line) for line in lines if line.strip()]
    rows = [one for one in read if isinstance(one, dict)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = names[:MOST_COLUMNS]
    cells = [["" if row.get(name) is None else _whole(str(row[name])) for name in shown] for row in rows]
    return list(map(_whole, names)), cells


def _whole(text: str) -> str:
    return SURROGATE.sub("\ufffd", text)


def _parquet_columns(path: Path) -> list[str]:
    """Raises ValueError, OSError."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 8))
        size, mark = file.read(4), file.read(4)
    if mark != b"PAR1" or int.from_bytes(size, "little") > MOST_FOOTER_BYTES:
        return []
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def body(file: dict[str, Any], columns: list[str], typed: str) -> dict[str, Any]:
    """The model and recipe of a job that distils this table. Raises ApiError 400 where nobody says what is to be predicted."""
    label = typed if typed in columns else typed.strip()  # white space may be a part of a column's name
    if not label or (columns and label not in columns):
        told = f"There is no column {label[:100]!r} in {file['filename'][:100]}. " if label else ""
        raise ApiError(400, f"{told}Pick the column that the student is to predict.", param="column")
    return {"model": MODEL, "recipe": for_table(PurePath(file["filename"]).stem, file["id"], label)}
