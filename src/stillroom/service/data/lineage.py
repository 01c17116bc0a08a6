"""Which rows a student was made from, and which students a row went into; what was deleted stays counted until a retraining.

A source is a file's row (`file-...` and its line), a whole file (row 0: a table that a recipe reads), or a stored completion
(`chatcmpl-...`, row 0). A job's lines are written once, when its transfer set is made of them. Deleting a source marks them,
and leaves `deleted.json` in each transfer set.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, and_, func, select
from sqlalchemy.sql.expression import Select

from stillroom.service.data.lineage_rows import contains_deleted
from stillroom.service.door.access import Reads
from stillroom.service.door.faults import not_found
from stillroom.service.door.lists import as_list
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import Listed
from stillroom.service.rows.tables import completions, files, jobs, lineage, models

router = APIRouter(route_class=Route, prefix="/api/lineage", tags=["lineage"])
MOST_ROW = 1_000_000_000


class Made(BaseModel):
    """A job that was made from a source."""

    job_id: str
    model: str | None
    rows: int
    contains_deleted: int


class Source(BaseModel):
    """What a file or a stored completion went into."""

    object: Literal["lineage.source"]
    id: str
    deleted_at: int | None
    made: list[Made]


@router.get("/sources/{source_id}", response_model=Source)
def made_from(
    source_id: str, request: Request, caller: Reads, row: Annotated[int | None, Query(ge=0, le=MOST_ROW)] = None
) -> dict[str, Any]:
    """The jobs and students made from a file or a stored completion, also from one that is deleted; `row`: from that line."""
    with request.app.state.database.reading() as rows:
        for table in (files, completions):
            wanted = (table.c.project_id == caller.project_id) & (table.c.id == source_id)
            found = rows.execute(select(table.c.id, table.c.deleted_at).where(wanted)).first()
            if found is not None:
                break
        else:
            raise not_found("source", source_id, "source_id")
        ours = (lineage.c.project_id == caller.project_id) & (lineage.c.source_id == source_id)
        if row is not None:  # what was made from the whole file was made from this line too
            ours &= lineage.c.row.in_((row, 0))
        asked = (
            select(lineage.c.job_id, jobs.c.fine_tuned_model, func.count())
            .join(jobs, jobs.c.id == lineage.c.job_id)
            .where(ours)
            .group_by(lineage.c.job_id, jobs.c.fine_tuned_model, jobs.c.number)
            .order_by(jobs.c.number)
        )
        made = [
            {"job_id": job_id, "model": model, "rows": count,
             "contains_deleted": contains_deleted(rows, caller.project_id, job_id)}
            for job_id, model, count in rows.execute(asked).all()
        ]  # fmt: skip
    return {"id": source_id, "object": "lineage.source", "deleted_at": found.deleted_at, "made": made}


def _lines(
    rows: Connection, ours: ColumnElement[bool], after: str | None, limit: int, deleted: bool | None
) -> dict[str, Any]:
    """A page of a job's lines, in the order they were recorded. `after` is the id of one: `SOURCE:ROW`."""
    asked: Select[Any] = select(lineage).where(ours)
    if deleted is not None:
        asked = asked.where(lineage.c.deleted_at.is_not(None) if deleted else lineage.c.deleted_at.is_(None))
    if after is not None:
        source, _, row = after.rpartition(":")
        at = None
        if row.isdecimal() and len(row) < 19:
            named = and_(ours, lineage.c.source_id == source, lineage.c.row == int(row))
            at = rows.execute(select(lineage.c.number).where(named)).scalar()
        if at is None:
            raise not_found("row", after, "after")
        asked = asked.where(lineage.c.number > at)
    found = rows.execute(asked.order_by(lineage.c.number).limit(limit + 1)).mappings().all()
    shown = [
        {"id": f"{row['source_id']}:{row['row']}", "object": "lineage.row", "source_id": row["source_id"],
         "row": row["row"], "deleted_at": row["deleted_at"]}
        for row in found[:limit]
    ]  # fmt: skip
    return as_list(shown, len(found) > limit)


@router.get("/models/{model_id}", response_model=Listed)
def rows_of_a_model(
    model_id: str, request: Request, caller: Reads,
    after: str | None = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100, deleted: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The rows that a student was made from; `deleted=true` gives those that are gone since."""
    with request.app.state.database.reading() as rows:
        wanted = (models.c.project_id == caller.project_id) & (models.c.id == model_id)
        wanted &= models.c.deleted_at.is_(None)
        found = rows.execute(select(models.c.job_id).where(wanted)).first()
        if found is None:
            raise not_found("model", model_id, "model_id")
        ours = (lineage.c.project_id == caller.project_id) & (lineage.c.job_id == found.job_id)
        return _lines(rows, ours, after, limit, deleted)


@router.get("/jobs/{job_id}", response_model=Listed)
def rows_of_a_job(
    job_id: str, request: Request, caller: Reads,
    after: str | None = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100, deleted: bool | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The rows that a job's transfer set is made from."""
    with request.app.state.database.reading() as rows:
        wanted = (jobs.c.project_id == caller.project_id) & (jobs.c.id == job_id)
        if rows.execute(select(jobs.c.id).where(wanted)).first() is None:
            raise not_found("job", job_id, "job_id")
        ours = (lineage.c.project_id == caller.project_id) & (lineage.c.job_id == job_id)
        return _lines(rows, ours, after, limit, deleted)
