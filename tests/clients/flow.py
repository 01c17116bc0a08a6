"""Everything an OpenAI client does with Stillroom, once: files, a job, its events, its student, chat, stored completions.

    pip install openai
    stillroom serve &
    python flow.py http://127.0.0.1:8010/v1 [KEY] [--strict] [--teacher NAME]

Works with the second and the third major version of the client. `--strict` has the client check every field of every
answer. Its types know no `paused` among a job's statuses and no role but `assistant` in a stored message, though the
interface has both, so then these are read raw. `--teacher` names a registered teacher that knows `training_rows`; jobs that
learn from it are then estimated and cancelled, and the project must let what it stores be trained on.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from typing import Any

import openai
from openai import OpenAI

WORDS = {
    "good": ["lovely", "splendid", "kind"],
    "bad": ["dreadful", "rude", "dull"],
    "so-so": ["plain", "usual", "fair"],
}
THINGS = ["film", "meal", "walk", "talk", "book", "song", "room", "view", "tea", "day", "chair", "shop", "train"]
WITHIN_S = 900
ASKED = "In the end the picnic was rather splendid."
STUDENT = "small-text-classifier"
MODEL = {"kind": "mlp", "hidden": [8]}
RECIPE = {
    "name": "digits", "questions": {"kind": "dataset", "source": "builtin:digits"}, "seeds": 1,
    "teacher": {"kind": "trained", "model": MODEL, "epochs": 1}, "student": {"kind": "fresh", "model": MODEL},
    "objectives": [{"kind": "soft_target", "temperature": 2}], "training": {"epochs": 1},
    "evaluation": {"metrics": ["accuracy", "agreement"]},
}  # fmt: skip
BUDGET = {"usd": 1.5, "teacher_tokens": 100_000, "calls": 500, "minutes": 30.0}


def training_rows() -> bytes:
    """Chats as a .jsonl file: what was asked, and what a teacher answered."""
    lines = []
    for answer, words in WORDS.items():
        for word in words:
            for thing in THINGS:
                asked = {"role": "user", "content": f"In the end the {thing} was rather {word}."}
                lines.append(json.dumps({"messages": [asked, {"role": "assistant", "content": answer}]}))
    return "\n".join(lines).encode() + b"\n"


def check(holds: object, what: object) -> None:
    """End with an error where something is not as a client expects it."""
    if not holds:
        raise SystemExit(f"not as expected: {what}")


def arguments() -> argparse.Namespace:
    """What stands on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base_url")
    parser.add_argument("api_key", nargs="?", default="any")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--teacher")
    return parser.parse_args()


def held_ones(teacher: str | None, file_id: str) -> dict[str, dict[str, Any]]:
    """Distillations that are estimated and not begun, by what they are made from; `stored` wants answers of this `run`."""
    found: dict[str, dict[str, Any]] = {"recipe": {"recipe": RECIPE, "hold": True}}
    if teacher is not None:
        whole = {"teacher": teacher, "student": STUDENT, "budget": BUDGET, "seeds": 2, "hold": True}
        file = {"source": {"file": file_id}, "soft_targets": True, "labels": list(WORDS)}
        found |= {"file": {**whole, **file}, "stored": {**whole, "source": stored_source(file_id)}}
    return found


def stored_source(file_id: str) -> dict[str, Any]:
    """Stored completions as a source: those of this run of the script."""
    return {"stored_completions": {"metadata": {"run": file_id}}}


def check_held(name: str, asked: dict[str, Any], job: dict[str, Any]) -> None:
    """A job that waits was estimated, and says what was asked for."""
    told = job["distillation"]
    check(job["status"] == "paused" and job["method"]["type"] == "supervised", job)
    check(told["estimate"]["training_rows"] > 0, job)
    echoed = {key: value for key, value in asked.items() if key not in ("hold", "recipe")}
    for key, value in echoed.items():
        check(told["asked"][key] == value, (name, key, told))


def wait(client: OpenAI, job_id: str) -> openai.types.fine_tuning.FineTuningJob:
    """The job once it has ended."""
    ends = time.monotonic() + WITHIN_S
    while time.monotonic() < ends:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.5)
    raise SystemExit(f"{job_id} did not end in {WITHIN_S} s")


def job_of(client: OpenAI, file_id: str, strict: bool) -> openai.types.fine_tuning.FineTuningJob:
    """Create a job, pause it, resume it, and wait for its student."""
    made = client.fine_tuning.jobs.create(
        model="small-text-classifier", training_file=file_id, suffix="flow", seed=7, metadata={"file": file_id},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 60, "batch_size": 16}}},
        extra_body={"distillation": {"seeds": 1}},
    )  # fmt: skip
    check(made.status == "validating_files", made)
    jobs = client.fine_tuning.jobs
    paused = json.loads(jobs.with_raw_response.pause(made.id).text) if strict else jobs.pause(made.id).model_dump()
    check(paused["status"] in ("paused", "pausing"), paused)
    while paused["status"] != "paused":
        time.sleep(0.2)
        paused = json.loads(jobs.with_raw_response.retrieve(made.id).text)
    check(jobs.resume(made.id).status in ("validating_files", "queued", "running"), "resume")
    # Only this one: strict types know no `paused`, and somebody else's job may be.
    check([one.id for one in client.fine_tuning.jobs.list(limit=5, metadata={"file": file_id})] == [made.id], "list")
    job = wait(client, made.id)
    check(job.status == "succeeded", job)
    check(job.method and job.method.type == "supervised", job)
    check(job.model_extra and job.model_extra["distillation"]["phases"]["training"]["done"] > 0, job)
    return job


