"""Data sets of the `datasets` library: `hf:NAME` from the hub or its cache, `hf:./folder` written by save_to_disk.

The library is asked for its rows and nothing else: no code that comes with a data set is run. This file knows no split
that the data set does not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import DataError
from stillroom.questions.part import Part, plain_labels
from stillroom.questions.pictures import picture_array, stack
from stillroom.questions.tables import LABEL, Columns, choose_columns, part_of, running_columns
from stillroom.rows import Array

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


def read_hub(name: str, folder: Path | None, columns: Columns) -> dict[str, Part]:
    """The parts of a data set; a validation or test split without labels is left out, as is any other split."""
    loaded = _load(name, folder)
    tables = dict(loaded) if hasattr(loaded, "keys") else {"train": loaded}
    if "train" not in tables:
        raise DataError(
            f"this data set has no split train, only {', '.join(map(str, tables))}",
            where=f"hf:{name}",
            cure="Choose one that has",
        )
    parts = {}
    for split, table in tables.items():
        role = SPLITS.get(str(split))
        if role is None or role in parts or not len(table):
            continue
        part = _part(table, columns, f"hf:{name}, {split}")
        if role == "train" or part.running or any(value is not None for value in part.label_N):
            parts[role] = part
    return parts


def _load(name: str, folder: Path | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "reading this needs the datasets library", where=f"hf:{name}", cure="pip install 'stillroom[hub]'"
        ) from error
    try:
        return datasets.load_dataset(name) if folder is None else datasets.load_from_disk(str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if folder is not None:
            cure = "Name a folder that was written by save_to_disk"
        else:
            cure = "Check the name and the network, or load it elsewhere, save_to_disk it and name hf:./FOLDER"
        raise DataError(f"this data set cannot be loaded: {first}", where=f"hf:{name}", cure=cure) from error


def _part(table: Any, columns: Columns, place: str) -> Part:
    names = list(table.column_names)
    chosen = choose_columns(names, columns, place)
    if running_columns(names, columns) is not None:
        return part_of({name: _objects(list(table[name])) for name in chosen}, names, columns, place)
    label = LABEL if columns.label is None else columns.label
    labels = list(table[label])
    if type(table.features[label]).__name__ == "ClassLabel":
        # The hub marks rows whose label is withheld with -1.
        labels = [None if value is None or value < 0 else value for value in labels]
    inputs = chosen[: chosen.index(label)]
    pictures = [name for name in inputs if type(table.features[name]).__name__ == "Image"]
    if pictures and len(inputs) > 1:
        raise DataError(
            "pictures beside other columns cannot be one input",
            where=place,
            cure=f"Name the one to learn from, such as questions.input={pictures[0]}",
        )
    if pictures:
        images = [picture_array(image) for image in table[pictures[0]]]
        raw = stack(images, [f"{place}, row {row}" for row in range(1, len(images) + 1)])
        beside = {name: _objects(list(table[name])) for name in columns.beside if name in names}
        return Part(raw, plain_labels(labels, f"{place}, column {label}"), place, beside=beside, names=tuple(names))
    read = {name: _objects(list(table[name])) for name in chosen if name != label}
    return part_of({**read, label: _objects(labels)}, names, columns, place)


def _objects(values: list[Any]) -> Array:
    return np.fromiter(values, dtype=object, count=len(values))
