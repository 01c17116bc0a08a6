"""`source:` of a recipe -> the parts that are there: train always, validation and test where files give them.

Finds the files and chooses the reader. This file knows no format from within, and does not split.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stillroom.errors import DataError
from stillroom.questions.arrays import ROLES, load_arrays, read_builtin, read_npz
from stillroom.questions.hub import read_hub
from stillroom.questions.part import Part
from stillroom.questions.pictures import open_picture, pictures_in, read_folder, stack
from stillroom.questions.running import PAIR, TEXT, read_text
from stillroom.questions.running import SUFFIX as TEXT_SUFFIX
from stillroom.questions.tables import Columns, read_table
from stillroom.rows import Raw
from stillroom.tables import SUFFIXES, read_columns

KNOWN = (".npz", *SUFFIXES, TEXT_SUFFIX)


def read(source: str | Mapping[str, str], folders: Sequence[Path], columns: Columns | None = None) -> dict[str, Part]:
    """All parts of a source; a mapping names one file for each part. Raises DataError."""
    columns = columns or Columns()
    if isinstance(source, str):
        parts = _read_one(source, folders, columns)
        return parts if "train" in parts else {"train": next(iter(parts.values()))}
    parts = {}
    for role in ROLES:
        if role in source:
            found = _read_one(source[role], folders, columns)
            if role not in found and len(found) > 1:
                raise DataError(
                    f"it holds {' and '.join(found)}, no {role}", where=source[role], cure="Give one part a file"
                )
            parts[role] = found[role] if role in found else next(iter(found.values()))
            raw, names = parts["train"].raw, parts["train"].names
            # The other files must have the columns of the training file; more are left unread.
            if isinstance(raw, dict) and columns.input is None:
                paired = parts["train"].running and names and not set(raw) <= set(names)
                columns = replace(columns, input=PAIR if paired else list(raw))
    return parts


def read_rows(source: str, folders: Sequence[Path]) -> Raw:
    """Rows to predict on: all columns of a table, x of an .npz (else x_test), a text, or the pictures in a folder."""
    path = find(source, folders)
    if path.is_dir():
        paths = pictures_in(path)
        if not paths:
            raise DataError(
                "there are no pictures in this folder", where=str(path), cure="Name the folder that holds them"
            )
        return stack([open_picture(picture) for picture in paths], [str(picture) for picture in paths])
    if path.suffix.lower() == ".npz":
        arrays = load_arrays(path)
        name = next((name for name in ("x", "x_test") if name in arrays), None)
        if name is None:
            raise DataError(
                f"there is no x or x_test, only {', '.join(arrays)}", where=path.name, cure="Save the rows as x"
            )
        return arrays[name]
    if path.suffix.lower() == TEXT_SUFFIX:
        return read_text(path).raw
    if path.suffix.lower() not in SUFFIXES:
        raise _unknown(path)
    return read_columns(path)


def find(name: str, folders: Sequence[Path]) -> Path:
    """The file or folder of that name in the first of `folders` that has it. Raises DataError naming them all."""
    path = Path(name).expanduser()
    looked_in = [path.parent] if path.is_absolute() else list(dict.fromkeys(folders)) or [Path()]
    for folder in looked_in:
        candidate = folder / (path.name if path.is_absolute() else path)
        if candidate.exists():
            return candidate
    unset = (
        ""
        if os.environ.get("STILLROOM_DATA")
        else ", or set STILLROOM_DATA, which is not set, to the folder of your data"
    )
    raise DataError(
        f"there is no {name!r}",
        where="looked in " + ", ".join(str(folder.absolute()) for folder in looked_in),
        cure=f"Check the path{unset}",
    )


def _read_one(source: str, folders: Sequence[Path], columns: Columns) -> dict[str, Part]:
    if source.startswith("hf:"):
        name = source.removeprefix("hf:")
        local = name.startswith((".", "/", "~"))
        return read_hub(name, find(name, folders) if local else None, columns)
    if source.startswith("builtin:"):
        parts = read_builtin(source.removeprefix("builtin:"))
    else:
        path = find(source, folders)
        suffix = path.suffix.lower()
        if path.is_dir():
            parts = read_folder(path)
        elif suffix in SUFFIXES:
            return {"train": read_table(path, columns)}
        elif suffix == ".npz":
            parts = read_npz(path)
        elif suffix == TEXT_SUFFIX:
            parts = {"train": read_text(path)}
            # Beside a table of documents, a .txt is its one column.
            columns = replace(columns, input=None) if list(columns.input or ()) == [TEXT] else columns
        else:
            raise _unknown(path)
    if columns.input is not None or columns.label is not None:
        raise DataError(
            "input and label name columns, and this source has none",
            where=source,
            cure="Take input and label out of questions",
        )
    return parts


def _unknown(path: Path) -> DataError:
    shown = f"the ending {path.suffix!r}" if path.suffix else "no ending"
    return DataError(f"a file with {shown} cannot be read", where=str(path), cure=f"Give one of {' '.join(KNOWN)}")