def held(client: OpenAI, file_id: str, teacher: str | None) -> None:
    """Jobs by a recipe, of a teacher that is asked for soft targets, and of what it said: each estimated, then cancelled."""
    jobs = client.fine_tuning.jobs
    if teacher is not None:
        for line in training_rows().splitlines()[::6]:
            asked = json.loads(line)["messages"][:1]
            client.chat.completions.create(model=teacher, messages=asked, store=True, metadata={"run": file_id})
    for name, asked in held_ones(teacher, file_id).items():
        file = file_id if name == "file" else "none"
        made = jobs.create(model=STUDENT, training_file=file, suffix=name, extra_body={"distillation": asked})
        ends = time.monotonic() + WITHIN_S
        job: dict[str, Any] = {}
        while job.get("status") not in ("paused", "failed") and time.monotonic() < ends:
            time.sleep(0.2)
            job = json.loads(jobs.with_raw_response.retrieve(made.id).text)
        check_held(name, asked, job)
        check(jobs.cancel(made.id).status == "cancelled", "cancel")
    for stored in client.chat.completions.list(metadata={"run": file_id}):
        check(client.chat.completions.delete(stored.id).deleted, "delete")


def told_of(client: OpenAI, job_id: str) -> None:
    """A job's events and checkpoints, page by page."""
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=3))
    check(len({one.id for one in events}) == len(events) > 4, events)
    check([one.created_at for one in events] == sorted((one.created_at for one in events), reverse=True), events)
    check(any(one.type == "metrics" for one in events), events)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job_id))
    check(checkpoints and checkpoints[0].fine_tuning_job_id == job_id, checkpoints)


def chat(client: OpenAI, model: str) -> str:
    """Ask the student, at once and as a stream; the id of the stored answer."""
    asked = [{"role": "user", "content": ASKED}]
    stored = client.chat.completions.create(
        model=model, messages=asked, store=True, metadata={"app": "flow", "model": model}, logprobs=True, top_logprobs=3
    )
    check(stored.choices[0].message.content == "good", stored)
    check(stored.usage and stored.usage.total_tokens > 0, stored)
    check(stored.choices[0].logprobs and stored.choices[0].logprobs.content, stored)
    pieces = list(
        client.chat.completions.create(model=model, messages=asked, stream=True, stream_options={"include_usage": True})
    )
    check("".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == "good", pieces)
    check(pieces[-1].usage and not pieces[-1].choices, pieces[-1])
    return stored.id


def stored_completions(client: OpenAI, completion_id: str, model: str, strict: bool) -> None:
    """List by metadata, read, change and delete what was stored."""
    completions = client.chat.completions
    found = [one.id for one in completions.list(metadata={"model": model})]
    check(found == [completion_id], found)
    check([one.id for one in completions.list(metadata={"model": "none"})] == [], "a filter that fits nothing")
    check(completions.retrieve(completion_id).choices[0].message.content == "good", "retrieve")
    raw = completions.messages.with_raw_response.list(completion_id).text if strict else ""
    said = json.loads(raw)["data"] if strict else [one.model_dump() for one in completions.messages.list(completion_id)]
    check([(one["role"], one["content"]) for one in said] == [("user", ASKED)], said)
    check(completions.update(completion_id, metadata={"app": "changed"}).metadata == {"app": "changed"}, "update")
    check(completions.delete(completion_id).deleted, "delete")
    try:
        completions.retrieve(completion_id)
    except openai.NotFoundError as error:
        check(error.code and error.param, error)
    else:
        raise SystemExit("a deleted completion is still there")


def main() -> None:
    """All of it; what was made is deleted again."""
    given = arguments()
    strict = given.strict
    client = OpenAI(
        base_url=given.base_url, api_key=given.api_key, max_retries=0, timeout=300, _strict_response_validation=strict
    )
    file = client.files.create(file=("moods.jsonl", io.BytesIO(training_rows())), purpose="fine-tune")
    check((file.filename, file.purpose, file.bytes) == ("moods.jsonl", "fine-tune", len(training_rows())), file)
    check(client.files.content(file.id).read() == training_rows(), "content")
    check(file.id in [one.id for one in client.files.list(purpose="fine-tune", limit=2)], "files")
    held(client, file.id, given.teacher)
    job = job_of(client, file.id, strict)
    told_of(client, job.id)
    model = job.fine_tuned_model or ""
    check(client.models.retrieve(model).id == model, "model")
    check({model, "small-text-classifier"} <= {one.id for one in client.models.list()}, "models")
    stored_completions(client, chat(client, model), model, strict)
    try:
        client.fine_tuning.jobs.cancel(job.id)
    except openai.ConflictError as error:
        check(error.response.headers["x-should-retry"] == "false", error)
    else:
        raise SystemExit("a job that has ended was cancelled")
    check(client.models.delete(model).deleted, "delete the model")
    check(client.files.delete(file.id).deleted, "delete the file")
    print(f"openai {openai.__version__}{' strict' if strict else ''}: every step went well")


if __name__ == "__main__":
    main()
