"""Running text as documents: a .txt cut where it begins anew, a column of texts, or a column of conversations.

A document is what depends on itself: splits and intervals take documents whole. No character is lost or changed, so the
documents of a file, joined, are the file. This file knows no token, no window and no split.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.columns import TEXT_COLUMN, objects
from stillroom.errors import DataError
from stillroom.questions.part import Part, no_labels
from stillroom.rows import Array

SUFFIX = ".txt"
TEXT = TEXT_COLUMN
"""The column of documents."""
MESSAGES = "messages"
"""The column of conversations, each kept as JSON."""
PAIR = ("question", "answer")
"""Two columns that are a conversation of one question and one answer."""
ROLES = ("system", "user", "assistant", "tool")
PIECE_CHARACTERS = 4000
"""A text without headings is cut at the first blank line after so many characters."""
LONGEST_PIECE = 4 * PIECE_CHARACTERS
"""Where no blank line comes for so long, it is cut at the end of a line."""
HEADING = re.compile(
    r"(?:\A(?:[^\S\n]*\n)*|(?<=\n)[^\S\n]*\n)(?P<heading> = (?!=)[^\n]*(?<!=) =[^\S\n]*\n)(?=[^\S\n]*(?:\n|\Z))"
)
"""` = Title = ` between blank lines, as the WikiText files begin an article; ` = = Section = = ` is none."""
LINE = re.compile(r"[^\n]*\n|[^\n]+")


def read_text(path: Path) -> Part:
    """The documents of a file of running text. Raises DataError where it is empty, not UTF-8, or no text at all."""
    given = path.read_bytes()
    try:
        text = given.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = given.count(b"\n", 0, error.start) + 1
        raise DataError(
            "this file is not UTF-8 text", where=f"{path.name}, line {line}", cure="Save it as UTF-8"
        ) from error
    if not text.strip():
        what = "there is nothing but blank space in this file" if text else "this file is empty"
        raise DataError(what, where=path.name, cure="Give a file with text in it")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            "there is a NUL character, so this file is no plain text",
            where=f"{path.name}, line {line}",
            cure="Give the text itself, saved as UTF-8",
        )
    documents = objects(documents_of(text))
    return Part({TEXT: documents}, no_labels(len(documents)), path.name, running=True)


def documents_of(text: str) -> list[str]:
    """The documents of a text, in order; joined they are the text.

    Cut before each WikiText heading where there are two or more; else at blank lines, into pieces of a few thousand
    characters.
    """
    starts = [found.start("heading") for found in HEADING.finditer(text)]
    if len(starts) < 2:
        return _pieces(text)
    if not text[: starts[0]].strip():
        starts[0] = 0
    bounds = sorted({0, *starts, len(text)})
    return [text[start:end] for start, end in pairwise(bounds)]


def _pieces(text: str) -> list[str]:
    """Pieces of a text without headings; a short rest goes to the last of them."""
    bounds, start = [0], 0
    for line in LINE.finditer(text):
        length = line.end() - start
        blank = not line.group().strip()
        if length > LONGEST_PIECE or (blank and length >= PIECE_CHARACTERS):
            start = line.end()
            bounds.append(start)
    if len(bounds) > 1 and len(text) - bounds[-1] < PIECE_CHARACTERS // 2:
        bounds.pop()
    bounds.append(len(text))
    return [text[start:end] for start, end in pairwise(bounds)]


def running_rows(name: str, column: Array, place: str) -> dict[str, Array]:
    """A column of a table, `text` or `messages`, as documents or as conversations. Raises DataError naming the row."""
    read = _conversation if name == MESSAGES else _document
    return {name: objects([read(value, f"{place}, row {row}") for row, value in enumerate(column.tolist(), 1)])}


def paired_rows(question_N: Array, answer_N: Array, place: str) -> dict[str, Array]:
    """Questions and answers as conversations. Raises DataError naming the row."""
    kept = []
    for row, (question, answer) in enumerate(zip(question_N.tolist(), answer_N.tolist(), strict=True), 1):
        talk = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        kept.append(_conversation(talk, f"{place}, row {row}"))
    return {MESSAGES: objects(kept)}


def conversation(kept: str) -> list[dict[str, Any]]:
    """The messages of one row of the column `messages`, each with at least `role` and `content`."""
    messages: list[dict[str, Any]] = json.loads(kept)
    return messages


def _document(value: Any, where: str) -> str:
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        raise DataError(f"a {type(value).__name__} is no text", where=where, cure="Write the text as a string")
    _refuse_unreadable(value, where)
    return value


def _conversation(value: Any, where: str) -> str:
    """Messages as JSON with sorted keys, so that the same conversation is the same content."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list) or not value:
        raise DataError(
            "a conversation is a list of messages, and this is none",
            where=where,
            cure='Write [{"role": "user", "content": ".."}, {"role": "assistant", "content": ".."}]',
        )
    for number, message in enumerate(value, 1):
        here = f"{where}, message {number}"
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise DataError(
                "a message is an object with a role and a text as content",
                where=here,
                cure='Write {"role": "user", "content": ".."}',
            )
        if message.get("role") not in ROLES:
            raise DataError(
                f"there is no role {message.get('role')!r} in a conversation",
                where=here,
                cure=f"Known: {', '.join(ROLES)}",
            )
        _refuse_unreadable(message["content"], here)
    if not any(message["role"] == "assistant" and message["content"].strip() for message in value):
        raise DataError(
            "nothing in this conversation is said by the assistant, so nothing can be learned from it",
            where=where,
            cure="Add the assistant's message, or take out the row",
        )
    plain = [{name: said for name, said in message.items() if said is not None} for message in value]
    return json.dumps(plain, ensure_ascii=False, sort_keys=True)


def _refuse_unreadable(text: str, where: str) -> None:
    """Raise DataError for a NUL, and for half a character, which JSON can hold and UTF-8 cannot."""
    if "\0" in text:
        raise DataError("there is a NUL character in this text", where=where, cure="Take it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"there is half a character ({text[error.start]!r}) in this text", where=where, cure="Write it anew"
        ) from error
