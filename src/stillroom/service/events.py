"""What happened to a job: one table, read by the API, the stream and the pages."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection, insert, select

from stillroom.service import lists
from stillroom.service.access import Reads
from stillroom.service.faults import not_found
from stillroom.service.lists import Row
from stillroom.service.routes import Route
from stillroom.service.schemas import LIMIT, Listed
from stillroom.service.tables import events, jobs

router = APIRouter(route_class=Route, tags=["fine-tuning"])
PREFIX = "ftevent-"


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
    wanted = (events.c.job_id == job_id) & (events.c.number > number)
    return rows.execute(select(events).where(wanted).order_by(events.c.number).limit(limit)).mappings().all()


def show_event(row: Row) -> dict[str, Any]:
    """A fine_tuning.job.event."""
    return {
        "id": f"{PREFIX}{row['number']}",
        "object": "fine_tuning.job.event",
        "created_at": int(row["created_at"]),
        "level": row["level"],
        "message": row["message"],
        "type": row["type"],
        "data": row["data"],
    }


def numbered(event_id: str) -> int | None:
    """The number in an event's id; None for what is none."""
    digits = event_id.removeprefix(PREFIX)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


@router.get("/v1/fine_tuning/jobs/{job_id}/events", response_model=Listed)
def list_events(
    request: Request, caller: Reads, job_id: str, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> dict[str, Any]:
    """The events of a job, the newest first."""
    with request.app.state.database.reading() as rows:
        mine = (jobs.c.id == job_id) & (jobs.c.project_id == caller.project_id)
        if rows.execute(select(jobs.c.number).where(mine)).first() is None:
            raise not_found("fine-tuning job", job_id)
        wanted = events.c.job_id == job_id
        if after is not None:
            number = numbered(after)
            there = select(events.c.number).where(wanted & (events.c.number == number))
            if number is None or rows.execute(there).first() is None:
                raise not_found("event", after, "after")
            wanted &= events.c.number < number
        asked = select(events).where(wanted).order_by(events.c.number.desc()).limit(limit + 1)
        found = rows.execute(asked).mappings().all()
    return lists.as_list([show_event(row) for row in found[:limit]], len(found) > limit)
