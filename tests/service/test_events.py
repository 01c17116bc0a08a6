"""A job's events: the list, and the stream that goes on where it was left."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from benchmarks.service_creations import Idle
from benchmarks.service_jobs import body
from sqlalchemy import select, update

from stillroom.service.jobs import event_rows as events
from stillroom.service.rows.tables import jobs

PLACE = "/v1/fine_tuning/jobs"


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idle]:
    with Idle(tmp_path_factory.mktemp("idle")) as found:
        yield found


def new_job(idle: Idle) -> str:
    return str(idle.http().post(PLACE, json=body()).json()["id"])


def tell(idle: Idle, job_id: str, *messages: str) -> None:
    """As the worker does, in another process than the server."""
    with idle.rows.writing() as rows:
        job = rows.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
        for message in messages:
            events.tell(rows, job, message)


def end(idle: Idle, job_id: str) -> None:
    with idle.rows.writing() as rows:
        rows.execute(update(jobs).where(jobs.c.id == job_id).values(status="cancelled"))


@contextmanager
def opened(idle: Idle, job_id: str, last: str | None = None, key: str | None = None) -> Iterator[httpx2.Response]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with idle.http(key).stream("GET", f"{PLACE}/{job_id}/events/stream", headers=headers) as answer:
        yield answer


def heard(answer: httpx2.Response, most: int = 10**6) -> list[dict[str, Any]]:
    """Events of a stream, until so many came or it ended."""
    found, name = [], ""
    for line in answer.iter_lines():
        if line.startswith("event: end"):
            break
        if line.startswith("id: "):
            name = line[4:]
        if line.startswith("data: "):
            found.append(json.loads(line[6:]))
            assert found[-1]["id"] == name
        if len(found) == most:
            break
    return found


def test_the_list_is_newest_first_and_pages(idle: Idle) -> None:
    job_id, http = new_job(idle), idle.http()
    tell(idle, job_id, *map(str, range(5)))
    first = http.get(f"{PLACE}/{job_id}/events", params={"limit": 4}).json()
    assert [one["message"] for one in first["data"]] == ["4", "3", "2", "1"]
    assert first["has_more"]
    rest = http.get(f"{PLACE}/{job_id}/events", params={"after": first["last_id"]}).json()
    assert [one["message"] for one in rest["data"]] == ["0", f"Created fine-tuning job: {job_id}"]
    assert not rest["has_more"]
    unknown = http.get(f"{PLACE}/{job_id}/events", params={"after": "ftevent-999999"})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "after")


def test_another_projects_events_are_not_there(idle: Idle) -> None:
    job_id = new_job(idle)
    theirs = idle.http(idle.key("other", project=idle.project()))
    for place in ("events", "events/stream"):
        answer = theirs.get(f"{PLACE}/{job_id}/{place}")
        unknown = theirs.get(f"{PLACE}/ftjob-{'a' * 24}/{place}")
        assert answer.status_code == unknown.status_code == 404
        assert answer.json()["error"]["code"] == unknown.json()["error"]["code"]


def test_a_stream_tells_what_was_and_what_comes_and_ends_with_the_job(idle: Idle) -> None:
    job_id = new_job(idle)
    tell(idle, job_id, "was")
    with opened(idle, job_id) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        lines = threading.Timer(0.5, lambda: (tell(idle, job_id, "comes"), end(idle, job_id)))
        lines.start()
        told = heard(answer)
        lines.join()
    assert [one["message"] for one in told[1:]] == ["was", "comes"]
    assert told[0]["object"] == "fine_tuning.job.event"
    with opened(idle, job_id, told[-1]["id"]) as answer:
        assert answer.status_code == 204  # so that a browser does not come again


def test_news_is_told_within_a_second(idle: Idle) -> None:
    job_id = new_job(idle)
    with opened(idle, job_id, idle.http().get(f"{PLACE}/{job_id}/events").json()["first_id"]) as answer:
        time.sleep(0.6)
        tell(idle, job_id, "now")
        told = time.time()
        (event,) = heard(answer, 1)
        assert event["message"] == "now"
        assert time.time() - told < 1


def test_nothing_is_lost_or_doubled_over_reconnections(idle: Idle) -> None:
    job_id, total = new_job(idle), 200
    writer = threading.Thread(target=lambda: [tell(idle, job_id, str(place)) for place in range(total)])
    writer.start()
    found: list[dict[str, Any]] = []
    place = 0
    while len(found) < total + 1:
        with opened(idle, job_id, found[-1]["id"] if found else None) as answer:
            found += heard(answer, min(1 + place % 17, total + 1 - len(found)))  # then the connection is cut
        place += 1
    writer.join()
    assert place > 10
    assert [one["message"] for one in found[1:]] == [str(place) for place in range(total)]


@pytest.mark.parametrize("wrong", ["x", "ftevent-", "ftevent-1x", "-1", "9" * 40])
def test_what_is_no_events_id(idle: Idle, wrong: str) -> None:
    job_id = new_job(idle)
    with opened(idle, job_id, wrong) as answer:
        assert answer.status_code == 400


def test_a_key_has_so_many_streams_and_no_more(idle: Idle) -> None:
    job_id, key = new_job(idle), idle.key("streams")
    streams = [opened(idle, job_id, key=key) for _ in range(5)]
    try:
        assert [stream.__enter__().status_code for stream in streams[:4]] == [200] * 4
        refused = streams[4].__enter__()
        refused.read()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
        with opened(idle, job_id) as other:
            assert other.status_code == 200
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
    until = time.monotonic() + 5
    while time.monotonic() < until:  # the server sees that they are closed
        with opened(idle, job_id, key=key) as again:
            if again.status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail("streams that were closed still count")


def test_a_stream_ends_with_its_key(idle: Idle) -> None:
    job_id, made = new_job(idle), idle.http().post("/api/keys", json={"name": "short", "scopes": ["read"]}).json()
    with opened(idle, job_id, key=made["key"]) as answer:
        coming = answer.iter_lines()
        assert any(line.startswith("data: ") for line in coming)
        idle.http().delete(f"/api/keys/{made['id']}")
        revoked = time.monotonic()
        news = threading.Timer(2.5, lambda: tell(idle, job_id, "a secret"))
        news.start()
        rest = "\n".join(coming)
        assert time.monotonic() - revoked < 2.4
        news.join()
    assert "event: end" not in rest, "the job goes on, and who has another key may go on reading"


def test_a_server_that_ends_ends_its_streams(idle: Idle) -> None:
    job_id, pid = new_job(idle), idle.pid
    with opened(idle, job_id) as answer:
        threading.Timer(0.5, lambda: os.kill(pid, signal.SIGTERM)).start()
        began = time.monotonic()
        assert len(heard(answer)) == 1
        assert time.monotonic() - began < 5
