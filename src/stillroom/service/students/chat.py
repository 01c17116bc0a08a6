"""Chat completions, by a student, a teacher or a cascade: see answering.py for who answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, TypeVar

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import Connection
from starlette.background import BackgroundTask

from stillroom.errors import StillroomError
from stillroom.service.data import completion_rows
from stillroom.service.door import faults
from stillroom.service.door.access import Caller, Writes
from stillroom.service.door.creation_rows import HEADER, Once, created
from stillroom.service.door.creations import REPLAYED, once
from stillroom.service.door.faults import ApiError
from stillroom.service.door.routes import Receive, Route, Scope, Send
from stillroom.service.door.schemas import Error
from stillroom.service.students import answering
from stillroom.service.students.answering import Asked, Reply
from stillroom.service.students.begun import begun
from stillroom.service.students.chat_body import ChatCall, Completion, counted
from stillroom.service.watch.logs import log

router = APIRouter(route_class=Route, tags=["chat"])

AT_ONCE = 128
"""Calls that wait for a model or a teacher; they have threads of their own, so that other routes never wait for them."""
END = b"data: [DONE]\n\n"
STREAMED = {"cache-control": "no-cache", "x-accel-buffering": "no"}
WAIT_S = 30.0
"""For the answer to the first try of a call that is sent again: the client gives up after two refusals."""
ANSWERED_BY = "x-stillroom-answered-by"
FURTHER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}},
    502: {"model": Error, "description": "The teacher failed"},
    504: {"model": Error, "description": "The teacher takes too long"},
}
Result = TypeVar("Result")


@router.post("/v1/chat/completions", response_model=Completion, responses=FURTHER)
async def create_completion(request: Request, caller: Writes, body: ChatCall) -> Response:
    """An answer: by a finished student, by a teacher, or by a cascade; streamed where that is asked for."""
    body.check()
    state = request.app.state
    keyed = HEADER in request.headers
    if keyed and body.stream:
        told = (
            f"A streamed answer cannot be given again, so {HEADER} is not for it: leave it out, or ask without stream."
        )
        raise ApiError(400, told, param=HEADER, code="idempotency_unsupported")
    if keyed or (body.store is True and not body.stream):
        one = await once(request)
        return await in_thread(state, lambda: _answered_once(state, caller, body, one))
    return await in_thread(state, lambda: _answered(state, caller, body))


async def in_thread(state: Any, work: Callable[[], Result]) -> Result:
    """What a thread gives that may take its time."""
    limiter = getattr(state, "calls_at_once", None)
    if limiter is None:
        limiter = state.calls_at_once = anyio.CapacityLimiter(AT_ONCE)
    return await anyio.to_thread.run_sync(work, limiter=limiter)


def _answered(state: Any, caller: Caller, body: ChatCall) -> Response:
    asked = answering.find(state, caller, body)
    if not body.stream:
        reply = answering.whole(asked)
        answering.settle(asked, reply)
        return _whole(asked, reply)
    reply, coming = answering.pieces(asked)
    return Flow(
        state, begun(_events(asked, reply, coming)), media_type="text/event-stream",
        headers={**STREAMED, ANSWERED_BY: reply.by}, background=_audit(state, asked, reply),
    )  # fmt: skip


def _answered_once(state: Any, caller: Caller, body: ChatCall, one: Once) -> Response:
    """A whole answer, asked for and stored once, however often the call is sent.

    A call that is sent again is answered with what was stored: as it was redacted, and not at all once it is deleted. Of an
    answer that is not stored a redacted copy is kept for as long as the call's key is known.
    """
    said: list[tuple[Asked, Reply]] = []

    def make() -> Callable[[Connection], dict[str, Any]]:
        asked = answering.find(state, caller, body)
        reply = answering.whole(asked)
        answering.settle(asked, reply, stores=False)
        values = answering.to_store(asked, reply)
        said.append((asked, reply))
        if answering.is_stored(asked, reply):
            return lambda rows: {"id": completion_rows.store(rows, values)}
        return lambda rows: {"by": reply.by, "response": values["response"]}

    answer, known = created(state.database, caller, one, make, WAIT_S)
    if not known:
        return _whole(*said[0])
    if "id" in answer:
        answer = _kept(state, caller, answer["id"])
    return JSONResponse(answer["response"], headers={ANSWERED_BY: answer["by"], **REPLAYED})


def _kept(state: Any, caller: Caller, completion_id: str) -> dict[str, Any]:
    """What was stored of a call that is sent again. Raises ApiError 409 once it is deleted."""
    with state.database.reading() as rows:
        try:
            return dict(completion_rows.find_completion(rows, caller.project_id, completion_id))
        except ApiError as error:
            told = (
                f"The answer to this very call was stored as {completion_id}, and is gone; send the call as a new one."
            )
            raise ApiError(409, told, code="completion_deleted") from error


def _whole(asked: Asked, reply: Reply) -> Response:
    found = answering.as_completion(asked, reply)
    return JSONResponse(found, headers={ANSWERED_BY: reply.by}, background=_audit(asked.state, asked, reply))


class Flow(StreamingResponse):
    """Events as they come, made in the calls' own threads; closed also where the client hangs up before the first."""

    def __init__(self, state: Any, events: Generator[bytes], **more: Any) -> None:
        self._state, self._events = state, events
        super().__init__(self._coming(), **more)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(self._state, self._events.close)

    async def _coming(self) -> AsyncIterator[bytes]:
        while (event := await in_thread(self._state, lambda: next(self._events, None))) is not None:
            yield event


def _audit(state: Any, asked: Asked, reply: Reply) -> BackgroundTask | None:
    async def audited() -> None:
        # In the calls' threads: a teacher may take minutes, and the other routes' threads must not wait for it.
        await in_thread(state, lambda: answering.audit(asked, reply))

    return None if reply.label is None else BackgroundTask(audited)


def _events(asked: Asked, reply: Reply, coming: Generator[list[dict[str, Any]]]) -> Generator[bytes]:
    """Server-sent events: pieces, usage where it is wanted, and the end; or an error, where it breaks off."""
    options = asked.body.stream_options
    more: dict[str, Any] = {"usage": None} if options is not None and options.include_usage else {}
    came = False
    try:
        yield b""
        for choices in coming:
            yield _event(asked.shape("chat.completion.chunk", choices=choices, **more))
        came = True
    except (ApiError, StillroomError) as error:
        told = error if isinstance(error, ApiError) else faults.of(error)
        log("stream broke off", "warning", code=told.code)
        yield _event(faults.envelope(told.status, told.message, told.param, told.code))
        return
    finally:
        coming.close()  # where the client hung up, what came is counted by this
        answering.settle(asked, reply, stores=came)
    if more:
        used = {"usage": counted(reply.tokens_in, reply.tokens_out)}
        yield _event(asked.shape("chat.completion.chunk", choices=[], **used))
    yield END


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
