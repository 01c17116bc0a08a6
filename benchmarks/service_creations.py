"""Creating jobs where answers get lost on the way: how many jobs there are beyond one for each call.

Between the official client and the service stands a relay that passes a request on, waits for its answer, and then often
drops it. The client tries again by itself; half of the calls carry an Idempotency-Key, the others nothing.

`at_once` needs no relay: a call is sent again over a second connection before the first one has been answered.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
from sqlalchemy import func, select

from benchmarks.service_jobs import body, digits
from benchmarks.service_process import WITH_LIMITS, Served
from stillroom.service.rows.tables import creations, jobs

RETRIES, TRIES = 4, 100


class Idle(Served):
    """A service without a worker: what is created stays as it is."""

    def command(self) -> list[str]:
        """See Served."""
        limits = {"requests_per_minute": 1_000_000, "streams": 4}
        given = {"root": str(self.root), "port": 0, "workers": 0, "limits": limits}
        return [sys.executable, "-c", WITH_LIMITS, json.dumps(given)]


def duplicates(calls: int, folder: Path, dropped: float = 0.4, seed: int = 0) -> dict[str, int]:
    """Make so many calls; {"calls", "jobs", "dropped", "wrong": answers that name another call's job}."""
    rng = random.Random(seed)
    wrong = 0
    with Idle(folder) as service, relay(service.url, rng, dropped) as (url, counted):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=RETRIES, timeout=30.0)
        with client:
            for call in range(calls):
                headers = {"Idempotency-Key": f"call {call}"} if call % 2 else {}
                job = client.fine_tuning.jobs.create(
                    model="digits", training_file="none", seed=call, metadata={"call": str(call)},
                    extra_body={"distillation": {"recipe": digits()}}, extra_headers=headers,
                )  # fmt: skip
                wrong += (job.metadata or {}).get("call") != str(call)
        with service.rows.reading() as rows:
            there = rows.execute(select(func.count()).select_from(jobs)).scalar() or 0
    return {"calls": calls, "jobs": there, "dropped": counted["dropped"], "wrong": wrong}


def at_once(calls: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Send every call twice at once; {"calls", "jobs", "overlapped": sent again before an answer came, "wrong"}."""
    rng, found = random.Random(seed), {"overlapped": 0, "wrong": 0}
    with Idle(folder) as service, ThreadPoolExecutor(1) as pool:
        clients = service.http(), service.http()
        for client in clients:
            client.get("/healthz").raise_for_status()  # it is connected
        for call in range(calls):
            sent = {**body(), "seed": call, "metadata": {"call": str(call)}}
            key = {"Idempotency-Key": f"call {call}"} if call % 2 else {}
            known = _places(service)
            first = pool.submit(_sent, clients[0], sent, key, 0)
            # A client tries again when it has waited in vain, so the server has begun with the first try by then. With a key
            # it may be the other way round.
            while not key and _places(service) == known and not first.done():
                pass
            time.sleep(rng.choice((0.0, 0.001, 0.003)))
            found["overlapped"] += not first.done()
            again = _sent(clients[1], sent, key, 1)
            found["wrong"] += not first.result() == again == (again[0], str(call))
        with service.rows.reading() as rows:
            there = rows.execute(select(func.count()).select_from(jobs)).scalar() or 0
    return {"calls": calls, "jobs": there, **found}


def _places(service: Served) -> int:
    """How many calls the server has begun with."""
    with service.rows.reading() as rows:
        return rows.execute(select(func.max(creations.c.number))).scalar() or 0


def _sent(client: httpx2.Client, sent: dict[str, Any], key: dict[str, str], tried: int) -> tuple[str, str]:
    """A job's id and the call it is of, from a client that goes on as the official one does while it is told to."""
    for count in range(tried, TRIES):
        headers = {**key, "x-stainless-retry-count": str(count)}
        answer = client.post("/v1/fine_tuning/jobs", json=sent, headers=headers)
        if answer.status_code != httpx2.codes.CONFLICT or answer.headers.get("x-should-retry") != "true":
            break
        time.sleep(0.05)
    answer.raise_for_status()
    return str(answer.json()["id"]), str((answer.json()["metadata"] or {}).get("call"))


@contextmanager
def relay(target: str, rng: random.Random, dropped: float) -> Iterator[tuple[str, dict[str, int]]]:
    """A server that passes requests on, and drops so great a share of the answers, never more than RETRIES - 1 in a row."""
    host, port = target.removeprefix("http://").split(":")
    counted, listening = {"dropped": 0, "in a row": 0}, socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:  # closed: the test is over
                return
            with client:
                _pass_on(client, (host, int(port)), rng, dropped, counted)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", counted
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def _pass_on(
    client: socket.socket, to: tuple[str, int], rng: random.Random, dropped: float, counted: dict[str, int]
) -> None:
    """Requests of one connection, until it closes or an answer is dropped."""
    while True:
        request = _message(client)
        if not request:
            return
        with socket.create_connection(to) as server:
            server.sendall(_to_host(request, to))
            answer = _message(server)
        if rng.random() < dropped and counted["in a row"] < RETRIES - 1:
            counted["dropped"] += 1
            counted["in a row"] += 1
            return
        counted["in a row"] = 0
        client.sendall(answer)


def _message(connection: socket.socket) -> bytes:
    """One HTTP message with a Content-Length; empty where the other side has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 16)
        if not more:
            return b""
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
    length = next((int(value) for name, value in lines if name.lower() == b"content-length"), 0)
    while len(rest) < length:
        rest += connection.recv(1 << 16)
    return head + b"\r\n\r\n" + rest


def _to_host(request: bytes, to: tuple[str, int]) -> bytes:
    """The same request to another host."""
    head, _, rest = request.partition(b"\r\n\r\n")
    lines: list[Any] = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"host:")]
    return b"\r\n".join([lines[0], f"Host: {to[0]}:{to[1]}".encode(), *lines[1:]]) + b"\r\n\r\n" + rest
