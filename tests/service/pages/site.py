"""A server with something on every page: rows written into its database, students distilled here, forms as browsers send them."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from benchmarks.service_process import Served
from sqlalchemy import insert

from service import students
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.tables import (
    calls,
    completion_metadata,
    completions,
    events,
    jobs,
    models,
    projects,
    teachers,
)
from stillroom.service.students.usage import AUDIT

TOKEN = re.compile(r'name="form_token" value="([0-9a-f]+)"')
HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)>' {{ 7*7 }} </textarea></title>"""
STEPS = 10_000
FAR = 1e12
"""A lease that no worker of a test's time finds at its end, so that rows written here stay as they are."""


@dataclass
class Site:
    """The server, and the paths of pages by what is on them."""

    served: Served
    paths: dict[str, str] = field(default_factory=dict)


def token(http: httpx2.Client, path: str = "/teachers") -> str:
    """What a form of this page carries."""
    found = TOKEN.search(http.get(path).text)
    assert found, f"{path} has no form"
    return found[1]


def send(http: httpx2.Client, path: str, at: str = "/teachers", **fields: Any) -> httpx2.Response:
    """Send a form as a browser does that read it at `at`."""
    return http.post(path, data={"form_token": token(http, at), **fields})


def put_job(served: Served, status: str, project: str | None = None, **values: Any) -> str:
    """A job's row in some state; its id."""
    job_id = new_id("ftjob")
    row = {
        "id": job_id, "project_id": project or served.first_project(), "created_at": int(time.time()) - 60, "status": status,
        "model": "small-text-classifier", "training_file": "", "suffix": "a job", "seed": 1, "hyperparameters": {},
        "asked": {}, "recipe": {"name": "a job"}, "phases": {}, "figures": {}, "token": 1, "attempts": 1, "lease_until": FAR,
        **values,
    }  # fmt: skip
    with served.rows.writing() as rows:
        rows.execute(insert(jobs).values(**row))
        told = {"project_id": row["project_id"], "job_id": job_id, "level": "info", "created_at": time.time()}
        rows.execute(insert(events).values(**told, type="message", message=f"Created {HOSTILE}", data=None))
    return job_id


def put_steps(served: Served, job_id: str, steps: int) -> None:
    """Losses of three trainings of so many steps all together, each step told."""
    project, names = served.first_project(), ("teacher 1 of 1", "student, seed 0", "control, seed 0")
    told = [
        {
            "project_id": project, "job_id": job_id, "level": "info", "created_at": time.time(), "type": "metrics",
            "message": f"{name}: step {step}",
            "data": {"step": step, "train_loss": 2 / (1 + step / 300) + (step % 7) / 50, "valid_loss": 1.0, "model": name},
        }
        for name in names
        for step in range(1, 1 + steps // len(names))
    ]  # fmt: skip
    with served.rows.writing() as rows:
        rows.execute(insert(events), told)


def put_finished(served: Served, run: Path, title: str = "a finished job") -> tuple[str, str]:
    """A job that succeeded with this run, and its student; their ids."""
    job_id = put_job(
        served, "succeeded", suffix=title, finished_at=int(time.time()), figures={"usd": 0.25, "teacher_tokens": 1200},
        phases={"asking": {"done": 240, "total": 240}, "training": {"done": 9, "total": 9}},
    )  # fmt: skip
    folder = served.root / "jobs" / job_id / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(".work", "teacher"))
    model_id = f"ft:small-text-classifier:default:{job_id[-6:]}:{job_id[-8:]}"
    row = {
        "id": model_id, "project_id": served.first_project(), "job_id": job_id, "kind": "classifier",
        "base": "small-text-classifier", "folder": str((folder / "student").relative_to(served.root)), "teacher": None,
        "cascade": None, "created_at": int(time.time()),
    }  # fmt: skip
    with served.rows.writing() as rows:
        rows.execute(insert(models).values(**row))
    put_steps(served, job_id, 300)
    return job_id, model_id


