"""Answers while a trainer works: reads and writes at a steady rate, two busy processes at nice 19, a database with a past.

The rate is kept whatever the answers take: a request is counted from the moment it was due, so that one slow answer does
not hide those that had to wait for it. The client is a process of its own, on the same two cores as everything else.

    python -m benchmarks.service_load URL KEY SECONDS RATE COMPLETION JOB      # the client; prints milliseconds as JSON
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import insert, select

from benchmarks.results import Found, Row, Table
from benchmarks.service_jobs import body
from benchmarks.service_process import Served, environment
from benchmarks.service_sizes import Sizes
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.tables import events, files, jobs, models

CONNECTIONS, WRITES, PATIENCE_S = 32, 5, 30.0
"""Every fifth request writes."""
BUSY = """
import os
os.nice(19)
import numpy
left = numpy.random.default_rng(0).normal(size=(400, 400))
while True:
    left = left @ left
    left /= abs(left).max()
"""
TOLERATED = 0.001
"""The share of requests that may be refused or broken; with more, no answer counts."""
FILES, MODELS = 200, 100
HOME = Path(__file__).resolve().parent.parent


def load(sizes: Sizes, base: Path) -> Row:
    """The slowest run's 99th percentiles, of reads and of writes; what got no answer took as long as the whole run."""
    rows, worst, why = [], {"read": 0.0, "write": 0.0}, {"read": "", "write": ""}
    for run in range(sizes.load_runs):
        for busy in (False, True):
            found = once(sizes, base / f"load-{run}-{busy}", busy)
            for kind, figures in found.items():
                told = "two busy processes" if busy else "nothing else"
                rows.append([told, kind, *figures.values()])
                if busy and figures["failed"] > TOLERATED * figures["count"]:
                    worst[kind] = 1000.0 * sizes.load_s
                    why[kind] = f"{figures['failed']} of {figures['count']} requests of a run were refused or broken"
                elif busy:
                    worst[kind] = max(worst[kind], figures["p99"])
    n = f"{sizes.load_runs} runs of {sizes.load_s} s"
    columns = ["beside", "kind", "requests", "refused or broken", "p50 ms", "p99 ms", "slowest ms"]
    title = f"{sizes.load_rate} requests a second, {sizes.jobs:,} jobs, {sizes.events:,} events"
    note = (
        "Counted from the moment a request was due. What was refused or broken counts as the length of the run, and where it is "
        f"more than {TOLERATED:.1%}, so does the figure. Jobs are copies of one that succeeded, with {FILES} files and {MODELS} "
        "models beside them."
    )
    bars = {f"service-{kind}-p99-ms": Found(worst[kind], n=n, why=why[kind]) for kind in worst}
    return Row(bars, {"load": Table(title, columns, rows, note)})


def once(sizes: Sizes, folder: Path, busy: bool) -> dict[str, dict[str, float]]:
    """One run: figures of reads and of writes."""
    with Served(folder, "--requests-per-minute", "10000000") as service:
        key = service.key("load")
        job = fill(service, sizes.jobs, sizes.events, like=finished(service))
        fill_lists(service)
        completion = _stored(service)
        with trainers(2 if busy else 0):
            time.sleep(1.0)
            words = [service.url, key, str(sizes.load_s), str(sizes.load_rate), completion, job]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.service_load", *words],
                env=environment(), cwd=HOME, capture_output=True, text=True, check=True,
            )  # fmt: skip
    return {kind: _figures(**found, lasted_ms=1000 * sizes.load_s) for kind, found in json.loads(done.stdout).items()}


def _figures(took_ms: list[float], failed: int, lasted_ms: float) -> dict[str, float]:
    slowest = max([lasted_ms, *took_ms])
    every = sorted(took_ms) + [slowest] * failed
    at = [every[min(int(share * len(every)), len(every) - 1)] if every else slowest for share in (0.5, 0.99)]
    return {"count": len(every), "failed": failed, "p50": at[0], "p99": at[1], "most": every[-1] if every else slowest}


