"""A streamed call whose client hung up before anything was sent: it is counted, once, and its teacher's connection let go of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.service.test_proxied import PRICE, asks, pieces

from scripted_endpoint import Endpoint
from stillroom.service.app import create_app
from stillroom.service.door.access import Caller
from stillroom.service.rows.tables import calls
from stillroom.service.settings import Settings
from stillroom.service.students import chat
from stillroom.service.students.chat_body import ChatCall
from stillroom.service.teachers import outward, teachers


@pytest.fixture
def teacher() -> Iterator[Endpoint]:
    with Endpoint(lambda body, number: pieces("one ", "two ", "three")) as found:
        yield found


@pytest.fixture
def state(tmp_path: Path, teacher: Endpoint) -> Iterator[Any]:
    """Of an app with this teacher."""
    origin = teacher.url.removeprefix("http://").removesuffix("/v1")
    found = create_app(Settings(tmp_path, local_teachers=(origin,))).state
    body = teachers.CreateTeacher.model_validate(
        {"name": "big", "base_url": teacher.url, "model": "big-1", "price": PRICE}
    )
    teachers.create(found, Caller(found.access.first, "", frozenset()), body)
    yield found
    found.outward.close()
    found.database.close()


def test_a_client_that_hung_up_before_the_first_piece(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    back = outward.Outward._back

    def noted(self: Any, at: Any, connection: Any, again: bool) -> None:
        ended.append(again)
        back(self, at, connection, again)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise OSError("the client is gone")

    monkeypatch.setattr(outward.Outward, "_back", noted)
    body = ChatCall.model_validate({"model": "big", "messages": asks("hello"), "stream": True, "store": True})
    response = chat._answered(state, Caller(state.access.first, "", frozenset()), body)
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "POST", "path": "/", "headers": []}
    with pytest.raises(Exception):  # noqa: B017 - the framework's own word for a client that is gone
        asyncio.run(response(scope, receive, send))
    assert ended == [False]
    with state.database.reading() as rows:
        found = rows.execute(select(calls.c.by, calls.c.tokens_in, calls.c.nano_usd)).all()
    assert found == [("teacher", 2, 2 * 1000 + 2000)]
