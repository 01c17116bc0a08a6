"""Row to student and student to row; what is deleted is marked in each transfer set made from it, and counted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks.service_process import Served
from sqlalchemy import insert, select, update
from tests.service.bad_cases import good_rows
from tests.service.test_completions import answer, call

from stillroom.rundir import seal, verify
from stillroom.service.data import completion_rows as completions
from stillroom.service.data import lineage_rows as lineage
from stillroom.service.data import retention
from stillroom.service.data.redaction import Redaction
from stillroom.service.door.access import Caller
from stillroom.service.rows.ids import new_id
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import completions as stored
from stillroom.service.rows.tables import files, jobs, models, projects
from stillroom.service.rows.tables import lineage as table
from stillroom.service.settings import Settings


class Made:
    """Two jobs and their students, made from a file's rows and a stored completion."""

    def __init__(self, served: Served, client: openai.OpenAI) -> None:
        self.served, self.client, self.project = served, client, served.first_project()
        data = "\n".join(json.dumps(row) for row in good_rows(4)).encode()
        self.file = client.files.create(file=("a.jsonl", data), purpose="fine-tune").id
        values = completions.prepared(
            Caller(self.project, "", frozenset()), model="t", request=call(), response=answer(), metadata={"app": "x"},
            by="t", redaction=Redaction(),
        )  # fmt: skip
        with served.rows.writing() as rows:
            self.stored = completions.store(rows, values)
        self.first, self.first_model = self.job()
        self.second, self.second_model = self.job()
        with served.rows.writing() as rows:
            sources = [(self.file, line) for line in (1, 2, 4)] + [(self.stored, 0)]
            lineage.record(rows, self.project, self.first, sources)
            lineage.record(rows, self.project, self.second, [(self.file, 1)])

    def job(self) -> tuple[str, str]:
        name, model = new_id("ftjob"), f"ft:small:default::{new_id('x')[-8:]}"
        row = {
            "id": name, "project_id": self.project, "created_at": int(time.time()), "status": "succeeded",
            "model": "small", "training_file": self.file, "seed": 0, "hyperparameters": {}, "asked": {}, "recipe": {},
            "phases": {}, "figures": {}, "fine_tuned_model": model, "token": 0, "attempts": 0,
        }  # fmt: skip
        made = {
            "id": model, "project_id": self.project, "job_id": name, "kind": "classifier", "base": "small",
            "folder": f"jobs/{name}/run/student", "created_at": int(time.time()), "teacher": "t",
            "cascade": {"threshold_nats": 0.2},
        }  # fmt: skip
        with self.served.rows.writing() as rows:
            rows.execute(insert(jobs).values(**row))
            rows.execute(insert(models).values(**made))
        return name, model

    def transfer_set(self, job: str) -> Path:
        folder = self.served.root / "jobs" / job / "run" / "transfer_set"
        (folder / "0123456789abcdef").mkdir(parents=True)
        seal(folder / "0123456789abcdef", "x")
        return folder

    def get(self, path: str, key: str | None = None, **params: Any) -> Any:
        answer = self.served.http(key).get(f"/api/lineage/{path}", params=params)
        return answer.json() | {"status": answer.status_code}

    def deleted(self, job: str) -> int:
        with self.served.rows.reading() as rows:
            return lineage.contains_deleted(rows, self.project, job)


@pytest.fixture
def made(service: Served, client: openai.OpenAI) -> Made:
    return Made(service, client)


def test_from_a_source_to_what_was_made_of_it(made: Made) -> None:
    found = made.get(f"sources/{made.file}")
    assert found["deleted_at"] is None
    assert [(one["job_id"], one["model"], one["rows"], one["contains_deleted"]) for one in found["made"]] == [
        (made.first, made.first_model, 3, 0),
        (made.second, made.second_model, 1, 0),
    ]
    assert [one["job_id"] for one in made.get(f"sources/{made.stored}")["made"]] == [made.first]


def test_from_a_student_to_its_rows(made: Made) -> None:
    wanted = [f"{made.file}:1", f"{made.file}:2", f"{made.file}:4", f"{made.stored}:0"]
    for path in (f"models/{made.first_model}", f"jobs/{made.first}"):
        assert [one["id"] for one in made.get(path)["data"]] == wanted
        page = made.get(path, limit=3)
        assert page["has_more"]
        assert [one["id"] for one in made.get(path, after=page["last_id"])["data"]] == wanted[3:]
        assert made.get(path, after="x:1")["status"] == made.get(path, after="nothing")["status"] == 404
    assert [one["row"] for one in made.get(f"models/{made.second_model}")["data"]] == [1]


def test_a_deleted_completion_is_marked_in_each_transfer_set(made: Made) -> None:
    folder = made.transfer_set(made.first)
    made.client.chat.completions.delete(made.stored)
    assert (made.deleted(made.first), made.deleted(made.second)) == (1, 0)
    mark = json.loads((folder / lineage.MARK).read_text())
    assert mark["contains_deleted"] == 1
    assert [(one["source"], one["rows"]) for one in mark["sources"]] == [(made.stored, 1)]
    verify(folder / "0123456789abcdef")
    gone = made.get(f"models/{made.first_model}", deleted=True)["data"]
    assert [one["source_id"] for one in gone] == [made.stored]
    assert gone[0]["deleted_at"]
    assert len(made.get(f"models/{made.first_model}", deleted=False)["data"]) == 3
    source = made.get(f"sources/{made.stored}")
    assert source["deleted_at"]
    assert source["made"][0]["contains_deleted"] == 1


