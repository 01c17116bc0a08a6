"""Stored completions: kept where a call asks for it, redacted first, found by metadata, gone when deleted or too old.

What is stored is for training only where the project has said so (`trains_on_stored`). DELETE erases the texts at once and
leaves a mark in every transfer set made from them; what is past the project's retention time is as good as gone from that
second on, and erased by the next sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from stillroom.service.data import lineage_rows
from stillroom.service.data.completion_rows import erase, find_completion, given, listing, set_metadata, show
from stillroom.service.data.redaction import redaction_of
from stillroom.service.door import lists
from stillroom.service.door.access import Reads, Writes
from stillroom.service.door.faults import not_found
from stillroom.service.door.lists import Order
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import LIMIT, Body, Deleted, Listed, Metadata

router = APIRouter(route_class=Route, prefix="/v1/chat/completions", tags=["stored completions"])
Limit = Annotated[int, LIMIT]


class Stored(BaseModel):
    """A stored completion: the answer as it was given, with its metadata."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    metadata: dict[str, str] | None


class NewMetadata(Body):
    """What a stored completion's metadata becomes."""

    metadata: Metadata


@router.get("", response_model=Listed)
def completions_list(
    request: Request, caller: Reads, model: str | None = None, after: str | None = None, limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:  # fmt: skip
    """Stored completions, oldest first; with `metadata[key]=value` those that have it."""
    metadata = lists.metadata_filter(request)
    listed, values = listing(len(metadata), model is not None), given(caller.project_id, metadata, model)
    with request.app.state.database.reading() as rows:
        found, more = listed.page(rows, after, limit, order, **values)
    return lists.as_list([show(row) for row in found], more)


@router.get("/{completion_id}", response_model=Stored)
async def completions_retrieve(completion_id: str, request: Request, caller: Reads) -> dict[str, Any]:
    """One of them."""
    with request.app.state.database.reading() as rows:
        return show(find_completion(rows, caller.project_id, completion_id))


@router.post("/{completion_id}", response_model=Stored)
def completions_update(completion_id: str, body: NewMetadata, request: Request, caller: Writes) -> dict[str, Any]:
    """Give it other metadata."""
    pairs = redaction_of(request.app.state.settings).pairs(body.metadata or {})
    with request.app.state.database.writing() as rows:
        return show(set_metadata(rows, find_completion(rows, caller.project_id, completion_id), pairs))


@router.delete("/{completion_id}", response_model=Deleted)
def completions_delete(completion_id: str, request: Request, caller: Writes) -> dict[str, Any]:
    """Erase it, and mark it in every transfer set made from it."""
    database, settings = request.app.state.database, request.app.state.settings
    with database.writing() as rows:
        find_completion(rows, caller.project_id, completion_id)
        erase(rows, caller.project_id, [completion_id])
        made = lineage_rows.mark_deleted(rows, caller.project_id, completion_id)
    lineage_rows.leave_marks(database, settings, made)
    return {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


@router.get("/{completion_id}/messages", response_model=Listed)
def completions_messages(
    completion_id: str, request: Request, caller: Reads, after: str | None = None, limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:  # fmt: skip
    """What it answered: the messages of the call."""
    with request.app.state.database.reading() as rows:
        found = find_completion(rows, caller.project_id, completion_id)
    messages = [
        _message(f"{completion_id}-{place}", one) for place, one in enumerate(found["request"].get("messages", []))
    ]
    if order == "desc":
        messages.reverse()
    if after is not None:
        places = [place for place, one in enumerate(messages) if one["id"] == after]
        if not places:
            raise not_found("message", after, "after")
        messages = messages[places[0] + 1 :]
    return lists.as_list(messages[:limit], len(messages) > limit)


def _message(name: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the interface has it: its parts, where it came in parts."""
    content = message.get("content")
    parts = (
        [part for part in content if part.get("type") in ("text", "image_url")] if isinstance(content, list) else None
    )
    text = "".join(str(part.get("text", "")) for part in parts) if parts is not None else content
    return {"refusal": None, **message, "id": name, "content": text, "content_parts": parts}
