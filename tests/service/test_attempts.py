"""What a worker makes of a job that it cannot go on with: put off, tried again, failed, and what it writes down of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from benchmarks.service_jobs import body, digits
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import OperationalError
from tests.service.test_job_rows import new_job

from stillroom.budget import Cost
from stillroom.ledger import Limits, opened
from stillroom.service.data import lineage_rows as lineage
from stillroom.service.data import retention
from stillroom.service.door.access import first_project, make_project
from stillroom.service.jobs.job_rows import (
    CANCELLED,
    QUEUED,
    RUNNING,
    VALIDATING,
    LeaseLost,
    Row,
    by_id,
    claim,
    free_all,
    told_after_cancel,
    written,
)
from stillroom.service.recipes.validation import Validation
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import jobs, teachers
from stillroom.service.rows.tables import lineage as lines
from stillroom.service.settings import Settings
from stillroom.service.students.usage import spent_by_jobs
from stillroom.service.work.attempt import ATTEMPTS, LOST, TAIL, Attempt, progress_of
from stillroom.service.work.executor import LOG, TOLD
from stillroom.service.work.ledgers import spent_in
from stillroom.service.work.worker import Line, Worker

TEACHER = {"teacher": "away", "prompt": "{text}"}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    found = Worker(Settings(tmp_path))
    found.state.database.upgrade()
    yield found
    found.state.database.close()


def taken(worker: Worker, status: str, **more: Any) -> Row:
    """A job in this state, claimed."""
    job_id = new_job(worker.state.database, status=status, **more)
    job = claim(worker.state.database, "w", (status,), RUNNING if status == QUEUED else VALIDATING)
    assert job is not None
    assert job["id"] == job_id
    worker.folder(job).mkdir(parents=True)
    return job


def add_teacher(database: Database) -> None:
    """TEACHER as a row, with an address that must be looked up."""
    project = first_project(database)
    with database.writing() as rows:
        rows.execute(insert(teachers).values(
            id=f"teacher-{'a' * 24}", project_id=project, name="away", model="m", created_at=1,
            base_url="https://teacher.example/v1", distillable=True,
        ))  # fmt: skip


def nobody_answers(*asked: object, **more: object) -> NoReturn:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.mark.parametrize("status", [VALIDATING, QUEUED])
def test_a_job_waits_while_its_teachers_name_cannot_be_looked_up(
    worker: Worker, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = worker.state.database
    add_teacher(database)
    monkeypatch.setattr(socket, "getaddrinfo", nobody_answers)
    job: Row | None = taken(worker, status, asked=body(digits(teacher=TEACHER)))
    waits = []
    for _ in range(3):
        assert job is not None
        (Validation if status == VALIDATING else Attempt)(worker, job).carry_out()
        with database.reading() as rows:
            row = by_id(rows, job["id"])
        assert (row["status"], row["error"], row["worker"]) == (status, None, None)
        waits.append(row["lease_until"] - time.time())
        to = RUNNING if status == QUEUED else VALIDATING
        assert claim(database, "w", (status,), to) is None
        with database.writing() as rows:
            rows.execute(update(jobs).values(lease_until=time.time() - 1))
        job = claim(database, "w", (status,), to)
    assert waits[0] > 10
    assert waits[2] > 1.8 * waits[1] > 3 * waits[0]


@pytest.mark.parametrize("status", [VALIDATING, QUEUED])
def test_a_name_is_looked_up_while_no_state_of_the_rows_is_held(
    worker: Worker, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, trimmed = worker.state.database, []
    add_teacher(database)

    def look_up(*asked: object, **more: object) -> NoReturn:
        make_project(database, "another")
        trimmed.append(database.trim(int(time.time()) + 60))
        nobody_answers()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    job = taken(worker, status, asked=body(digits(teacher=TEACHER)))
    (Validation if status == VALIDATING else Attempt)(worker, job).carry_out()
    assert trimmed == [True]


@pytest.mark.parametrize("status", [VALIDATING, QUEUED])
@pytest.mark.parametrize("gets_on", [False, True])
def test_a_job_with_which_the_worker_ends_is_given_up(
    worker: Worker, status: str, gets_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, begun = worker.state.database, []
    to = RUNNING if status == QUEUED else VALIDATING

    def ends(one: Any) -> NoReturn:
        begun.append(one)
        raise KeyboardInterrupt

    monkeypatch.setattr(Validation if status == VALIDATING else Attempt, "carry_out", ends)
    job_id = new_job(database, status=status)
    for place in range(LOST + 2):
        job = claim(database, worker.name, (status,), to)
        if job is None:
            break
        with suppress(KeyboardInterrupt):
            worker.see_to(job)
        free_all(database, worker.name)
        if gets_on:
            made = worker.folder(job) / "run" / f"stage-{place}"
            made.mkdir(parents=True)
            (made / "manifest.json").write_text("{}")
    with database.reading() as rows:
        row = by_id(rows, job_id)
    assert len(begun) == (LOST + 2 if gets_on else LOST)
    assert row["status"] == (to if gets_on else "failed")
    assert (row["error"] or {}).get("code") == (None if gets_on else "worker_lost")


def test_a_job_that_breaks_off_three_times_fails_with_the_end_of_its_log(worker: Worker) -> None:
    database = worker.state.database
    job: Row | None = taken(worker, QUEUED, asked=body(digits()), estimate={})
    assert job is not None
    told, log = worker.folder(job) / TOLD, worker.folder(job) / LOG
    told.mkdir()  # where a trainer wants to write, so that it ends with an error that is none of ours
    log.write_text("a line from long before\n")
    for _ in range(ATTEMPTS):
        assert job is not None
        Attempt(worker, job).carry_out()
        job = claim(database, "w", (QUEUED,), RUNNING)
    assert job is None
    with database.reading() as rows:
        (row,) = rows.execute(select(jobs)).mappings()
    message = row["error"]["message"]
    assert (row["status"], row["error"]["code"]) == ("failed", "crashed")
    assert "ended with status 1, 3 times without progress. The end of its log:\n" in message
    assert message.endswith(f"IsADirectoryError: [Errno 21] Is a directory: '{told}'")
    assert message.count("\n") == TAIL, "the last lines alone"
    assert "long before" not in message
    assert log.read_text().count("IsADirectoryError") == ATTEMPTS


def paid_for(worker: Worker, job: Row, *nano_usd: int) -> Path:
    """The ledger of a job's run, with a call for each of these sums."""
    path = worker.folder(job) / "run" / "transfer_set" / "ledger.sqlite"
    with opened(path, "job", Limits()) as ledger:
        for number, sum_ in enumerate(nano_usd):
            cost = Cost(sum_, 10, 2)
            ledger.settle(ledger.reserve(bytes([number, len(nano_usd)]), "label", cost), "{}", cost, 0.1)
    return path


