"""Stored completions: kept where a call asks for it, redacted first, found by metadata, gone when deleted or too old.

What is stored is for training only where the project has said so (`trains_on_stored`). DELETE erases the texts at once and
leaves a mark in every transfer set made from them; what is past the project's retention time is as good as gone from that
second on, and erased by the next sweep.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    JSON,
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from stillroom.errors import InputError
from stillroom.service.data import lineage
from stillroom.service.door import lists
from stillroom.service.door.access import Caller, Reads, Writes
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Order, Row
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import LIMIT, Body, Deleted, Listed, Metadata
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import is_id, new_id
from stillroom.service.rows.statements import Listing, Statement
from stillroom.service.rows.tables import completion_metadata, completions, projects

router = APIRouter(route_class=Route, prefix="/v1/chat/completions", tags=["stored completions"])
BLANK = "[redacted]"
NAMES = ("id", "object", "model", "created", "system_fingerprint")
"""Fields that are ours or a teacher's, and no one's text."""
TEACHER = {"id": "id", "url": "base_url", "model": "model"}
"""What is kept of the teacher that gave an answer -> its column there."""
DAY_S = 86_400
AT_ONCE = 100
"""Read in one transaction."""
_PROJECT: BindParameter[str] = bindparam("project_id")
_ID: BindParameter[str] = bindparam("id")
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


def prepared(
    caller: Caller, *, model: str, request: Mapping[str, Any], response: Mapping[str, Any],
    metadata: Mapping[str, str] | None, by: str, redact: Sequence[str], teacher: Row | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A call and its answer for `store`; `redact` is settings.redact, and its matches are blanked here, which may take
    long: before a transaction, in which nobody else can write.

    The answer's id is kept where it is one of ours (`new_id("chatcmpl")`), else a new one is given. Of the teacher that gave it
    is kept what it was then, whatever it is called later: who runs the service may forbid to learn from it.
    """
    name = str(response.get("id", ""))
    name = name if is_id(name, "chatcmpl") else new_id("chatcmpl")
    hidden = patterns(tuple(redact))
    request = {key: part if key in NAMES else redacted(hidden, part) for key, part in request.items()}
    response = _redacted_answer(hidden, response)
    pairs = {key: _blanked(hidden, value) for key, value in (metadata or {}).items()}
    return {
        "id": name, "project_id": caller.project_id, "model": model, "request": request, "response": response,
        "metadata": pairs or None, "by": by, "created_at": int(time.time()),
        **{f"teacher_{name}": teacher and teacher[column] for name, column in TEACHER.items()},
    }  # fmt: skip


def store(rows: Connection, values: Mapping[str, Any]) -> str:
    """Keep what `prepared` gave. Returns its id."""
    name: str = values["id"]
    rows.execute(insert(completions).values(**values))
    _index(rows, values["project_id"], name, values["metadata"] or {})
    return name


