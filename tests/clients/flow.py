"""Everything an OpenAI client does with Stillroom, once: files, a job, its events, its student, chat, stored completions.

    pip install openai
    stillroom serve &
    python flow.py http://127.0.0.1:8010/v1 [KEY] [--strict]

Works with the second and the third major version of the client. `--strict` has the client check every field of every
answer. Its types know no `paused` among a job's statuses and no role but `assistant` in a stored message, though the
interface has both, so then these are read raw.
"""

from __future__ import annotations

import io
import json
import sys
import time

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
    words = [word for word in sys.argv[1:] if word != "--strict"]
    strict = len(words) < len(sys.argv) - 1
    client = OpenAI(
        base_url=words[0], api_key=words[1] if len(words) > 1 else "any", max_retries=0, timeout=300,
        _strict_response_validation=strict,
    )  # fmt: skip
    file = client.files.create(file=("moods.jsonl", io.BytesIO(training_rows())), purpose="fine-tune")
    check((file.filename, file.purpose, file.bytes) == ("moods.jsonl", "fine-tune", len(training_rows())), file)
    check(client.files.content(file.id).read() == training_rows(), "content")
    check(file.id in [one.id for one in client.files.list(purpose="fine-tune", limit=2)], "files")
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