def test_what_was_paid_is_written_down_and_not_added_up_at_each_attempt(worker: Worker) -> None:
    database = worker.state.database
    job: Row | None = taken(worker, QUEUED)
    told = []
    for sums in ((1_000, 2_000), (), (500,)):
        assert job is not None
        paid_for(worker, job, *sums)
        Attempt(worker, job).broke()
        with database.reading() as rows:
            row = by_id(rows, job["id"])
            told.append([row["figures"][name] for name in ("teacher_calls", "teacher_tokens", "usd")])
            (line,) = spent_by_jobs(rows, row["project_id"], 0)
        assert [line[name] for name in ("calls", "tokens", "usd")] == told[-1]
        job = claim(database, "w", (QUEUED,), RUNNING)
    assert told == [[2, 24, 3e-6], [2, 24, 3e-6], [3, 36, 3.5e-6]]


def test_a_cancelled_job_is_told_what_was_paid_until_its_trainer_ended(worker: Worker) -> None:
    """By the worker that had it then; of a job that another worker has, it writes nothing."""
    database = worker.state.database
    job = taken(worker, QUEUED, figures={"teacher": "big"})
    paid_for(worker, job, 1_000)
    for status in (RUNNING, CANCELLED):
        with written(database) as rows:
            rows.execute(update(jobs).values(status=status, token=job["token"] + 1))
            told_after_cancel(rows, job, spent_in(worker.folder(job) / "run"))
            figures = by_id(rows, job["id"])["figures"]
        assert figures["teacher"] == "big"
        assert figures.get("usd") == (1e-6 if status == CANCELLED else None)


