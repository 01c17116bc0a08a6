"""Everything that can be named as a model: students to begin from, teachers, finished students, and their cascades.

A finished student is `ft:BASE:PROJECT:SUFFIX:LETTERS`. With `:cascade` after it, it answers where it is sure, and its
teacher elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, and_, bindparam, select, update
from starlette.concurrency import run_in_threadpool

from stillroom.service.data import lineage_rows
from stillroom.service.door.access import Reads, Writes
from stillroom.service.door.faults import not_found
from stillroom.service.door.fragments import Fragments
from stillroom.service.door.lists import Row
from stillroom.service.door.routes import Route, Text, json_of
from stillroom.service.door.schemas import Deleted
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import models, teachers
from stillroom.service.students.model_rows import CASCADE, OURS, find_model, has_cascade, presets

router = APIRouter(route_class=Route, tags=["models"])
_THEIRS = and_(teachers.c.project_id == bindparam("project_id"), teachers.c.deleted_at.is_(None))
_STUDENTS = Statement(select(models).where(OURS).order_by(models.c.number.desc()))
FEW = 300
"""So many students of a project are listed without a thread of their own."""
_MANY = Statement(select(models.c.number).where(OURS).limit(1).offset(FEW))
_TEACHER = Statement(select(teachers).where(_THEIRS, teachers.c.name == bindparam("name")))
_TAUGHT = Statement(select(teachers).where(_THEIRS).order_by(teachers.c.number.desc()))


class Model(BaseModel):
    """A model as the clients read it; of a finished student also what it was made from."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


def show_model(row: Row, contains_deleted: int = 0) -> dict[str, Any]:
    """A finished student as it is shown."""
    return {
        "id": row["id"], "object": "model", "created": row["created_at"], "owned_by": row["project_id"],
        "kind": row["kind"], "base": row["base"], "job_id": row["job_id"], "teacher": row["teacher"],
        "cascade": f"{row['id']}{CASCADE}" if has_cascade(row) else None, "contains_deleted": contains_deleted,
    }  # fmt: skip


def _with_lineage(rows: Connection, row: Row) -> dict[str, Any]:
    found = 0 if row["job_id"] is None else lineage_rows.contains_deleted(rows, row["project_id"], row["job_id"])
    return show_model(row, found)


def _cascade(student: Mapping[str, Any]) -> dict[str, Any]:
    """The cascade of a student that is shown so: it is made from the same rows."""
    return {**student, "id": f"{student['id']}{CASCADE}", "owned_by": "cascade", "kind": "cascade"}


def _teacher(row: Row) -> dict[str, Any]:
    return {"id": row["name"], "object": "model", "created": row["created_at"], "owned_by": "teacher"}


def _preset(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "stillroom"}


def _student_and_cascade(row: Row, contains_deleted: int) -> list[dict[str, Any]]:
    student = show_model(row, contains_deleted)
    return [student, _cascade(student)] if student["cascade"] else [student]


_SENT = Fragments(_student_and_cascade)


@router.get("/v1/models", response_model=Models)
async def list_models(request: Request, caller: Reads) -> Response:
    """Students to begin from, teachers, finished students and their cascades."""
    state = request.app.state
    with state.database.reading() as rows:
        many = _MANY.first(rows, project_id=caller.project_id) or lineage_rows.are_many_deleted(rows, caller.project_id)
    return await run_in_threadpool(_listed, state, caller.project_id) if many else _listed(state, caller.project_id)


def _listed(state: Any, project_id: str) -> Response:
    with state.database.reading() as rows:
        ours = _STUDENTS.raw(rows, project_id=project_id)
        deleted = lineage_rows.all_deleted(rows, project_id)
        taught = [_teacher(row) for row in _TAUGHT.all(rows, project_id=project_id)]
    job = _STUDENTS.place("job_id")
    students = [_SENT.of(_STUDENTS, raw, deleted.get(raw[job], 0)) for raw in ours]
    others = map(json_of, [*taught, *map(_preset, presets(state.settings))])
    return Text(b'{"object":"list","data":[' + b",".join([*students, *others]) + b"]}")


@router.get("/v1/models/{model_id:path}", response_model=Model)
async def retrieve_model(request: Request, caller: Reads, model_id: str) -> Mapping[str, Any]:
    """One model, by its id or a teacher's name."""
    state = request.app.state
    if model_id in presets(state.settings):
        return _preset(model_id)
    with state.database.reading() as rows:
        teacher = _TEACHER.first(rows, project_id=caller.project_id, name=model_id)
        if teacher is not None:
            return _teacher(teacher)
        row = find_model(rows, caller.project_id, model_id.removesuffix(CASCADE))
        student = _with_lineage(rows, row)
    if not model_id.endswith(CASCADE):
        return student
    if not has_cascade(row):
        raise not_found("model", model_id, "model")
    return _cascade(student)


@router.delete("/v1/models/{model_id:path}", response_model=Deleted)
def delete_model(request: Request, caller: Writes, model_id: str) -> dict[str, Any]:
    """Serve a finished student no more. The job that made it, and its folder, stay."""
    state = request.app.state
    with state.database.writing() as rows:
        row = find_model(rows, caller.project_id, model_id)
        rows.execute(update(models).where(models.c.id == row["id"]).values(deleted_at=int(time.time())))
    state.shelf.forget(model_id)
    return {"id": model_id, "object": "model", "deleted": True}
