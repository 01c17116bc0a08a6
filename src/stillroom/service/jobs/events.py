"""What happened to a job: one table, read by the API, the stream and the pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from sqlalchemy import bindparam, select

from stillroom.service.door import fragments
from stillroom.service.door.access import Reads
from stillroom.service.door.faults import not_found
from stillroom.service.door.fragments import Fragments
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import LIMIT, Listed
from stillroom.service.jobs.event_rows import BEFORE, NEWEST, ONE, event_id, numbered, show_event
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import jobs

router = APIRouter(route_class=Route, tags=["fine-tuning"])
_JOB = Statement(
    select(jobs.c.number).where(jobs.c.id == bindparam("id"), jobs.c.project_id == bindparam("project_id"))
)

_SENT = Fragments(lambda row: [show_event(row)])


@router.get("/v1/fine_tuning/jobs/{job_id}/events", response_model=Listed)
async def list_events(
    request: Request, caller: Reads, job_id: str, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> Response:
    """The events of a job, the newest first."""
    with request.app.state.database.reading() as rows:
        if _JOB.value(rows, id=job_id, project_id=caller.project_id) is None:
            raise not_found("fine-tuning job", job_id)
        number = NEWEST if after is None else numbered(after)
        if after is not None and (number is None or ONE.value(rows, job_id=job_id, number=number) is None):
            raise not_found("event", after, "after")
        found = BEFORE.raw(rows, job_id=job_id, number=number, limit=limit + 1)
    shown = found[:limit]
    return fragments.as_list(
        [_SENT.of(BEFORE, raw) for raw in shown], [event_id(raw[0]) for raw in shown], len(found) > limit
    )
