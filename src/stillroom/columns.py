"""Values as they come -> plain columns and images: from files, and from what a user hands to predict.

Columns become float64 or texts, images uint8; of values that cannot, the first is named, with row and column counted
from 1. pandas is never imported: a DataFrame is whatever has columns and gives one by name. This file knows no file and
nothing that was learned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stillroom.errors import DataError, did_you_mean
from stillroom.rows import Array, Raw

TEXT_COLUMN = "text"
"""The name of the one column that a bare list of texts becomes."""
MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "null", "none"})
"""Texts that stand for no value in a column of numbers."""
TRUTH = {"true": 1.0, "false": 0.0}
"""Booleans are numbers, in a file as in an array."""
TOO_LARGE = np.float64(1e145)
"""The square of such a number, summed over rows, would leave what a float64 holds."""
MOSTLY_NUMBERS = 0.9
"""A column with this share of numbers is meant to hold numbers."""
CHUNK = 8192
"""Rows handled at a time, so that float64 copies stay small."""


def tidy(raw: Raw, where: str = "", like: Raw | None = None) -> Raw:
    """Raw rows in the form everything else expects; `like` are tidy rows whose columns these must match.

    Columns become float64, or objects that are all `str`; images become uint8; other 2-D arrays keep their type.
    Raises DataError for NaN, infinity and whatever no model can take; `where` begins the place it names.
    """
    if not isinstance(raw, dict):
        if raw.ndim == 1 and raw.dtype.kind in "OUS":
            return tidy({TEXT_COLUMN: raw}, where, like)
        if raw.ndim in (3, 4):
            return tidy_images(raw, where)
        if raw.ndim != 2 or raw.dtype.kind not in "fiub":
            raise DataError(
                f"an array {times(raw.shape)} of {raw.dtype} is neither a table of numbers nor images",
                where=where,
                cure="Give numbers as [N, D], images as [N, H, W] or [N, H, W, C] in uint8",
            )
        refuse_not_finite(raw, None, where)
        return raw.astype(np.float64) if raw.dtype.kind == "b" else raw
    tidied: dict[str, Array] = {}
    for name, column in raw.items():
        known = like[name] if isinstance(like, dict) and name in like else None
        if known is None:
            _refuse_stray_text(column, name, where)
            tidied[name] = tidy_column(column, name, where)
        else:
            tidied[name] = (numbers_of if known.dtype.kind == "f" else texts_of)(column, name, where)
        if tidied[name].dtype.kind == "f":
            refuse_not_finite(tidied[name][:, None], (name,), where)
    return tidied


def _refuse_stray_text(column: Array, name: str, where: str) -> None:
    """Raise DataError for a text in a column that is all but numbers: read as categories it would teach nothing."""
    _, wrong = _parsed(column)
    if wrong is None or column.dtype.kind not in "OU":
        return
    count = len(column)
    for value in column.tolist():
        count -= not _is_number(value)
        if count < MOSTLY_NUMBERS * len(column):
            return
    raise DataError(
        f"{count:,} of this column's {len(column):,} values are numbers, and {column[wrong]!r} is none",
        where=place_of(where, wrong, name),
        cure="Correct it, take out its row, or leave the column out by naming the others in questions.input",
    )


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def tidy_column(column: Array, name: str, where: str = "") -> Array:
    """float64 where every value is a number, is read as one, or is missing; else objects that are all `str`."""
    numbers, wrong = _parsed(column)
    if wrong is None and (column.dtype.kind not in "OU" or not np.isnan(numbers).all()):
        return numbers
    return texts_of(column, name, where)


def tidy_images(array: Array, where: str = "") -> Array:
    """Images as uint8. Raises DataError unless they are whole numbers 0..255 with the channels last."""
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] > 4):
        raise DataError(
            f"an array {times(array.shape)} is no stack of images",
            where=where,
            cure="Give [N, H, W] or [N, H, W, C], C last",
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() > 255)):
        raise DataError(
            f"images are whole numbers from 0 to 255, and these are {array.dtype}",
            where=where,
            cure="Give uint8; for 0..1 floats: (x * 255).round().astype('uint8')",
        )
    return array.astype(np.uint8)


def refuse_not_finite(array_ND: Array, names: Sequence[str] | None, where: str = "") -> None:
    """Raise DataError naming the first row and column that is missing, NaN or infinite."""
    if array_ND.dtype.kind != "f":
        return
    for rows in chunks(len(array_ND)):
        finite = np.abs(array_ND[rows]) < TOO_LARGE  # of NaN too this is false
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            value = array_ND[rows][row, column]
            raise DataError(
                "there is no number here (missing, or NaN)"
                if np.isnan(value)
                else "this number is infinite, or too large",
                where=place_of(where, rows.start + row, names[column] if names else str(column + 1)),
                cure=f"{'Fill it in' if np.isnan(value) else 'Correct it'}, or take out the row or the column",
            )


def _parsed(column: Array) -> tuple[Array, int | None]:
    """The values as float64, NaN where missing, and the index of the first that is no number."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64), None
    numbers = np.full(len(column), np.nan)
    if column.dtype.kind not in "OU":
        return numbers, 0
    with contextlib.suppress(ValueError, TypeError):
        # All of them numbers already, which is the common case; else the loop finds the first that is none.
        return column.astype(np.float64), None
    for index, value in enumerate(column.tolist()):
        try:
            numbers[index] = float(value)
        except (ValueError, TypeError):
            word = str(value).strip().lower()
            if word not in MISSING and word not in TRUTH:
                return numbers, index
            numbers[index] = TRUTH.get(word, np.nan)
    return numbers, None


