"""Teachers behind an API: their address, their sealed key, their price and terms. Set with the scope `teachers` alone.

A key comes in and never goes out: it is sealed for its project and its teacher, shown by its last letters, and opened only
to be sent to the address that it was given with. Another address wants the key again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, Field, SecretStr, field_validator
from sqlalchemy import Connection, bindparam, insert, select, update

from stillroom.recipe import AcceptedTerms
from stillroom.service.door.access import Caller, SetsTeachers
from stillroom.service.door.creations import Retriable, answered
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Order, Row, as_list
from stillroom.service.door.routes import Json, Route
from stillroom.service.door.schemas import LIMIT, NUMBER, Deleted, Listed, Strict
from stillroom.service.rows.ids import is_id, new_id
from stillroom.service.rows.statements import Listing, Statement
from stillroom.service.rows.tables import teachers
from stillroom.service.students.model_rows import presets
from stillroom.service.teachers import outward
from stillroom.service.teachers.teacher_rows import NAMED, OURS, find_teacher, sealed_for
from stillroom.teachers.terms import known_terms

router = APIRouter(route_class=Route, tags=["teachers"])
NAME = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
LONG_KEY = 12
"""A shorter key's last letters would tell too much of it."""
MAY_GO = ("price", "licence", "accepted_terms")
"""Of a teacher that has them, they can be taken away."""
_NAMED = Statement(select(teachers.c.id).where(OURS, NAMED, teachers.c.id != bindparam("but")))
_LISTED = Listing(teachers, OURS, "teacher")


class Price(Strict):
    """USD per million tokens."""

    input: Annotated[float, Field(ge=0, le=1e6), NUMBER]
    output: Annotated[float, Field(ge=0, le=1e6), NUMBER]


def _plain_key(key: SecretStr | None) -> SecretStr | None:
    value = None if key is None else key.get_secret_value()
    if value is not None and not (value.isascii() and value.isprintable() and " " not in value and value):
        raise ValueError("should be plain letters and digits, without spaces")
    return key


def _plain_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError("should begin with a letter or digit, and go on with those and . _ / - alone")
    return name


Name = Annotated[str, Field(max_length=100, json_schema_extra={"pattern": NAME}), AfterValidator(_plain_name)]
Key = Annotated[SecretStr | None, Field(
    default=None, max_length=4096, description="Sealed, and never given back.",
    json_schema_extra={"pattern": "^[!-~]+$"},
)]  # fmt: skip


class CreateTeacher(Strict):
    """A teacher to be set."""

    name: Name = Field(description="What chat calls and recipes name it by.")
    base_url: str = Field(max_length=2000, description="Of its OpenAI-compatible interface, such as https://HOST/v1.")
    model: str = Field(min_length=1, max_length=200, description="What it is called there.")
    key: Key
    price: Price | None = None
    licence: str | None = Field(default=None, max_length=1000)
    accepted_terms: AcceptedTerms | None = None
    distillable: bool = Field(default=True, description="False: no log-probabilities, and no student learns from it.")

    _plain = field_validator("key")(_plain_key)


class UpdateTeacher(Strict):
    """What is to be another. What is left out stays; null takes a price, a licence or accepted terms away."""

    name: Name | None = None
    base_url: str | None = Field(default=None, max_length=2000)
    model: str | None = Field(default=None, min_length=1, max_length=200)
    key: Key
    price: Price | None = None
    licence: str | None = Field(default=None, max_length=1000)
    accepted_terms: AcceptedTerms | None = None
    distillable: bool | None = None

    _plain = field_validator("key")(_plain_key)


class Teacher(Strict):
    """A teacher as it is shown."""

    id: str
    object: Literal["teacher"]
    name: str
    base_url: str
    model: str
    key: str | None = Field(description="Its last letters; none: there is no key.")
    price: Price | None
    licence: str | None
    terms: list[dict[str, str]] = Field(description="What is known of its provider's or licence's terms.")
    accepted_terms: dict[str, Any] | None
    distillable: bool
    created_at: int


def show_teacher(row: Row) -> dict[str, Any]:
    """A teacher as it is shown."""
    known = known_terms(row["licence"], row["base_url"], row["model"])
    kept = ("id", "name", "base_url", "model", "price", "licence", "accepted_terms", "distillable", "created_at")
    return {
        "object": "teacher", "key": row["key_shown"], **{name: row[name] for name in kept},
        "terms": [{"name": one.name, "url": one.url, "why": one.why} for one in known],
    }  # fmt: skip


def create(state: Any, caller: Caller, body: CreateTeacher) -> Row:
    """Set a teacher. Raises ApiError 400 for its address, 409 for a name that is taken."""
    write = _checked(state, caller, body)
    with state.database.writing() as rows:
        return write(rows)


def _checked(state: Any, caller: Caller, body: CreateTeacher) -> Callable[[Connection], Row]:
    """What writes a teacher's row. Raises ApiError."""
    outward.pinned(body.base_url, state.settings)
    _refuse_reserved(state, body.name)
    found = new_id("teacher")
    values = {
        "id": found, "project_id": caller.project_id, "created_at": int(time.time()), "distillable": body.distillable,
        **_plain(body), **_sealed(state, caller.project_id, found, body.key),
    }  # fmt: skip

    def write(rows: Connection) -> Row:
        _refuse_taken(rows, caller.project_id, body.name, found)
        rows.execute(insert(teachers).values(**values))
        return find_teacher(rows, caller.project_id, found)

    return write


