"""Forms that only our own pages can send: each carries a token that is bound to who asked for the page.

The token is sealed, so nothing is kept about it. Another site can neither read a page of ours nor make a token; the wall
refuses its Origin besides, and the cookie does not travel with its requests.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from stillroom.errors import CorruptFile
from stillroom.service.door.access import Caller, needs
from stillroom.service.door.faults import ApiError
from stillroom.service.door.vault import Vault

FIELD = "form_token"
LASTS_S = 7 * 24 * 3600
NOBODY = Caller("", "", frozenset())
"""Who has not signed in yet."""


def token(vault: Vault, caller: Caller) -> str:
    """What a form of this caller carries."""
    return vault.seal(str(int(time.time())).encode(), _use(caller)).hex()


def check(request: Request, caller: Caller, given: str) -> None:
    """Raise ApiError 403 for a form that no page of ours gave this caller, or gave long ago."""
    if request.headers.get("origin") == "null":
        raise ApiError(403, "This form was not sent by a page of this service.", param="origin", code="foreign_form")
    told = "This form is too old, or was made for someone else. Go back, load the page anew and send it again."
    try:
        made_at = int(request.app.state.vault.open(bytes.fromhex(given), _use(caller)))
    except (ValueError, CorruptFile) as error:
        raise ApiError(403, told, param=FIELD, code="foreign_form") from error
    if time.time() - made_at > LASTS_S:
        raise ApiError(403, told, param=FIELD, code="old_form")


def _use(caller: Caller) -> str:
    return f"a form of {caller.project_id} {caller.key_id}"


def sender(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller of a form, who must have these scopes."""
    allowed = needs(*scopes)

    async def checked(request: Request, caller: Caller = Depends(allowed)) -> Caller:  # noqa: B008 - no annotation can name it
        given = (await request.form(max_files=0)).get(FIELD)  # FastAPI reads the same form, once
        check(request, caller, given if isinstance(given, str) else "")
        return caller

    return checked


Sends = Annotated[Caller, Depends(sender("write"))]
SendsTeachers = Annotated[Caller, Depends(sender("teachers"))]
SendsKeys = Annotated[Caller, Depends(sender("admin"))]
