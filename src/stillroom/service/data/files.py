"""Files: uploaded, looked at, listed, read, deleted. Bytes lie in `files/` under our id; a client's name is a label.

The bytes reach the disk and are looked at before the row says that they are there, so a row without its file cannot be.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Connection, and_, bindparam, insert, update
from starlette.concurrency import run_in_threadpool

from stillroom.errors import DataError
from stillroom.rundir import sync_folder, write_file
from stillroom.service.data import forms, jsonl, lineage_rows
from stillroom.service.data.file_rows import THERE, file_path, find_file, remove_bytes
from stillroom.service.data.forms import Staged
from stillroom.service.door import lists
from stillroom.service.door.access import Caller, Reads, Writes
from stillroom.service.door.creation_rows import Once, created
from stillroom.service.door.creations import REPLAYED, once_of
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Order, Row
from stillroom.service.door.routes import Json, Route
from stillroom.service.door.schemas import LIMIT, Deleted, Listed
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.statements import Listing
from stillroom.service.rows.tables import files
from stillroom.service.settings import Settings

router = APIRouter(route_class=Route, prefix="/v1/files", tags=["files"])
PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
SHORTEST_S, LONGEST_S = 3_600, 2_592_000
CHUNK_BYTES = 1 << 18
FEW = 100
"""So many are listed without a thread of their own."""
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "file": {"type": "string", "format": "binary"},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": SHORTEST_S, "maximum": LONGEST_S},
                    },
                }
            }
        },
    }
}
_LISTED = Listing(files, THERE, "file")
_FOR_A_PURPOSE = Listing(files, and_(THERE, files.c.purpose == bindparam("purpose")), "file")
BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class File(BaseModel):
    """A file as the interface has it; `rows` and `rejected` are ours."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    expires_at: int | None
    status_details: str | None
    rows: int | None
    rejected: int


def show(row: Row) -> dict[str, Any]:
    """A file as the interface has it."""
    left_out = row["rejected"]
    told = f"{left_out} rows were left out; GET /v1/files/{row['id']}/rejected says why" if left_out else None
    names = ("id", "bytes", "created_at", "filename", "purpose", "status", "expires_at", "rows", "rejected")
    return {"object": "file", **{name: row.get(name) for name in names}, "status_details": told}


def keep(
    state: Any, caller: Caller, staged: Staged, purpose: str, lives_s: int | None, *,
    also: Callable[[Connection, str], None] | None = None,
) -> Row:  # fmt: skip
    """Look at a staged file, give it its place, and write its row; with it whatever `also` writes, or nothing at all.

    Raises ApiError 400 with the line for a file that is wrong. The staged file is gone in either case.
    """
    with _placed(state.settings, caller, staged, purpose, lives_s) as row, state.database.writing() as rows:
        rows.execute(insert(files).values(**row))
        if also is not None:
            also(rows, row["id"])
    return row


def keep_once(
    state: Any, caller: Caller, staged: Staged, purpose: str, lives_s: int | None, one: Once
) -> tuple[dict[str, Any], bool]:
    """The same for a call that may be sent again: its answer, and whether it is that of an earlier one. Raises ApiError."""
    with ExitStack() as placing:
        placing.callback(staged.remove)

        def make() -> Callable[[Connection], dict[str, Any]]:
            row = placing.enter_context(_placed(state.settings, caller, staged, purpose, lives_s))

            def write(rows: Connection) -> dict[str, Any]:
                rows.execute(insert(files).values(**row))
                return show(row)

            return write

        return created(state.database, caller, one, make)


@contextmanager
def _placed(
    settings: Settings, caller: Caller, staged: Staged, purpose: str, lives_s: int | None
) -> Iterator[dict[str, Any]]:
    """A staged file in its place, and the row that is to be written of it; without that its bytes are removed again."""
    try:
        looked = jsonl.look_at(staged.path, purpose, settings.limits)
    except DataError as error:
        staged.remove()
        raise ApiError(400, str(error), param="file", code="invalid_file") from error
    file_id, now = new_id("file"), int(time.time())
    path = file_path(settings, file_id)
    row = {
        "id": file_id, "project_id": caller.project_id, "filename": staged.filename, "purpose": purpose,
        "bytes": staged.bytes, "sha256": staged.sha256, "status": "processed", "created_at": now,
        "rows": looked.rows if looked else None, "rejected": len(looked.rejected) if looked else 0,
        "expires_at": now + lives_s if lives_s is not None else None, "deleted_at": None,
    }  # fmt: skip
    try:
        if looked is not None and looked.rejected:
            write_file(jsonl.rejected_path(path), jsonl.rejected_text(looked.rejected))
        staged.sync()
        os.rename(staged.path, path)
        sync_folder(path.parent)
        yield row
    except BaseException:
        staged.remove()
        remove_bytes(settings, file_id)
        raise


def checked_purpose(purpose: str | None) -> str:
    """A purpose. Raises ApiError 400."""
    if purpose not in PURPOSES:
        said = "missing" if purpose is None else f"{purpose[:40]!r}"
        told = f"purpose: {said}; it is one of {', '.join(PURPOSES)}."
        code = "missing_required_parameter" if purpose is None else "invalid_value"
        raise ApiError(400, told, param="purpose", code=code)
    return purpose


