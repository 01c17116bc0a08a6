"""The same as flow.py with the asynchronous client, and the same words after it.

python flow_async.py http://127.0.0.1:8010/v1 [KEY] [--strict] [--teacher NAME]
"""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import openai
from flow import STUDENT, WITHIN_S, arguments, check, check_held, held_ones, training_rows
from openai import AsyncOpenAI


async def job_of(client: AsyncOpenAI, file_id: str) -> openai.types.fine_tuning.FineTuningJob:
    """Create a job, pause it, resume it, and wait for its student."""
    jobs = client.fine_tuning.jobs
    job = await jobs.create(
        model="small-text-classifier", training_file=file_id, suffix="async", hyperparameters={"n_epochs": 60, "batch_size": 16},
        extra_body={"distillation": {"seeds": 1}},
    )  # fmt: skip
    # Raw: strict types know no `paused`.
    paused = json.loads((await jobs.with_raw_response.pause(job.id)).text)
    while paused["status"] != "paused":
        await asyncio.sleep(0.2)
        paused = json.loads((await jobs.with_raw_response.retrieve(job.id)).text)
    job = await jobs.resume(job.id)
    async with asyncio.timeout(WITHIN_S):
        while job.status not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(0.5)
            job = await jobs.retrieve(job.id)
    check(job.status == "succeeded", job)
    return job


async def held(client: AsyncOpenAI, file_id: str, teacher: str | None) -> None:
    """Jobs by a recipe, of a teacher that is asked for soft targets, and of what it said: each estimated, then cancelled."""
    completions = client.chat.completions
    for line in [] if teacher is None else training_rows().splitlines()[::6]:
        messages = json.loads(line)["messages"][:1]
        await completions.create(model=teacher, messages=messages, store=True, metadata={"run": file_id})
    wanted = held_ones(teacher, file_id)
    await asyncio.gather(*(held_one(client, name, asked, file_id) for name, asked in wanted.items()))
    for stored in [one.id async for one in completions.list(metadata={"run": file_id})]:
        check((await completions.delete(stored)).deleted, "delete")


async def held_one(client: AsyncOpenAI, name: str, asked: dict[str, Any], file_id: str) -> None:
    """One of them."""
    jobs = client.fine_tuning.jobs
    file = file_id if name == "file" else "none"
    made = await jobs.create(model=STUDENT, training_file=file, suffix=name, extra_body={"distillation": asked})
    job: dict[str, Any] = {}
    async with asyncio.timeout(WITHIN_S):
        while job.get("status") not in ("paused", "failed"):
            await asyncio.sleep(0.2)
            job = json.loads((await jobs.with_raw_response.retrieve(made.id)).text)
    check_held(name, asked, job)
    check((await jobs.cancel(made.id)).status == "cancelled", "cancel")


async def flow(client: AsyncOpenAI, teacher: str | None) -> None:
    """All of it; what was made is deleted again."""
    file = await client.files.create(file=("moods.jsonl", io.BytesIO(training_rows())), purpose="fine-tune")
    check((await client.files.content(file.id)).content == training_rows(), "content")
    check(file.id in [one.id async for one in client.files.list(limit=1)], "files")
    await held(client, file.id, teacher)
    job = await job_of(client, file.id)
    check(len([one async for one in client.fine_tuning.jobs.list_events(job.id, limit=2)]) > 4, "events")
    check([one async for one in client.fine_tuning.jobs.checkpoints.list(job.id)], "checkpoints")
    model = job.fine_tuned_model or ""
    asked = [{"role": "user", "content": "In the end the picnic was rather dreadful."}]
    completions = client.chat.completions
    answers = await asyncio.gather(
        *(completions.create(model=model, messages=asked, store=True, metadata={"model": model}) for _ in range(8))
    )
    check({one.choices[0].message.content for one in answers} == {"bad"}, answers)
    said = [one async for one in await completions.create(model=model, messages=asked, stream=True)]
    check("".join(one.choices[0].delta.content or "" for one in said if one.choices) == "bad", said)
    stored = [one.id async for one in completions.list(metadata={"model": model}, limit=3)]
    check(sorted(stored) == sorted(one.id for one in answers), stored)
    check(all([(await completions.delete(one)).deleted for one in stored]), "delete")
    check((await client.models.delete(model)).deleted, "delete the model")
    check((await client.files.delete(file.id)).deleted, "delete the file")
    try:
        await client.models.retrieve(model)
    except openai.NotFoundError as error:
        check(error.code, error)
    else:
        raise SystemExit("a deleted model is still there")


async def main() -> None:
    """Run it and say so."""
    given = arguments()
    async with AsyncOpenAI(
        base_url=given.base_url,
        api_key=given.api_key,
        max_retries=0,
        timeout=300,
        _strict_response_validation=given.strict,
    ) as client:
        await flow(client, given.teacher)
    print(f"openai {openai.__version__} asynchronous{' strict' if given.strict else ''}: every step went well")


if __name__ == "__main__":
    asyncio.run(main())
