"""A teacher's key is nowhere: not in the database, files, logs, answers, nor in what any process of ours was started with.

Also where `assert` is off.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from benchmarks.service_process import Served, children_of

from service import students
from service.conftest import BOTH_WAYS
from stillroom.loopback.serving import Loopback

CANARY = "sk-canary/7f3a+9c1e=5b8d"
KEY = "Some other key of 4242"
FORMS = tuple(
    form.encode()
    for form in {
        CANARY, quote(CANARY), quote(CANARY, safe=""), CANARY.encode().hex(), base64.b64encode(CANARY.encode()).decode(),
        base64.urlsafe_b64encode(CANARY.encode()).decode(), CANARY[:-4], CANARY[4:], CANARY[::-1],
    }
)  # fmt: skip


def found_in(data: bytes) -> bool:
    return any(form in data for form in FORMS)


def files_with_it(folder: Path) -> list[str]:
    """Files below a folder in which the key stands, in any form."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file() and not path.is_symlink() and found_in(path.read_bytes()):
                found.append(str(path))
        except FileNotFoundError:  # it went while we looked
            continue
    return found


def processes_with_it(pid: int) -> list[str]:
    """Processes of a server whose arguments or environment hold the key."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        for name in ("cmdline", "environ"):
            try:
                if found_in(Path(f"/proc/{one}/{name}").read_bytes()):
                    found.append(f"{one} {name}")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        left += children_of(one)
    return found


class Watch:
    """Looks at the processes again and again while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid, self._over = pid, threading.Event()
        self.found: set[str] = set()
        self.looks = self.most = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.found |= set(processes_with_it(self._pid))
            self.looks += 1
            self.most = max(self.most, len(_below(self._pid)))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()


def _below(pid: int) -> list[int]:
    found = children_of(pid)
    return found + [one for child in found for one in _below(child)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    folder = tmp_path_factory.mktemp("loopback")
    students.write_table(folder / "texts.jsonl")
    found = Loopback({"model": "rule", "mind": {"kind": "rule", "source": "texts.jsonl"}, "api_key": CANARY}, folder)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module", **BOTH_WAYS)
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, teacher: Loopback
) -> Iterator[Served]:
    origin = teacher.url.removeprefix("http://").removesuffix("/v1")
    with Served(tmp_path_factory.mktemp("served"), "--allow-teacher", origin, env=request.param) as found:
        body = {
            "name": "rule",
            "base_url": teacher.url,
            "model": "rule",
            "key": CANARY,
            "price": {"input": 1, "output": 1},
        }
        found.http().post("/api/teachers", json=body).raise_for_status()
        yield found


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number, form in enumerate(FORMS):
        (tmp_path / "deep" / str(number)).write_bytes(b"x" * 100 + form + b"y")
    assert len(files_with_it(tmp_path)) == len(FORMS)


def test_calls_leave_no_key_behind(service: Served, teacher: Loopback) -> None:
    http = service.http()
    said: list[Any] = []
    with Watch(service.pid) as watch:
        for text, _ in students.texts(6):
            body = {"model": "rule", "messages": [{"role": "user", "content": text}], "store": True}
            said.append(http.post("/v1/chat/completions", json=body))
            said.append(http.post("/v1/chat/completions", json={**body, "stream": True}))
        said += [
            http.get(path) for path in ("/api/teachers", "/v1/models", "/metrics", "/api/openapi.json", "/api/savings")
        ]
        wrong = {"name": "wrong", "base_url": teacher.url, "model": "rule", "key": KEY.replace(" ", "-")}
        http.post("/api/teachers", json=wrong).raise_for_status()
        said.append(http.post("/v1/chat/completions", json={"model": "wrong", "messages": body["messages"]}))
        said.append(http.post("/api/teachers", json={**wrong, "name": "worse", "key": CANARY, "price": CANARY}))
        time.sleep(0.5)
    assert said[0].status_code == 200, said[0].text
    assert said[-2].status_code == 502
    assert said[-1].status_code == 400
    assert watch.looks > 3
    assert watch.found == set()
    assert [
        one.request.url.path for one in said if found_in(one.content) or KEY.replace(" ", "-").encode() in one.content
    ] == []
    assert files_with_it(service.folder) == []


# Under `python -O` a trainer has all of its libraries compiled anew, and there is no check in this that an `assert` could be.
@pytest.mark.parametrize("service", [{}], ids=["plain"], indirect=True)
def test_a_job_that_asks_its_teacher_leaves_no_key_behind(service: Served, teacher: Loopback) -> None:
    """The trainer and whatever it starts are watched while it asks."""
    http = service.http()
    before = teacher.bill()
    job = asked_job(http)
    with Watch(service.pid) as watch:
        done = service.wait(job["id"], within_s=240.0)
    assert done["status"] == "succeeded", service.told()[-3000:]
    assert teacher.bill() != before
    assert watch.most >= 2  # the worker, and its trainer
    assert watch.found == set()
    assert files_with_it(service.folder) == []
    assert list((service.root / "jobs" / job["id"]).rglob("*.safetensors"))


def asked_job(http: httpx2.Client) -> dict[str, Any]:
    """A job whose rows the teacher `rule` is asked about in the run."""
    talks = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
        for text, label in students.texts(150)
    ]
    rows = "".join(json.dumps({"messages": talk}) + "\n" for talk in talks)
    file = http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", rows.encode())})
    file.raise_for_status()
    answer = http.post("/v1/fine_tuning/jobs", json={
        "model": "small-text-classifier", "training_file": file.json()["id"],
        "distillation": {"teacher": "rule", "source": {"file": file.json()["id"]}, "seeds": 1},
    })  # fmt: skip
    if answer.status_code != 200:
        raise AssertionError(answer.text)
    found: dict[str, Any] = answer.json()
    return found
