"""Projects and their keys. A key is shown once, may do what its scopes say, and is refused within a second of its end.

A project sees itself alone. New projects are made by whoever administers the first one: the operator of the service.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StrictBool
from sqlalchemy import Connection, bindparam, select, update

from stillroom.service.door import lists
from stillroom.service.door.access import SCOPES, Administers, Caller, Reads, add_key, add_project, revoke_key
from stillroom.service.door.creation_rows import HEADER, Once, created
from stillroom.service.door.creations import Retriable, shown_once
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import LIMIT, NUMBER, Deleted, Listed, Strict, never_null
from stillroom.service.rows.statements import Listing, Statement
from stillroom.service.rows.tables import keys, projects

router = APIRouter(route_class=Route, prefix="/api", tags=["projects and keys"])
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Scope = Literal["read", "write", "teachers", "admin"]
DAY_S = 86_400
LONGEST_DAYS = 3_650
"""That something is kept, or a key is good for."""
_PROJECT = Statement(select(projects).where(projects.c.id == bindparam("id")))
_PROJECTS = Listing(projects, projects.c.id == bindparam("id"), "project")
_OURS = keys.c.project_id == bindparam("project_id")
_KEY = Statement(select(keys).where(_OURS, keys.c.id == bindparam("id")))
_KEYS = Listing(keys, _OURS, "key")


class Project(BaseModel):
    """A project: files, jobs, models, teachers and stored completions that belong together."""

    id: str
    object: Literal["project"]
    name: str
    created_at: int
    trains_on_stored: bool
    """What it stores may be trained on."""
    retention_days: int | None
    """How long stored completions are kept; null: until they are deleted."""


class NewProject(Strict):
    """A project to be made."""

    name: Name
    trains_on_stored: StrictBool = False
    retention_days: Annotated[int, Field(ge=1, le=LONGEST_DAYS), NUMBER] | None = None


class MadeProject(Project):
    """A new project, with a key of every right in it, shown this once."""

    key: str


class ProjectSettings(Strict):
    """What of a project should be otherwise; what is left out stays."""

    name: Name | None = Field(default=None, json_schema_extra=never_null)
    trains_on_stored: StrictBool | None = Field(default=None, json_schema_extra=never_null)
    retention_days: Annotated[int, Field(ge=1, le=LONGEST_DAYS), NUMBER] | None = None


class Key(BaseModel):
    """A key, but for its secret."""

    id: str
    object: Literal["api_key"]
    name: str
    shown: str
    """Its first and last letters."""
    scopes: list[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class MadeKey(Key):
    """A new key, with its secret, which is shown this once and nowhere kept."""

    key: str


class NewKey(Strict):
    """A key to be made."""

    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]
    expires_in_s: Annotated[int, Field(ge=1, le=LONGEST_DAYS * DAY_S), NUMBER] | None = None


def find_project(rows: Connection, caller: Caller, project_id: str) -> Row:
    """The caller's project. Raises ApiError 404 for any other."""
    found = _PROJECT.first(rows, id=project_id) if project_id == caller.project_id else None
    if found is None:
        raise not_found("project", project_id, "project_id")
    return found


def show_project(row: Row) -> dict[str, Any]:
    """A project as the interface has it."""
    names = ("id", "name", "created_at", "trains_on_stored", "retention_days")
    return {"object": "project", **{name: row[name] for name in names}}


def show_key(row: Row) -> dict[str, Any]:
    """A key as the interface has it, without its secret."""
    names = ("id", "name", "shown", "scopes", "created_at", "expires_at")
    return {"object": "api_key", **{name: row[name] for name in names}, "revoked_at": row.get("revoked_at")}


def set_project(rows: Connection, caller: Caller, project_id: str, values: dict[str, Any]) -> Row:
    """Change a project's name, trains_on_stored or retention_days. Raises ApiError 404."""
    find_project(rows, caller, project_id)
    if values:
        rows.execute(update(projects).where(projects.c.id == project_id).values(**values))
    return find_project(rows, caller, project_id)


def new_key(state: Any, caller: Caller, body: NewKey, one: Once) -> tuple[Row, str | None]:
    """A key's row and its secret, which is told once: None where this very call made it before. Raises ApiError."""
    secrets = list[str]()

    def make() -> Callable[[Connection], dict[str, Any]]:
        add = _checked_key(caller, body)

        def write(rows: Connection) -> dict[str, Any]:
            row, secret = add(rows)
            secrets.append(secret)
            return show_key(row)

        return write

    shown, known = created(state.database, caller, one, make)
    return shown, None if known else secrets[0]