@contextmanager
def trainers(count: int) -> Iterator[None]:
    """So many processes that keep a core each busy, at the priority of a trainer."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY], env=environment()) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def finished(service: Served) -> dict[str, Any]:
    """The row of a small job, once it has succeeded here."""
    answer = service.http().post("/v1/fine_tuning/jobs", json=body(metadata={"app": "bench"}))
    answer.raise_for_status()
    job_id = answer.json()["id"]
    service.wait(job_id, until=("succeeded",), within_s=300.0)
    with service.rows.reading() as rows:
        return dict(rows.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one())


def fill_lists(service: Served) -> None:
    """Copies of the files and models that jobs made here, so many that lists are full."""
    with service.rows.writing() as rows:
        for table, count, what in ((files, FILES, "file"), (models, MODELS, "ft:small:default:bench")):
            found = dict(rows.execute(select(table).limit(1)).mappings().one())
            del found["number"]
            rows.execute(insert(table), [{**found, "id": new_id(what)} for _ in range(count)])


def fill(service: Served, job_count: int, event_count: int, like: dict[str, Any] | None = None) -> str:
    """Write jobs that are over, and their events, into the database; gives the id of one. They are copies of the row `like`."""
    project = service.first_project()
    each = {name: value for name, value in like.items() if name != "number"} if like else {
        "project_id": project, "created_at": 1, "finished_at": 2, "status": "succeeded", "model": "small-text-classifier",
        "training_file": "file-x", "seed": 1, "hyperparameters": {}, "metadata": {"app": "bench"}, "asked": {}, "recipe": {},
        "phases": {}, "figures": {},
    }  # fmt: skip
    ids = [new_id("ftjob") for _ in range(job_count)]
    told = [
        {
            "project_id": project, "job_id": ids[number % job_count], "created_at": float(number), "level": "info",
            "type": "metrics", "message": f"Step {number}", "data": {
                "step": number, "train_loss": 1.0 / (1 + number), "valid_loss": None, "model": "student, seed 0",
            },
        }
        for number in range(event_count)
    ]  # fmt: skip
    with service.rows.writing() as rows:
        rows.execute(insert(jobs), [{**each, "id": one} for one in ids])
        rows.execute(insert(events), told)
    return ids[0]


def _stored(service: Served) -> str:
    """The id of a stored completion, to be written to."""
    from stillroom.service.rows.tables import completions

    found = new_id("chatcmpl")
    answer = {"id": found, "object": "chat.completion", "created": 1, "model": "m", "choices": []}
    with service.rows.writing() as rows:
        rows.execute(
            insert(completions).values(
                id=found, project_id=service.first_project(), model="m", by="teacher", created_at=int(time.time()),
                request={"model": "m", "messages": [{"role": "user", "content": "a"}]}, response=answer, metadata={},
            )
        )  # fmt: skip
    return found


class Client:
    """Sends one request after another over connections that stay open."""

    def __init__(self, url: str, key: str, completion: str, job: str) -> None:
        place = urlsplit(url)
        self.host, self.port, self.key = place.hostname, place.port, key
        self.reads = [
            f"/v1/fine_tuning/jobs/{job}", "/v1/fine_tuning/jobs?limit=20", f"/v1/fine_tuning/jobs/{job}/events?limit=20",
            "/v1/models", "/v1/files?limit=20", f"/v1/chat/completions/{completion}",
        ]  # fmt: skip
        self.write = f"/v1/chat/completions/{completion}"
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.found: dict[str, dict[str, Any]] = {kind: {"took_ms": [], "failed": 0} for kind in ("read", "write")}

    async def ask(self, number: int, due: float) -> None:
        """One request, counted from when it was due."""
        kind = "write" if number % WRITES == 0 else "read"
        if kind == "write":
            asked = ("POST", self.write, json.dumps({"metadata": {"number": str(number)}}))
        else:
            asked = ("GET", self.reads[number % len(self.reads)], "")
        try:
            async with asyncio.timeout(PATIENCE_S):
                status = await self.send(*asked)
        except (OSError, EOFError, TimeoutError, ValueError):
            status = 0
        if status == 200:
            self.found[kind]["took_ms"].append(1000 * (time.perf_counter() - due))
        else:
            self.found[kind]["failed"] += 1

    async def send(self, method: str, path: str, body: str) -> int:
        """The status of the answer, once all of it is there."""
        while self.free and self.free[-1][0].at_eof():  # the server has closed it, since nobody used it for seconds
            self.free.pop()[1].close()
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection(self.host, self.port)
        more = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer {self.key}\r\n{more}\r\n{body}"
        writer.write(head.encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((line for line in answer.split("\r\n") if line.startswith("content-length:")), "")
        await reader.readexactly(int(length.partition(":")[2]))
        self.free.append((reader, writer))
        return int(answer.split(" ", 2)[1])


async def steady(client: Client, seconds: float, rate: float) -> dict[str, Any]:
    """Requests at a rate, with a little chance in when each is due."""
    rng, waiting = random.Random(0), set()
    for _ in range(CONNECTIONS):
        client.free.append(await asyncio.open_connection(client.host, client.port))
    due = time.perf_counter()
    for number in range(int(seconds * rate)):
        due += rng.expovariate(rate)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        task = asyncio.ensure_future(client.ask(number, due))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)
    return client.found


def main() -> None:
    """The client."""
    url, key, seconds, rate, completion, job = sys.argv[1:]
    print(json.dumps(asyncio.run(steady(Client(url, key, completion, job), float(seconds), float(rate)))))


if __name__ == "__main__":
    main()
