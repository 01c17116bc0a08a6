"""A file of named columns -> a Part: which columns are inputs, and which is the label. Knows no split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import DataError, did_you_mean
from stillroom.questions.part import Part, plain_labels
from stillroom.tables import UNTYPED, read_columns

LABEL = "label"
"""The label column where the recipe names none."""


def read_table(path: Path, inputs: Sequence[str] | None, label: str | None) -> Part:
    """The rows of a file of columns; the inputs are all columns but the label unless named."""
    label = LABEL if label is None else label
    columns = read_columns(path, lambda names: choose_columns(names, inputs, label, path.name))
    labels = plain_labels(columns.pop(label).tolist(), f"{path.name}, column {label}")
    return Part(columns, labels, path.name, untyped=path.suffix.lower() in UNTYPED)


def choose_columns(names: Sequence[str], inputs: Sequence[str] | None, label: str, place: str) -> list[str]:
    """The columns to read, the label last. Raises DataError for one that is not there, or has no name."""
    if label not in names:
        raise DataError(
            f"there is no label column {label!r}",
            where=place,
            cure=f"{did_you_mean(label, names)}. Name it in questions.label",
        )
    chosen = [name for name in names if name != label] if inputs is None else list(inputs)
    for name in chosen:
        if name == label:
            raise DataError(f"the column {name!r} is input and label at once", where=place, cure="Name it once")
        if name not in names:
            raise DataError(f"there is no input column {name!r}", where=place, cure=did_you_mean(name, names))
        if not name.strip():
            raise DataError("a column has no name", where=place, cure="Name it, or name the others in questions.input")
    if not chosen:
        raise DataError("there is no column but the label", where=place, cure="Add at least one column to learn from")
    return [*chosen, label]
