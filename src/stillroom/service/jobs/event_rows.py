"""The rows of events: written with what they tell of, and found after one of them or before it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, insert, select

from stillroom.service.door.lists import Row
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import events

PREFIX, NEWEST = "ftevent-", (1 << 63) - 1
_OF_A_JOB = events.c.job_id == bindparam("job_id")
_NUMBER: BindParameter[int] = bindparam("number")
ONE = Statement(select(events.c.number).where(_OF_A_JOB, events.c.number == _NUMBER))
_SINCE = Statement(
    select(events).where(_OF_A_JOB, events.c.number > _NUMBER).order_by(events.c.number).limit(bindparam("limit"))
)
BEFORE = Statement(
    select(events)
    .where(_OF_A_JOB, events.c.number < _NUMBER)
    .order_by(events.c.number.desc())
    .limit(bindparam("limit"))
)


def tell(
    rows: Connection, job: Row, message: str, level: str = "info", type: str = "message",
    data: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write down that something happened to a job; `job` has at least its id and project_id."""
    rows.execute(
        insert(events).values(
            project_id=job["project_id"], job_id=job["id"], created_at=time.time(), level=level, type=type,
            message=message, data=None if data is None else dict(data),
        )
    )  # fmt: skip


def since(rows: Connection, job_id: str, number: int, limit: int = 100) -> Sequence[Row]:
    """The events of a job after one of them, the oldest first."""
    return _SINCE.all(rows, job_id=job_id, number=number, limit=limit)


def show_event(row: Row) -> dict[str, Any]:
    """A fine_tuning.job.event."""
    return {
        "id": event_id(row["number"]),
        "object": "fine_tuning.job.event",
        "created_at": int(row["created_at"]),
        "level": row["level"],
        "message": row["message"],
        "type": row["type"],
        "data": row["data"],
    }


def event_id(number: int) -> str:
    """What an event is called."""
    return f"{PREFIX}{number}"


def numbered(given: str) -> int | None:
    """The number in an event's id; None for what is none."""
    digits = given.removeprefix(PREFIX)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
