"""What happened to a job: one table, read by the API, the stream and the pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from sqlalchemy import bindparam, select

from stillroom.service.door import lists
from stillroom.service.door.access import Reads
from stillroom.service.door.faults import not_found
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import LIMIT, Listed
from stillroom.service.jobs.event_rows import BEFORE, NEWEST, ONE, numbered, show_event
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import jobs

router = APIRouter(route_class=Route, tags=["fine-tuning"])
_JOB = Statement(
    select(jobs.c.number).where(jobs.c.id == bindparam("id"), jobs.c.project_id == bindparam("project_id"))
)


@router.get("/v1/fine_tuning/jobs/{job_id}/events", response_model=Listed)
async def list_events(
    request: Request, caller: Reads, job_id: str, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> dict[str, Any]:
    """The events of a job, the newest first."""
    with request.app.state.database.reading() as rows:
        if _JOB.value(rows, id=job_id, project_id=caller.project_id) is None:
            raise not_found("fine-tuning job", job_id)
        number = NEWEST if after is None else numbered(after)
        if after is not None and (number is None or ONE.value(rows, job_id=job_id, number=number) is None):
            raise not_found("event", after, "after")
        found = BEFORE.all(rows, job_id=job_id, number=number, limit=limit + 1)
    return lists.as_list([show_event(row) for row in found[:limit]], len(found) > limit)
