"""The rows of lineage: written when a transfer set is made, marked when a source is deleted, and counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from stillroom.rundir import read_json, write_json
from stillroom.service.data.completion_rows import DAY_S
from stillroom.service.jobs.job_rows import LEASE_S, Row, fenced, written
from stillroom.service.rows.database import Database
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import completions, files, lineage, projects
from stillroom.service.settings import Settings

MARK = "deleted.json"
AT_ONCE = 500
"""Names in one query."""
LINES_AT_ONCE = 2000
"""Written under one lock."""
_DELETED = (lineage.c.project_id == bindparam("project_id")) & lineage.c.deleted_at.is_not(None)
_GONE = Statement(select(func.count()).select_from(lineage).where(_DELETED, lineage.c.job_id == bindparam("job_id")))
_GONE_OF_ALL = Statement(
    select(lineage.c.job_id, func.count().label("count")).where(_DELETED).group_by(lineage.c.job_id)
)

MANY = 1_000
_MANY_GONE = Statement(select(lineage.c.number).where(_DELETED).limit(1).offset(MANY))


def record(rows: Connection, project_id: str, job_id: str, source_ids: Sequence[tuple[str, int]]) -> None:
    """Write down that a job's transfer set is made from these (source, row). One that was deleted by now is marked at
    once; one whose time is over is not.
    """
    names, now = sorted({name for name, _ in source_ids}), int(time.time())
    gone: set[str] = set()
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        for table, ended in ((files, files.c.expires_at), (completions, _ended_at())):
            wanted = (table.c.project_id == project_id) & table.c.id.in_(part) & table.c.deleted_at.is_not(None)
            wanted &= ended.is_(None) | (table.c.deleted_at < ended)  # what has had its time can only be swept
            gone.update(rows.execute(select(table.c.id).where(wanted)).scalars())
    lines = [
        {"project_id": project_id, "job_id": job_id, "source_id": name, "row": row,
         "deleted_at": now if name in gone else None}
        for name, row in source_ids
    ]  # fmt: skip
    if lines:
        rows.execute(insert(lineage), lines)


def _ended_at() -> ColumnElement[Any]:
    """When a completion has had its time; NULL where its project keeps them for ever."""
    days = select(projects.c.retention_days).where(projects.c.id == completions.c.project_id).scalar_subquery()
    return completions.c.created_at + days * DAY_S


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


def are_many_deleted(rows: Connection, project_id: str) -> bool:
    """There are so many that counting them takes its time."""
    return _MANY_GONE.first(rows, project_id=project_id) is not None


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
