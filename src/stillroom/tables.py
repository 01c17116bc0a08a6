"""Reading a file of named columns: .csv .tsv .jsonl .json .parquet. Knows neither labels nor splits.

A .csv has no types, so every cell is read as text, and `columns.tidy` finds the numbers.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stillroom.errors import DataError
from stillroom.rows import Array

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
UNTYPED = (".csv", ".tsv")
Choose: TypeAlias = Callable[[list[str]], list[str]]
"""All column names of a file -> those to read."""
BLOCK_BYTES = 16 << 20


def read_columns(path: Path, choose: Choose = list) -> dict[str, Array]:
    """Columns of a file by name, in the order chosen; cells of a .csv are texts."""
    readers = {".jsonl": _read_json_lines, ".json": _read_json, ".parquet": _read_parquet}
    if not path.stat().st_size:
        raise DataError("this file is empty", where=path.name, cure="Give a file with at least one row")
    try:
        return readers.get(path.suffix.lower(), _read_csv)(path, choose)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except csv.Error as error:
        raise DataError(f"this is no text of rows and cells: {error}", where=path.name, cure="Write it anew") from error


def _read_csv(path: Path, choose: Choose) -> dict[str, Array]:
    from pyarrow import csv as arrow_csv
    from pyarrow import string

    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file, delimiter=delimiter), [])
    _refuse_other_separator(path, header)
    doubled = next((name for place, name in enumerate(header) if name in header[:place]), None)
    if doubled is not None:
        raise DataError(f"two columns are called {doubled!r}", where=path.name, cure="Rename one of them")
    chosen = choose(header)
    with _arrow_errors(path, delimiter):
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(header, string()), include_columns=chosen, strings_can_be_null=False
            ),
        )
    return {name: _values(table.column(name)) for name in chosen}


def _refuse_other_separator(path: Path, header: list[str]) -> None:
    """Raise DataError for a header that is a single cell, and one of several names separated by something else."""
    named = {";": "semicolons", "\t": "tabs", ",": "commas"}
    other = next((mark for mark in named if mark in header[0]), None) if len(header) == 1 else None
    if other is None:
        return
    expected = "tabs, as a .tsv has" if path.suffix.lower() == ".tsv" else "commas"
    raise DataError(
        f"the cells of this file are separated by {named[other]}, and {expected} are expected",
        where=f"{path.name}, line 1",
        cure=f"Write it anew: pandas.read_csv({path.name!r}, sep={other!r}).to_csv('with_commas.csv', index=False)",
    )


@contextmanager
def _arrow_errors(path: Path, delimiter: str) -> Iterator[None]:
    """Turn pyarrow's refusal of a file into an error that names the line."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError) as error:
        if "UTF8" in str(error):
            raise _not_utf8(path) from error
        ragged = _first_ragged_line(path, delimiter)
        if ragged is not None:
            line, cells, width = ragged
            raise DataError(
                f"this line has {cells} cells, and the header has {width}",
                where=f"{path.name}, line {line}",
                cure="Correct it; a cell that holds the delimiter needs quotes",
            ) from error
        raise DataError(f"this file cannot be read: {error}", where=path.name, cure="Write it anew") from error


def _first_ragged_line(path: Path, delimiter: str) -> tuple[int, int, int] | None:
    """Line, cells there and cells in the header, of the first row that differs; only called once reading failed."""
    if path.suffix.lower() not in UNTYPED:
        return None
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader)
        try:
            for row in reader:
                if row and len(row) != len(header):
                    return reader.line_num, len(row), len(header)
        except csv.Error:
            return None
    return None


def _read_json_lines(path: Path, choose: Choose) -> dict[str, Array]:
    rows = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    "this line is no JSON", where=f"{path.name}, line {number}", cure="Write one object a line"
                ) from error
            except RecursionError as error:
                raise _deep(f"{path.name}, line {number}") from error
            rows.append(_object(row, f"{path.name}, line {number}"))
    return _columns_of_objects(rows, choose, path)


def _deep(where: str) -> DataError:
    return DataError("this is nested too deep", where=where, cure="Write cells of words and numbers")


def _read_json(path: Path, choose: Choose) -> dict[str, Array]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        cure = (
            "Name it .jsonl if it holds one object a line" if error.msg == "Extra data" else "Correct the syntax there"
        )
        raise DataError("this file is no JSON", where=f"{path.name}, line {error.lineno}", cure=cure) from error
    except RecursionError as error:
        raise _deep(path.name) from error
    if not isinstance(rows, list):
        raise DataError("a .json file of rows is one list of objects", where=path.name, cure="Write [{..}, {..}]")
    objects = [_object(row, f"{path.name}, row {place}") for place, row in enumerate(rows, 1)]
    return _columns_of_objects(objects, choose, path)


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError("a row is an object of column and value", where=where, cure='Write {"column": value}')
    return row


def _columns_of_objects(rows: list[dict[str, Any]], choose: Choose, path: Path) -> dict[str, Array]:
    if not rows:
        raise DataError("there are no rows", where=path.name, cure="Give a file with at least one row")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.fromiter((row.get(name) for row in rows), dtype=object, count=len(rows)) for name in choose(names)}


def _read_parquet(path: Path, choose: Choose) -> dict[str, Array]:
    from pyarrow import parquet

    with _arrow_errors(path, ","):
        chosen = choose(parquet.read_schema(path).names)
        table = parquet.read_table(path, columns=chosen)
        return {name: _values(table.column(name)) for name in chosen}


def _values(column: pa.ChunkedArray) -> Array:
    """A column as numbers where it is whole, else as Python values with None where one is missing."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not column.null_count and (types.is_integer(column.type) or types.is_floating(column.type)):
        numbers: Array = column.to_numpy()
        return numbers
    return np.fromiter(column.to_pylist(), dtype=object, count=len(column))


def _not_utf8(path: Path) -> DataError:
    return DataError("this file is not UTF-8 text", where=path.name, cure="Save it as UTF-8")
