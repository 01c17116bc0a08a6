"""The rows of files, and where the bytes of files and uploads lie."""

from __future__ import annotations

import re
import time
from pathlib import Path

from sqlalchemy import Connection, and_, bindparam, or_, select

from stillroom.service.data import jsonl
from stillroom.service.door.faults import not_found
from stillroom.service.door.lists import Row
from stillroom.service.rows.ids import is_id
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import files
from stillroom.service.settings import Settings

THERE = and_(
    files.c.project_id == bindparam("project_id"), files.c.deleted_at.is_(None),
    or_(files.c.expires_at.is_(None), files.c.expires_at > bindparam("now")),
)  # fmt: skip
"""A project's files that are neither deleted nor expired."""
LINKED = re.compile(r"(file-[A-Za-z0-9]{24})(?:\.[a-z]+)?")
_FIND = Statement(select(files).where(THERE, files.c.id == bindparam("id")))


def file_path(settings: Settings, file_id: str) -> Path:
    """Where a file's bytes lie. Raises ApiError 404 for what is no id of a file, so that no path is ever made of it."""
    if not is_id(file_id, "file"):
        raise not_found("file", file_id, "file_id")
    return settings.root / "files" / file_id


def find_file(rows: Connection, project_id: str, file_id: str, param: str = "file_id") -> Row:
    """A file's row. Raises ApiError 404; what is deleted, expired or another project's is not there."""
    found = _FIND.first(rows, id=file_id, project_id=project_id, now=int(time.time()))
    if found is None:
        raise not_found("file", file_id, param)
    return found


def with_names(rows: Connection, project_id: str, message: str) -> str:
    """A message with files called as their client calls them, who never saw what their copies are called in a job's folder."""

    def called(linked: re.Match[str]) -> str:
        wanted = (files.c.id == linked[1]) & (files.c.project_id == project_id)
        return rows.execute(select(files.c.filename).where(wanted)).scalar() or linked[0]

    return LINKED.sub(called, message)


def upload_folder(settings: Settings, upload_id: str) -> Path:
    """Where the parts of an upload lie. Raises ApiError 404 for what is no id of one."""
    if not is_id(upload_id, "upload"):
        raise not_found("upload", upload_id, "upload_id")
    return settings.root / "uploads" / upload_id


def remove_bytes(settings: Settings, file_id: str) -> None:
    """Take a file's bytes off the disk."""
    path = file_path(settings, file_id)
    for one in (path, jsonl.rejected_path(path)):
        one.unlink(missing_ok=True)
