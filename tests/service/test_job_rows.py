"""Whose a job is: claimed by one worker at a time, and written by nobody else."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from stillroom.service.door.access import first_project
from stillroom.service.jobs.job_rows import (
    QUEUED,
    RUNNING,
    LeaseLost,
    by_id,
    claim,
    fenced,
    free_all,
    position,
    renew,
    wish_of,
    written,
)  # fmt: skip
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.tables import jobs
from stillroom.service.work.leases import Lease


def new_job(database: Database, **more: Any) -> str:
    values = {
        "id": new_id("ftjob"), "project_id": first_project(database), "created_at": 1, "status": QUEUED, "model": "m",
        "training_file": "", "seed": 0, "hyperparameters": {}, "asked": {}, "recipe": {}, "phases": {}, "figures": {},
        "token": 0, "attempts": 0, **more,
    }  # fmt: skip
    with database.writing() as rows:
        rows.execute(insert(jobs).values(**values))
    return str(values["id"])


def expire(database: Database, job_id: str) -> None:
    with database.writing() as rows:
        rows.execute(update(jobs).where(jobs.c.id == job_id).values(lease_until=time.time() - 1))


def test_the_oldest_is_claimed_first_and_once(database: Database) -> None:
    first, second = new_job(database), new_job(database)
    taken = [claim(database, "a", (QUEUED,), RUNNING) for _ in range(3)]
    assert [job and job["id"] for job in taken] == [first, second, None]
    assert [job["token"] for job in taken if job] == [1, 1]


def test_many_claim_and_each_gets_another(database: Database) -> None:
    wanted = {new_job(database) for _ in range(12)}
    found: list[str] = []

    def work(name: str) -> None:
        while (job := claim(database, name, (QUEUED,), RUNNING)) is not None:
            found.append(job["id"])

    threads = [threading.Thread(target=work, args=(str(place),)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert set(found) == wanted


def test_a_worker_that_wakes_too_late_writes_nothing(database: Database) -> None:
    job_id = new_job(database)
    late = claim(database, "late", (QUEUED,), RUNNING)
    assert late is not None
    assert claim(database, "other", (QUEUED,), RUNNING) is None
    expire(database, job_id)
    other = claim(database, "other", (QUEUED,), RUNNING)
    assert other is not None
    assert other["token"] == late["token"] + 1
    with pytest.raises(LeaseLost), written(database) as rows:
        rows.execute(update(jobs).where(jobs.c.id == job_id).values(model="spoiled"))
        fenced(rows, late, status="succeeded")
    for call in (renew, wish_of):
        with pytest.raises(LeaseLost):
            call(database, late)
    with database.reading() as rows:
        row = by_id(rows, job_id)
        assert (row["status"], row["model"], row["worker"]) == (RUNNING, "m", "other")
    with written(database) as rows:
        fenced(rows, other, status="succeeded")


def test_what_a_dead_worker_had_comes_before_what_waits(database: Database) -> None:
    waits, had = new_job(database), new_job(database, status=RUNNING, worker="dead", lease_until=time.time() + 60)
    other = new_job(database, status=RUNNING, worker="alive", lease_until=time.time() + 60)
    free_all(database, "dead")
    taken = [claim(database, "b", (QUEUED,), RUNNING) for _ in range(3)]
    assert [job and job["id"] for job in taken] == [had, waits, None]
    with database.reading() as rows:
        assert by_id(rows, other)["worker"] == "alive"


def test_a_lease_is_kept_while_it_is_worked_on_and_its_loss_is_seen(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillroom.service.work.leases.RENEW_S", 0.05)
    job_id = new_job(database)
    job = claim(database, "a", (QUEUED,), RUNNING)
    assert job is not None
    expire(database, job_id)
    with Lease(database, job) as lease:
        time.sleep(0.5)
        lease.check()
        with database.reading() as rows:
            assert by_id(rows, job_id)["lease_until"] > time.time()
        with database.writing() as rows:
            rows.execute(update(jobs).where(jobs.c.id == job_id).values(token=job["token"] + 1))
        time.sleep(0.5)
        with pytest.raises(LeaseLost):
            lease.check()


def test_a_job_that_was_let_go_of_is_not_held_again(database: Database) -> None:
    new_job(database)
    job = claim(database, "a", (QUEUED,), RUNNING)
    assert job is not None
    with written(database) as rows:
        fenced(rows, job, status=QUEUED, lease_until=None, worker=None)
    with pytest.raises(LeaseLost):  # as a renewal that comes a moment late
        renew(database, job)
    again = claim(database, "b", (QUEUED,), RUNNING)
    assert again is not None
    assert again["id"] == job["id"]


def test_places_in_the_queue(database: Database) -> None:
    names = [new_job(database, status=status) for status in (QUEUED, "succeeded", RUNNING, QUEUED, "paused")]
    with database.reading() as rows:
        found = rows.execute(select(jobs).order_by(jobs.c.number)).mappings().all()
        assert [row["id"] for row in found] == names
        assert [position(rows, row) for row in found] == [2, None, None, 3, None]
