"""Whatever is created is created once for a call that is sent again: answers, uploads, files, keys, projects, teachers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from benchmarks.service_process import Served
from sqlalchemy import delete, func, select

from scripted_endpoint import Endpoint, Reply, said
from service.conftest import with_teacher
from stillroom.service.data import files as room
from stillroom.service.data import forms, retention
from stillroom.service.door.access import Caller, first_project
from stillroom.service.door.creation_rows import AGAIN_S, KEPT_S, InProgress, Once
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import completions, creations, keys, projects, teachers, uploads
from stillroom.service.settings import Settings

CHAT = "/v1/chat/completions"
SECRET = "ann@example.org"
SLOW_S = 3.0


def script(body: dict[str, Any], number: int) -> Reply:
    """Tells how many were asked before, and takes its time where that is asked for."""
    text = str(body["messages"][-1]["content"])
    return said(f"{number} {SECRET}")._replace(wait_s=SLOW_S if text == "slowly" else 0.0)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, teacher: Endpoint) -> Iterator[Served]:
    folder, words = tmp_path_factory.mktemp("served"), ("--redact", "[a-z]+@[a-z.]+")
    with with_teacher(folder, teacher.url, *words, name="wise", model="m") as found:
        yield found


def ask(service: Served, text: str, retry: int = 0, key: str | None = None, **more: Any) -> httpx2.Response:
    headers = {"x-stainless-retry-count": str(retry), **({} if key is None else {"Idempotency-Key": key})}
    body = {"model": "wise", "messages": [{"role": "user", "content": text}], "store": True, **more}
    return service.http().post(CHAT, json=body, headers=headers)


def stored(service: Served) -> int:
    with service.rows.reading() as rows:
        return rows.execute(select(func.count()).select_from(completions)).scalar_one()


@pytest.mark.parametrize(("first", "second"), [({}, {"retry": 1}), ({"key": "k1"}, {"key": "k1"})])
def test_a_teacher_is_paid_once(service: Served, teacher: Endpoint, first: Any, second: Any) -> None:
    text, before = f"a question {first}", stored(service)
    answer, again = ask(service, text, **first), ask(service, text, **second)
    assert answer.status_code == again.status_code == 200, again.text
    assert teacher.questions[text] == 1
    assert stored(service) == before + 1
    assert again.json()["id"] == answer.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-stillroom-answered-by"] == answer.headers["x-stillroom-answered-by"] == "teacher"
    assert SECRET in answer.text
    assert again.json()["choices"][0]["message"]["content"].endswith("[redacted]"), "what was stored is all there is"
    with service.rows.reading() as rows:
        kept = rows.execute(select(creations.c.answer).order_by(creations.c.number.desc())).scalar()
    assert kept == f'{{"id": "{answer.json()["id"]}"}}'


@pytest.mark.parametrize("more", [{"store": None}, {"store": False}])
def test_a_key_folds_a_call_that_is_not_stored(service: Served, teacher: Endpoint, more: Any) -> None:
    text, before = f"not stored {more}", stored(service)
    first, again = (ask(service, text, key=text, **more) for _ in range(2))
    assert first.status_code == again.status_code == 200, again.text
    assert teacher.questions[text] == 1
    assert stored(service) == before
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-stillroom-answered-by"] == first.headers["x-stillroom-answered-by"] == "teacher"
    assert again.json()["id"] == first.json()["id"]
    assert SECRET in first.text
    assert again.json()["choices"][0]["message"]["content"].endswith("[redacted]"), "no more than this is kept"
    other = ask(service, f"{text}?", key=text, **more)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert ask(service, text, retry=1, **more).json()["id"] != first.json()["id"], "without a key nothing was kept"


@pytest.mark.parametrize("store", [True, False])
def test_a_key_of_a_stream_is_refused(service: Served, teacher: Endpoint, store: bool) -> None:
    text = f"streamed {store}"
    answer = ask(service, text, key="of a stream", stream=True, store=store)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "idempotency_unsupported")
    assert (answer.json()["error"]["param"], teacher.questions[text]) == ("Idempotency-Key", 0)
    assert ask(service, text, retry=1, stream=True, store=store).status_code == 200, "as the official clients do"


def test_equal_calls_that_are_no_retries_are_asked_each(service: Served, teacher: Endpoint) -> None:
    assert ask(service, "twice").json()["id"] != ask(service, "twice").json()["id"]
    assert teacher.questions["twice"] == 2


def test_a_retry_waits_for_the_first_try(service: Served, teacher: Endpoint) -> None:
    """Its connection broke while the teacher was at it."""
    told: list[httpx2.Response] = []
    first = threading.Thread(target=lambda: told.append(ask(service, "slowly")))
    first.start()
    while not teacher.questions["slowly"]:
        assert first.is_alive()
    again = ask(service, "slowly", retry=1)
    first.join()
    assert again.status_code == 200, again.text
    assert again.json()["id"] == told[0].json()["id"]
    assert teacher.questions["slowly"] == 1


def test_what_was_deleted_is_not_answered_again(service: Served, teacher: Endpoint) -> None:
    name = ask(service, "to be deleted", key="k2").json()["id"]
    assert service.http().delete(f"{CHAT}/{name}").status_code == 200
    again = ask(service, "to be deleted", key="k2")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "completion_deleted")
    assert again.headers["x-should-retry"] == "false"
    assert teacher.questions["to be deleted"] == 1


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize(
    ("path", "table", "body"),
    [
        ("/v1/uploads", uploads, {"bytes": 9, "filename": "a.csv", "mime_type": "text/csv", "purpose": "user_data"}),
        ("/api/teachers", teachers, {"base_url": "https://93.184.215.14/v1", "model": "m", "key": "sk-1"}),
    ],
)
def test_an_upload_or_a_teacher_is_made_once(
    service: Served, path: str, table: Any, body: dict[str, Any], keyed: bool
) -> None:
    body = {**body, "name": f"named-{keyed}"}
    headers = {"Idempotency-Key": f"of {path}"} if keyed else {"x-stainless-retry-count": "1"}
    first = service.http().post(path, json=body, headers=headers if keyed else {})
    again = service.http().post(path, json=body, headers=headers)
    assert first.status_code == again.status_code == 200, again.text
    assert again.json() == first.json()
    with service.rows.reading() as rows:
        same = table.c.name == body["name"] if path.endswith("teachers") else table.c.id == again.json()["id"]
        assert rows.execute(select(func.count()).where(same)).scalar() == 1


@pytest.mark.parametrize(
    ("path", "table", "body"),
    [("/api/keys", keys, {"name": "a key", "scopes": ["read"]}), ("/api/projects", projects, {"name": "a project"})],
)
def test_a_secret_is_shown_once_and_made_once(service: Served, path: str, table: Any, body: dict[str, Any]) -> None:
    def count() -> int:
        with service.rows.reading() as rows:
            return rows.execute(select(func.count()).select_from(table)).scalar_one()

    first = service.http().post(path, json=body, headers={"Idempotency-Key": f"of {path}"})
    there = count()
    again = service.http().post(path, json=body, headers={"Idempotency-Key": f"of {path}"})
    assert (first.status_code, again.status_code) == (200, 409), again.text
    assert again.json()["error"]["code"] == "shown_once"
    assert first.json()["id"] in again.json()["error"]["message"]
    assert again.headers["x-should-retry"] == "false"
    assert count() == there
    secret = first.json()["key"]
    assert service.http(secret).get("/v1/files").status_code == 200
    for place in service.root.glob("service.sqlite*"):
        assert secret.encode() not in place.read_bytes()


def send(service: Served, headers: dict[str, str], **fields: str) -> httpx2.Response:
    form = {"purpose": "user_data", **fields}
    return service.http().post("/v1/files", data=form, files={"file": ("t.csv", b"a,b\n1,2\n")}, headers=headers)


def test_a_file_is_known_by_its_key_and_by_all_of_its_form(service: Served) -> None:
    life = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    retry = {"x-stainless-retry-count": "1"}
    first = send(service, {}).json()["id"]
    lives = send(service, retry, **life).json()
    assert lives["id"] != first
    assert lives["expires_at"] is not None
    assert send(service, retry).json()["id"] == first
    keyed = send(service, {"Idempotency-Key": "f"})
    again = send(service, {"Idempotency-Key": "f"})
    assert again.json()["id"] == keyed.json()["id"] != first
    assert again.headers["idempotent-replayed"] == "true"
    other = send(service, {"Idempotency-Key": "f"}, **life)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_a_file_whose_first_try_is_still_looked_at(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SimpleNamespace(database=database, settings=Settings(tmp_path))
    caller = Caller(first_project(database), "", frozenset())
    begun, going = threading.Event(), threading.Event()

    def slow(*given: Any) -> None:
        begun.set()
        assert going.wait(30)

    def staged() -> forms.Staged:
        return forms.stage(tmp_path / "files", "a.csv", [b"a,b\n"], 99)

    monkeypatch.setattr(room.jsonl, "look_at", slow)
    one, told = Once("body x", "x", False, True), list[Any]()
    first = threading.Thread(
        target=lambda: told.append(room.keep_once(state, caller, staged(), "user_data", None, one))
    )
    first.start()
    assert begun.wait(30)
    with pytest.raises(InProgress) as raised:
        room.keep_once(state, caller, staged(), "user_data", None, one)
    going.set()
    first.join()
    assert raised.value.headers["x-should-retry"] == "true"
    assert [path.name for path in (tmp_path / "files").iterdir()] == [told[0][0]["id"]]
    assert room.keep_once(state, caller, staged(), "user_data", None, one) == (told[0][0], True)


def test_what_no_call_can_be_answered_with_is_swept(database: Database, tmp_path: Path) -> None:
    now = time.time()
    ages = {
        "body new": now, "body old": now - AGAIN_S - 9, "key old": now - AGAIN_S - 9, "key gone": now - KEPT_S - 9
    }  # fmt: skip
    with database.writing() as rows:
        rows.execute(delete(creations))
        for name, at in ages.items():
            values = {"project_id": "p", "key_id": "", "name": name, "body_sha256": "", "created_at": at}
            rows.execute(creations.insert().values(**values, status=200, answer="{}"))
    retention.sweep(database, Settings(tmp_path))
    with database.reading() as rows:
        assert set(rows.execute(select(creations.c.name)).scalars()) == {"body new", "key old"}
