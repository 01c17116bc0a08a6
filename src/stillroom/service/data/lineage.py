"""Which rows a student was made from, and which students a row went into; what was deleted stays counted until a retraining.

A source is a file's row (`file-...` and its line), a whole file (row 0: a table that a recipe reads), or a stored completion
(`chatcmpl-...`, row 0). A job's lines are written once, when its transfer set is made of them. Deleting a source marks them,
and leaves `deleted.json` in each transfer set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.sql.expression import Select

from stillroom.rundir import read_json, write_json
from stillroom.service.door.access import Reads
from stillroom.service.door.faults import not_found
from stillroom.service.door.lists import as_list
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import Listed
from stillroom.service.jobs.job_rows import LEASE_S, Row, fenced, written
from stillroom.service.rows.database import Database
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import completions, files, jobs, lineage, models
from stillroom.service.settings import Settings

router = APIRouter(route_class=Route, prefix="/api/lineage", tags=["lineage"])
MARK = "deleted.json"
AT_ONCE = 500
"""Names in one query."""
LINES_AT_ONCE = 2000
"""Written under one lock."""
MOST_ROW = 1_000_000_000
_DELETED = (lineage.c.project_id == bindparam("project_id")) & lineage.c.deleted_at.is_not(None)
_GONE = Statement(select(func.count()).select_from(lineage).where(_DELETED, lineage.c.job_id == bindparam("job_id")))
_GONE_OF_ALL = Statement(
    select(lineage.c.job_id, func.count().label("count")).where(_DELETED).group_by(lineage.c.job_id)
)


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


def record(rows: Connection, project_id: str, job_id: str, source_ids: Sequence[tuple[str, int]]) -> None:
    """Write down that a job's transfer set is made from these (source, row). One that is gone by now is marked at once."""
    names, now = sorted({name for name, _ in source_ids}), int(time.time())
    gone: set[str] = set()
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        for table in (files, completions):
            wanted = (table.c.project_id == project_id) & table.c.id.in_(part) & table.c.deleted_at.is_not(None)
            gone.update(rows.execute(select(table.c.id).where(wanted)).scalars())
    lines = [
        {"project_id": project_id, "job_id": job_id, "source_id": name, "row": row,
         "deleted_at": now if name in gone else None}
        for name, row in source_ids
    ]  # fmt: skip
    if lines:
        rows.execute(insert(lineage), lines)


def record_all(database: Database, job: Row, source_ids: Sequence[tuple[str, int]]) -> None:
    """The same for a claimed job, in steps that other writers get in between; done again, nothing is written twice.

    Raises LeaseLost.
    """
    wanted = dict.fromkeys(source_ids)
    with database.reading() as rows:
        asked = select(lineage.c.source_id, lineage.c.row).where(lineage.c.job_id == job["id"])
        there = {(name, row) for name, row in rows.execute(asked)}
    if not there <= wanted.keys():  # of an earlier try, when there were other rows
        with written(database) as rows:
            fenced(rows, job, lease_until=time.time() + LEASE_S)
            rows.execute(delete(lineage).where(lineage.c.job_id == job["id"]))
        there = set()
    left = [one for one in wanted if one not in there]
    for start in range(0, len(left), LINES_AT_ONCE):
        with written(database, one_of_many=True) as rows:
            fenced(rows, job, lease_until=time.time() + LEASE_S)
            record(rows, job["project_id"], job["id"], left[start : start + LINES_AT_ONCE])


def mark_deleted(rows: Connection, project_id: str, source_id: str) -> list[str]:
    """Mark every line of a source that is being deleted. Returns the jobs made from it."""
    wanted = (lineage.c.project_id == project_id) & (lineage.c.source_id == source_id) & lineage.c.deleted_at.is_(None)
    found = list(rows.execute(select(lineage.c.job_id).where(wanted).distinct()).scalars())
    if found:
        rows.execute(update(lineage).where(wanted).values(deleted_at=int(time.time())))
    return found


def contains_deleted(rows: Connection, project_id: str, job_id: str) -> int:
    """How many rows of a job's transfer set were deleted where they came from."""
    return int(_GONE.value(rows, project_id=project_id, job_id=job_id))


def all_deleted(rows: Connection, project_id: str) -> dict[str, int]:
    """The same of all jobs of a project; those that nothing is missing from are left out."""
    return {one["job_id"]: one["count"] for one in _GONE_OF_ALL.all(rows, project_id=project_id)}


def leave_marks(database: Database, settings: Settings, job_ids: Sequence[str]) -> int:
    """Write `deleted.json` into the transfer sets of these jobs: what in them was deleted. Returns how many were written.

    A job that has no transfer set yet gets its mark from the next sweep, as does one whose server was killed before this.
    """
    written = 0
    for job_id in job_ids:
        folder = settings.root / "jobs" / job_id / "run" / "transfer_set"
        if not folder.is_dir():
            continue
        wanted = (lineage.c.job_id == job_id) & lineage.c.deleted_at.is_not(None)
        asked = select(lineage.c.source_id, func.count(), func.min(lineage.c.deleted_at)).where(wanted)
        with database.reading() as rows:
            found = rows.execute(asked.group_by(lineage.c.source_id).order_by(lineage.c.source_id)).all()
        sources = [{"source": name, "rows": count, "deleted_at": at} for name, count, at in found]
        mark = {"contains_deleted": sum(count for _, count, _ in found), "sources": sources}
        path = folder / MARK
        if not path.is_file() or read_json(path) != mark:
            write_json(path, mark)
            written += 1
    return written


def marked_jobs(rows: Connection) -> list[str]:
    """Every job, of any project, whose transfer set holds something that was deleted."""
    return list(rows.execute(select(lineage.c.job_id).where(lineage.c.deleted_at.is_not(None)).distinct()).scalars())


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
