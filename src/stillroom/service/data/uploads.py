"""Uploads in parts, for files too large or too slow for one request: begun, sent part by part in any order, put together.

An upload lives an hour. Its parts lie in `uploads/<upload-id>/` until it is completed, cancelled or too old.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import Connection, bindparam, insert, select, update
from starlette.concurrency import run_in_threadpool

from stillroom.rundir import sync_folder
from stillroom.service.data import files, forms
from stillroom.service.data.file_rows import find_file, upload_folder
from stillroom.service.door.access import Caller, Writes
from stillroom.service.door.creations import Retriable, answered, is_retry
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.door.routes import Json, Route
from stillroom.service.door.schemas import NUMBER, Body
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import upload_parts, uploads
from stillroom.service.settings import Settings

router = APIRouter(route_class=Route, prefix="/v1/uploads", tags=["uploads"])
LIVES_S = 3_600
MOST_BYTES, PART_BYTES, MOST_PARTS = 8 << 30, 64 << 20, 2_000
CHUNK_BYTES = 1 << 20
_FIND = Statement(
    select(uploads).where(uploads.c.project_id == bindparam("project_id"), uploads.c.id == bindparam("id"))
)
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


class Upload(BaseModel):
    """An upload as the interface has it."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: files.File | None


class Part(BaseModel):
    """A part of one."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


class Life(Body):
    """How long the file will live."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=files.SHORTEST_S, le=files.LONGEST_S), NUMBER]


class NewUpload(Body):
    """What will come."""

    bytes: Annotated[int, Field(ge=1, le=MOST_BYTES), NUMBER]
    filename: Annotated[str, Field(min_length=1, max_length=forms.NAME_LENGTH)]
    mime_type: Annotated[str, Field(max_length=forms.NAME_LENGTH)]
    purpose: str
    expires_after: Life | None = None


class Completion(Body):
    """The parts in their order, and perhaps the md5 of the whole in hex."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=MOST_PARTS)]
    md5: str | None = None


def find_upload(rows: Connection, project_id: str, upload_id: str) -> Row:
    """An upload's row. Raises ApiError 404."""
    found = _FIND.first(rows, project_id=project_id, id=upload_id)
    if found is None:
        raise not_found("upload", upload_id, "upload_id")
    return found


def _pending(rows: Connection, project_id: str, upload_id: str) -> Row:
    """An upload that can still go on. Raises ApiError 404, or 400 for one that is over."""
    found = find_upload(rows, project_id, upload_id)
    status = _status(found)
    if status != "pending":
        told = f"This upload is {status}. Begin another one."
        raise ApiError(400, told, param="upload_id", code=f"upload_{status}")
    return found


def _status(row: Row) -> str:
    over = row["status"] == "pending" and row["expires_at"] <= time.time()
    return "expired" if over else str(row["status"])


def _show(row: Row, file: Row | None = None) -> dict[str, Any]:
    names = ("id", "bytes", "created_at", "expires_at", "filename", "purpose")
    shown = files.show(file) if file is not None else None
    return {"object": "upload", **{name: row[name] for name in names}, "status": _status(row), "file": shown}


@router.post("", response_model=Upload)
def uploads_create(body: NewUpload, request: Request, caller: Writes, one: Retriable) -> Json:
    """Begin one: how many bytes will come, and what for. Sent again, it is the same upload."""
    state = request.app.state
    return answered(state.database, caller, one, lambda: _begun(state.settings, caller, body))


def _begun(settings: Settings, caller: Caller, body: NewUpload) -> Callable[[Connection], dict[str, Any]]:
    """What writes a new upload's row. Raises ApiError 400."""
    purpose = files.checked_purpose(body.purpose)
    life = body.expires_after
    lives_s = files.checked_life(life.anchor if life else None, life.seconds if life else None, purpose)
    name = forms.checked_name(body.filename, "filename")
    settings.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.root).free
    if 2 * body.bytes > free:  # the parts, and the file made of them
        told = f"{2 * body.bytes:,} bytes are needed for this upload, and {free:,} are free on the service's disk."
        raise ApiError(400, told, param="bytes", code="disk_full")
    now = int(time.time())
    row = {
        "id": new_id("upload"), "project_id": caller.project_id, "filename": name, "purpose": purpose,
        "bytes": body.bytes, "status": "pending", "expires_after": lives_s, "file_id": None,
        "created_at": now, "expires_at": now + LIVES_S,
    }  # fmt: skip

    def write(rows: Connection) -> dict[str, Any]:
        rows.execute(insert(uploads).values(**row))
        return _show(row)

    return write


@router.post("/{upload_id}/parts", response_model=Part, openapi_extra=FORM)
async def uploads_part(upload_id: str, request: Request, caller: Writes) -> dict[str, Any]:
    """Add a part: a form with the bytes as `data`. Parts may come in any order, and several at once."""
    state = request.app.state
    row = await run_in_threadpool(_look, state, caller, upload_id)
    folder = upload_folder(state.settings, upload_id)
    received = await forms.receive(request, folder, field="data", most=min(PART_BYTES, row["bytes"]))
    if received.staged is None:
        raise ApiError(400, "The form has no part.", param="data", code="missing_required_parameter")
    return await run_in_threadpool(_keep_part, state, caller, upload_id, received.staged)


