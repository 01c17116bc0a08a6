"""Writers of one database: none waits long for the others, the write-ahead log stays short, and what was slow is told."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from stillroom.service.data import completion_rows as completions
from stillroom.service.data import retention
from stillroom.service.data.redaction import Redaction
from stillroom.service.door.access import Caller, first_project, make_project
from stillroom.service.rows import checkpoints
from stillroom.service.rows.database import FILE, Database
from stillroom.service.rows.tables import projects
from stillroom.service.settings import Settings

WORDS = "what somebody wrote and took back"


def log_of(database: Database) -> Path:
    return database.path.with_name(FILE + "-wal")


def put(database: Database) -> str:
    """A stored completion."""
    asked = {"messages": [{"role": "user", "content": WORDS}]}
    said = {"choices": [{"message": {"role": "assistant", "content": "yes"}}]}
    values = completions.prepared(
        Caller(first_project(database), "", frozenset()), model="m", request=asked, response=said, metadata=None,
        by="teacher", redaction=Redaction(),
    )  # fmt: skip
    with database.writing() as rows:
        return completions.store(rows, values)


def test_another_program_gets_in_between_many_writes(database: Database) -> None:
    """It looks again after up to a tenth of a second, and would otherwise never find the file free."""
    going = threading.Event()

    def write_on() -> None:
        for _ in range(40):
            with database.writing(one_of_many=True):
                going.set()
                time.sleep(0.1)

    writer = threading.Thread(target=write_on)
    writer.start()
    going.wait()
    waits = []
    with closing(sqlite3.connect(database.path, timeout=30, isolation_level=None)) as other:
        for _ in range(4):
            begun = time.monotonic()
            other.execute("BEGIN IMMEDIATE")
            waits.append(time.monotonic() - begun)
            other.execute("COMMIT")
            time.sleep(0.1)
    still = writer.is_alive()
    writer.join()
    assert still
    assert max(waits) < 2


def test_a_commit_is_copied_into_the_file_soon_after(database: Database) -> None:
    put(database)
    until = time.monotonic() + 10
    while WORDS.encode() not in database.path.read_bytes():
        assert time.monotonic() < until
        time.sleep(0.1)


def times_begun_anew(database: Database) -> int:
    """As the log's header counts them (the file format of SQLite, section 4.1)."""
    return int.from_bytes(log_of(database).read_bytes()[12:16], "big")


def test_the_log_begins_anew_while_somebody_always_writes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.02)
    monkeypatch.setattr(checkpoints, "MOST_PAGES", 100)
    put(database)
    first, until = times_begun_anew(database), time.monotonic() + 15
    ended = threading.Event()

    def write_on() -> None:
        while not ended.is_set():
            put(database)

    writers = [threading.Thread(target=write_on) for _ in range(4)]
    for one in writers:
        one.start()
    try:
        while times_begun_anew(database) < first + 3:
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        ended.set()
        for one in writers:
            one.join()


def test_it_ends_where_it_is_closed_just_as_it_begins_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its last look at whether it shall end and forgetting the news, one of which was that it shall."""
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    turn = threading.RLock()
    found = checkpoints.Checkpoints(tmp_path / FILE, turn)
    closer = threading.Thread(target=found.close, daemon=True)

    class News(threading.Event):
        def clear(self) -> None:
            if not closer.is_alive():
                super().clear()
                closer.start()
                assert self.wait(10)
            super().clear()

    monkeypatch.setattr(found, "_news", News())
    with turn:
        found.wrote()
    until = time.monotonic() + 10
    while closer.ident is None or closer.is_alive():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_only_what_was_erased_is_trimmed(database: Database) -> None:
    settings = Settings(database.path.parent)
    name = put(database)
    retention.sweep(database, settings)
    assert WORDS.encode() in log_of(database).read_bytes(), "nobody waited for a log with nothing erased in it"
    with database.writing() as rows:
        completions.erase(rows, first_project(database), [name])
    time.sleep(1.1)  # times are whole seconds
    retention.sweep(database, settings)
    assert log_of(database).stat().st_size == 0
    assert WORDS.encode() not in database.path.read_bytes()
    make_project(database, "another")
    retention.sweep(database, settings)
    assert log_of(database).stat().st_size > 0, "what was erased has left already"


def test_the_last_erasure_is_found_without_reading_a_completion(database: Database) -> None:
    asked: list[str] = []
    with database.reading() as rows:
        raw: Any = rows.connection.dbapi_connection
        raw.set_trace_callback(asked.append)
        retention._erased_at(rows)
        raw.set_trace_callback(None)
        plans = [raw.execute(f"EXPLAIN QUERY PLAN {one}").fetchall() for one in asked if "completions" in one]
    assert "COVERING INDEX completions_erased" in str(plans)


def test_what_took_long_is_told(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    begun = threading.Event()

    def hold() -> None:
        with database.writing():
            begun.set()
            time.sleep(0.8)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    with database.writing() as rows:
        rows.execute(insert(projects).values(id="proj-x", name=WORDS, created_at=1, trains_on_stored=False))
    holder.join()
    found: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in found] == ["slow write"] * 2
    assert max(line["work_s"] for line in found) > 0.5
    assert max(line["turn_s"] for line in found) > 0.5
    assert WORDS not in str(found)
