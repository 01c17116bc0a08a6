"""The rows of creations: a call's place is taken before it is begun, and its answer written with what it created.

A retry with the same body within AGAIN_S is answered like the first; a first call never is, so that two equal things can be
had by asking twice. A key is known for KEPT_S.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row
from stillroom.service.jobs.job_rows import written
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import creations

if TYPE_CHECKING:
    from stillroom.service.door.access import Caller

HEADER = "Idempotency-Key"
BY_BODY, BY_KEY = "body ", "key "
AGAIN_S, KEPT_S, LOOK_S = 120.0, 86_400.0, 0.25
STARTED = time.time()
"""What was in progress before this process began is in progress no more: a root has one server."""


@dataclass(frozen=True)
class Once:
    """How a creation can be told from others: its name among the caller's, the digest of its body, whether it is a retry."""

    name: str
    body_sha256: str
    keyed: bool
    retried: bool


class InProgress(ApiError):
    """The first try of this call has not been answered yet."""

    def __init__(self) -> None:
        super().__init__(
            409, "This very call is being answered; try again.", param=HEADER, code="in_progress",
            headers={"x-should-retry": "true", "retry-after": "1"},
        )  # fmt: skip


def created(
    database: Database, caller: Caller, one: Once, make: Callable[[], Callable[[Connection], dict[str, Any]]],
    wait_s: float = 0.0,
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """The answer of a creation, and whether it is that of an earlier call, for which is waited so long.

    `make` checks all that can be checked and gives what writes the rows; that and the answer are one transaction. The answer
    is kept as it is: no secret may be in it. Raises ApiError: what `make` raises, 409 for a key that came with another body,
    and InProgress.
    """
    known, number = _place(database, caller, one, wait_s)
    if known is not None:
        return known, True
    place = _named(caller, one) & (creations.c.number == number) & creations.c.status.is_(None)
    try:
        write = make()
        with written(database) as rows:
            answer = write(rows)
            done = {"status": 200, "answer": json.dumps(answer), "created_at": time.time()}
            rows.execute(update(creations).where(place).values(**done))
    except BaseException:
        with written(database) as rows:
            rows.execute(delete(creations).where(place))
        raise
    return answer, False


def forget_old(rows: Connection) -> None:
    """Take out what no call can be answered with any more."""
    now, by_body = time.time(), creations.c.name.startswith(BY_BODY)
    told = and_(by_body, creations.c.status.is_not(None), creations.c.created_at < now - AGAIN_S)
    rows.execute(delete(creations).where(or_(told, creations.c.created_at < now - KEPT_S)))


def _place(database: Database, caller: Caller, one: Once, wait_s: float) -> tuple[dict[str, Any] | None, int]:
    until = time.monotonic() + wait_s
    while True:
        try:
            with written(database) as rows:
                return _known(rows, caller, one)
        except InProgress:
            if time.monotonic() >= until:
                raise
        time.sleep(LOOK_S)


def _named(caller: Caller, one: Once) -> Any:
    mine = (creations.c.project_id == caller.project_id) & (creations.c.key_id == caller.key_id)
    return mine & (creations.c.name == one.name)


def _known(rows: Connection, caller: Caller, one: Once) -> tuple[dict[str, Any] | None, int]:
    """The answer that was given already; where none was, this call's place is taken. And the place's number."""
    now = time.time()
    found = rows.execute(select(creations).where(_named(caller, one))).mappings().first()
    if found is not None and _is_same(found, one, now):
        if found["status"] is None:
            raise InProgress
        answer: dict[str, Any] = json.loads(found["answer"])
        return answer, found["number"]
    rows.execute(delete(creations).where(_named(caller, one)))
    values = {"project_id": caller.project_id, "key_id": caller.key_id, "name": one.name, "created_at": now}
    made = insert(creations).values(**values, body_sha256=one.body_sha256).returning(creations.c.number)
    return None, rows.execute(made).scalar_one()


def _is_same(found: Row, one: Once, now: float) -> bool:
    """This call was made before, and is that one. Raises ApiError 409 for a key with another body."""
    if found["created_at"] < (STARTED if found["status"] is None else now - KEPT_S):
        return False
    if one.keyed:
        if found["body_sha256"] != one.body_sha256:
            told = f"This {HEADER} came before with another body; take a new one for another call."
            raise ApiError(409, told, param=HEADER, code="idempotency_key_reused")
        return True
    return one.retried and (found["status"] is None or found["created_at"] > now - AGAIN_S)
