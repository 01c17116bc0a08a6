"""The page Data: files that were uploaded, what is in them and what was left out; and stored completions."""

from __future__ import annotations

from itertools import islice
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from stillroom.errors import StillroomError
from stillroom.service.data import completion_rows as stored_room
from stillroom.service.data import files as room
from stillroom.service.data import forms, jsonl
from stillroom.service.data.completions import completions_delete
from stillroom.service.data.file_rows import file_path, find_file
from stillroom.service.door import faults
from stillroom.service.door.access import Caller, Reads, Writes
from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row
from stillroom.service.pages import tables, tokens
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import Sends
from stillroom.service.rows.tables import completions

router = APIRouter(route_class=PageRoute)
SHOWN_FILES, SHOWN_ROWS, SHOWN_REJECTED, SHOWN_STORED = 200, 20, 100, 50
PURPOSES = {
    "fine-tune": "Conversations to learn from, or questions for a teacher (.jsonl)",
    "user_data": "A table with a column to predict (.csv, .tsv, .jsonl, .parquet)",
}
KINDS = {
    "fine-tune": "Conversations", "user_data": "Table or other file", "fine-tune-results": "Figures of a job",
}  # fmt: skip
"""What a file is, by its purpose; another purpose stands for itself."""


@router.get("/data")
def show(request: Request, caller: Reads) -> Response:
    """What there is."""
    return _page(request, caller)


@router.post("/data")
async def upload(request: Request, caller: Writes) -> Response:
    """Keep a file. It is read as it comes, so its token is looked at when it is all there."""
    state = request.app.state
    staged, purpose = None, ""
    try:
        folder, most = state.settings.root / "files", state.settings.limits.file_bytes
        received = await forms.receive(request, folder, field="file", most=most)
        staged = received.staged
        tokens.check(request, caller, received.fields.get(tokens.FIELD, ""))
        purpose = room.checked_purpose(received.fields.get("purpose"))
        if staged is not None:
            _refuse_misfit(staged, purpose)
    except ApiError as error:
        if staged is not None:
            staged.remove()
        if error.param in ("origin", tokens.FIELD):
            raise
        return await run_in_threadpool(_page, request, caller, error, purpose)
    if staged is None:
        no_file = ApiError(400, "Choose a file first.", param="file")
        return await run_in_threadpool(_page, request, caller, no_file, purpose)
    try:
        row = await run_in_threadpool(room.keep, state, caller, staged, purpose, None)
    except ApiError as error:
        return await run_in_threadpool(_page, request, caller, error, purpose)
    except StillroomError as error:
        return await run_in_threadpool(_page, request, caller, faults.of(error), purpose)
    return go_to(f"/data/{row['id']}")


@router.get("/data/completions")
def show_stored(request: Request, caller: Reads, model: str = "", key: str = "", value: str = "") -> Response:
    """Stored completions, of one model or with one pair of metadata."""
    wanted_metadata = {key: value} if key else None
    with request.app.state.database.reading() as rows:
        total, latest = stored_room.latest(rows, caller.project_id, wanted_metadata, model or None, SHOWN_STORED)
        names = select(completions.c.model).where(
            completions.c.project_id == caller.project_id, completions.c.deleted_at.is_(None)
        )
        models = rows.execute(names.distinct().order_by(completions.c.model)).scalars().all()
        may_train = stored_room.may_train(rows, caller.project_id)
    return render(
        request, caller, "completions.html", total=total, models=models, may_train=may_train,
        latest=[_exchange(row) for row in latest],
        model=model, key=key, value=value,
    )  # fmt: skip


@router.post("/data/completions/{completion_id}/delete")
def delete_stored(request: Request, caller: Sends, completion_id: str) -> Response:
    """Delete a stored completion; what was made from it is marked."""
    completions_delete(completion_id, request, caller)
    return go_to("/data/completions")


@router.get("/data/{file_id}")
def show_file(request: Request, caller: Reads, file_id: str) -> Response:
    """A file's first rows, and the rows that were left out."""
    state = request.app.state
    with state.database.reading() as rows:
        row = find_file(rows, caller.project_id, file_id)
    path = file_path(state.settings, file_id)
    first = list(islice(jsonl.conversations(path), SHOWN_ROWS)) if row["purpose"] == "fine-tune" else []
    rejected = list(islice(jsonl.rejected_rows(path), SHOWN_REJECTED))
    is_table = tables.is_table(row)
    columns, cells = tables.head(path, row["filename"]) if is_table else ([], [])
    return render(
        request, caller, "file.html", file=row, first=first, rejected=rejected, is_table=is_table, cells=cells,
        columns=columns[: tables.MOST_COLUMNS], more_columns=max(0, len(columns) - tables.MOST_COLUMNS),
        text=_start(path) if not first and not cells else "",
        answered=any(one["messages"][-1]["role"] == "assistant" for one in first),
    )  # fmt: skip


@router.post("/data/{file_id}/delete")
def delete_file(request: Request, caller: Sends, file_id: str) -> Response:
    """Delete a file; what was made from it is marked."""
    room.files_delete(file_id, request, caller)
    return go_to("/data")


def uploaded(request: Request, caller: Caller, purpose: str | None = None) -> list[dict[str, Any]]:
    """A project's files, the newest first."""
    database = request.app.state.database
    found: list[dict[str, Any]] = room.listed(database, caller.project_id, purpose, limit=SHOWN_FILES)["data"]
    return found


def _refuse_misfit(staged: forms.Staged, purpose: str) -> None:
    """Raises ApiError 400 for a table that is said to be conversations, and for what is said to be a table and is none."""
    told, other = "", ""
    if purpose == "fine-tune" and tables.suffix_of(staged.filename) in (".csv", ".tsv", ".parquet"):
        told, other = f"{staged.filename} is a table and holds no conversations.", tables.PURPOSE
    elif purpose == tables.PURPOSE:
        told = tables.misfit(staged.path, staged.filename)
        other = "fine-tune" if told.endswith("conversations.") else ""
    if told:
        cure = f" Choose “{PURPOSES[other]}” for it." if other else ""
        raise ApiError(400, told + cure, param="purpose", code="invalid_purpose")


def _page(request: Request, caller: Caller, error: ApiError | None = None, purpose: str = "") -> Response:
    """`purpose`: what was chosen before."""
    with request.app.state.database.reading() as rows:
        stored, _ = stored_room.latest(rows, caller.project_id, None, None, 0)
    return render(
        request, caller, "data.html", error.status if error else 200, files=uploaded(request, caller), stored=stored,
        purposes=PURPOSES, purpose=purpose, kinds=KINDS, wrong=error.message if error else None,
        most=request.app.state.settings.limits.file_bytes,
    )  # fmt: skip


def _start(path: Any) -> str:
    """The first letters of a file, where they are text."""
    with open(path, "rb") as file:
        start = file.read(2000)
    return "" if b"\x00" in start else start.decode("utf-8", "replace")


def _exchange(row: Row) -> dict[str, Any]:
    """What was asked last in a stored completion, and what was answered."""
    messages = row["request"].get("messages") or [{}]
    choices = row["response"].get("choices") or [{}]
    return {
        "id": row["id"], "model": row["model"], "by": row["by"], "created_at": row["created_at"],
        "asked": jsonl.as_text(messages[-1].get("content")) or "", "metadata": row["metadata"] or {},
        "answered": jsonl.as_text((choices[0].get("message") or {}).get("content")) or "",
    }  # fmt: skip
