"""Event streams whose connection breaks: what each client saw in the end, beside what was written.

Many clients follow one job. Its events are written at a steady pace while connections are cut at random moments; each
client comes back with the id of the last event it saw, as browsers do. Lost or doubled events are counted, and misplaced
ones count as both.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select, update

from benchmarks.results import Found, Row, Table
from benchmarks.service_load import fill
from benchmarks.service_process import Served
from benchmarks.service_sizes import Sizes
from stillroom.service.jobs.event_rows import tell
from stillroom.service.rows.tables import events, jobs

LASTS_S = 20.0
"""In which all events are written."""
PATIENCE_S = 60.0


class Follower:
    """One client: it reads until the job ends, and comes back where its connection is cut."""

    def __init__(self, url: str, key: str, job: str) -> None:
        place = urlsplit(url)
        self.host, self.port, self.key, self.job = place.hostname, place.port, key, job
        self.seen: list[str] = []
        self.cuts, self.waited_ms = 0, 0.0
        self._writer: asyncio.StreamWriter | None = None

    async def follow(self) -> None:
        """Until the stream says that the job has ended."""
        while True:
            try:
                if await self._read():
                    return
            except (ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)

    def cut(self) -> bool:
        """Break its connection off, without a word; False where it has none."""
        if self._writer is None:
            return False
        self._writer.transport.abort()
        self.cuts += 1
        return True

    async def _read(self) -> bool:
        reader, self._writer = await asyncio.open_connection(self.host, self.port)
        last = f"last-event-id: {self.seen[-1]}\r\n" if self.seen else ""
        path = f"/v1/fine_tuning/jobs/{self.job}/events/stream"
        head = f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer {self.key}\r\n{last}\r\n"
        self._writer.write(head.encode())
        try:
            first = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            if " 204 " in first.splitlines()[0]:
                return True
            if " 200 " not in first.splitlines()[0]:
                raise RuntimeError(first)
            event: dict[str, str] = {}
            while (line := await reader.readline()).endswith(b"\n"):
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name:
                    event[name] = value
                    continue
                # A blank line ends an event: before it, none of it was seen.
                if event.get("event") == "end":
                    return True
                if "id" in event and "data" in event:
                    self.seen.append(event["id"])
                event = {}
            raise asyncio.IncompleteReadError(b"", None)
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.transport.abort()


def streams(sizes: Sizes, base: Path) -> Row:
    """Events lost or doubled, over all clients."""
    with Served(base / "streams") as service:
        job = fill(service, 1, 1)
        with service.rows.writing() as rows:
            rows.execute(update(jobs).values(status="paused"))
        writing = threading.Thread(target=_write, args=(service, job, sizes.stream_events))
        followers = [Follower(service.url, service.key(f"stream {n}"), job) for n in range(sizes.streams)]
        writing.start()
        asyncio.run(_followed(followers, sizes.reconnects))
        writing.join()
        with service.rows.reading() as rows:
            asked = select(events.c.number).where(events.c.job_id == job).order_by(events.c.number)
            written = [f"ftevent-{number}" for number in rows.execute(asked).scalars()]
    wrong = [_wrong(follower.seen, written) for follower in followers]
    cuts = sum(follower.cuts for follower in followers)
    row: list[Any] = [len(followers), cuts, len(written), sum(len(one.seen) for one in followers), sum(wrong)]
    columns = ["streams", "connections cut", "events written", "events seen by all", "lost or doubled"]
    n = f"{len(followers)} streams, {cuts} reconnects"
    return Row(
        {"service-streams-lost": Found(sum(wrong), n=n)}, {"streams": Table("Streams that break", columns, [row])}
    )


def _wrong(seen: list[str], written: list[str]) -> int:
    lost, doubled = len(set(written) - set(seen)), len(seen) - len(set(seen))
    misplaced = sum(one != other for one, other in zip(seen, written, strict=False)) if not lost + doubled else 0
    return lost + doubled + 2 * misplaced


async def _followed(followers: list[Follower], cuts: int) -> None:
    """All of them at work, and connections cut at random."""
    rng = random.Random(0)
    following = [asyncio.ensure_future(follower.follow()) for follower in followers]
    done = 0
    while done < cuts:
        await asyncio.sleep(rng.uniform(0.2, 1.8) * LASTS_S * 0.9 / cuts)
        done += rng.choice(followers).cut()
    async with asyncio.timeout(PATIENCE_S + LASTS_S):
        await asyncio.gather(*following)


def _write(service: Served, job: str, count: int) -> None:
    """Events at a steady pace; then the job has succeeded."""
    row = {"id": job, "project_id": service.first_project()}
    for number in range(count):
        with service.rows.writing() as rows:
            tell(rows, row, f"Step {number}", type="metrics", data={"step": number, "train_loss": 1.0})
        time.sleep(LASTS_S / count)
    with service.rows.writing() as rows:
        rows.execute(update(jobs).where(jobs.c.id == job).values(status="succeeded"))
