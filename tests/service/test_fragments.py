"""What is kept of a row's JSON is what would be made of it anew, whatever has happened to the row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from stillroom.service.door import fragments
from stillroom.service.door.access import first_project
from stillroom.service.door.fragments import Fragments, as_list
from stillroom.service.rows.database import Database
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import teachers

ALL = Statement(select(teachers).order_by(teachers.c.number))


class Shown:
    """Shows a row, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, row: Any, place: int = 0) -> list[Any]:
        self.count += 1
        return [{"name": row["name"], "price": row["price"], "place": place}]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(tmp_path)
    found.upgrade()
    each = {"project_id": first_project(found), "base_url": "u", "model": "m", "created_at": 1}
    with found.writing() as rows:
        rows.execute(insert(teachers), [{**each, "id": f"t{n}", "name": f"n{n}", "price": {"in": n}} for n in range(4)])
    yield found
    found.close()


def sent(database: Database, kept: Fragments, *more: Any) -> list[Any]:
    with database.reading() as rows:
        return [json.loads(kept.of(ALL, raw, *more)) for raw in ALL.raw(rows)]


def test_a_row_is_made_once_and_again_when_it_changes(database: Database) -> None:
    show = Shown()
    kept = Fragments(show)
    first = sent(database, kept)
    assert first == sent(database, kept) == [{"name": f"n{n}", "price": {"in": n}, "place": 0} for n in range(4)]
    assert show.count == 4
    with database.writing() as rows:
        rows.execute(update(teachers).where(teachers.c.id == "t2").values(price={"in": 9}))
    assert sent(database, kept) == [*first[:2], {**first[2], "price": {"in": 9}}, first[3]]
    assert show.count == 5
    with database.reading() as rows:
        raws = ALL.raw(rows)
    assert (kept.left(raws), Fragments(show).left(raws) > 4 * fragments.VALUE_BYTES) == (0, True)
    assert [one["place"] for one in sent(database, kept, 7)] == [7] * 4
    assert show.count == 9


def test_rows_of_another_database_are_not_taken_for_these(database: Database, tmp_path: Path) -> None:
    kept = Fragments(Shown())
    sent(database, kept)
    other = Database(tmp_path / "other")
    other.upgrade()
    values = {"project_id": first_project(other), "base_url": "u", "model": "m", "created_at": 1}
    with other.writing() as rows:
        rows.execute(insert(teachers).values(**values, id="t0", name="other", price=None))
    assert [one["name"] for one in sent(other, kept)] == ["other"]
    other.close()


def test_no_more_is_kept_than_there_is_room_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    show = Shown()
    kept = Fragments(show)
    with database.reading() as rows:
        first, *others = ALL.raw(rows)
    size = fragments._size(first, kept.of(ALL, first))
    monkeypatch.setattr(fragments, "MOST_BYTES", 2 * size + 8)
    for raw in (*others, first, others[-1]):
        kept.of(ALL, raw)
        assert kept._bytes == sum(fragments._size(raw, made) for raw, _, made in kept._kept.values()) <= 2 * size + 8
    assert show.count == 5, "the last two were still there"
    monkeypatch.setattr(fragments, "LONGEST_BYTES", size - 8)
    kept.of(ALL, others[0])
    kept.of(ALL, others[0])
    assert show.count == 7, "too long to be kept"


def test_a_list_of_them_is_the_list_that_the_clients_read() -> None:
    assert json.loads(as_list([], []).body) == {
        "object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None,
    }  # fmt: skip
    assert json.loads(as_list([b'{"id":"a"}', b'{"id":"b"},{"id":"b:c"}'], ["a", "b"], True).body) == {
        "object": "list", "data": [{"id": "a"}, {"id": "b"}, {"id": "b:c"}], "has_more": True,
        "first_id": "a", "last_id": "b",
    }  # fmt: skip
