"""A first look at an uploaded .jsonl file, line by line: is it what it says, and which of its rows can be learned from.

A file that is damaged or of another kind is refused whole, with the line. A row that is whole JSON but no conversation is
rejected alone, with the reason; where more than one row in ten is, the file is refused after all. Memory is bounded by
one line and the reasons for a tenth of the rows that a file may have.

A row is {"messages": [{"role", "content"}, ..]}. Its last message is the answer to learn (role assistant); in a file where
no row has one, the rows are questions that a teacher will be asked.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from stillroom.errors import DataError
from stillroom.service.data.conversations import Wrong, check
from stillroom.service.door import bodies
from stillroom.service.settings import Limits

LINED = ("fine-tune", "evals", "batch")
"""Purposes of .jsonl files; what is uploaded for another is kept as it is."""
MOST_REJECTED = 0.1
"""Share of a file's rows."""
BREATH_BYTES, BREATH_S = 1 << 18, 0.0005
"""After so many bytes, other requests of this process get their turn."""
SHAPE = 'Each line should be one object: {"messages": [{"role": "user", "content": ".."}, {"role": "assistant", ..}]}'
AS_TABLE = "for a table, upload it with purpose user_data and name its columns in a recipe"
MAGIC = {
    b"\x1f\x8b": "a gzip archive", b"PK\x03\x04": "a zip archive (or a spreadsheet)", b"PAR1": "a Parquet file",
    b"%PDF": "a PDF", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"GIF8": "a picture",
    b"\x28\xb5\x2f\xfd": "a zstd archive", b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz archive",
    b"SQLite format 3": "an SQLite database", b"\x7fELF": "a program", b"ARROW1": "an Arrow file",
}  # fmt: skip
WIDE = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
BOM = b"\xef\xbb\xbf"
SEPARATORS, BRACKETS = frozenset(",\t;"), frozenset("{}[]")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is left out."""

    line: int
    why: str


@dataclass(frozen=True)
class Looked:
    """What was found: rows that can be used, those among them with an answer, and the others."""

    rows: int
    answered: int
    rejected: list[Rejected]


def look_at(path: Path, purpose: str, limits: Limits) -> Looked | None:
    """Look through a file; None for one whose purpose asks nothing of it. Raises DataError with the line."""
    if path.stat().st_size == 0:
        _refuse("the file is empty", 1, SHAPE if purpose in LINED else "Send what it should hold")
    if purpose not in LINED:
        return None
    rows, answered, unanswered = 0, 0, array("L")
    rejected: list[Rejected] = []
    with open(path, "rb") as file:
        _look_at_start(file)
        for line, data in _lines(file, limits):
            row = _object(data, line, limits.json_depth)
            if rows + len(rejected) + 1 > limits.file_rows:
                _refuse(f"the file has more than {limits.file_rows:,} rows", line, "Split it")
            if purpose != "fine-tune":
                rows += 1
                continue
            try:
                is_answered = check(row)
            except Wrong as wrong:
                rejected.append(Rejected(line, str(wrong)))
                if len(rejected) > MOST_REJECTED * limits.file_rows:  # refused, whatever else is in it
                    _refuse_rows(rejected[0], len(rejected), f"the first {rows + len(rejected):,} rows")
                continue
            rows += 1
            answered += is_answered
            if not is_answered:
                unanswered.append(line)
    if not answered:  # a file of questions; in one of answers, a row without one is a mistake
        unanswered = array("L")
    _enough(rows + len(rejected), rejected, unanswered)
    rejected += [Rejected(line, NO_ANSWER) for line in unanswered]
    rejected.sort(key=lambda one: one.line)
    return Looked(rows - len(unanswered), answered, rejected)


NO_ANSWER = "messages: the last one should be the assistant's answer, as in the file's other rows"


def _enough(rows: int, rejected: list[Rejected], unanswered: Sequence[int]) -> None:
    """Raise DataError for a file of blank lines, or of which too much is rejected; `unanswered`: lines that will be, too."""
    if not rows:
        _refuse("the file has no rows, only blank lines", 1, SHAPE)
    count = len(rejected) + len(unanswered)
    if count > MOST_REJECTED * rows:
        firsts = [*rejected[:1], *(Rejected(line, NO_ANSWER) for line in unanswered[:1])]
        _refuse_rows(min(firsts, key=lambda one: one.line), count, f"{rows:,} rows")


def _refuse_rows(first: Rejected, count: int, of: str) -> NoReturn:
    many = f", and {count - 1:,} more of {of} are wrong" if count > 1 else ""
    _refuse(f"{first.why}{many}", first.line, "Mend these rows, or take them out; single ones would be left out")


def conversations(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that was looked at, those that were rejected left out; text in parts is one text.

    Each has `line`, its place in the file, from 1.
    """
    left_out = {one.line for one in rejected_rows(path)}
    with open(path, "rb") as file:
        for line, data in enumerate(file, start=1):
            if line in left_out or not data.strip():
                continue
            row = bodies.read(data)
            messages = [{**message, "content": as_text(message.get("content"))} for message in row["messages"]]
            yield {**row, "messages": messages, "line": line}