def change(state: Any, caller: Caller, teacher_id: str, body: UpdateTeacher) -> Row:
    """Set parts of a teacher anew. Raises ApiError, also where its key would go to an address it was not given for."""
    if body.base_url is not None:
        outward.pinned(body.base_url, state.settings)
    if body.name is not None:
        _refuse_reserved(state, body.name)
    values = {**_plain(body), **_sealed(state, caller.project_id, teacher_id, body.key)}
    if body.distillable is not None:
        values["distillable"] = body.distillable
    with state.database.writing() as rows:
        row = by_id(rows, caller, teacher_id)
        moved = body.base_url is not None and outward.split(body.base_url) != outward.split(row["base_url"])
        if moved and row["sealed_key"] is not None and body.key is None:
            told = "The key was given for another address; give the key for this one too."
            raise ApiError(400, told, param="key", code="key_needed")
        if body.name is not None:
            _refuse_taken(rows, caller.project_id, body.name, row["id"])
        if values:
            rows.execute(update(teachers).where(teachers.c.id == row["id"]).values(**values))
        return find_teacher(rows, caller.project_id, row["id"])


def remove(state: Any, caller: Caller, teacher_id: str) -> None:
    """Forget a teacher, and its key for good."""
    gone = {"deleted_at": int(time.time()), "sealed_key": None, "key_shown": None}
    with state.database.writing() as rows:
        row = by_id(rows, caller, teacher_id)
        rows.execute(update(teachers).where(teachers.c.id == row["id"]).values(**gone))


def by_id(rows: Connection, caller: Caller, teacher_id: str) -> Row:
    """A project's teacher, by its id alone. Raises ApiError 404."""
    if not is_id(teacher_id, "teacher"):
        raise not_found("teacher", teacher_id, "teacher_id")
    return find_teacher(rows, caller.project_id, teacher_id, "teacher_id")


def _plain(body: CreateTeacher | UpdateTeacher) -> dict[str, Any]:
    """The fields that were given, but the key and `distillable`."""
    told = body.model_dump(mode="json", exclude={"key", "distillable"}, exclude_unset=True)
    given = {name: value for name, value in told.items() if value is not None or name in MAY_GO}
    if "base_url" in given:
        given["base_url"] = str(given["base_url"]).rstrip("/")
    return given


def _sealed(state: Any, project_id: str, teacher_id: str, key: SecretStr | None) -> dict[str, Any]:
    if key is None:
        return {}
    value = key.get_secret_value()
    shown = f"...{value[-4:]}" if len(value) >= LONG_KEY else "..."
    return {"sealed_key": state.vault.seal(value.encode(), sealed_for(project_id, teacher_id)), "key_shown": shown}


def _refuse_reserved(state: Any, name: str) -> None:
    """Raise ApiError 409 for the name of what a student begins as: who would be asked by it?"""
    if name in presets(state.settings) or is_id(name, "teacher"):
        raise ApiError(409, f"'{name}' is a name of this service's own.", param="name", code="name_taken")


def _refuse_taken(rows: Connection, project_id: str, name: str, teacher_id: str) -> None:
    if _NAMED.value(rows, project_id=project_id, name=name, but=teacher_id) is not None:
        raise ApiError(409, f"There is a teacher named '{name}' already.", param="name", code="name_taken")


@router.post("/api/teachers", response_model=Teacher)
def create_teacher(request: Request, caller: SetsTeachers, body: CreateTeacher, one: Retriable) -> Json:
    """Set a teacher: its key is sealed and never shown again."""
    state = request.app.state

    def make() -> Callable[[Connection], dict[str, Any]]:
        write = _checked(state, caller, body)
        return lambda rows: show_teacher(write(rows))

    return answered(state.database, caller, one, make)


@router.get("/api/teachers", response_model=Listed)
async def list_teachers(
    request: Request, caller: SetsTeachers, after: str | None = None, limit: Annotated[int, LIMIT] = 20,
    order: Annotated[Order, Query()] = "desc",
) -> dict[str, Any]:  # fmt: skip
    """The project's teachers."""
    with request.app.state.database.reading() as rows:
        found, more = _LISTED.page(rows, after, limit, order, project_id=caller.project_id)
    return as_list([show_teacher(row) for row in found], more)


@router.get("/api/teachers/{teacher_id}", response_model=Teacher)
async def retrieve_teacher(request: Request, caller: SetsTeachers, teacher_id: str) -> dict[str, Any]:
    """One teacher."""
    with request.app.state.database.reading() as rows:
        return show_teacher(by_id(rows, caller, teacher_id))


@router.post("/api/teachers/{teacher_id}", response_model=Teacher)
def update_teacher(request: Request, caller: SetsTeachers, teacher_id: str, body: UpdateTeacher) -> Mapping[str, Any]:
    """Set parts of a teacher anew; another address wants the key again."""
    return show_teacher(change(request.app.state, caller, teacher_id, body))


@router.delete("/api/teachers/{teacher_id}", response_model=Deleted)
def delete_teacher(request: Request, caller: SetsTeachers, teacher_id: str) -> dict[str, Any]:
    """Forget a teacher, and its key for good."""
    remove(request.app.state, caller, teacher_id)
    return {"id": teacher_id, "object": "teacher", "deleted": True}
