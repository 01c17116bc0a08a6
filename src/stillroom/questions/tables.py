"""A file of named columns -> a Part: which columns are inputs, and which is the label. Knows no split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import DataError, did_you_mean
from stillroom.questions.part import Part, no_labels, plain_labels
from stillroom.questions.running import MESSAGES, PAIR, TEXT, paired_rows, running_rows
from stillroom.rows import Array, row_count
from stillroom.tables import UNTYPED, read_columns

LABEL = "label"
"""The label column where the recipe names none."""


@dataclass(frozen=True)
class Columns:
    """The columns that a recipe names, by what they are for."""

    input: Sequence[str] | None = None
    """None: all that are nothing else."""
    label: str | None = None
    beside: tuple[str, ...] = ()
    """Of groups and slices: read where a file has them, no inputs unless named as such."""


def read_table(path: Path, columns: Columns) -> Part:
    """The rows of a file of columns; the inputs are all columns but the label, the group and the slice unless named."""
    named: list[str] = []

    def choose(names: list[str]) -> list[str]:
        named.extend(names)
        return choose_columns(names, columns, path.name)

    read = read_columns(path, choose)
    return part_of(read, named, columns, path.name, untyped=path.suffix.lower() in UNTYPED)


def part_of(
    read: dict[str, Array], names: Sequence[str], columns: Columns, place: str, *, untyped: bool = False
) -> Part:
    """The columns that were read, by their purpose: inputs, labels, and what stands beside them.

    `names` are all columns of the source. Without a label column, a column of texts or of conversations is running text, and
    so are a question and an answer.
    """
    beside = {name: read[name] for name in columns.beside if name in read}
    running = running_columns(names, columns)
    if running is not None:
        first, last = read[running[0]], read[running[-1]]
        raw = paired_rows(first, last, place) if running == PAIR else running_rows(running[0], first, place)
        return Part(raw, no_labels(row_count(raw)), place, running=True, beside=beside, names=tuple(names))
    label = LABEL if columns.label is None else columns.label
    labels = plain_labels(read[label].tolist(), f"{place}, column {label}")
    inputs = {name: read[name] for name in _inputs(names, columns, label)}
    return Part(inputs, labels, place, untyped=untyped, beside=beside, names=tuple(names))


def running_columns(names: Sequence[str], columns: Columns) -> tuple[str, ...] | None:
    """The columns that make these rows running text: `messages`, or `text` alone, or `question` and `answer` alone, and no
    label; None where they are none."""
    if columns.label is not None or LABEL in names:
        return None
    inputs = [name for name in names if name not in columns.beside] if columns.input is None else list(columns.input)
    if inputs == [MESSAGES] or (columns.input is None and MESSAGES in inputs):
        return (MESSAGES,)
    if set(inputs) == set(PAIR) <= set(names):
        return PAIR
    return (TEXT,) if inputs == [TEXT] and TEXT in names else None


def choose_columns(names: Sequence[str], columns: Columns, place: str) -> list[str]:
    """The columns to read: inputs, the label, then what stands beside. Raises DataError for one that is not there."""
    running = running_columns(names, columns)
    if running is not None:
        chosen = [*running]
    else:
        label = LABEL if columns.label is None else columns.label
        if label not in names:
            raise DataError(
                f"there is no label column {label!r}",
                where=place,
                cure=f"{did_you_mean(label, names)}. Name it in questions.label (beside a data file: with --label)",
            )
        chosen = [*_inputs(names, columns, label), label]
        _check_inputs(chosen[:-1], label, names, place)
    return [*chosen, *(name for name in columns.beside if name in names and name not in chosen)]


def _inputs(names: Sequence[str], columns: Columns, label: str) -> list[str]:
    if columns.input is not None:
        return list(columns.input)
    return [name for name in names if name != label and name not in columns.beside]


def _check_inputs(inputs: Sequence[str], label: str, names: Sequence[str], place: str) -> None:
    for name in inputs:
        if name == label:
            raise DataError(f"the column {name!r} is input and label at once", where=place, cure="Name it once")
        if name not in names:
            raise DataError(f"there is no input column {name!r}", where=place, cure=did_you_mean(name, names))
        if not name.strip():
            raise DataError("a column has no name", where=place, cure="Name it, or name the others in questions.input")
    if not inputs:
        raise DataError("there is no column but the label", where=place, cure="Add at least one column to learn from")
