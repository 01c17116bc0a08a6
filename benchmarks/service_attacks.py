"""Attacks with paths: ids, file names and fields that would lead a careless server out of its folder.

Each is sent to a real server as raw bytes, not as a well-behaved client would write it. One got through if anything of a
file that is none of the caller's comes back, if it is answered as if it named something, if a file appears where none may,
or if the server falls over.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, insert

from benchmarks.service_jobs import digits
from benchmarks.service_process import Served
from stillroom.service.rows.tables import models

CANARY = "what stands here may not be read by anyone"
WORDS = (
    "../canary.txt", "..%2fcanary.txt", "%2e%2e%2fcanary.txt", "%2e%2e/canary.txt", "..%252fcanary.txt", "..\\canary.txt",
    "..%5ccanary.txt", "....//canary.txt", "%c0%ae%c0%ae%c0%afcanary.txt", "..%00%2fcanary.txt", "..;/canary.txt",
    "%2fetc%2fpasswd", "//etc/passwd", "file:%2f%2f%2fetc%2fpasswd", "~root%2f.profile", ".%2fservice.sqlite",
    "..%2fservice.sqlite", "..%2f..%2fsecret", "%uff0e%uff0e%2fsecret", "%EF%BC%8E%EF%BC%8E%EF%BC%8Fsecret", "%2e", "%00",
    "file-%2e%2e%2f%2e%2e%2fcanary.txt", "file-AAAAAAAAAAAAAAAAAAAAAAAA%2f..%2f..%2fcanary.txt", "a" * 4000,
)  # fmt: skip
NAMES = (
    "../canary.txt", "..\\canary.txt", "/etc/passwd", "C:\\canary.txt", "....//canary.txt", "a/../../canary.txt",
    "./../canary.txt", "~/canary.txt", "file:///etc/passwd", "..%2fcanary.txt", "%2e%2e%2fcanary.txt", ".", "..",
    ".hidden-canary", "service.sqlite", "../service.sqlite", "../secret", "secret", "CON", "..;/canary.txt",
    "\uff0e\uff0e/canary.txt", "-rf canary", "$(touch canary)", "canary.txt::$DATA", "a" * 4000,
)  # fmt: skip
"""Of files, and of what a body names."""
STUDENT = "ft:small:default:attacked:0a1b2c3d"
"""A model that is there, with a folder of files."""
ROUTES = (
    "GET /v1/files/{}", "GET /v1/files/{}/content", "GET /v1/fine_tuning/jobs/{}", "GET /v1/fine_tuning/jobs/{}/events",
    "GET /v1/models/{}", "GET /static/{}", "POST /v1/uploads/{}/cancel", "POST /v1/uploads/{}/complete",
    "GET /api/lineage/sources/{}", "GET /api/lineage/models/{}", "GET /api/lineage/jobs/{}",
    "GET /models/{}/files/config.json", f"GET /models/{STUDENT}/files/{{}}",
)  # fmt: skip
FIELDS = ("training_file", "model")
SECTIONS = ("questions", "teacher")
"""Of a new job's body."""


@dataclass(frozen=True)
class Attack:
    """One request: its method and raw target, and what it carries."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    is_label: bool = False
    """It only names something of the caller's own, so it may be answered well; it may lead nowhere all the same."""


def path_attacks() -> Iterator[Attack]:
    """All of them, 400: every word in every route, and in what else is sent that a server might take for a path."""
    for route in ROUTES:
        method, target = route.split()
        body = b'{"part_ids": ["part-AAAAAAAAAAAAAAAAAAAAAAAA"]}' if target.endswith("/complete") else b""
        headers = {"content-type": "application/json"} if body else {}
        yield from (Attack(method, target.format(word), headers, body) for word in WORDS)
    for place, word in enumerate(NAMES):
        yield _upload(word)
        yield _job({FIELDS[place % len(FIELDS)]: word}, word)
        yield _job({"distillation": {"recipe": _recipe(SECTIONS[place % len(SECTIONS)], word)}}, word)


def _upload(name: str) -> Attack:
    edge = "xxEDGExx"
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    body = (
        f'--{edge}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--{edge}\r\n'
        f'content-disposition: form-data; name="file"; filename="{name}"\r\n'
        f"content-type: application/jsonl\r\n\r\n{row * 10}\r\n--{edge}--\r\n"
    )
    return Attack("POST", "/v1/files", {"content-type": f"multipart/form-data; boundary={edge}"}, body.encode(), True)


def _recipe(section: str, word: str) -> dict[str, Any]:
    """A recipe that reads from there."""
    reads = {"questions": {"kind": "dataset", "source": word}, "teacher": {"kind": "recorded", "source": word}}
    return digits(**{section: reads[section]})


def _job(named: dict[str, Any], word: str) -> Attack:
    body = {"model": "small-text-classifier", "training_file": "file-" + "A" * 24, **named, "suffix": word[:64]}
    return Attack("POST", "/v1/fine_tuning/jobs", {"content-type": "application/json"}, json.dumps(body).encode())


def attacked(service: Served, key: str | None = None) -> list[tuple[Attack, str]]:
    """Send them all, and give those that got through, each with how. Raises OSError where the server is gone."""
    (service.folder / "canary.txt").write_text(CANARY)
    _put_student(service)
    kept = [CANARY.encode(), (service.root / "secret").read_bytes(), b"SQLite format 3", b"root:x:0:0"]
    before = _outside(service.folder)
    through = []
    for attack in path_attacks():
        status, body = _send(service.url, attack, key)
        if any(text in body for text in kept):
            through.append((attack, "something was read"))
        elif status >= 500:
            through.append((attack, f"status {status}"))
        elif status < 400 and not attack.is_label:
            through.append((attack, f"status {status}, as if it named something"))
        if _outside(service.folder) != before:
            through.append((attack, "a file appeared outside of the service's folder"))
            before = _outside(service.folder)
    strange = [path for path in service.root.rglob("*") if "canary" in path.name or "passwd" in path.name]
    through += [(attack, f"{path} was made") for attack in path_attacks() if attack.is_label for path in strange]
    return through


def _put_student(service: Served) -> None:
    """A model's row and folder; a file beside its folder is none of it."""
    folder = service.root / "models" / "attacked"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    row = {"id": STUDENT, "project_id": service.first_project(), "kind": "classifier", "base": "small", "created_at": 1}
    with service.rows.writing() as rows:
        rows.execute(delete(models).where(models.c.id == STUDENT))
        rows.execute(insert(models).values(**row, folder="models/attacked"))


def _outside(folder: Path) -> set[str]:
    """What lies beside the service's root."""
    return {path.name for path in folder.iterdir()} | {path.name for path in folder.parent.iterdir()}


def _send(url: str, attack: Attack, key: str | None) -> tuple[int, bytes]:
    """Status and body of the answer to the request, its target sent as it is written."""
    place = urlsplit(url)
    line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        line.putrequest(attack.method, attack.target, skip_accept_encoding=True)
        for name, value in {**attack.headers, **({"authorization": f"Bearer {key}"} if key else {})}.items():
            line.putheader(name, value)
        line.putheader("content-length", str(len(attack.body)))
        line.endheaders(attack.body)
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()