def test_a_deleted_file_is_marked_too_and_a_model_says_so(made: Made) -> None:
    folders = [made.transfer_set(made.first), made.transfer_set(made.second)]
    made.client.files.delete(made.file)
    assert (made.deleted(made.first), made.deleted(made.second)) == (3, 1)
    assert [json.loads((folder / lineage.MARK).read_text())["contains_deleted"] for folder in folders] == [3, 1]
    shown = made.client.models.retrieve(made.first_model)
    assert shown.contains_deleted == 3  # type: ignore[attr-defined]
    listed = {one.id: one.contains_deleted for one in made.client.models.list() if one.id.startswith("ft:")}  # type: ignore[attr-defined]
    assert (listed[made.first_model], listed[made.second_model]) == (3, 1)
    assert (listed[f"{made.first_model}:cascade"], listed[f"{made.second_model}:cascade"]) == (3, 1)
    cascade = made.client.models.retrieve(f"{made.first_model}:cascade")
    assert cascade.contains_deleted == 3  # type: ignore[attr-defined]
    made.client.chat.completions.delete(made.stored)
    assert json.loads((folders[0] / lineage.MARK).read_text())["contains_deleted"] == 4


@pytest.mark.parametrize("statement", [lineage._GONE, lineage._GONE_OF_ALL])
def test_what_was_deleted_is_counted_without_looking_at_the_rest(service: Served, statement: Statement) -> None:
    with service.rows.reading() as rows:
        raw: Any = rows.connection.dbapi_connection
        plan = raw.execute(f"EXPLAIN QUERY PLAN {statement._ready[0]}", {"project_id": "p", "job_id": "j"}).fetchall()
    assert "COVERING INDEX lineage_deleted" in str(plan)


def test_a_student_made_again_without_them_says_nothing(made: Made) -> None:
    made.client.chat.completions.delete(made.stored)
    job, _ = made.job()
    with made.served.rows.writing() as rows:
        lineage.record(rows, made.project, job, [(made.file, 1), (made.file, 2)])
    assert made.deleted(job) == 0


def test_what_was_deleted_before_the_rows_were_written_down_counts(made: Made) -> None:
    made.client.chat.completions.delete(made.stored)
    job, _ = made.job()
    with made.served.rows.writing() as rows:
        lineage.record(rows, made.project, job, [(made.stored, 0), (made.file, 1)])
    assert made.deleted(job) == 1


def test_a_transfer_set_that_comes_later_gets_its_mark_from_the_sweep(made: Made) -> None:
    made.client.chat.completions.delete(made.stored)
    folder = made.transfer_set(made.first)
    retention.sweep(made.served.rows, Settings(made.served.root))
    assert json.loads((folder / lineage.MARK).read_text())["contains_deleted"] == 1
    (folder / lineage.MARK).write_text(
        '{"contains_deleted": 0, "sources": []}'
    )  # a server was killed before it wrote it
    retention.sweep(made.served.rows, Settings(made.served.root))
    assert json.loads((folder / lineage.MARK).read_text())["contains_deleted"] == 1


def test_what_had_its_time_is_no_deletion(made: Made) -> None:
    with made.served.rows.writing() as rows:
        completions.erase(rows, made.project, [made.stored])
    assert made.deleted(made.first) == 0


def test_nor_is_what_was_swept_before_the_rows_were_written_down(made: Made, client: openai.OpenAI) -> None:
    """It was read while it was there, and its time was over when the job's rows were written down."""
    life: Any = {"anchor": "created_at", "seconds": 3600}
    data = "\n".join(json.dumps(row) for row in good_rows(4)).encode()
    file = client.files.create(file=("b.jsonl", data), purpose="fine-tune", expires_after=life).id
    sources, counts = [(made.stored, 0), (file, 1)], []
    project = update(projects).where(projects.c.id == made.project)
    try:
        for name in ("swept", "deleted"):
            now, past = int(time.time()), name == "swept"
            with made.served.rows.writing() as rows:
                rows.execute(project.values(retention_days=1))
                rows.execute(update(stored).where(stored.c.id == made.stored).values(
                    created_at=now - 2 * completions.DAY_S if past else now, deleted_at=None))  # fmt: skip
                rows.execute(update(files).where(files.c.id == file).values(
                    expires_at=now - 9 if past else now + 3600, deleted_at=None))  # fmt: skip
            if past:
                retention.sweep(made.served.rows, Settings(made.served.root))
            else:
                client.chat.completions.delete(made.stored)
                client.files.delete(file)
            job, _ = made.job()
            with made.served.rows.writing() as rows:
                lineage.record(rows, made.project, job, sources)
            counts.append(made.deleted(job))
    finally:
        with made.served.rows.writing() as rows:
            rows.execute(project.values(retention_days=None))
    assert counts == [0, 2]


def test_another_projects_lineage_is_unknown(made: Made, service: Served) -> None:
    key = service.key(project=service.project("elsewhere"))
    unknown = [f"sources/file-{'x' * 24}", "models/ft:x", f"jobs/ftjob-{'x' * 24}"]
    ours = [f"sources/{made.file}", f"models/{made.first_model}", f"jobs/{made.first}"]
    for path, other in zip(ours, unknown, strict=True):
        told, same = made.get(path, key), made.get(other, key)
        assert told["status"] == same["status"] == 404
        assert told["error"]["code"] == same["error"]["code"]
    assert made.get(f"sources/{made.stored}", key)["status"] == 404
    with service.rows.reading() as rows:
        assert lineage.contains_deleted(rows, "another", made.first) == 0
        assert rows.execute(select(table.c.job_id).where(table.c.job_id == made.first)).first()