@lru_cache(maxsize=16)
def patterns(words: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """What is blanked. Raises InputError for what is no regular expression."""
    try:
        return tuple(re.compile(one) for one in words)
    except re.error as error:
        raise InputError(
            f"this is no regular expression: {error}", where="--redact", cure="Mend it; Python's syntax is meant"
        ) from error


def redacted(hidden: Sequence[re.Pattern[str]], value: Any) -> Any:
    """A JSON value with every match in its texts blanked; names of fields stay."""
    if not hidden:
        return value
    if isinstance(value, str):
        return _blanked(hidden, value)
    if isinstance(value, list):
        return [redacted(hidden, part) for part in value]
    return {key: redacted(hidden, part) for key, part in value.items()} if isinstance(value, dict) else value


def _blanked(hidden: Sequence[re.Pattern[str]], text: str) -> str:
    for one in hidden:
        text = one.sub(BLANK, text)
    return text


def _redacted_answer(hidden: Sequence[re.Pattern[str]], response: Mapping[str, Any]) -> dict[str, Any]:
    """The same for an answer. Log-probabilities spell the text out piece by piece, so they go where the text was changed."""
    if not hidden:
        return dict(response)
    choices = []
    for choice in response.get("choices", []):
        message = redacted(hidden, choice.get("message"))
        kept = redacted(hidden, choice.get("logprobs")) if message == choice.get("message") else None
        choices.append({**choice, "message": message, "logprobs": kept})
    rest = {key: part if key in NAMES else redacted(hidden, part) for key, part in response.items() if key != "choices"}
    return {**rest, "choices": choices}


def _index(rows: Connection, project_id: str, name: str, pairs: Mapping[str, str]) -> None:
    for key, value in pairs.items():
        _NAME.write(rows, project=project_id, completion=name, key_=key, value_=value)


def may_train(rows: Connection, project_id: str) -> bool:
    """The project has said that what it stores may be trained on."""
    return bool(rows.execute(select(projects.c.trains_on_stored).where(projects.c.id == project_id)).scalar())


def matching(
    database: Database, project_id: str, metadata: Mapping[str, str] | None, model: str | None = None
) -> Iterator[Row]:
    """The stored completions to train on, oldest first: with all of this metadata, not deleted, not too old, and not said by
    a student, which would teach nobody. Raises ApiError 403 where the project has not said that they may be.

    One row is in memory at a time, and a few are read in each transaction: the log of writes cannot begin anew in a long one.
    """
    wanted = _wanted(len(metadata or {}), model is not None) & (completions.c.by != "student")
    wanted &= completions.c.number > bindparam("seen")
    asked = select(completions).where(wanted).order_by(completions.c.number).limit(AT_ONCE)
    given, seen, going = _given(project_id, metadata, model), 0, True
    while going:
        count = 0
        with database.reading() as rows:
            _refuse_training(rows, project_id)
            for row in rows.execute(asked, {**given, "seen": seen}).mappings():
                seen, count = row["number"], count + 1
                yield row
        going = count == AT_ONCE


def said_by(
    rows: Connection, project_id: str, metadata: Mapping[str, str] | None, model: str | None = None
) -> list[Row]:
    """Which models, of which teachers, said what `matching` gives; no text is read. Raises ApiError 403 as it does."""
    _refuse_training(rows, project_id)
    wanted = _wanted(len(metadata or {}), model is not None) & (completions.c.by != "student")
    asked = select(completions.c.model, *(completions.c[f"teacher_{name}"] for name in TEACHER)).where(wanted)
    return list(rows.execute(asked.distinct(), _given(project_id, metadata, model)).mappings())


def _refuse_training(rows: Connection, project_id: str) -> None:
    if not may_train(rows, project_id):
        raise ApiError(
            403,
            "What this project stores is not for training. To allow it, set trains_on_stored of the project: "
            'POST /api/projects/{id} {"trains_on_stored": true}, or the page Keys and usage.',
            param="distillation.source.stored_completions",
            code="stored_completions_not_for_training",
        )


def latest(
    rows: Connection, project_id: str, metadata: Mapping[str, str] | None, model: str | None, most: int
) -> tuple[int, list[Row]]:
    """How many there are with all of this metadata, and the last so many of them, the newest first."""
    wanted, given = _wanted(len(metadata or {}), model is not None), _given(project_id, metadata, model)
    count = rows.execute(select(func.count()).select_from(completions).where(wanted), given).scalar_one()
    asked = select(completions).where(wanted).order_by(completions.c.number.desc()).limit(most)
    return count, list(rows.execute(asked, given).mappings())


def _wanted(pairs: int = 0, of_model: bool = False) -> ColumnElement[bool]:
    """What a project's stored completions are, with so many pairs of metadata; `_given` has the values."""
    now = bindparam("now", type_=Integer)
    days = select(projects.c.retention_days).where(projects.c.id == _PROJECT).scalar_subquery()
    found = and_(completions.c.project_id == _PROJECT, completions.c.deleted_at.is_(None))
    found &= completions.c.created_at > now - func.coalesce(days * DAY_S, now + 1)
    if of_model:
        found &= completions.c.model == bindparam("model")
    for place in range(pairs):
        pair = completion_metadata.alias()
        same = and_(pair.c.key == bindparam(f"key_{place}"), pair.c.value == bindparam(f"value_{place}"))
        found &= completions.c.id.in_(select(pair.c.completion_id).where(pair.c.project_id == _PROJECT, same))
    return found


def _given(project_id: str, metadata: Mapping[str, str] | None = None, model: str | None = None) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {"project_id": project_id, "now": int(time.time()), **named, **lists.numbered(metadata or {})}


@lru_cache
def _listed(pairs: int, of_model: bool) -> Listing:
    return Listing(completions, _wanted(pairs, of_model), "completion")


_FIND = Statement(select(completions).where(_wanted(), completions.c.id == _ID))
_SET = Statement(update(completions).where(completions.c.id == _ID).values(metadata=bindparam("pairs", type_=JSON)))
_NAME = Statement(
    insert(completion_metadata).inline().values(
        project_id=bindparam("project"), completion_id=bindparam("completion"), key=bindparam("key_"),
        value=bindparam("value_"),
    )
)  # fmt: skip
_UNNAME = Statement(delete(completion_metadata).where(completion_metadata.c.completion_id == _ID))


def find_completion(rows: Connection, project_id: str, completion_id: str) -> Row:
    """A stored completion. Raises ApiError 404."""
    found = _FIND.first(rows, id=completion_id, **_given(project_id))
    if found is None:
        raise not_found("completion", completion_id, "completion_id")
    return found


def erase(rows: Connection, project_id: str, completion_ids: Sequence[str]) -> None:
    """Take the texts of stored completions out; their ids stay, so that what was made from them can still be told."""
    ours = (completions.c.project_id == project_id) & completions.c.id.in_(completion_ids)
    gone: dict[str, Any] = {"request": {}, "response": {}, "metadata": None, "deleted_at": int(time.time())}
    rows.execute(update(completions).where(ours).values(**gone))
    rows.execute(delete(completion_metadata).where(completion_metadata.c.completion_id.in_(completion_ids)))


def show(row: Row) -> dict[str, Any]:
    """A stored completion as the interface has it."""
    base = {"object": "chat.completion", "created": row["created_at"], "choices": []}
    settings = {
        name: row["request"][name]
        for name in ("temperature", "top_p", "seed", "tools", "tool_choice", "response_format")
        if row["request"].get(name) is not None
    }
    own = {"id": row["id"], "model": row["model"], "metadata": row["metadata"], "served_by": row["by"]}
    return {**base, **settings, **row["response"], **own}


@router.get("", response_model=Listed)
def completions_list(
    request: Request, caller: Reads, model: str | None = None, after: str | None = None, limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:  # fmt: skip
    """Stored completions, oldest first; with `metadata[key]=value` those that have it."""
    metadata = lists.metadata_filter(request)
    listed, given = _listed(len(metadata), model is not None), _given(caller.project_id, metadata, model)
    with request.app.state.database.reading() as rows:
        found, more = listed.page(rows, after, limit, order, **given)
    return lists.as_list([show(row) for row in found], more)


@router.get("/{completion_id}", response_model=Stored)
async def completions_retrieve(completion_id: str, request: Request, caller: Reads) -> dict[str, Any]:
    """One of them."""
    with request.app.state.database.reading() as rows:
        return show(find_completion(rows, caller.project_id, completion_id))


@router.post("/{completion_id}", response_model=Stored)
def completions_update(completion_id: str, body: NewMetadata, request: Request, caller: Writes) -> dict[str, Any]:
    """Give it other metadata."""
    hidden = patterns(tuple(request.app.state.settings.redact))
    pairs = {key: _blanked(hidden, value) for key, value in (body.metadata or {}).items()}
    with request.app.state.database.writing() as rows:
        row = find_completion(rows, caller.project_id, completion_id)
        _SET.write(rows, id=completion_id, pairs=pairs or None)
        _UNNAME.write(rows, id=completion_id)
        _index(rows, caller.project_id, completion_id, pairs)
    return show({**row, "metadata": pairs or None})


@router.delete("/{completion_id}", response_model=Deleted)
def completions_delete(completion_id: str, request: Request, caller: Writes) -> dict[str, Any]:
    """Erase it, and mark it in every transfer set made from it."""
    database, settings = request.app.state.database, request.app.state.settings
    with database.writing() as rows:
        find_completion(rows, caller.project_id, completion_id)
        erase(rows, caller.project_id, [completion_id])
        made = lineage.mark_deleted(rows, caller.project_id, completion_id)
    lineage.leave_marks(database, settings, made)
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