def checked_life(anchor: str | None, seconds: str | int | None, purpose: str) -> int | None:
    """Seconds that a file lives; None: until it is deleted. Raises ApiError 400."""
    if anchor is None and seconds is None:
        return LONGEST_S if purpose == "batch" else None
    if anchor != "created_at":
        raise ApiError(
            400, "expires_after.anchor: should be created_at.", param="expires_after.anchor", code="invalid_value"
        )
    text = str(seconds)
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and SHORTEST_S <= int(text) <= LONGEST_S):
        told = f"expires_after.seconds: should be a number from {SHORTEST_S} to {LONGEST_S}."
        raise ApiError(400, told, param="expires_after.seconds", code="invalid_value")
    return int(text)


@router.post("", response_model=File, openapi_extra=FORM)
async def files_create(request: Request, caller: Writes) -> Json:
    """Upload a file: a form with `purpose` and `file`, and perhaps `expires_after[anchor]` and `expires_after[seconds]`."""
    state = request.app.state
    folder, most = state.settings.root / "files", state.settings.limits.file_bytes
    received = await forms.receive(request, folder, field="file", most=most)
    staged, fields = received.staged, received.fields
    if staged is None:
        raise ApiError(400, "The form has no file.", param="file", code="missing_required_parameter")
    try:
        purpose = checked_purpose(fields.get("purpose"))
        life = checked_life(fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]"), purpose)
        same = json.dumps([staged.sha256, staged.filename, purpose, life]).encode()
        one = once_of(request, same)  # of a form's bytes also the border between its parts differs from try to try
    except ApiError:
        staged.remove()
        raise
    answer, known = await run_in_threadpool(keep_once, state, caller, staged, purpose, life, one)
    return Json(answer, headers=REPLAYED if known else None)


@router.get("", response_model=Listed)
async def files_list(
    request: Request, caller: Reads, purpose: str | None = None, after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000, order: Order = "desc",
) -> dict[str, Any]:  # fmt: skip
    """Files, newest first."""
    asked = request.app.state.database, caller.project_id, purpose, after, limit, order
    return listed(*asked) if limit <= FEW else await run_in_threadpool(listed, *asked)


def listed(
    database: Database, project_id: str, purpose: str | None = None, after: str | None = None, limit: int = FEW,
    order: Order = "desc",
) -> dict[str, Any]:  # fmt: skip
    """One page of a project's files."""
    given: dict[str, Any] = {"project_id": project_id, "now": int(time.time())}
    chosen = _LISTED
    if purpose is not None:
        chosen, given["purpose"] = _FOR_A_PURPOSE, purpose
    with database.reading() as rows:
        found, more = chosen.page(rows, after, limit, order, **given)
    return lists.as_list([show(row) for row in found], more)


@router.get("/{file_id}", response_model=File)
async def files_retrieve(file_id: str, request: Request, caller: Reads) -> dict[str, Any]:
    """One of them."""
    with request.app.state.database.reading() as rows:
        return show(find_file(rows, caller.project_id, file_id))


@router.get("/{file_id}/content", response_class=StreamingResponse, responses=BYTES)
def files_content(file_id: str, request: Request, caller: Reads) -> StreamingResponse:
    """Its bytes, all of them; a Range is not looked at."""
    with request.app.state.database.reading() as rows:
        row = find_file(rows, caller.project_id, file_id)
    try:
        file = open(file_path(request.app.state.settings, file_id), "rb")  # noqa: SIM115 - closed by `_pieces`
    except FileNotFoundError as error:
        raise not_found("file", file_id, "file_id") from error
    headers = {
        "content-length": str(row["bytes"]), "accept-ranges": "none",
        "content-disposition": f"attachment; filename*=UTF-8''{quote(row['filename'], safe='')}",
    }  # fmt: skip
    return StreamingResponse(_pieces(file), media_type="application/octet-stream", headers=headers)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


@router.get("/{file_id}/rejected", response_model=Listed)
def files_rejected(
    file_id: str, request: Request, caller: Reads, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> dict[str, Any]:
    """The rows of a file that were left out, each with its line and the reason."""
    with request.app.state.database.reading() as rows:
        find_file(rows, caller.project_id, file_id)
    found, seen = [], after is None
    for one in jsonl.rejected_rows(file_path(request.app.state.settings, file_id)):
        name = f"{file_id}:{one.line}"
        if seen:
            found.append({"id": name, "object": "file.rejected_row", "line": one.line, "reason": one.why})
        seen = seen or name == after
        if len(found) > limit:
            break
    if not seen:
        raise not_found("row", str(after), "after")
    return lists.as_list(found[:limit], len(found) > limit)


@router.delete("/{file_id}", response_model=Deleted)
def files_delete(file_id: str, request: Request, caller: Writes) -> dict[str, Any]:
    """Take it off the disk, and mark it in every transfer set made from it."""
    database, settings = request.app.state.database, request.app.state.settings
    with database.writing() as rows:
        find_file(rows, caller.project_id, file_id)
        ours = (files.c.project_id == caller.project_id) & (files.c.id == file_id)
        rows.execute(update(files).where(ours).values(deleted_at=int(time.time())))
        made = lineage_rows.mark_deleted(rows, caller.project_id, file_id)
    remove_bytes(settings, file_id)
    lineage_rows.leave_marks(database, settings, made)
    return {"id": file_id, "object": "file", "deleted": True}