def lines_with_words(path: Path) -> Iterator[int]:
    """The numbers of a file's lines that are not blank, whatever is in them; they may be of any length."""
    with open(path, "rb") as file:
        line, blank = 1, True
        while piece := file.readline(BREATH_BYTES):
            blank = blank and not piece.strip()
            if piece.endswith(b"\n"):
                if not blank:
                    yield line
                line, blank = line + 1, True
        if not blank:
            yield line


def as_text(content: Any) -> str | None:
    """A message's content as one text; None where it has none."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return None if content is None else str(content)


def rejected_path(path: Path) -> Path:
    """Where the rejected rows of a file are listed: beside it."""
    return path.with_name(path.name + ".rejected")


def rejected_rows(path: Path) -> Iterator[Rejected]:
    """The rows of a file that were rejected, in its order."""
    beside = rejected_path(path)
    if beside.is_file():
        with open(beside, encoding="utf-8") as file:
            for text in file:
                yield Rejected(**json.loads(text))


def rejected_text(rejected: list[Rejected]) -> bytes:
    """What `rejected_rows` reads."""
    return b"".join(json.dumps({"line": one.line, "why": one.why}).encode() + b"\n" for one in rejected)


def _refuse(what: str, line: int, cure: str) -> NoReturn:
    raise DataError(what, where=f"line {line}", cure=cure)


def _look_at_start(file: BinaryIO) -> None:
    """Raise DataError for a file that is of another kind, by its first bytes and its first line; then go back."""
    start = file.read(1 << 16)
    file.seek(0)
    for magic, name in MAGIC.items():
        if start.startswith(magic):
            _refuse(f"this is {name}, and not lines of JSON", 1, "Unpack or convert it to .jsonl first")
    for mark, name in WIDE.items():
        if start.startswith(mark):
            _refuse(f"this is {name}", 1, "Save it as UTF-8")
    if start.startswith(BOM):
        _refuse("the file starts with a byte order mark", 1, "Save it as UTF-8 without one")
    if start[:1] and start[1:4:2] == b"\x00\x00":
        _refuse("this is UTF-16", 1, "Save it as UTF-8")
    words = start.lstrip()
    if words.startswith(b"["):
        _refuse(
            "this is one JSON array", 1, "Write each of its rows on a line of its own: jq -c '.[]' FILE > FILE.jsonl"
        )
    if words.startswith(b"<"):
        _refuse("this is HTML or XML", 1, SHAPE)
    first = words.split(b"\n", 1)[0]
    if b"\r{" in first:
        _refuse("the lines end with a carriage return alone", 1, "Save it with line feeds (Unix line ends)")
    if first.strip() == b"{":
        _refuse("an object is spread over several lines", 1, "Write each object on one line: jq -c . FILE > FILE.jsonl")
    if not words.startswith(b"{") and _could_be_names(first.decode("utf-8", "replace")):
        _refuse("this looks like a table (CSV or TSV)", 1, f"{SHAPE}; {AS_TABLE}")


def _could_be_names(line: str) -> bool:
    """A line that could be the head of a table: a name, a separator after it, and no bracket of JSON."""
    letters = set(line)
    return bool(letters & SEPARATORS) and line[0] not in SEPARATORS and not letters & BRACKETS


def _lines(file: BinaryIO, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, from 1. Raises DataError for one that is too long."""
    line, since = 0, 0
    while data := file.readline(limits.line_bytes + 2):
        line, since = line + 1, since + len(data)
        if len(data.rstrip(b"\r\n")) > limits.line_bytes:
            _refuse(f"this line is longer than {limits.line_bytes:,} bytes", line, "Shorten it, or split it into rows")
        if since > BREATH_BYTES:
            since = 0
            time.sleep(BREATH_S)
        if data.strip():
            yield line, data


def _object(data: bytes, line: int, deepest: int) -> dict[str, Any]:
    """The object on a line. Raises DataError for what is none."""
    if b"\x00" in data:
        _refuse("a NUL byte stands in this line", line, "The file may be damaged, or not text; write it anew")
    try:
        found = bodies.read(data.rstrip(b"\r\n"), deepest)
    except bodies.BadJson as error:
        told, place, cure = str(error), error.__cause__, "Mend or remove this line"
        if isinstance(place, json.JSONDecodeError):
            told = f"this is not JSON, from column {place.colno} on: {place.msg[:1].lower()}{place.msg[1:]}"
        if isinstance(place, UnicodeDecodeError):
            told, cure = f"this is not UTF-8, from byte {place.start + 1} on", "Save the file as UTF-8"
        _refuse(told, line, cure)
    if not isinstance(found, dict):
        name = {list: "an array", str: "a text", bool: "true or false"}.get(type(found), "a number")
        _refuse(f"this line is {'null' if found is None else name}, and no object", line, SHAPE)
    return found
