"""Statements that are compiled once say what the same statement says through SQLAlchemy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, select, update

from stillroom.service.door.access import first_project
from stillroom.service.door.faults import ApiError
from stillroom.service.rows.database import Database
from stillroom.service.rows.statements import Listing, Statement, json_value
from stillroom.service.rows.tables import projects, teachers


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(tmp_path)
    found.upgrade()
    each = {"project_id": first_project(found), "base_url": "u", "model": "m", "created_at": 1}
    with found.writing() as rows:
        for number in range(5):
            made = {
                "id": f"t{number}",
                "name": f"n{number}",
                "price": {"input": number},
                "distillable": number % 2 == 0,
            }
            rows.execute(insert(teachers).values(**each, **made, sealed_key=bytes([number])))
    yield found
    found.close()


ALL = Statement(select(teachers).where(teachers.c.model == "m").order_by(teachers.c.number))
SET = Statement(
    update(teachers).where(teachers.c.id == bindparam("which")).values(
        price=bindparam("cost"), distillable=bindparam("may"), sealed_key=bindparam("sealed")
    )
)  # fmt: skip


def test_reads_what_sqlalchemy_reads(database: Database) -> None:
    with database.reading() as rows:
        found = ALL.all(rows)
        assert found == [dict(row) for row in rows.execute(select(teachers).order_by(teachers.c.number)).mappings()]
    assert [type(found[1][name]) for name in ("price", "distillable", "sealed_key")] == [dict, bool, bytes]


@pytest.mark.parametrize("price", [None, {}, {"ä": [1, 2.5, None, "\ud83d"]}, [10**300]])
def test_writes_what_sqlalchemy_writes(database: Database, price: Any) -> None:
    values = {"price": price, "distillable": True, "sealed_key": b"\x00\xff"}
    with database.writing() as rows:
        assert SET.write(rows, which="t1", cost=price, may=True, sealed=b"\x00\xff") == 1
        assert SET.write(rows, which="none", cost=price, may=True, sealed=b"") == 0
        rows.execute(update(teachers).where(teachers.c.id == "t2").values(**values))
        ours, theirs = rows.exec_driver_sql(
            "select price, distillable, sealed_key from teachers where id in ('t1', 't2')"
        )
    assert ours == theirs
    with database.reading() as rows:
        assert {**ALL.all(rows)[1], **values} == ALL.all(rows)[1]


def test_a_page_after_the_other(database: Database) -> None:
    listing = Listing(teachers, teachers.c.project_id == bindparam("project_id"), "teacher")
    ours = first_project(database)

    def page(after: str | None, limit: int, order: str = "desc", project_id: str = ours) -> tuple[list[str], bool]:
        with database.reading() as rows:
            found, more = listing.page(rows, after, limit, order, project_id=project_id)
        return [row["id"] for row in found], more

    assert page(None, 2) == (["t4", "t3"], True)
    assert page("t3", 2) == (["t2", "t1"], True)
    assert page("t1", 2) == (["t0"], False)
    assert page(None, 5, "asc") == (["t0", "t1", "t2", "t3", "t4"], False)
    assert page("t3", 5, "asc") == (["t4"], False)
    for after, project in [("t9", ours), ("t3", "another")]:
        with pytest.raises(ApiError, match="No such teacher"):
            page(after, 2, project_id=project)


def test_what_is_read_does_not_change_under_it(database: Database) -> None:
    name = Statement(select(projects.c.name))
    with database.reading() as rows:
        first = name.value(rows)
        with database.writing() as others:
            others.execute(update(projects).values(name="changed"))
        assert name.value(rows) == first
    with database.reading() as rows:
        assert name.value(rows) == "changed"


def test_writers_of_one_process_take_turns(database: Database) -> None:
    waits: list[float] = []

    def write() -> None:
        begun = time.perf_counter()
        with database.writing() as rows:
            SET.write(rows, which="t1", cost=None, may=True, sealed=b"")
        waits.append(time.perf_counter() - begun)

    with database.writing() as rows:
        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        SET.write(rows, which="t2", cost=None, may=True, sealed=b"")
    for thread in threads:
        thread.join()
    assert len(waits) == 8


def test_json_with_half_a_pair() -> None:
    assert json_value('"\\ud83d"') == "\ud83d"
    with pytest.raises(ValueError, match="Expecting"):
        json_value("{")
