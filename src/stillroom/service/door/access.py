"""Whose a request is: a key gives a project and what may be done in it. Keys are shown once and kept as SHA-256.

On this machine alone, with no key sent or one that is not of our making, a request is the first project's, with every
right: it is the person at the keyboard. Where other machines can come in, each request needs a key.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy import Connection, bindparam, insert, select, update
from starlette.requests import HTTPConnection

from stillroom.service.door.faults import ApiError
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import chance, new_id
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import keys, projects

SCOPES = ("read", "write", "teachers", "admin")
"""`teachers`: where a teacher's address and key may be set; `admin`: keys and projects."""
PREFIX = "sr_"
KEY = re.compile(r"sr_[A-Za-z0-9]{43}")
KNOWN_S = 0.9
"""A revoked key is refused within a second."""
COOKIE, COOKIE_USE = "stillroom", "a signed-in browser"
SEALED = re.compile(r"([0-9a-f]{2}){29,100}")
"""A cookie's value: bytes that the vault sealed, in hex."""
_BY_DIGEST = Statement(select(keys).where(keys.c.digest == bindparam("digest")))
bearer = HTTPBearer(auto_error=False, description="A key of this service; on its own machine any word will do.")


@dataclass(frozen=True)
class Caller:
    """A project, and what may be done in it."""

    project_id: str
    key_id: str
    """Empty for the person at the keyboard."""
    scopes: frozenset[str]


class Access:
    """Looks keys up, and remembers them for less than a second."""

    def __init__(self, database: Database, is_open: bool) -> None:
        self._database, self._is_open = database, is_open
        self._known: dict[str, tuple[float, Caller | None]] = {}
        self.first = first_project(database)

    def by_key(self, key: str | None) -> Caller:
        """Whose a key is. Raises ApiError 401 for none, a wrong one, or one that was revoked or is too old."""
        if key is None or not KEY.fullmatch(key):
            if self._is_open or (key or "").startswith(PREFIX):
                told = "This is no key of this service." if key else "A key is needed: Authorization: Bearer sr_..."
                raise ApiError(401, told, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
            return Caller(self.first, "", frozenset(SCOPES))
        digest, now = hashlib.sha256(key.encode()).hexdigest(), time.monotonic()
        found = self._known.get(digest)
        if found is None or now - found[0] > KNOWN_S:
            if len(self._known) > 10_000:
                self._known.clear()
            found = self._known[digest] = (now, self._look_up(digest))
        if found[1] is None:
            told = "This key is unknown, revoked or expired."
            raise ApiError(401, told, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        return found[1]

    def knows(self, key: str) -> bool:
        """It is a key of ours that is good now."""
        try:
            return KEY.fullmatch(key) is not None and bool(self.by_key(key).key_id)
        except ApiError:
            return False

    def forget(self) -> None:
        """Look every key up anew."""
        self._known.clear()

    def _look_up(self, digest: str) -> Caller | None:
        with self._database.reading() as rows:
            found = _BY_DIGEST.first(rows, digest=digest)
        if found is None or found["revoked_at"] or (found["expires_at"] or time.time() + 1) <= time.time():
            return None
        return Caller(found["project_id"], found["id"], frozenset(found["scopes"]))


def first_project(database: Database) -> str:
    """The project of the person at the keyboard, made with the database."""
    with database.reading() as rows:
        found = rows.execute(select(projects.c.id).order_by(projects.c.number).limit(1)).scalar()
    return found or make_project(database, "default")


def make_project(database: Database, name: str) -> str:
    """A new project's id. What it stores is not for training until it says so."""
    with database.writing() as rows:
        return add_project(rows, name)


def add_project(rows: Connection, name: str, **values: Any) -> str:
    """The same in a transaction that has more to write; `values`: what of it should be otherwise."""
    found = new_id("proj")
    made = {"id": found, "name": name, "created_at": int(time.time()), "trains_on_stored": False, **values}
    rows.execute(insert(projects).values(**made))
    return found


def make_key(
    database: Database, project_id: str, name: str, scopes: tuple[str, ...] = SCOPES, expires_at: int | None = None
) -> tuple[dict[str, Any], str]:
    """A new key's row, and the key itself, which is nowhere kept."""
    with database.writing() as rows:
        return add_key(rows, project_id, name, scopes, expires_at)


def add_key(
    rows: Connection, project_id: str, name: str, scopes: tuple[str, ...] = SCOPES, expires_at: int | None = None
) -> tuple[dict[str, Any], str]:
    """The same in a transaction that has more to write."""
    secret = PREFIX + chance(43)
    row = {
        "id": new_id("key"), "project_id": project_id, "name": name, "scopes": list(scopes),
        "digest": hashlib.sha256(secret.encode()).hexdigest(), "shown": f"{secret[:7]}...{secret[-4:]}",
        "created_at": int(time.time()), "expires_at": expires_at,
    }  # fmt: skip
    rows.execute(insert(keys).values(**row))
    return row, secret


def revoke_key(database: Database, project_id: str, key_id: str) -> bool:
    """From now on refused; False for a key that this project has not."""
    with database.writing() as rows:
        wanted = (keys.c.id == key_id) & (keys.c.project_id == project_id)
        done = rows.execute(update(keys).where(wanted).values(revoked_at=int(time.time())))
    return bool(done.rowcount)


async def caller_of(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)] = None
) -> Caller:
    """The caller of a request: by its Authorization header, or by the cookie of a browser that signed in.

    Asynchronous, as is what asks it, so that no thread is taken up for it: all it may wait for is one row, once a second.
    """
    access: Access = request.app.state.access
    if given is not None:
        return access.by_key(given.credentials)
    sealed = request.cookies.get(COOKIE)
    if sealed is not None:
        return access.by_key(signed_in_key(request, sealed))
    if request.headers.get("authorization"):
        raise ApiError(401, "The Authorization header should read: Bearer sr_...", code="invalid_api_key")
    return access.by_key(None)


def counted_as(request: HTTPConnection) -> str:
    """Under which name a request's rate is counted: its key, or that of its browser's cookie, else the address it comes from.

    Only a key that is good now counts, read as `caller_of` reads it: another way of writing it, or one that somebody made up,
    must not be a new name.
    """
    scheme, key = get_authorization_scheme_param(request.headers.get("authorization"))
    found: str | None = key if scheme.lower() == "bearer" else None
    sealed = request.cookies.get(COOKIE, "")
    if found is None and SEALED.fullmatch(sealed):
        found = signed_in_key(request, sealed)
    if found is not None and request.app.state.access.knows(found):
        return found
    return request.client.host if request.client is not None else ""


def signed_in_key(request: HTTPConnection, sealed: str) -> str | None:
    """The key in a browser's cookie; None for a cookie that is not of our making."""
    from stillroom.errors import CorruptFile

    try:
        found: str = request.app.state.vault.open(bytes.fromhex(sealed), COOKIE_USE).decode()
        return found
    except (ValueError, CorruptFile):
        return None


def needs(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, who must have every one of these scopes."""

    async def checked(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        lacking = [scope for scope in scopes if scope not in caller.scopes]
        if lacking:
            raise ApiError(403, f"This key lacks the scope {', '.join(lacking)}.", code="insufficient_scope")
        return caller

    return checked


Reads = Annotated[Caller, Depends(needs("read"))]
Writes = Annotated[Caller, Depends(needs("write"))]
SetsTeachers = Annotated[Caller, Depends(needs("teachers"))]
Administers = Annotated[Caller, Depends(needs("admin"))]