def _checked_key(caller: Caller, body: NewKey) -> Callable[[Connection], tuple[dict[str, Any], str]]:
    """What writes a key's row. Raises ApiError 403 for scopes that the caller has not."""
    beyond = [scope for scope in body.scopes if scope not in caller.scopes]
    if beyond:
        told = f"A key gives no more than the one that makes it, which lacks the scope {', '.join(beyond)}."
        raise ApiError(403, told, param="scopes", code="insufficient_scope")
    once = tuple(scope for scope in SCOPES if scope in body.scopes)
    until = None if body.expires_in_s is None else int(time.time()) + body.expires_in_s
    return lambda rows: add_key(rows, caller.project_id, body.name, once, until)


@router.get("/projects", response_model=Listed)
async def projects_list(
    request: Request, caller: Reads, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> dict[str, Any]:
    """The caller's project."""
    with request.app.state.database.reading() as rows:
        found, more = _PROJECTS.page(rows, after, limit, id=caller.project_id)
    return lists.as_list([show_project(row) for row in found], more)


@router.post("/projects", response_model=MadeProject)
def projects_create(body: NewProject, request: Request, caller: Administers, one: Retriable) -> dict[str, Any]:
    """A new project and its first key, which is shown this once. Only the first project's administrators may."""
    state, secrets = request.app.state, list[str]()
    if caller.project_id != state.access.first:
        told = "New projects are made by an administrator of the service's first project."
        raise ApiError(403, told, code="insufficient_scope")

    def write(rows: Connection) -> dict[str, Any]:
        project_id = add_project(rows, **body.model_dump())
        row = rows.execute(select(projects).where(projects.c.id == project_id)).mappings().one()
        secrets.append(add_key(rows, project_id, "first")[1])
        return show_project(row)

    shown, known = created(state.database, caller, one, lambda: write)
    if known:
        cure = f"make another project with a new {HEADER}; this one stays empty"
        raise shown_once(f"The project {shown['id']} was made by this very call, its first key", cure)
    return {**shown, "key": secrets[0]}


@router.get("/projects/{project_id}", response_model=Project)
async def projects_retrieve(project_id: str, request: Request, caller: Reads) -> dict[str, Any]:
    """The caller's own."""
    with request.app.state.database.reading() as rows:
        return show_project(find_project(rows, caller, project_id))


@router.post("/projects/{project_id}", response_model=Project)
def projects_update(project_id: str, body: ProjectSettings, request: Request, caller: Administers) -> dict[str, Any]:
    """Whether what it stores is for training, how long that is kept, and its name."""
    values = body.model_dump(exclude_unset=True)
    for name in ("name", "trains_on_stored"):
        if name in values and values[name] is None:
            raise ApiError(
                400, f"{name}: should not be null; leave it out to keep it.", param=name, code="invalid_value"
            )
    with request.app.state.database.writing() as rows:
        return show_project(set_project(rows, caller, project_id, values))


@router.get("/keys", response_model=Listed)
async def keys_list(
    request: Request, caller: Administers, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """The project's keys, newest first, revoked ones too."""
    with request.app.state.database.reading() as rows:
        found, more = _KEYS.page(rows, after, limit, project_id=caller.project_id)
    return lists.as_list([show_key(row) for row in found], more)


@router.post("/keys", response_model=MadeKey)
def keys_create(body: NewKey, request: Request, caller: Administers, one: Retriable) -> dict[str, Any]:
    """A new key. Its secret is in this answer and nowhere else, so a call that is sent again is not answered with it."""
    shown, secret = new_key(request.app.state, caller, body, one)
    if secret is None:
        cure = f"revoke it (DELETE /api/keys/{shown['id']}) and make another with a new {HEADER}"
        raise shown_once(f"The key {shown['id']} was made by this very call", cure)
    return {**shown, "key": secret}


@router.get("/keys/{key_id}", response_model=Key)
async def keys_retrieve(key_id: str, request: Request, caller: Administers) -> dict[str, Any]:
    """One of them."""
    with request.app.state.database.reading() as rows:
        found = _KEY.first(rows, project_id=caller.project_id, id=key_id)
    if found is None:
        raise not_found("key", key_id, "key_id")
    return show_key(found)


@router.delete("/keys/{key_id}", response_model=Deleted)
def keys_revoke(key_id: str, request: Request, caller: Administers) -> dict[str, Any]:
    """Refuse it from now on; its row stays, so that it is known whose it was."""
    state = request.app.state
    if not revoke_key(state.database, caller.project_id, key_id):
        raise not_found("key", key_id, "key_id")
    state.access.forget()
    return {"id": key_id, "object": "api_key.deleted", "deleted": True}
