"""After an answer: what is stored is made ready before anybody's writing waits, and audits take no other route's thread."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import anyio
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from scripted_endpoint import Endpoint, Reply, said
from stillroom.service.door.access import Access, Caller
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import calls, completions
from stillroom.service.settings import Settings
from stillroom.service.students import answering, chat
from stillroom.service.students.answering import Asked
from stillroom.service.students.chat_body import ChatCall, choice
from stillroom.service.students.usage import Usage
from stillroom.service.teachers.outward import Outward

WAIT_S, AUDITS = 2.0, 45


class Watched(dict[str, Any]):
    """A call that, when it is read, looks whether anybody could write."""

    def __init__(self, found: dict[str, Any], database: Path) -> None:
        super().__init__(found)
        self.database, self.free = database, list[bool]()

    def items(self) -> Any:
        with closing(sqlite3.connect(self.database, timeout=0, isolation_level=None)) as rows:
            try:
                rows.execute("BEGIN IMMEDIATE")
                self.free.append(True)
            except sqlite3.OperationalError:
                self.free.append(False)
        return super().items()


class Call(ChatCall):
    """Sends a watched call."""

    watched: ClassVar[Watched]

    def as_sent(self) -> dict[str, Any]:
        return self.watched


def test_redacting_stops_no_other_writer(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.upgrade()
    settings = Settings(tmp_path, redact=("[0-9]+",))
    state = SimpleNamespace(database=database, settings=settings, usage=Usage(database))
    caller = Caller(Access(database, False).first, "", frozenset())
    call = Call(model="m", messages=[{"role": "user", "content": "order 7"}], store=True)
    Call.watched = Watched(ChatCall.as_sent(call), database.path)
    reply = answering.Reply("student", [choice(0, "it is 42", "stop", None)])
    answering.settle(Asked(state, caller, call, None, None), reply)
    assert Call.watched.free
    assert all(Call.watched.free)
    with database.reading() as rows:
        row = rows.execute(select(completions)).mappings().one()
    assert row["request"]["messages"][0]["content"] == "order [redacted]"
    assert row["response"]["choices"][0]["message"]["content"] == "it is [redacted]"
    state.usage.flush()
    database.close()


def script(body: dict[str, Any], number: int) -> Reply:
    return said("praise")._replace(wait_s=WAIT_S)


def test_audits_of_a_slow_teacher_stop_no_route(tmp_path: Path) -> None:
    """More of them at once than the framework has threads for its own routes."""
    database = Database(tmp_path)
    database.upgrade()

    async def audited(state: Any, asked: Asked, reply: answering.Reply) -> float:
        async with anyio.create_task_group() as group:
            for _ in range(AUDITS):
                group.start_soon(chat._audit(state, asked, reply))  # type: ignore[arg-type]
            await anyio.sleep(WAIT_S / 4)
            began = time.monotonic()
            await run_in_threadpool(time.monotonic)  # as a route that is no coroutine
            return time.monotonic() - began

    with Endpoint(script) as teacher:
        settings = Settings(tmp_path, local_teachers=(teacher.url.removeprefix("http://").removesuffix("/v1"),))
        outward, usage = Outward(settings), Usage(database)
        state = SimpleNamespace(database=database, settings=settings, usage=usage, outward=outward)
        row = {
            "name": "big",
            "base_url": teacher.url,
            "model": "big-1",
            "sealed_key": None,
            "distillable": True,
            "price": None,
        }
        caller = Caller(Access(database, False).first, "", frozenset())
        call = ChatCall(model="m:cascade", messages=[{"role": "user", "content": "order 7"}])
        asked = Asked(state, caller, call, None, row, is_cascade=True)
        waited_s = asyncio.run(audited(state, asked, answering.Reply("student", label="praise")))
        outward.close()
    usage.flush()
    with database.reading() as rows:
        agreed = list(rows.execute(select(calls.c.agreed)).scalars())
    database.close()
    assert waited_s < WAIT_S / 2
    assert agreed == [True] * AUDITS
