"""The rows of stored completions: redacted and written, found by their metadata, trained on where the project says so, erased."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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

from stillroom.service.data.redaction import Redaction
from stillroom.service.door import lists
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import is_id, new_id
from stillroom.service.rows.statements import Listing, Statement
from stillroom.service.rows.tables import completion_metadata, completions, lineage, projects

if TYPE_CHECKING:
    from stillroom.service.door.access import Caller

TEACHER = {"id": "id", "url": "base_url", "model": "model"}
"""What is kept of the teacher that gave an answer -> its column there."""
DAY_S = 86_400
AT_ONCE = 100
"""Read in one transaction."""
_PROJECT: BindParameter[str] = bindparam("project_id")
_ID: BindParameter[str] = bindparam("id")


def prepared(
    caller: Caller, *, model: str, request: Mapping[str, Any], response: Mapping[str, Any],
    metadata: Mapping[str, str] | None, by: str, redaction: Redaction, teacher: Row | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A call and its answer for `store`. What must not be kept is blanked here, which may take long: before a transaction,
    in which nobody else can write.

    The answer's id is kept where it is one of ours (`new_id("chatcmpl")`), else a new one is given. Of the teacher that gave it
    is kept what it was then, whatever it is called later: who runs the service may forbid to learn from it.
    """
    name = str(response.get("id", ""))
    name = name if is_id(name, "chatcmpl") else new_id("chatcmpl")
    asked, said = redaction.completion(request, response)
    return {
        "id": name, "project_id": caller.project_id, "model": model, "request": asked, "response": said,
        "metadata": redaction.pairs(metadata or {}) or None, "by": by, "created_at": int(time.time()),
        **{f"teacher_{name}": teacher and teacher[column] for name, column in TEACHER.items()},
    }  # fmt: skip


def store(rows: Connection, values: Mapping[str, Any]) -> str:
    """Keep what `prepared` gave. Returns its id."""
    name: str = values["id"]
    rows.execute(insert(completions).values(**values))
    _index(rows, values["project_id"], name, values["metadata"] or {})
    return name


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
    values, seen, going = given(project_id, metadata, model), 0, True
    while going:
        count = 0
        with database.reading() as rows:
            _refuse_training(rows, project_id)
            for row in rows.execute(asked, {**values, "seen": seen}).mappings():
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
    return list(rows.execute(asked.distinct(), given(project_id, metadata, model)).mappings())


def learned_by(rows: Connection, project_id: str, job_id: str) -> list[Row]:
    """The same of what a job is made from, also where that is gone by now. Raises ApiError 403 as `matching` does."""
    _refuse_training(rows, project_id)
    sources = select(lineage.c.source_id).where((lineage.c.project_id == project_id) & (lineage.c.job_id == job_id))
    asked = select(completions.c.model, *(completions.c[f"teacher_{name}"] for name in TEACHER))
    return list(rows.execute(asked.where(completions.c.id.in_(sources)).distinct()).mappings())


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
    wanted, values = _wanted(len(metadata or {}), model is not None), given(project_id, metadata, model)
    count = rows.execute(select(func.count()).select_from(completions).where(wanted), values).scalar_one()
    asked = select(completions).where(wanted).order_by(completions.c.number.desc()).limit(most)
    return count, list(rows.execute(asked, values).mappings())


def _wanted(pairs: int = 0, of_model: bool = False) -> ColumnElement[bool]:
    """What a project's stored completions are, with so many pairs of metadata; `given` has the values."""
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


def given(project_id: str, metadata: Mapping[str, str] | None = None, model: str | None = None) -> dict[str, Any]:
    """The values of `listing`, and of whatever else asks for a project's stored completions."""
    named = {} if model is None else {"model": model}
    return {"project_id": project_id, "now": int(time.time()), **named, **lists.numbered(metadata or {})}


@lru_cache
def listing(pairs: int, of_model: bool) -> Listing:
    """Those with so many pairs of metadata, and of one model if that is asked for; `given` has the values."""
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
    found = _FIND.first(rows, id=completion_id, **given(project_id))
    if found is None:
        raise not_found("completion", completion_id, "completion_id")
    return found


def set_metadata(rows: Connection, row: Row, pairs: Mapping[str, str]) -> Row:
    """Give a stored completion other metadata, redacted before. What it is then."""
    _SET.write(rows, id=row["id"], pairs=pairs or None)
    _UNNAME.write(rows, id=row["id"])
    _index(rows, row["project_id"], row["id"], pairs)
    return {**row, "metadata": pairs or None}


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
