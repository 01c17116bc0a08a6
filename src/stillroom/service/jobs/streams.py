"""The events of a job as they happen (server-sent events). The table is what is sent: a client that comes again with the id
of the last one it saw gets what it missed, each once.

One look at the table serves all open streams, and wakes those whose job has something new.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection, func, select
from starlette.concurrency import run_in_threadpool

from stillroom.service.door.access import Reads, bearer, caller_of
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.door.schemas import never_null
from stillroom.service.jobs.event_rows import PREFIX, numbered, show_event, since
from stillroom.service.jobs.job_rows import ENDED
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import events, jobs

router = APIRouter(tags=["fine-tuning"])
LOOK_S, HEARTBEAT_S, AGAIN_MS = 0.2, 15.0, 1_000
KEY_S = 1.0
"""How often an open stream looks whether its key still lets it."""
AT_ONCE = 200
HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
BODY: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events as they happen", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "The job has ended, and all of it was told"},
}


class Pulse:
    """Wakes the streams of jobs that have something new, and all of them when the server ends."""

    def __init__(self, database: Database, ending: threading.Event) -> None:
        self._database, self.ending = database, ending
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self.open: Counter[str] = Counter()
        """Streams of each key."""

    @contextmanager
    def listening(self, job_id: str) -> Iterator[asyncio.Event]:
        """Set whenever there may be news of a job."""
        news = asyncio.Event()
        self._waiting.setdefault(job_id, set()).add(news)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield news
        finally:
            self._waiting[job_id].discard(news)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def _look(self) -> None:
        last = await run_in_threadpool(self._last)
        self._wake(list(self._waiting))  # what was written before the first look
        while self._waiting:
            await asyncio.sleep(LOOK_S)
            if self.ending.is_set():
                self._wake(list(self._waiting))
                continue
            last, changed = await run_in_threadpool(self._newer, last)
            self._wake(changed)

    def _wake(self, changed: Sequence[str]) -> None:
        for job_id in changed:
            for news in self._waiting.get(job_id, ()):
                news.set()

    def _last(self) -> int:
        with self._database.reading() as rows:
            return rows.execute(select(func.max(events.c.number))).scalar() or 0

    def _newer(self, number: int) -> tuple[int, list[str]]:
        with self._database.reading() as rows:
            wanted = select(events.c.job_id, func.max(events.c.number)).where(events.c.number > number)
            found = rows.execute(wanted.group_by(events.c.job_id)).all()
        return max([number, *(last for _, last in found)]), [job_id for job_id, _ in found]


class Stream(StreamingResponse):
    """A stream that says when it is over, however that came."""

    def __init__(self, told: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        super().__init__(told, media_type="text/event-stream", headers=HEADERS)
        self._over = over

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


def _an_events_id(schema: dict[str, Any]) -> None:
    """Tell in the document what one looks like."""
    never_null(schema)
    schema["pattern"] = f"^({PREFIX})?[0-9]{{1,18}}$"


LastSeen = Annotated[str | None, Header(description="Of the last event that was seen", json_schema_extra=_an_events_id)]
After = Annotated[
    str | None, Query(description="The same, where no header can be sent", json_schema_extra=_an_events_id)
]


@router.get("/v1/fine_tuning/jobs/{job_id}/events/stream", response_class=StreamingResponse, responses=BODY)
async def stream(
    request: Request, caller: Reads, job_id: str,
    last_event_id: LastSeen = None, after: After = None,
) -> Response:  # fmt: skip
    """A job's events, from the first or after the last one seen; it ends when the job has."""
    state = request.app.state
    seen = last_event_id or after
    number = 0 if seen is None else numbered(seen)
    if number is None:
        raise ApiError(400, "This is no event's id.", param="Last-Event-ID", code="invalid_event_id")
    with_key = f"{caller.project_id} {caller.key_id}"
    pulse: Pulse = state.pulse
    if not await run_in_threadpool(_is_there, state.database, caller.project_id, job_id):
        raise not_found("fine-tuning job", job_id)
    found, ended = await run_in_threadpool(_read, state.database, job_id, number)
    if ended and not found:
        return Response(status_code=204)
    if pulse.open[with_key] >= state.settings.limits.streams:
        raise ApiError(429, f"At most {state.settings.limits.streams} streams at once with one key.",
                       code="too_many_streams", headers={"retry-after": "5"})  # fmt: skip
    pulse.open[with_key] += 1
    state.meter.streams.inc()

    def over() -> None:
        pulse.open[with_key] -= 1

    return Stream(_told(request, job_id, number), over)


async def _told(request: Request, job_id: str, number: int) -> AsyncIterator[bytes]:
    """What is sent, until the job, the server or the right to read it ends."""
    database, pulse = request.app.state.database, request.app.state.pulse
    said_at = time.monotonic()
    yield f"retry: {AGAIN_MS}\n\n".encode()
    with pulse.listening(job_id) as news:
        while not pulse.ending.is_set() and await _may_read(request):
            news.clear()
            found, ended = await run_in_threadpool(_read, database, job_id, number)
            for row in found:
                number = row["number"]
                yield _sent(row)
            if found:
                said_at = time.monotonic()
                continue
            if ended:
                yield b"event: end\ndata: {}\n\n"
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), KEY_S)
            if time.monotonic() - said_at >= HEARTBEAT_S:
                said_at = time.monotonic()
                yield b": nothing new\n\n"


async def _may_read(request: Request) -> bool:
    """The key that the request came with is still good."""
    try:
        caller = await caller_of(request, await bearer(request))
    except ApiError:
        return False
    return "read" in caller.scopes


def _sent(row: Row) -> bytes:
    told = show_event(row)
    return f"id: {told['id']}\ndata: {json.dumps(told)}\n\n".encode()


def _read(database: Database, job_id: str, number: int) -> tuple[Sequence[Row], bool]:
    """Events after a number, and whether the job has ended, as of one moment."""
    with database.reading() as rows:
        found = since(rows, job_id, number, AT_ONCE)
        return found, _status(rows, job_id) in ENDED


def _status(rows: Connection, job_id: str) -> str | None:
    found: str | None = rows.execute(select(jobs.c.status).where(jobs.c.id == job_id)).scalar()
    return found


def _is_there(database: Database, project_id: str, job_id: str) -> bool:
    with database.reading() as rows:
        wanted = (jobs.c.id == job_id) & (jobs.c.project_id == project_id)
        return rows.execute(select(jobs.c.number).where(wanted)).first() is not None