def test_a_job_that_was_let_go_of_is_not_counted(worker: Worker) -> None:
    job = taken(worker, QUEUED)
    Attempt(worker, job)._put_back()
    again = claim(worker.state.database, "w", (QUEUED,), RUNNING)
    assert again is not None
    assert again["left_by"] is None


def test_a_ledger_that_was_only_opened_is_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "transfer_set" / "ledger.sqlite"
    before = progress_of(tmp_path)
    marks = []
    for answered in (0, 0, 1, 0, 0):
        with opened(path, "run", Limits()) as ledger:
            ledger.release(ledger.reserve(b"lost", "label", Cost(1, 1, 1)), "refused")
            for _ in range(answered):
                ledger.settle(ledger.reserve(b"a", "label", Cost(1, 1, 1)), "{}", Cost(1, 1, 1), 0.1)
        marks.append(progress_of(tmp_path))
    assert marks[0] == marks[1] != marks[2] == marks[3] == marks[4]
    assert before != marks[2]
    path.write_bytes(b"no ledger at all, though it is as long as one could wish")
    assert progress_of(tmp_path) == marks[0]


class Counting(Database):
    """Tells how often somebody wrote, and which of these let others in between."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.writes: list[bool] = []

    @contextmanager
    def writing(self, *, one_of_many: bool = False) -> Iterator[Connection]:
        self.writes.append(one_of_many)
        with super().writing(one_of_many=one_of_many) as rows:
            yield rows


def test_many_rows_are_written_down_in_steps_and_once(worker: Worker, tmp_path: Path) -> None:
    job = taken(worker, VALIDATING)
    database = Counting(tmp_path)
    sources = [("file-x", line) for line in range(2 * lineage.LINES_AT_ONCE + 17)]
    try:
        with written(database) as rows:  # a worker that was killed in between left these
            lineage.record(rows, job["project_id"], job["id"], sources[:10])
        for _ in range(2):
            lineage.record_all(database, job, sources)
        assert database.writes == [False, True, True, True]
        assert told(database, job) == sources
        lineage.record_all(database, job, sources[5:9])
        assert told(database, job) == sources[5:9]
        with database.writing() as rows:
            rows.execute(update(jobs).values(token=job["token"] + 1))
        with pytest.raises(LeaseLost):
            lineage.record_all(database, job, sources)
        assert told(database, job) == sources[5:9]
    finally:
        database.close()


def told(database: Database, job: Row) -> list[tuple[str, int]]:
    with database.reading() as rows:
        asked = select(lines.c.source_id, lines.c.row).where(lines.c.job_id == job["id"]).order_by(lines.c.row)
        return [(name, row) for name, row in rows.execute(asked)]


class Clumsy(Worker):
    """Fails on each job with somebody's words in its error, as a database does."""

    def see_to(self, job: Row) -> None:
        self.ending.set()
        raise ValueError(f"what somebody wrote in {job['id']}: my private words")


def test_the_log_of_a_broken_job_holds_nobodys_words(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    new_job(worker.state.database)
    clumsy = Clumsy(worker.settings)
    Line(clumsy, "running", (QUEUED,), RUNNING).run()
    clumsy.state.database.close()
    log = capsys.readouterr().err
    assert "job broke" in log
    assert "ValueError" in log
    assert "see_to" in log
    assert "private words" not in log


class Broken(Database):
    """Its error has somebody's words in it, as a failed statement has its values."""

    ending = threading.Event()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        self.ending.set()
        raise OperationalError("INSERT", {"response": "my private words"}, OSError("no room"))
        yield


def test_the_log_of_a_broken_sweep_holds_nobodys_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retention, "FIRST_S", 0.01)
    database = Broken(tmp_path)
    retention.Sweeper(database, Settings(tmp_path), database.ending).run()
    database.close()
    log = capsys.readouterr().err
    assert "sweep failed" in log
    assert "OperationalError" in log
    assert "private words" not in log