def talk(asked: str, answer: str | None) -> str:
    """A line of a file of conversations."""
    messages = [{"role": "user", "content": asked}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return json.dumps({"messages": messages}) + "\n"


def upload(http: httpx2.Client, text: str, name: str = "talks.jsonl", purpose: str = "fine-tune") -> httpx2.Response:
    """Send the upload form of the page Data."""
    data = {"form_token": token(http, "/data"), "purpose": purpose}
    return http.post("/data", data=data, files={"file": (name, text.encode())})


def put_stored(served: Served, count: int = 3) -> list[str]:
    """Stored completions with hostile text in them."""
    project, found = served.first_project(), []
    with served.rows.writing() as rows:
        rows.execute(projects.update().where(projects.c.id == project).values(trains_on_stored=True))
        for place in range(count):
            found.append(new_id("chatcmpl"))
            said = {"choices": [{"message": {"role": "assistant", "content": f"{HOSTILE} answer {place}"}}]}
            rows.execute(insert(completions).values(
                id=found[-1], project_id=project, model="big", by="teacher", created_at=int(time.time()),
                request={"messages": [{"role": "user", "content": f"{HOSTILE} question {place}"}]}, response=said,
                metadata={"app": "desk"},
            ))  # fmt: skip
            rows.execute(insert(completion_metadata).values(
                project_id=project, completion_id=found[-1], key="app", value="desk",
            ))  # fmt: skip
    return found


def put_calls(served: Served) -> None:
    """Calls that a student and its teacher answered, and what the teacher said of two of the student's in audits."""
    row = {
        "project_id": served.first_project(),
        "created_at": int(time.time()),
        "key_id": None,
        "model": "ft:x:cascade",
    }
    told = [
        {**row, "by": by, "tokens_in": 10, "tokens_out": 5, "nano_usd": paid, "saved_nano_usd": saved, "agreed": agreed}
        for by, paid, saved, agreed in (
            ("student", 0, 900_000, None),
            ("student", 0, 900_000, None),
            ("teacher", 700_000, 0, None),
            (AUDIT, 700_000, 0, True),
            (AUDIT, 700_000, 0, False),
        )
    ]
    with served.rows.writing() as rows:
        rows.execute(insert(calls), told)


def put_teacher(served: Served, name: str = "big") -> str:
    """A teacher's row; it is never asked. Its id."""
    teacher_id = new_id("teacher")
    with served.rows.writing() as rows:
        rows.execute(insert(teachers).values(
            id=teacher_id, project_id=served.first_project(), name=name, base_url="https://example.com/v1",
            model=HOSTILE, price={"input": 1.0, "output": 2.0}, licence=HOSTILE, distillable=True, created_at=1,
        ))  # fmt: skip
    return teacher_id


def filled(served: Served) -> Site:
    """Put something on every page."""
    from stillroom.stages.report import report

    http, site = served.http(), Site(served)
    run = students.of_texts()
    report(run)
    job_id, model_id = put_finished(served, run)
    running = put_job(
        served, "running", phases={"asking": {"done": 3, "total": 9}, "training": {"done": 0, "total": 0}}
    )
    put_steps(served, running, STEPS)
    log = served.root / "jobs" / running / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"a line\n{HOSTILE}\n" * 200, "utf-8")
    left_out = {"rejected_rows": 120, "rejected_reasons": [{"why": f"'{HOSTILE}' is none", "rows": 120}]}
    losing = put_job(served, "running", figures=left_out)
    listed = served.root / "jobs" / losing / "rejected.jsonl"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(
        json.dumps({"source": new_id("file"), "line": 1000 + place, "why": HOSTILE}) + "\n" for place in range(120)
    ))  # fmt: skip
    held = {"asked": {"distillation": {"hold": True}}}
    estimate = {
        "training_rows": 1200,
        "minutes": 2.5,
        "usd": 0.2,
        "teacher_calls_low": 1200,
        "teacher_calls_high": 1200,
        "teacher_tokens_low": 90_000,
        "teacher_tokens_high": 270_000,
        "teacher_usd_low": 0.5,
        "teacher_usd_high": 1.75,
        "disk_mib": 12,
        "peak_memory_mib": 300,
        "notes": [HOSTILE],
    }
    lines = "".join(talk(f"{HOSTILE} {n}", ("yes", "no")[n % 2]) for n in range(20)) + '{"messages": []}\n'
    sent = upload(http, lines, f"{HOSTILE[:40]}.jsonl")
    assert sent.status_code == 303, sent.text
    cells = f'"{HOSTILE}",mood\n' + "".join(f"{HOSTILE} {n},{('good', 'bad')[n % 2]}\n" for n in range(20))
    table = upload(http, cells, f"{HOSTILE[:40]}.csv", "user_data").headers["location"]
    put_stored(served)
    put_calls(served)
    teacher_id = put_teacher(served)
    served.key(HOSTILE[:60])
    drawing = students.put(served, students.of_digits(), "classifier")
    writing = students.put(served, students.of_letters(), "language")
    site.paths = {
        "front": "/", "sign-in": "/sign-in", "new": "/new", "jobs": "/jobs", "models": "/models", "compare": "/compare",
        "data": "/data", "stored": "/data/completions?key=app&value=desk", "teachers": "/teachers", "keys": "/keys",
        "teacher": f"/teachers/{teacher_id}",
        "table": table, "new from a table": f"/new?source=table:{table.rpartition('/')[2]}",
        "file": sent.headers["location"], "finished job": f"/jobs/{job_id}",
        "report": f"/jobs/{job_id}/report", "running job": f"/jobs/{running}",
        "held job": f"/jobs/{put_job(served, 'paused', estimate=estimate, **held)}",
        "job being checked": f"/jobs/{put_job(served, 'validating_files', **held)}",
        "paused job": f"/jobs/{put_job(served, 'paused', estimate=estimate, figures={'begun_at': 1}, **held)}",
        "failed job": f"/jobs/{put_job(served, 'failed', error={'code': 'x', 'message': HOSTILE, 'param': None})}",
        "cancelled job": f"/jobs/{put_job(served, 'cancelled', suffix=HOSTILE[:64])}",
        "job with rows left out": f"/jobs/{losing}", "rows left out": f"/jobs/{losing}/rejected",
        "model": f"/models/{model_id}", "drawing model": f"/models/{drawing}", "writing model": f"/models/{writing}",
        "not found": "/jobs/ftjob-none",
    }  # fmt: skip
    return site
