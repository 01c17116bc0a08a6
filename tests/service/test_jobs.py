"""Jobs as the official client sees them, from creation to a finished student."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from benchmarks.service_jobs import digits, moods
from benchmarks.service_kills import below, gone_within, of_role
from benchmarks.service_process import Served
from openai.types.fine_tuning import FineTuningJob

AsClient = Callable[..., openai.OpenAI]
UNKNOWN = f"ftjob-{'a' * 24}"


def create(client: openai.OpenAI, recipe: dict[str, Any] | None = None, **more: Any) -> FineTuningJob:
    wanted = {"recipe": recipe or digits(), **more.pop("distillation", {})}
    return client.fine_tuning.jobs.create(
        model="digits", training_file="none", extra_body={"distillation": wanted}, **more
    )


def extra(job: FineTuningJob) -> dict[str, Any]:
    return dict((job.model_extra or {})["distillation"])


def until(check: Callable[[], bool], seconds: float = 240.0) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "it did not come to that in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def done(service: Served, client: openai.OpenAI) -> FineTuningJob:
    """A job by a recipe, finished."""
    job = create(client, suffix="My Digits!", seed=7, metadata={"team": "a", "it's": 'a "quote"'})
    assert (job.status, job.seed, job.object) == ("validating_files", 7, "fine_tuning.job")
    assert extra(job)["position"] == 1
    service.wait(job.id, within_s=300)
    return client.fine_tuning.jobs.retrieve(job.id)


def test_a_finished_job_is_a_model(done: FineTuningJob, client: openai.OpenAI) -> None:
    assert done.status == "succeeded"
    assert done.error is None
    assert (done.finished_at or 0) >= done.created_at
    name = done.fine_tuned_model or ""
    base, project, suffix, letters = name.removeprefix("ft:").split(":")
    assert (base, project, suffix, len(letters)) == ("digits", "default", "my-digits", 8)
    assert name in [model.id for model in client.models.list()]
    assert client.models.retrieve(name).id == name


def test_it_says_what_a_distillation_is(done: FineTuningJob, service: Served) -> None:
    assert done.method is not None
    assert done.method.type == "supervised"
    told = extra(done)
    for phase in ("asking", "training", "evaluation"):
        assert 0 < told["phases"][phase]["done"] == told["phases"][phase]["total"]
    assert told["estimate"]["minutes"] > 0
    assert told["estimate"]["peak_memory_mib"] > 50
    assert 0 <= told["figures"]["models"]["student"]["agreement"] <= 1
    http = service.http()
    assert http.get(told["scorecard"]).json()["models"]["student"]["accuracy"]["mean"] > 0
    report = http.get(told["report"])
    assert report.headers["content-type"].startswith("text/html")
    assert "<html" in report.text


def test_its_metrics_are_events_and_a_file(done: FineTuningJob, client: openai.OpenAI) -> None:
    events = list(client.fine_tuning.jobs.list_events(done.id, limit=7))
    assert events[-1].message == f"Created fine-tuning job: {done.id}"
    assert events[0].message == "The job has successfully completed"
    assert len({event.id for event in events}) == len(events)
    points = [event.data for event in events if event.type == "metrics"]
    of_student = [point for point in points if isinstance(point, dict) and point["model"] == "student, seed 0"]
    assert [point["step"] for point in reversed(of_student)] == list(range(1, 11))
    assert all(point["train_loss"] > 0 for point in of_student)
    (name,) = done.result_files
    table = client.files.content(name).text.splitlines()
    assert table[0] == "step,train_loss,valid_loss,valid_mean_token_accuracy"
    assert len(table) == 11
    assert float(table[-1].split(",")[1]) == of_student[0]["train_loss"]
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(done.id)
    assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model
    assert checkpoint.step_number == 10


def test_strict_clients_read_it_too(done: FineTuningJob, as_client: AsClient) -> None:
    strict = as_client(_strict_response_validation=True)
    assert strict.fine_tuning.jobs.retrieve(done.id).id == done.id
    assert [job.id for job in strict.fine_tuning.jobs.list(limit=1)]
    assert list(strict.fine_tuning.jobs.list_events(done.id, limit=50))
    assert list(strict.fine_tuning.jobs.checkpoints.list(done.id))


def test_jobs_are_found_by_metadata(done: FineTuningJob, client: openai.OpenAI, service: Served) -> None:
    jobs = client.fine_tuning.jobs
    assert [job.id for job in jobs.list(metadata={"team": "a"})] == [done.id]
    assert [job.id for job in jobs.list(metadata={"it's": 'a "quote"'})] == [done.id]
    assert not list(jobs.list(metadata={"team": "b"}))
    assert not list(jobs.list(metadata={'te"am': "a"}))
    without = service.http().get("/v1/fine_tuning/jobs", params={"metadata": "null"}).json()["data"]
    assert done.id not in [job["id"] for job in without]


def test_another_projects_job_is_unknown(done: FineTuningJob, stranger: openai.OpenAI) -> None:
    jobs = stranger.fine_tuning.jobs
    said = []
    for job_id in (done.id, UNKNOWN):
        for call in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list):
            with pytest.raises(openai.NotFoundError) as error:
                call(job_id)
            said.append((error.value.code, error.value.param))
    assert len(set(said)) == 1
    assert not list(jobs.list())


@pytest.mark.parametrize("act", ["cancel", "pause", "resume"])
def test_what_has_ended_stays_so(done: FineTuningJob, client: openai.OpenAI, act: str) -> None:
    with pytest.raises(openai.ConflictError) as error:
        getattr(client.fine_tuning.jobs, act)(done.id)
    assert error.value.code == "job_ended"
    assert error.value.response.headers["x-should-retry"] == "false"


def test_a_file_of_chat_becomes_a_classifier(client: openai.OpenAI, service: Served) -> None:
    name = client.files.create(file=("moods.jsonl", moods(90)), purpose="fine-tune").id
    job = client.fine_tuning.jobs.create(
        model="small-text-classifier", training_file=name, method={"type": "supervised", "supervised": {
            "hyperparameters": {"n_epochs": 12, "batch_size": 8}}}, extra_body={"distillation": {"seeds": 1}},
    )  # fmt: skip
    assert job.training_file == name
    found = service.wait(job.id, within_s=300)
    assert found["status"] == "succeeded"
    assert found["distillation"]["figures"]["models"]["student"]["accuracy"] > 0.8
    assert set(found["distillation"]["figures"]["models"]) == {"student", "teacher"}
    lineage = service.http().get(f"/api/lineage/jobs/{job.id}", params={"limit": 1000}).json()["data"]
    assert {row["source_id"] for row in lineage} == {name}
    assert len(lineage) == 90


def test_paused_resumed_and_cancelled(client: openai.OpenAI, service: Served) -> None:
    jobs = client.fine_tuning.jobs
    job = create(client, digits(training={"epochs": 3000}), distillation={"hold": True})
    until(lambda: jobs.retrieve(job.id).status == "paused")  # held: estimated, and not begun
    assert extra(jobs.retrieve(job.id))["estimate"]["minutes"] > 0
    assert jobs.resume(job.id).status == "queued"

    def trains() -> bool:
        return extra(jobs.retrieve(job.id))["phases"]["training"].get("now") == "student, seed 0"

    until(trains)
    assert jobs.pause(job.id).status == "pausing"
    until(lambda: jobs.retrieve(job.id).status == "paused", 30)
    assert not of_role(service, "trainer")
    assert (service.root / "jobs" / job.id / "run" / ".work").is_dir()
    assert jobs.resume(job.id).status == "queued"
    until(lambda: jobs.retrieve(job.id).status == "running" and bool(of_role(service, "trainer")))
    behind = create(client)
    assert extra(behind)["position"] == 2
    under = below(of_role(service, "trainer")[0])
    trainer = of_role(service, "trainer")
    assert jobs.cancel(job.id).status == "cancelled"
    assert jobs.cancel(job.id).status == "cancelled"
    assert gone_within([*trainer, *under]) == []
    assert jobs.cancel(behind.id).status == "cancelled"
    told = [event.message for event in jobs.list_events(job.id, limit=100)]
    assert told[0] == "Fine-tuning job cancelled"
    assert "Fine-tuning job paused" in told


def test_data_that_cannot_be_learned_from_fails_the_job(client: openai.OpenAI, service: Served) -> None:
    name = client.files.create(file=("few.jsonl", moods(6)), purpose="fine-tune").id
    job = client.fine_tuning.jobs.create(model="tiny-language", training_file=name)
    found = service.wait(job.id, until=("failed",))
    assert found["error"]["code"] == "DataError"
    assert "6 rows are left to learn from" in found["error"]["message"]
    assert found["fine_tuned_model"] is None
    refused = create(client, digits(questions={"kind": "dataset", "source": "builtin:digits", "labelled": 3}))
    found = service.wait(refused.id, until=("failed",))
    assert "questions.labelled" in found["error"]["param"]
    report = service.http().get(f"/v1/fine_tuning/jobs/{refused.id}/report")
    assert (report.status_code, report.json()["error"]["code"]) == (404, "not_finished")
