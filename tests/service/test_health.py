"""What is told about the service itself: that it lives, that it can work, figures, and lines of its log."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from benchmarks.service_process import Served
from sqlalchemy import insert

from stillroom.service.rows.tables import jobs
from stillroom.service.watch import heartbeat
from stillroom.service.watch.health import FRESH_S, Probe


def ready(service: Served, within_s: float = 20.0) -> dict[str, object]:
    """What /readyz says once it is well."""
    ends = time.monotonic() + within_s
    while True:
        answer = service.http().get("/readyz")
        if answer.status_code == 200 or time.monotonic() > ends:
            assert answer.status_code == 200, answer.text
            return answer.json()
        time.sleep(0.2)


def test_it_lives_and_can_work(service: Served) -> None:
    assert service.http().get("/healthz").json() == {"status": "ok"}
    told = ready(service)
    assert told["status"] == "ready"
    assert 0 < told["database_ms"] < 2000
    assert told["free_mib"] > 256
    assert 0 <= told["worker_s"] < heartbeat.DEAD_S


def test_a_database_that_others_hold_is_not_ready(service: Served) -> None:
    ready(service)
    time.sleep(FRESH_S + 0.1)
    rows = sqlite3.connect(service.root / "service.sqlite", isolation_level=None)
    rows.execute("BEGIN IMMEDIATE")
    try:
        answer = service.http().get("/readyz")
    finally:
        rows.execute("ROLLBACK")
        rows.close()
    again = service.http().get("/readyz")
    assert again.status_code == 503, "what was found is told for a second"
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_ready"
    assert "database" in answer.json()["error"]["message"]
    ready(service)


def test_asking_often_costs_one_write_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.sqlite"
    writes = []
    monkeypatch.setattr("stillroom.service.watch.health._write", lambda path: (writes.append(path) or 1.0, []))
    probe = Probe(path)
    for _ in range(50):
        assert probe.looked() == (1.0, [])
    assert writes == [path]
    time.sleep(FRESH_S + 0.1)
    probe.looked()
    assert len(writes) == 2


def test_a_worker_that_is_silent_is_not_ready(tmp_path: Path) -> None:
    """Looked at by itself, since a living worker would mark its file again."""
    assert heartbeat.age_s(tmp_path) is None
    heartbeat.beat(tmp_path)
    assert heartbeat.age_s(tmp_path) < heartbeat.DEAD_S
    old = time.time() - 99
    os.utime(tmp_path / heartbeat.FILE, (old, old))
    assert heartbeat.age_s(tmp_path) == pytest.approx(99, abs=2)


def test_figures_for_prometheus(service: Served) -> None:
    http = service.http()
    assert http.get("/v1/no/such/route").status_code == 404
    http.request("PROPFIND", "/healthz")
    row = {
        "id": "ftjob-" + "a" * 24, "project_id": service.first_project(), "created_at": int(time.time()) - 50,
        "status": "paused", "model": "m", "training_file": "file-x", "seed": 1, "hyperparameters": {}, "asked": {},
        "recipe": {}, "phases": {}, "figures": {},
    }  # fmt: skip
    with service.rows.writing() as rows:
        rows.execute(insert(jobs).values(**row))
    page = http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    lines = dict(re.findall(r"^([^#\s]+(?:\{.*\})?) (\S+)$", page.text, re.MULTILINE))
    assert lines['jobs{status="paused"}'] == "1.0"
    assert float(lines["process_resident_memory_bytes"]) > 10e6
    assert float(lines['http_request_duration_seconds_count{method="GET",route="unknown",status="404"}']) >= 1
    assert "PROPFIND" not in page.text
    assert 'method="other"' in page.text
    assert row["id"] not in page.text
    assert service.first_project() not in page.text


def test_figures_need_the_scope_admin(service: Served) -> None:
    assert service.http(service.key("reader", ("read",))).get("/metrics").status_code == 403


def test_every_request_has_an_id_that_the_log_tells(service: Served) -> None:
    job = "ftjob-" + "b" * 24
    answers = [service.http().get("/healthz"), service.http().get(f"/v1/fine_tuning/jobs/{job}")]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 2
    lines: dict[str, dict[str, Any]] = {}
    ends = time.monotonic() + 10  # a line is written once its answer is sent
    while not set(ids) <= set(lines) and time.monotonic() < ends:
        lines = {line.get("request_id"): line for line in service.lines() if line["event"] == "request"}
    assert lines[ids[0]]["route"] == "/healthz"
    assert lines[ids[0]]["status"] == 200
    assert lines[ids[1]]["job_id"] == job
    assert lines[ids[1]]["route"] == "/v1/fine_tuning/jobs/{job_id}"


def test_the_log_is_json_alone(service: Served) -> None:
    for line in service.told().splitlines():
        if line.startswith("Stillroom serves at"):
            continue
        told = json.loads(line)
        assert {"ts", "level", "event"} <= set(told)


def test_the_log_holds_no_words_and_no_keys(service: Served) -> None:
    canary, key = "canary-of-a-person", service.key("logged")
    http = service.http(key)
    http.post("/v1/chat/completions", json={"model": canary, "messages": [{"role": "user", "content": canary}]})
    http.get(f"/v1/files/{canary}")
    http.get("/v1/files", params={"after": canary})
    assert canary not in service.told()
    assert key not in service.told()
