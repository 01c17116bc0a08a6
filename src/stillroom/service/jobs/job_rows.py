"""The rows of jobs: found under their project, claimed with a token that rises each time, written only by who holds it.

A worker that was held up and wakes again writes nothing, since another has raised the token meanwhile.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, bindparam, func, or_, select, update

from stillroom.rundir import commit_point
from stillroom.service.rows.database import Database
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import jobs

Row = Mapping[Any, Any]

LEASE_S = 15.0
"""A worker that has not written for so long has lost its jobs."""
VALIDATING, QUEUED, RUNNING, PAUSED = "validating_files", "queued", "running", "paused"
CANCELLED = "cancelled"
ENDED = ("succeeded", "failed", CANCELLED)
STATES = (VALIDATING, QUEUED, RUNNING, PAUSED, *ENDED)


_WAITS = (jobs.c.status == QUEUED) | (jobs.c.status == VALIDATING)
_BEFORE = Statement(
    select(func.count()).where((jobs.c.status == RUNNING) | (_WAITS & (jobs.c.number < bindparam("number"))))
)


class LeaseLost(Exception):
    """The job is another worker's, or nobody's any more."""


@contextmanager
def written(database: Database, *, one_of_many: bool = False) -> Iterator[Connection]:
    """Like database.writing(), with a place before and after it where a test can end the process."""
    commit_point()
    with database.writing(one_of_many=one_of_many) as rows:
        yield rows
    commit_point()


def by_id(rows: Connection, job_id: str) -> Row:
    """A job that is known to be there, whosever it is: for the worker."""
    return rows.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()


def claim(database: Database, worker: str, states: tuple[str, ...], to: str) -> Row | None:
    """The job that has waited longest in one of these states and is nobody's, now this worker's; None: there is none.

    A job that was running when its worker ended comes before those that never began. `left_by` is the worker that ended while
    it had the job; None where none did.
    """
    now, looking, taking = time.time(), *_claiming((*states, to))
    with database.reading() as rows:  # most looks find nothing, and need no writer's turn
        if not looking.raw(rows, now=now):
            return None
    with written(database) as rows:
        found = taking.first(rows, now=now)
        if found is None:
            return None
        taken = {"token": found["token"] + 1, "worker": worker, "lease_until": now + LEASE_S, "status": to}
        rows.execute(update(jobs).where(jobs.c.id == found["id"]).values(**taken))
        return {**found, **taken, "left_by": found["worker"]}


@functools.cache
def _claiming(states: tuple[str, ...]) -> tuple[Statement, Statement]:
    """Whether there is a job in one of these states that is nobody's at `now`, and the first of them. A worker that has nothing
    to do looks eight times a second.
    """
    free = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < bindparam("now"))
    waiting = or_(*(jobs.c.status == state for state in states)) & free
    order = (jobs.c.status != RUNNING, jobs.c.number)
    return (
        Statement(select(jobs.c.number).where(waiting).limit(1)),
        Statement(select(jobs).where(waiting).order_by(*order).limit(1)),
    )


def fenced(rows: Connection, job: Row, **values: Any) -> None:
    """Write into a job that this worker claimed. Raises LeaseLost where it is not its any more; nothing is written then."""
    wanted = (jobs.c.id == job["id"]) & (jobs.c.token == job["token"])
    if rows.execute(update(jobs).where(wanted).values(**values)).rowcount != 1:
        raise LeaseLost(job["id"])


def told_after_cancel(rows: Connection, job: Row, figures: Mapping[str, Any]) -> None:
    """Add figures to a job that its owner cancelled while this worker was at it; to no other one, which is not its any more."""
    found = by_id(rows, job["id"])
    if found["status"] == CANCELLED:
        rows.execute(update(jobs).where(jobs.c.id == job["id"]).values(figures={**found["figures"], **figures}))


def renew(database: Database, job: Row) -> str | None:
    """Hold a job for longer; what its owner wishes of it meanwhile. Raises LeaseLost, also where it was let go of."""
    ours = (jobs.c.id == job["id"]) & (jobs.c.token == job["token"]) & jobs.c.worker.is_not(None)
    with database.writing() as rows:
        if rows.execute(update(jobs).where(ours).values(lease_until=time.time() + LEASE_S)).rowcount != 1:
            raise LeaseLost(job["id"])
        wish: str | None = rows.execute(select(jobs.c.wish).where(jobs.c.id == job["id"])).scalar()
    return wish


def wish_of(database: Database, job: Row) -> str | None:
    """What its owner wishes of it. Raises LeaseLost."""
    with database.reading() as rows:
        found = rows.execute(select(jobs.c.token, jobs.c.wish).where(jobs.c.id == job["id"])).one()
    if found.token != job["token"]:
        raise LeaseLost(job["id"])
    wish: str | None = found.wish
    return wish


def free_all(database: Database, worker: str) -> None:
    """To be claimed at once: the jobs of a worker of this name that is known to have ended. They still say whose they were."""
    with written(database) as rows:
        rows.execute(update(jobs).where(jobs.c.worker == worker).values(lease_until=0.0))


def position(rows: Connection, job: Row) -> int | None:
    """How many jobs of this machine come before a queued one, and itself; None where it does not wait."""
    if job["status"] not in (QUEUED, VALIDATING):
        return None
    return 1 + int(_BEFORE.value(rows, number=job["number"]))
