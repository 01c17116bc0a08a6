"""What has had its time is taken away: completions past a project's retention, expired files, uploads nobody finished.

`sweep` may run at any time, from any process, and again after a crash; it erases, and marks nothing: only a DELETE does.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from stillroom.errors import StillroomError
from stillroom.service.data import completion_rows as stored_room
from stillroom.service.data import file_rows as room
from stillroom.service.data import lineage_rows
from stillroom.service.door import creation_rows
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import is_id
from stillroom.service.rows.tables import completions as completion_rows
from stillroom.service.rows.tables import files as file_rows
from stillroom.service.rows.tables import projects, teachers, upload_parts
from stillroom.service.rows.tables import uploads as upload_rows
from stillroom.service.settings import Settings
from stillroom.service.watch.logs import log, log_error

AT_ONCE = 500
"""Rows erased under one lock."""
STRAY_S = 86_400
"""A file without a row that has not changed for so long belongs to nothing: a server was killed in between."""


FIRST_S, EVERY_S = 5.0, 600.0


@dataclass(frozen=True)
class Swept:
    """How many of each were taken away."""

    completions: int
    files: int
    uploads: int
    strays: int


class Sweeper(threading.Thread):
    """Sweeps soon after it is started, and every ten minutes from then on, until `ending` is set."""

    def __init__(self, database: Database, settings: Settings, ending: threading.Event) -> None:
        super().__init__(name="sweeping", daemon=True)
        self._database, self._settings, self._ending = database, settings, ending

    def run(self) -> None:
        """See threading."""
        wait_s = FIRST_S
        while not self._ending.wait(wait_s):
            wait_s = EVERY_S
            try:
                log("swept", **asdict(sweep(self._database, self._settings)))
            except (OSError, sqlite3.Error, SQLAlchemyError, StillroomError) as error:
                log_error("sweep failed", error)


def sweep(database: Database, settings: Settings) -> Swept:
    """Take away what has had its time, in small steps; other writers get in between."""
    found = Swept(
        _sweep_completions(database), _sweep_files(database, settings), _sweep_uploads(database, settings),
        _sweep_strays(database, settings),
    )  # fmt: skip
    with database.writing() as rows:
        creation_rows.forget_old(rows)
    with database.reading() as rows:
        marked, erased_at = lineage_rows.marked_jobs(rows), _erased_at(rows)
    lineage_rows.leave_marks(database, settings, marked)
    if erased_at is not None:
        database.trim(erased_at)
    return found


def _erased_at(rows: Connection) -> int | None:
    """When a text or a teacher's key was last taken out of its row."""
    last = [
        select(func.max(table.c.deleted_at)).where(table.c.deleted_at.is_not(None)) for table in (completion_rows, teachers)
    ]  # fmt: skip
    times = [rows.execute(one).scalar() for one in last]
    return max((at for at in times if at is not None), default=None)


def _sweep_completions(database: Database) -> int:
    with database.reading() as rows:
        asked = select(projects.c.id, projects.c.retention_days).where(projects.c.retention_days.is_not(None))
        limits = rows.execute(asked).all()
    count = 0
    for project_id, days in limits:
        oldest = int(time.time()) - days * stored_room.DAY_S
        wanted = (completion_rows.c.project_id == project_id) & completion_rows.c.deleted_at.is_(None)
        asked_ids = select(completion_rows.c.id).where(wanted & (completion_rows.c.created_at <= oldest)).limit(AT_ONCE)
        going = True
        while going:
            with database.writing(one_of_many=True) as rows:
                names = list(rows.execute(asked_ids).scalars())
                if names:
                    stored_room.erase(rows, project_id, names)
            count, going = count + len(names), len(names) == AT_ONCE
    return count


def _sweep_files(database: Database, settings: Settings) -> int:
    """Expired files are marked as gone; the bytes of those that are gone are removed, also where a server died before."""
    now = int(time.time())
    with database.writing() as rows:
        wanted = file_rows.c.deleted_at.is_(None) & (file_rows.c.expires_at <= now)
        expired = list(rows.execute(select(file_rows.c.id).where(wanted)).scalars())
        rows.execute(update(file_rows).where(wanted).values(deleted_at=now))
    with database.reading() as rows:
        gone = list(rows.execute(select(file_rows.c.id).where(file_rows.c.deleted_at.is_not(None))).scalars())
    for file_id in gone:
        room.remove_bytes(settings, file_id)
    return len(expired)


def _sweep_uploads(database: Database, settings: Settings) -> int:
    with database.writing() as rows:
        wanted = (upload_rows.c.status == "pending") & (upload_rows.c.expires_at <= int(time.time()))
        expired = list(rows.execute(select(upload_rows.c.id).where(wanted)).scalars())
        rows.execute(update(upload_rows).where(wanted).values(status="expired"))
        _forget_parts(rows)
    folder = settings.root / "uploads"
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_id(path.name, "upload") and not _is_pending(database, path.name):
            shutil.rmtree(room.upload_folder(settings, path.name), ignore_errors=True)
    return len(expired)


def _forget_parts(rows: Connection) -> None:
    """Take out the rows of parts whose upload is over."""
    over = select(upload_rows.c.id).where(upload_rows.c.status != "pending")
    rows.execute(delete(upload_parts).where(upload_parts.c.upload_id.in_(over)))


def _is_pending(database: Database, upload_id: str) -> bool:
    with database.reading() as rows:
        wanted = (upload_rows.c.id == upload_id) & (upload_rows.c.status == "pending")
        return rows.execute(select(upload_rows.c.id).where(wanted)).first() is not None


def _sweep_strays(database: Database, settings: Settings) -> int:
    """Files of `files/` that no row names, left by a server that was killed."""
    folder, count, before = settings.root / "files", 0, time.time() - STRAY_S
    for path in folder.iterdir() if folder.is_dir() else ():
        name = path.name.removesuffix(".rejected")
        if not path.is_file() or path.stat().st_mtime > before:
            continue
        with database.reading() as rows:
            known = rows.execute(select(file_rows.c.id).where(file_rows.c.id == name)).first()
        if known is None:
            path.unlink(missing_ok=True)
            count += 1
    return count
