"""Statements that requests run again and again: written with SQLAlchemy, compiled once, run by the driver itself.

    FIND = Statement(select(jobs).where(jobs.c.id == bindparam("id")))
    with database.reading() as rows: FIND.first(rows, id="ftjob-..")

What is looked up by an id and what is listed page by page is written so, since making and reading a statement anew costs
twenty times what it takes to run. What runs seldom, or is put together from what is asked, goes through `rows.execute`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, Delete, Insert, Select, Table, Update, bindparam, select
from sqlalchemy.dialects import sqlite

from stillroom.service.door.faults import not_found

Row = Mapping[Any, Any]
Raw = tuple[Any, ...]
"""A row as the driver gives it, with its JSON unread."""
Ready = tuple[str, list[str], list[tuple[int, Callable[[Any], Any]]], dict[str, Any], dict[str, Callable[[Any], Any]]]


def json_value(text: str) -> Any:
    """What a JSON column holds. Half of a surrogate pair is read as it was written."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


_DIALECT = sqlite.dialect(paramstyle="named", json_deserializer=json_value)


class Statement:
    """One statement; whatever differs from run to run is a `bindparam` in it."""

    def __init__(self, said: Select[Any] | Insert | Update | Delete) -> None:
        self._said = said

    def all(self, rows: Connection, **values: Any) -> list[dict[str, Any]]:
        """Every row it finds."""
        return [self.row(raw) for raw in self.raw(rows, **values)]

    def raw(self, rows: Connection, **values: Any) -> list[Raw]:
        """The same rows, unread."""
        found: list[Raw] = self._run(rows, values).fetchall()
        return found

    def row(self, raw: Raw) -> dict[str, Any]:
        """An unread row, read."""
        _, names, readers, _, _ = self._ready
        one = list(raw)
        for place, read in readers:
            one[place] = read(one[place])
        return dict(zip(names, one, strict=True))

    def place(self, name: str) -> int:
        """Where a column stands in an unread row."""
        return self._ready[1].index(name)

    def first(self, rows: Connection, **values: Any) -> dict[str, Any] | None:
        """The first row it finds, if there is any."""
        found = self.all(rows, **values)
        return found[0] if found else None

    def value(self, rows: Connection, **values: Any) -> Any:
        """The first column of its first row; None where there is no row."""
        found = self.first(rows, **values)
        return None if found is None else next(iter(found.values()))

    def write(self, rows: Connection, **values: Any) -> int:
        """How many rows it changed."""
        return int(self._run(rows, values).rowcount)

    def _run(self, rows: Connection, values: dict[str, Any]) -> Any:
        sql, _, _, fixed, writers = self._ready
        given = {**fixed, **values}
        for name, write in writers.items():
            given[name] = write(given[name])
        raw: Any = rows.connection.dbapi_connection
        return raw.execute(sql, given)

    @cached_property
    def _ready(self) -> Ready:
        """Its text; names and readers of its columns; values that stand in it; writers of its values."""
        compiled = self._said.compile(dialect=_DIALECT)
        columns = list(self._said.selected_columns) if isinstance(self._said, Select) else []
        kinds = [one.type.dialect_impl(_DIALECT) for one in columns]
        readers = [(place, kind.result_processor(_DIALECT, None)) for place, kind in enumerate(kinds)]
        binds = {name: one for one, name in compiled.bind_names.items()}
        writers = {name: one.type.dialect_impl(_DIALECT).bind_processor(_DIALECT) for name, one in binds.items()}
        fixed = {name: compiled.params[name] for name, one in binds.items() if not one.required}
        return (
            str(compiled),
            [str(one.key) for one in columns],
            [(place, read) for place, read in readers if read is not None],
            fixed,
            {name: write for name, write in writers.items() if write is not None},
        )


class Listing:
    """The rows of a table for which a condition holds, page by page. `but`: columns that are not read."""

    def __init__(self, table: Table, wanted: ColumnElement[bool], what: str, but: Collection[str] = ()) -> None:
        self._table, self._wanted, self._what = table, wanted, what
        self._columns = [one for one in table.c if one.name not in but]
        self._place = Statement(select(table.c.number).where(wanted & (table.c.id == bindparam("after"))))
        self._pages = {(order, begun): self._page(order, begun) for order in ("asc", "desc") for begun in (False, True)}

    def _page(self, order: str, begun: bool) -> Statement:
        number, descends = self._table.c.number, order == "desc"
        asked = select(*self._columns).where(self._wanted)
        if begun:
            asked = asked.where(number < bindparam("at") if descends else number > bindparam("at"))
        return Statement(asked.order_by(number.desc() if descends else number).limit(bindparam("limit")))

    def page(
        self, rows: Connection, after: str | None, limit: int, order: str = "desc", **values: Any
    ) -> tuple[list[dict[str, Any]], bool]:
        """At most so many rows, and whether there are more. Raises ApiError 404 for an `after` that is not among them."""
        statement, found, more = self.raw_page(rows, after, limit, order, **values)
        return [statement.row(raw) for raw in found], more

    def raw_page(
        self, rows: Connection, after: str | None, limit: int, order: str = "desc", **values: Any
    ) -> tuple[Statement, list[Raw], bool]:
        """The same rows unread, and the statement that reads them."""
        if after is not None:
            values["at"] = self._place.value(rows, after=after, **values)
            if values["at"] is None:
                raise not_found(self._what, after, "after")
        statement = self._pages[order, after is not None]
        found = statement.raw(rows, limit=limit + 1, **values)
        return statement, found[:limit], len(found) > limit