def numbers_of(column: Array, name: str, where: str = "") -> Array:
    """The values as float64, NaN where one is missing. Raises DataError for what is no number."""
    numbers, wrong = _parsed(column)
    if wrong is not None:
        raise DataError(
            f"this column holds numbers, and {column[wrong]!r} is none",
            where=place_of(where, wrong, name),
            cure="Correct this value",
        )
    return numbers


def texts_of(column: Array, name: str, where: str = "") -> Array:
    """The values as objects that are all `str`; a missing one is empty, a whole float is written as an integer."""
    values = column.tolist()
    if column.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        return column
    texts = np.empty(len(values), object)
    for index, value in enumerate(values):
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, str):
            texts[index] = value
        elif value is None or str(value) in ("nan", "<NA>"):
            texts[index] = ""
        elif isinstance(value, bool | int | float):
            texts[index] = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        else:
            raise DataError(
                f"a {type(value).__name__} is neither a number nor a text",
                where=place_of(where, index, name),
                cure="Turn this column into numbers or texts, or leave it out by naming the others in questions.input",
            )
    return texts


def chunks(count: int) -> Iterator[slice]:
    """The rows 0..count in slices small enough for float64 copies."""
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def times(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 28 x 28."""
    return " x ".join(str(side) for side in shape)


def place_of(where: str, index: int, name: str) -> str:
    """Row and column as an error names them, counted from 1."""
    return f"{where + ', ' if where else ''}row {index + 1}, column {name}"


def objects(values: Sequence[Any]) -> Array:
    """A 1-D array of just these objects, lists among them too."""
    return np.fromiter(values, dtype=object, count=len(values))


def named_columns(rows: Any, names: Sequence[str]) -> dict[str, Array] | None:
    """The columns `names` of a DataFrame, a mapping of columns, one mapping, or a list of them; else None."""
    if all_of(rows, Mapping):
        for place, row in enumerate(rows, 1):
            for name in names:
                if name not in row:
                    raise missing_column(name, row, f"row {place}, ")
        return {name: objects([row[name] for row in rows]) for name in names}
    if isinstance(rows, Mapping):
        if not any(isinstance(value, list | tuple | np.ndarray) for value in rows.values()):
            return named_columns([rows], names)
        given: Any = list(rows)
    elif hasattr(rows, "columns") and hasattr(rows, "__getitem__"):
        given = list(rows.columns)
    else:
        return None
    found = {}
    for name in names:
        if name not in given:
            raise missing_column(name, given)
        column = rows[name]
        found[name] = objects(column) if isinstance(column, list | tuple) else np.asarray(column)
    return found


def columns_in_order(rows: Any, width: int) -> list[Array]:
    """The columns of a 2-D array, of a DataFrame without known names, or of a list of rows."""
    if hasattr(rows, "to_numpy"):
        rows = rows.to_numpy()
    if hasattr(rows, "ndim"):
        array = np.asarray(rows)
        if array.ndim == 2 and array.shape[1] == width:
            return [array[:, place] for place in range(width)]
        raise misfit(f"rows of {width} columns", array)
    if not isinstance(rows, list | tuple) or isinstance(rows, str):
        raise misfit(f"rows of {width} columns", rows)
    for place, row in enumerate(rows, 1):
        length = len(row) if isinstance(row, list | tuple | np.ndarray) else None
        if length != width:
            given = "no list of values" if length is None else f"{length} values"
            raise DataError(
                f"the model takes {width} columns, and here {'is' if length is None else 'are'} {given}",
                where=f"row {place}",
                cure="Give each row as a list of its values in training column order, or as a mapping by column name",
            )
    return [objects([row[place] for row in rows]) for place in range(width)]


def all_of(rows: Any, kind: type) -> bool:
    """True for a list with something in it, all of it of one kind."""
    return isinstance(rows, list | tuple) and bool(rows) and all(isinstance(row, kind) for row in rows)


def missing_column(name: str, given: Any, where: str = "") -> DataError:
    """The error for a column that is not among those given."""
    return DataError(
        f"the column {name!r} is missing",
        where=f"{where}columns given",
        cure=f"Add it, or rename the column that holds it. {did_you_mean(name, map(str, given), 'Given')}",
    )


def misfit(expected: str, given: Any, cure: str = "Give the rows in the form the model was trained on") -> DataError:
    """The error for rows of another form than the model takes."""
    if isinstance(given, dict):
        shown = f"columns {', '.join(map(str, list(given)[:8]))}"
    else:
        shown = f"{times(given.shape)} of {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
    return DataError(f"the model takes {expected}, not {shown}", where="rows given", cure=cure)


def mean_and_std(array_ND: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column; 1 for a constant column, which then encodes to just 0."""
    constant_D = array_ND.min(0) == array_ND.max(0)
    mean_D = np.where(constant_D, array_ND[0], array_ND.mean(0, dtype=np.float64))
    square_D = np.zeros(len(mean_D))
    for rows in chunks(len(array_ND)):
        square_D += ((array_ND[rows] - mean_D) ** 2).sum(0)
    std_D = np.sqrt(square_D / len(array_ND))
    return mean_D, np.where(constant_D | (std_D == 0), 1.0, std_D)


def pixel_mean_and_std(pixels_NPC: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel, exact, from how often each of the 256 values stands there."""
    channels = pixels_NPC.shape[2]
    count_CV = np.zeros((channels, 256), np.int64)
    for rows in chunks(len(pixels_NPC)):
        for channel in range(channels):
            count_CV[channel] += np.bincount(pixels_NPC[rows, :, channel].ravel(), minlength=256)
    value_V = np.arange(256)
    total_C = count_CV.sum(1)
    mean_C = count_CV @ value_V / total_C
    std_C = np.sqrt((count_CV * (value_V - mean_C[:, None]) ** 2).sum(1) / total_C)
    return mean_C, np.where(std_C == 0, 1.0, std_C)
