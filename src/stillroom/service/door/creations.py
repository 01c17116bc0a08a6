"""One creation for one call, however often a client sends it: by its Idempotency-Key, or by what a retry looks like.

The official clients send a call again when no answer came, count that in x-stainless-retry-count, and send no key. So each
creation is written down before it is begun: under its key, and under its body (creation_rows.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import Connection

from stillroom.service.door.access import Caller
from stillroom.service.door.creation_rows import BY_BODY, BY_KEY, HEADER, Once, created
from stillroom.service.door.faults import ApiError
from stillroom.service.door.routes import Json
from stillroom.service.rows.database import Database

RETRIES, LONGEST = "x-stainless-retry-count", 255
REPLAYED = {"idempotent-replayed": "true"}


async def once(request: Request) -> Once:
    """The dependency. Raises ApiError 400 for a key that is none."""
    return once_of(request, await request.body())


def once_of(request: Request, body: bytes) -> Once:
    """The same where the body is read elsewhere: what of it makes it this call's."""
    digest = hashlib.sha256(request.url.path.encode() + b"\0" + body).hexdigest()
    key = request.headers.get(HEADER)
    if key is not None and not (0 < len(key) <= LONGEST and key.isprintable()):
        raise ApiError(400, f"{HEADER} has 1 to {LONGEST} printable characters.", param=HEADER, code="invalid_header")
    return Once(BY_BODY + digest if key is None else BY_KEY + key, digest, key is not None, is_retry(request))


def is_retry(request: Request) -> bool:
    """The official client says that it has tried before."""
    count = request.headers.get(RETRIES, "0")
    return count.isascii() and count.isdigit() and int(count[:9]) > 0


def answered(
    database: Database, caller: Caller, one: Once, make: Callable[[], Callable[[Connection], dict[str, Any]]]
) -> Json:
    """A creation's answer as it goes out. Raises ApiError as `created` does."""
    answer, known = created(database, caller, one, make)
    return Json(answer, headers=REPLAYED if known else None)


def shown_once(what: str, cure: str) -> ApiError:
    """For a retry of what made a secret: it was shown in the first answer, and is kept nowhere."""
    return ApiError(409, f"{what} and shown once, in an answer. If that is lost, {cure}.", code="shown_once")


Retriable = Annotated[Once, Depends(once)]
