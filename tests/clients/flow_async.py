"""The same as flow.py with the asynchronous client: python flow_async.py http://127.0.0.1:8010/v1 [KEY]"""

from __future__ import annotations

import asyncio
import io
import sys

import openai
from flow import WITHIN_S, check, training_rows
from openai import AsyncOpenAI


async def job_of(client: AsyncOpenAI, file_id: str) -> openai.types.fine_tuning.FineTuningJob:
    """Create a job, pause it, resume it, and wait for its student."""
    jobs = client.fine_tuning.jobs
    job = await jobs.create(
        model="small-text-classifier", training_file=file_id, suffix="async", hyperparameters={"n_epochs": 60, "batch_size": 16},
        extra_body={"distillation": {"seeds": 1}},
    )  # fmt: skip
    paused = await jobs.pause(job.id)
    while paused.status != "paused":
        await asyncio.sleep(0.2)
        paused = await jobs.retrieve(job.id)
    job = await jobs.resume(job.id)
    async with asyncio.timeout(WITHIN_S):
        while job.status not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(0.5)
            job = await jobs.retrieve(job.id)
    check(job.status == "succeeded", job)
    return job


async def flow(client: AsyncOpenAI) -> None:
    """All of it; what was made is deleted again."""
    file = await client.files.create(file=("moods.jsonl", io.BytesIO(training_rows())), purpose="fine-tune")
    check((await client.files.content(file.id)).content == training_rows(), "content")
    check(file.id in [one.id async for one in client.files.list(limit=1)], "files")
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
    key = sys.argv[2] if len(sys.argv) > 2 else "any"
    async with AsyncOpenAI(base_url=sys.argv[1], api_key=key, max_retries=0, timeout=300) as client:
        await flow(client)
    print(f"openai {openai.__version__} asynchronous: every step went well")


if __name__ == "__main__":
    asyncio.run(main())
