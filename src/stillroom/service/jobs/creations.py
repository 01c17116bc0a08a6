"""One creation for one call, however often a client sends it: by its Idempotency-Key, or by what a retry looks like.

The official clients send a call again when no answer came, count that in x-stainless-retry-count, and send no key. So each
creation is written down before it is begun: under its key, and under its body. A retry with that body within AGAIN_S is
answered like the first; a first call never is, so that two equal jobs can be had by asking twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from sqlalchemy import Connection, delete, insert, select, update

from stillroom.service.door.access import Caller
from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row
from stillroom.service.jobs.job_rows import written
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import creations

HEADER, RETRIES = "Idempotency-Key", "x-stainless-retry-count"
LONGEST, AGAIN_S, KEPT_S = 255, 120.0, 86_400.0
STARTED = time.time()
"""What was in progress before this process began is in progress no more: a root has one server."""


@dataclass(frozen=True)
class Once:
    """How a creation can be told from others: its name among the caller's, the digest of its body, whether it is a retry."""

    name: str
    body_sha256: str
    keyed: bool
    retried: bool


async def once(request: Request) -> Once:
    """The dependency. Raises ApiError 400 for a key that is none."""
    digest = hashlib.sha256(request.url.path.encode() + b"\0" + await request.body()).hexdigest()
    key = request.headers.get(HEADER)
    if key is not None and not (0 < len(key) <= LONGEST and key.isprintable()):
        raise ApiError(400, f"{HEADER} has 1 to {LONGEST} printable characters.", param=HEADER, code="invalid_header")
    count = request.headers.get(RETRIES, "0")
    retried = count.isascii() and count.isdigit() and int(count[:9]) > 0
    name = f"body {digest}" if key is None else f"key {key}"
    return Once(name, digest, key is not None, retried)


def created(
    database: Database, caller: Caller, one: Once, make: Callable[[], Callable[[Connection], dict[str, Any]]]
) -> tuple[dict[str, Any], bool]:
    """The answer of a creation, and whether it is that of an earlier call.

    `make` checks all that can be checked and gives what writes the rows; that and the answer are one transaction. Raises
    ApiError: what `make` raises, 409 for a key that came with another body, and 409 to be tried again while it is in progress.
    """
    with written(database) as rows:
        known, number = _known(rows, caller, one)
    if known is not None:
        return known, True
    place = _named(caller, one) & (creations.c.number == number) & creations.c.status.is_(None)
    try:
        write = make()
        with written(database) as rows:
            answer = write(rows)
            rows.execute(update(creations).where(place).values(status=200, answer=json.dumps(answer)))
    except BaseException:
        with written(database) as rows:
            rows.execute(delete(creations).where(place))
        raise
    return answer, False


def _named(caller: Caller, one: Once) -> Any:
    mine = (creations.c.project_id == caller.project_id) & (creations.c.key_id == caller.key_id)
    return mine & (creations.c.name == one.name)


def _known(rows: Connection, caller: Caller, one: Once) -> tuple[dict[str, Any] | None, int]:
    """The answer that was given already; where none was, this call's place is taken. And the place's number."""
    now = time.time()
    rows.execute(delete(creations).where(creations.c.created_at < now - KEPT_S))
    found = rows.execute(select(creations).where(_named(caller, one))).mappings().first()
    if found is not None and _is_same(found, one, now):
        if found["status"] is None:
            raise ApiError(
                409, "This very call is being answered; try again.", param=HEADER, code="in_progress",
                headers={"x-should-retry": "true", "retry-after": "1"},
            )  # fmt: skip
        answer: dict[str, Any] = json.loads(found["answer"])
        return answer, found["number"]
    rows.execute(delete(creations).where(_named(caller, one)))
    values = {"project_id": caller.project_id, "key_id": caller.key_id, "name": one.name, "created_at": now}
    made = insert(creations).values(**values, body_sha256=one.body_sha256).returning(creations.c.number)
    return None, rows.execute(made).scalar_one()


def _is_same(found: Row, one: Once, now: float) -> bool:
    """This call was made before, and is that one. Raises ApiError 409 for a key with another body."""
    if found["status"] is None and found["created_at"] < STARTED:
        return False
    if one.keyed:
        if found["body_sha256"] != one.body_sha256:
            told = f"This {HEADER} came before with another body; take a new one for another job."
            raise ApiError(409, told, param=HEADER, code="idempotency_key_reused")
        return True
    return one.retried and found["created_at"] > now - AGAIN_S