def _look(state: Any, caller: Caller, upload_id: str) -> Row:
    with state.database.reading() as rows:
        return _pending(rows, caller.project_id, upload_id)


def _keep_part(state: Any, caller: Caller, upload_id: str, staged: forms.Staged) -> dict[str, Any]:
    """Give a part its place and its row. Raises ApiError 400 where the upload is over, or has more than it said."""
    part_id, now = new_id("part"), int(time.time())
    path = upload_folder(state.settings, upload_id) / part_id
    try:
        with _of_what_is_there(state, caller, upload_id):
            staged.sync()
            staged.path.rename(path)
            sync_folder(
                path.parent
            )  # before the transaction: nobody else can write in it, and a disk may take its time
        with state.database.writing() as rows:
            row = _pending(rows, caller.project_id, upload_id)
            ours = upload_parts.c.upload_id == upload_id
            there = rows.execute(select(upload_parts.c.bytes).where(ours)).scalars().all()
            if sum(there) + staged.bytes > 2 * row["bytes"] or len(there) >= MOST_PARTS:
                told = f"The parts are more than the {row['bytes']:,} bytes that were announced, or too many."
                raise ApiError(400, told, param="data", code="upload_too_large")
            rows.execute(insert(upload_parts).values(
                id=part_id, project_id=caller.project_id, upload_id=upload_id, bytes=staged.bytes, created_at=now
            ))  # fmt: skip
    except BaseException:
        staged.remove()
        path.unlink(missing_ok=True)
        raise
    return {"id": part_id, "object": "upload.part", "created_at": now, "upload_id": upload_id}


@router.post("/{upload_id}/complete", response_model=Upload)
def uploads_complete(upload_id: str, body: Completion, request: Request, caller: Writes) -> dict[str, Any]:
    """Put the parts together; the file is looked at as one that came in one piece."""
    state = request.app.state
    with state.database.reading() as rows:
        row = find_upload(rows, caller.project_id, upload_id)
        if row["status"] == "completed" and is_retry(request):
            return _show(row, find_file(rows, caller.project_id, row["file_id"]))
        row = _pending(rows, caller.project_id, upload_id)
        paths = _paths(rows, state.settings, row, body.part_ids)
    digest = hashlib.md5(usedforsecurity=False)
    with _of_what_is_there(state, caller, upload_id):
        staged = forms.stage(state.settings.root / "files", row["filename"], _joined(paths, digest), row["bytes"])
    if body.md5 is not None and body.md5.lower() != digest.hexdigest():
        staged.remove()
        told = f"The md5 of the parts in this order is {digest.hexdigest()}."
        raise ApiError(400, told, param="md5", code="checksum_mismatch")

    def close(rows: Connection, file_id: str) -> None:
        _pending(rows, caller.project_id, upload_id)
        done = {"status": "completed", "file_id": file_id}
        rows.execute(update(uploads).where(uploads.c.id == upload_id).values(**done))

    file = files.keep(state, caller, staged, row["purpose"], row["expires_after"], also=close)
    shutil.rmtree(upload_folder(state.settings, upload_id), ignore_errors=True)
    return _show({**row, "status": "completed"}, file)


def _paths(rows: Connection, settings: Settings, row: Row, part_ids: list[str]) -> list[Path]:
    """The parts' files in the order asked for. Raises ApiError 400 for an unknown or a doubled part, or a wrong sum."""
    ours = (upload_parts.c.upload_id == row["id"]) & (upload_parts.c.project_id == row["project_id"])
    there: dict[str, int] = {
        part.id: part.bytes for part in rows.execute(select(upload_parts.c.id, upload_parts.c.bytes).where(ours))
    }
    seen: set[str] = set()
    for place, name in enumerate(part_ids):
        if name not in there or name in seen:
            why = "is named twice" if name in seen else "is no part of this upload"
            told = f"part_ids.{place}: {name[:100]!r} {why}."
            raise ApiError(400, told, param=f"part_ids.{place}", code="invalid_part")
        seen.add(name)
    total = sum(there[name] for name in part_ids)
    if total != row["bytes"]:
        told = f"These parts have {total:,} bytes, and {row['bytes']:,} were announced."
        raise ApiError(400, told, param="part_ids", code="size_mismatch")
    return [upload_folder(settings, row["id"]) / name for name in part_ids]


@contextmanager
def _of_what_is_there(state: Any, caller: Caller, upload_id: str) -> Iterator[None]:
    """Raise ApiError 400 where files of an upload are gone because another request has ended it meanwhile."""
    try:
        yield
    except FileNotFoundError:
        _look(state, caller, upload_id)
        raise


def _joined(paths: list[Path], digest: Any) -> Iterator[bytes]:
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(CHUNK_BYTES):
                digest.update(piece)
                yield piece


@router.post("/{upload_id}/cancel", response_model=Upload)
def uploads_cancel(upload_id: str, request: Request, caller: Writes) -> dict[str, Any]:
    """Leave it; its parts are removed."""
    with request.app.state.database.writing() as rows:
        row = _pending(rows, caller.project_id, upload_id)
        rows.execute(update(uploads).where(uploads.c.id == upload_id).values(status="cancelled"))
    shutil.rmtree(upload_folder(request.app.state.settings, upload_id), ignore_errors=True)
    return _show({**row, "status": "cancelled"})
