"""Rows as a reader hands them over: inputs, labels and the name of their place; and labels made plain.

Labels come back as they were given. Only a .csv has no types, so there whole numbers become `int` and other numbers
`float`, where all labels of all its parts are numbers; `01` stays text. This file knows no file format and no split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stillroom.errors import DataError, NotYet, did_you_mean
from stillroom.rows import UNLABELLED, Array, Raw, row_count

WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?")
MOST_MEASURED = 50
"""More different non-integer labels than this are a quantity, not classes."""
MARKS, SEVERAL = ";|,", 0.3
"""Between the labels of one cell; cells with one are meant so where they are more than this share."""
LISTED = re.compile(r"\[[^][]*\]")
"""A cell that holds a list of labels."""


@dataclass(frozen=True)
class Part:
    """The rows of one split, as read."""

    raw: Raw
    label_N: Array
    """The labels as Python values, [N] objects; None where a row has none."""
    place: str
    """How an error names where the rows came from."""
    untyped: bool = False
    """The labels are texts of a file that has no types."""
    running: bool = False
    """Running text: each row is a document or a conversation, and has no label."""
    beside: dict[str, Array] = field(default_factory=dict)
    """Columns that are neither input nor label, as read: of groups and of slices."""
    names: tuple[str, ...] = ()
    """All columns of the source, for errors; none where it has no columns."""

    def __post_init__(self) -> None:
        if row_count(self.raw) != len(self.label_N):
            raise DataError(
                f"there are {row_count(self.raw):,} inputs and {len(self.label_N):,} labels",
                where=self.place,
                cure="Give one label for each row",
            )
        if not len(self.label_N):
            raise DataError("there are no rows", where=self.place, cure="Give a file with at least one row")


def plain_labels(values: Iterable[Any], place: str) -> Array:
    """Labels as Python values, None for an empty one. Raises NotYet for lists, DataError for what is no label."""
    plain = []
    for row, value in enumerate(values, 1):
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, list | tuple | dict | set | np.ndarray):
            raise NotYet(
                "a row with several labels at once",
                where=f"{place}, row {row}",
                cure="Give one class for each row; multi-label data comes later",
            )
        if value is None or (isinstance(value, str) and not value.strip()) or value != value:
            value = None
        elif not isinstance(value, str | bool | int | float):
            raise DataError(
                f"a {type(value).__name__} cannot be a label",
                where=f"{place}, row {row}",
                cure="Give labels as texts or numbers",
            )
        plain.append(value)
    return np.fromiter(plain, dtype=object, count=len(plain))


def no_labels(count: int) -> Array:
    """A label column [N] of rows that have none."""
    return np.full(count, None, dtype=object)


def typed(parts: dict[str, Part]) -> dict[str, Part]:
    """The parts with the labels of untyped files turned into numbers, where all of them are numbers."""
    texts = {text for part in parts.values() if part.untyped for text in part.label_N.tolist() if text is not None}
    if not texts:
        return parts
    if all(WHOLE.fullmatch(text) and text != "-0" for text in texts):
        read: type[int] | type[float] | type[str] = int
    elif all(DECIMAL.fullmatch(text) for text in texts):
        read = float
    else:
        return parts
    return {
        name: replace(part, label_N=_each(read, part.label_N), untyped=False) if part.untyped else part
        for name, part in parts.items()
    }


def _each(read: Any, label_N: Array) -> Array:
    values = [None if label is None else read(label) for label in label_N.tolist()]
    return np.fromiter(values, dtype=object, count=len(values))


def classes_of(part: Part, more: Iterable[Any] = ()) -> list[Any]:
    """The different labels, and `more`, sorted: numbers as numbers, else as texts. Raises for what are no classes."""
    given = [label for label in part.label_N.tolist() if label is not None]
    distinct = {*given, *more}
    _refuse_several(part, distinct)
    measured = sum(isinstance(label, float) and not label.is_integer() for label in distinct)
    if measured > MOST_MEASURED:
        raise NotYet(
            f"the labels hold {measured:,} distinct non-integer numbers: a quantity, not classes (regression)",
            where=part.place,
            cure="Name a label column with classes, or group the numbers; regression comes later",
        )
    if len(distinct) > MOST_MEASURED and len(distinct) * 2 > len(given):
        raise DataError(
            f"{len(given):,} labels with {len(distinct):,} different values name rows, not classes",
            where=part.place,
            cure="Name a label column with classes" + ("; regression comes later" if _are_numbers(distinct) else ""),
        )
    if len(distinct) < 2:
        found = f"only one class, {next(iter(distinct))!r}" if distinct else "no label"
        raise DataError(f"there is {found}", where=part.place, cure="Give labelled rows of at least two classes")
    return sorted(distinct, key=None if _are_numbers(distinct) else str)


def _refuse_several(part: Part, distinct: set[Any]) -> None:
    """Raise NotYet where cells hold several labels, such as apple;ripe, which would pass for classes of their own.

    Names of single classes that hold a mark, such as animal|dog, have more parts than there are classes.
    """
    texts = [label if isinstance(label, str) else "" for label in part.label_N.tolist()]
    labelled = sum(label is not None for label in part.label_N.tolist())
    listed = [row for row, text in enumerate(texts, 1) if LISTED.fullmatch(text)]
    if len(listed) > SEVERAL * labelled:
        raise NotYet(
            f"{len(listed):,} of {labelled:,} rows with a list of labels, such as {texts[listed[0] - 1]!r}",
            where=f"{part.place}, row {listed[0]}",
            cure="Give one class for each row; multi-label data comes later",
        )
    for mark in MARKS:
        rows = [row for row, text in enumerate(texts, 1) if mark in text]
        parts = {piece.strip() for label in distinct for piece in str(label).split(mark)} - {""}
        if len(rows) > SEVERAL * labelled and len(parts) <= len(distinct):
            raise NotYet(
                f"{len(rows):,} of {labelled:,} rows with several labels at once, such as {texts[rows[0] - 1]!r}",
                where=f"{part.place}, row {rows[0]}",
                cure="Give one class for each row; multi-label data comes later. Where these are names of single classes, "
                f"write them without {mark}",
            )


def _are_numbers(labels: Iterable[Any]) -> bool:
    return all(isinstance(label, bool | int | float) for label in labels)


def codes_of(part: Part, classes: Sequence[Any]) -> Array:
    """Each label's place among the classes, int64 [N], -1 where there is none."""
    place = {label: index for index, label in enumerate(classes)}
    codes = np.full(len(part.label_N), UNLABELLED, np.int64)
    for row, label in enumerate(part.label_N.tolist()):
        if label is None:
            continue
        if label not in place:
            raise DataError(
                f"the label {label!r} does not occur in the training rows",
                where=f"{part.place}, row {row + 1}",
                cure="Take these rows out, or give training rows of that class. "
                + did_you_mean(str(label), map(str, classes)),
            )
        codes[row] = place[label]
    return codes


def class_place(given: Any, classes: Sequence[Any], where: str) -> int:
    """The place of a class that a recipe names, as itself or as text (a JSON key is always text)."""
    for index, label in enumerate(classes):
        if type(label) is type(given) and label == given:
            return index
    for index, label in enumerate(classes):
        if str(label) == str(given):
            return index
    raise DataError(f"there is no class {given!r}", where=where, cure=did_you_mean(str(given), map(str, classes)))
