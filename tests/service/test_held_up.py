"""A disk that is full or does not answer, and a system without processes to give: work goes on once that is over."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.service.test_job_rows import new_job

from stillroom.rundir import write_json
from stillroom.service.data import retention
from stillroom.service.door.access import make_project
from stillroom.service.jobs.job_rows import QUEUED, RUNNING, Row, by_id
from stillroom.service.rows import checkpoints
from stillroom.service.rows import database as database_room
from stillroom.service.rows.database import Database
from stillroom.service.settings import Settings
from stillroom.service.watch import heartbeat
from stillroom.service.work import executor, processes, tending, worker
from stillroom.service.work.attempt import Attempt
from stillroom.service.work.executor import PLACE, Local, Order, Unkillable
from stillroom.service.work.worker import Line, Worker


def until(check: Callable[[], Any], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "it did not come to that in time"
        time.sleep(0.02)


class Twice:
    """Fails the first two times, and from then on does what it stands for."""

    def __init__(self, real: Callable[..., Any], error: Exception) -> None:
        self._real, self._error, self.times = real, error, 0

    def __call__(self, *given: Any, **more: Any) -> Any:
        self.times += 1
        if self.times <= 2:
            raise self._error
        return self._real(*given, **more)


def test_a_sweep_that_fails_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FIRST_S", 0.01)
    monkeypatch.setattr(retention, "EVERY_S", 0.01)
    failing = Twice(lambda *given: retention.Swept(0, 0, 0, 0), sqlite3.OperationalError("database or disk is full"))
    monkeypatch.setattr(retention, "sweep", failing)
    database, ending = Database(tmp_path), threading.Event()
    sweeper = retention.Sweeper(database, Settings(tmp_path), ending)
    sweeper.start()
    until(lambda: failing.times > 3)
    ending.set()
    sweeper.join()
    database.close()


def test_a_trim_that_fails_leaves_a_connection_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path)
    database.upgrade()

    def fails(rows: sqlite3.Connection) -> int:
        rows.execute(f"PRAGMA busy_timeout={database_room.TRIM_MS}")
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(database_room, "copied", fails)
    with pytest.raises(sqlite3.OperationalError):
        database.trim(int(time.time()) + 60)
    with database.reading() as rows:
        assert rows.exec_driver_sql("PRAGMA busy_timeout").scalar() == database_room.BUSY_MS
    database.close()


@pytest.mark.parametrize("who", ["the same program", "another program"])
def test_a_trim_waits_for_the_copying_of_what_was_written(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses a second one at once, and the first takes its time here: a reader of an older state is in its way."""
    database, begun, copied = Database(tmp_path), threading.Event(), checkpoints.copied
    database.upgrade()
    sweeping = database if who == "the same program" else Database(tmp_path)

    def copies(rows: sqlite3.Connection) -> int:
        begun.set()
        rows.execute("PRAGMA busy_timeout=20000")
        rows.execute("PRAGMA wal_checkpoint(RESTART)")
        return copied(rows)

    monkeypatch.setattr(checkpoints, "copied", copies)
    reader = sqlite3.connect(database.path, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM projects").fetchall()
    make_project(database, "a")
    assert begun.wait(20)
    time.sleep(0.2)
    leaves = threading.Timer(0.3, reader.close)
    leaves.start()
    assert sweeping.trim(int(time.time()) + 60)
    leaves.join()
    sweeping.close()
    database.close()


def test_a_trim_does_not_wait_for_a_reader(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.upgrade()
    with database.reading() as older:
        older.exec_driver_sql("SELECT * FROM projects").all()
        make_project(database, "a")
        began = time.monotonic()
        assert not database.trim(int(time.time()) + 60)
        assert time.monotonic() - began < checkpoints.ANOTHER_S
    assert database.trim(int(time.time()) + 60)
    database.close()


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(worker, "HELD_UP_S", 0.01)
    found = Worker(Settings(tmp_path))
    found.state.database.upgrade()
    yield found
    found.state.database.close()


def test_a_line_goes_on_after_the_database_could_not_be_read_or_written(
    at_work: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_job(at_work.state.database)
    seen: list[Row] = []

    def see_to(job: Row) -> None:
        seen.append(job)
        raise ValueError("of this job")

    def broke(job: Row) -> None:  # which writes, and so fails as well
        at_work.ending.set()
        raise sqlite3.OperationalError("database or disk is full")

    failing = Twice(worker.claim, sqlite3.OperationalError("disk I/O error"))
    monkeypatch.setattr(worker, "claim", failing)
    monkeypatch.setattr(at_work, "see_to", see_to)
    monkeypatch.setattr(at_work, "broke", broke)
    Line(at_work, "running", (QUEUED,), RUNNING).run()
    assert (failing.times, len(seen)) == (3, 1)


def test_a_worker_lives_where_it_cannot_say_so(at_work: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Twice(heartbeat.beat, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr(heartbeat, "beat", failing)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(at_work.work()))
    thread.start()
    until(lambda: failing.times > 3)
    at_work.ending.set()
    thread.join()
    assert ended == [0]


def test_a_worker_is_started_once_the_system_lets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Twice(processes.start, BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
    monkeypatch.setattr(processes, "start", failing)
    monkeypatch.setattr(tending, "HELD_UP_S", 0.01)
    Database(tmp_path).upgrade()
    with tending.Tended(Settings(tmp_path)):
        until(lambda: heartbeat.age_s(tmp_path) is not None, 60)
    assert failing.times == 3


def test_a_process_that_cannot_be_ended_is_not_waited_for_for_ever(
    at_work: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "GONE_S", 0.1)
    monkeypatch.setattr(processes, "started_at", lambda pid: "long ago")
    monkeypatch.setattr(processes, "end_group", lambda pid: True)
    job_id = new_job(at_work.state.database)
    job = worker.claim(at_work.state.database, at_work.name, (QUEUED,), RUNNING)
    assert job is not None
    folder = at_work.folder(job)
    folder.mkdir(parents=True)
    write_json(folder / PLACE, {"pid": 1 << 30, "started": "long ago"})
    with pytest.raises(Unkillable):
        Local().adopt(Order(job_id, folder, {}))
    Attempt(at_work, {**job, "asked": {"model": "m"}}).carry_out()
    with at_work.state.database.reading() as rows:
        row = by_id(rows, job_id)
    assert (row["status"], row["attempts"], row["worker"]) == (QUEUED, 1, None)
