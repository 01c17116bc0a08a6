"""One job for one call, however often it is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.service_creations import Idle, at_once, duplicates
from benchmarks.service_jobs import body
from sqlalchemy import Connection, delete, select, text

from stillroom.service.door import creation_rows
from stillroom.service.door.access import Caller, first_project
from stillroom.service.door.creation_rows import Once
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import creations as table

PLACE = "/v1/fine_tuning/jobs"


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with Idle(tmp_path_factory.mktemp("idle")) as found:
        yield found


def count(http: httpx2.Client) -> int:
    return len(http.get(PLACE, params={"limit": 100}).json()["data"])


def test_dropped_replies_make_no_second_job(tmp_path: Path) -> None:
    found = duplicates(50, tmp_path)
    assert found["dropped"] > 10
    assert found["jobs"] == found["calls"] == 50
    assert found["wrong"] == 0


def test_a_key_gives_the_first_answer_again(idle: Idle) -> None:
    http = idle.http()
    first = http.post(PLACE, json=body(), headers={"Idempotency-Key": "one"})
    again = http.post(PLACE, json=body(), headers={"Idempotency-Key": "one"})
    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers


def test_a_key_with_another_body_is_refused_for_good(idle: Idle) -> None:
    http = idle.http()
    assert http.post(PLACE, json=body(), headers={"Idempotency-Key": "two"}).status_code == 200
    other = http.post(PLACE, json=body(suffix="x"), headers={"Idempotency-Key": "two"})
    assert other.status_code == 409
    assert other.headers["x-should-retry"] == "false"
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert other.json()["error"]["param"] == "Idempotency-Key"


def test_an_answer_that_comes_late_is_not_another_calls(tmp_path: Path) -> None:
    """Its own place was cleared away meanwhile, and another call has one."""
    database = Database(tmp_path)
    database.upgrade()
    caller = Caller(first_project(database), "", frozenset())
    other = Once("key other", "digest", True, False)

    def make() -> Callable[[Connection], dict[str, Any]]:
        with database.writing() as rows:
            rows.execute(delete(table))
            creation_rows._known(rows, caller, other)
        return lambda rows: {"id": "mine"}

    answer, known = creation_rows.created(database, caller, Once("key mine", "digest", True, False), make)
    assert (answer, known) == ({"id": "mine"}, False)
    with database.reading() as rows:
        assert rows.execute(select(table.c.name, table.c.status, table.c.answer)).all() == [("key other", None, None)]
    database.close()


def test_a_list_of_jobs_reads_no_recipe(idle: Idle) -> None:
    """They may be long, and a list does not show them."""
    http = idle.http(idle.key("lists", project=idle.project("lists")))
    job_id = http.post(PLACE, json=body()).json()["id"]
    with idle.rows.writing() as rows:
        rows.execute(text("UPDATE jobs SET recipe = '{not JSON' WHERE id = :id"), {"id": job_id})
    assert [one["id"] for one in http.get(PLACE).json()["data"]] == [job_id]


def test_a_key_belongs_to_who_sent_it(idle: Idle) -> None:
    theirs = idle.http(idle.key("other", project=idle.project("other")))
    ours = idle.http().post(PLACE, json=body(), headers={"Idempotency-Key": "three"}).json()
    assert theirs.post(PLACE, json=body(), headers={"Idempotency-Key": "three"}).json()["id"] != ours["id"]


def test_two_equal_calls_are_two_jobs_and_a_retry_is_none(idle: Idle) -> None:
    http = idle.http(idle.key("fresh", project=idle.project("fresh")))
    first, second = (http.post(PLACE, json=body()).json()["id"] for _ in range(2))
    again = http.post(PLACE, json=body(), headers={"x-stainless-retry-count": "1"})
    assert first != second
    assert again.json()["id"] == second
    assert count(http) == 2


def test_a_retry_with_another_body_is_a_job(idle: Idle) -> None:
    http = idle.http(idle.key("fresh", project=idle.project("fresh")))
    http.post(PLACE, json=body())
    http.post(PLACE, json=body(suffix="other"), headers={"x-stainless-retry-count": "1"})
    assert count(http) == 2


def test_what_was_refused_can_be_sent_again_with_its_key(idle: Idle) -> None:
    http = idle.http()
    wrong = {"model": "digits", "distillation": {"recipe": {"questions": 1}}}
    assert http.post(PLACE, json=wrong, headers={"Idempotency-Key": "four"}).status_code == 400
    assert http.post(PLACE, json=body(), headers={"Idempotency-Key": "four"}).status_code == 200


def test_one_job_of_many_at_once(idle: Idle) -> None:
    http = idle.http(idle.key("fresh", project=idle.project("fresh")))
    said: list[httpx2.Response] = []

    def send() -> None:
        said.append(http.post(PLACE, json=body(), headers={"Idempotency-Key": "five"}))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in said} <= {200, 409}
    assert len({answer.json()["id"] for answer in said if answer.status_code == 200}) == 1
    assert all(answer.headers["x-should-retry"] == "true" for answer in said if answer.status_code == 409)
    assert count(http) == 1


@pytest.mark.parametrize("key", ["", "a" * 256])
def test_what_is_no_key(idle: Idle, key: str) -> None:
    answer = idle.http().post(PLACE, json=body(), headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_a_key_that_is_no_header(idle: Idle) -> None:
    """The parser of HTTP refuses it before anything of ours sees it."""
    assert idle.http().post(PLACE, json=body(), headers={"Idempotency-Key": "\x7f"}).status_code == 400
    assert idle.http().get("/healthz").status_code == 200


def test_a_call_sent_twice_at_once_makes_no_second_job(tmp_path: Path) -> None:
    found = at_once(12, tmp_path)
    assert found["jobs"] == found["calls"] == 12
    assert found["overlapped"] > 0
    assert found["wrong"] == 0
