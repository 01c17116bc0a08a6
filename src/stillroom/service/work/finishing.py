"""What a finished run becomes: a model's row, a file of its metrics, figures on the job. The same however often it is done.

Names are made from the job's id, so that a kill between two steps leaves nothing twice.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from stillroom.rundir import read_json, write_file
from stillroom.service.data.file_rows import file_path
from stillroom.service.jobs.event_rows import tell
from stillroom.service.jobs.job_rows import Row, fenced
from stillroom.service.rows.ids import LENGTH, LETTERS
from stillroom.service.rows.tables import files, models, projects
from stillroom.service.settings import Settings
from stillroom.service.work.executor import RUN
from stillroom.service.work.ledgers import spent_in

CASCADE, CURVE = "student/cascade.json", "student/history.json"
COLUMNS = ("step", "train_loss", "valid_loss", "valid_mean_token_accuracy")
SHOWN = ("accuracy", "agreement", "bits_per_byte", "perplexity", "exact_match", "parameters", "size_bytes")


def derived(text: str, length: int) -> str:
    """Letters and digits that depend on a text, and tell nothing of it."""
    number = int.from_bytes(hashlib.sha512(text.encode()).digest())
    found = []
    for _ in range(length):
        number, place = divmod(number, len(LETTERS))
        found.append(LETTERS[place])
    return "".join(found)


def model_id(rows: Connection, job: Row) -> str:
    """`ft:BASE:PROJECT:SUFFIX:LETTERS`."""
    name = rows.execute(select(projects.c.name).where(projects.c.id == job["project_id"])).scalar() or ""
    base = job["model"].rpartition("/")[2].replace(":", "-")
    return f"ft:{base}:{_slug(name)}:{_slug(job['suffix'] or '')}:{derived('model ' + job['id'], 8)}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def succeed(settings: Settings, rows: Connection, job: Row, csv_bytes: int) -> None:
    """Write the rows of a job whose run is finished and whose metrics stand in their file. Raises LeaseLost."""
    run = run_folder(settings, job)
    card, curve, now = read_json(run / "scorecard.json"), read_json(run / CURVE)["curve"], int(time.time())
    name, file_id = model_id(rows, job), result_file(job)
    cascade = read_json(run / CASCADE) if (run / CASCADE).is_file() else None
    last = metrics(curve[-1]) if curve else {}
    checkpoint = {
        "id": f"ftckpt-{derived('checkpoint ' + job['id'], LENGTH)}", "created_at": now, "step_number": last.get("step", 0),
        "fine_tuned_model_checkpoint": name, "metrics": last,
    }  # fmt: skip
    figures = {
        **job["figures"], **cost_of(card), **spent_in(run), "scorecard": small(card), "result_files": [file_id],
        "checkpoint": checkpoint,
    }  # fmt: skip
    fenced(
        rows, job, status="succeeded", finished_at=now, fine_tuned_model=name, figures=figures, wish=None,
        lease_until=None, worker=None,
    )  # fmt: skip
    kind = "classifier" if card["task"] == "classification" else "language"
    rows.execute(
        insert(models).values(
            id=name, project_id=job["project_id"], job_id=job["id"], kind=kind, base=job["model"], created_at=now,
            folder=str((run / "student").relative_to(settings.root)), teacher=job["figures"].get("teacher"),
            cascade=cascade,
        )
    )  # fmt: skip
    rows.execute(
        insert(files).values(
            id=file_id, project_id=job["project_id"], filename="step_metrics.csv", purpose="fine-tune-results",
            bytes=csv_bytes, sha256=hashlib.sha256(_csv(curve)).hexdigest(), status="processed", rows=len(curve),
            rejected=0, created_at=now,
        )
    )  # fmt: skip
    tell(rows, job, f"New fine-tuned model created: {name}")
    tell(rows, job, "The job has successfully completed")


def write_metrics(settings: Settings, job: Row) -> int:
    """The result file of a finished run, before its row says that it is there. Returns its bytes."""
    curve = read_json(run_folder(settings, job) / CURVE)["curve"]
    data = _csv(curve)
    write_file(file_path(settings, result_file(job)), data)
    return len(data)


def result_file(job: Row) -> str:
    """The id of a job's file of metrics."""
    return f"file-{derived('metrics ' + job['id'], LENGTH)}"


def metrics(point: dict[str, float]) -> dict[str, float]:
    """A point of a training's curve in OpenAI's words."""
    found = {
        "step": int(point["step"]), "train_loss": point["loss"], "valid_loss": point.get("validation_loss"),
        "valid_mean_token_accuracy": point.get("validation_accuracy"),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def cost_of(card: dict[str, Any]) -> dict[str, Any]:
    """Of a scorecard: what the teacher took. Of one that is paid by the call the ledger says so, what was lost included."""
    cost = card.get("cost", {})
    named = {"teacher_usd": "usd", "teacher_tokens": "teacher_tokens", "teacher_calls": "teacher_calls"}
    return {ours: cost[theirs] for theirs, ours in named.items() if theirs in cost}


def small(card: dict[str, Any]) -> dict[str, Any]:
    """The few figures of a scorecard that a list of jobs shows; for each model, the means."""
    means = {
        name: {key: model[key]["mean"] if isinstance(model[key], dict) else model[key] for key in SHOWN if key in model}
        for name, model in card["models"].items()
    }
    return {"task": card["task"], "rows": card["rows"], "models": means, "gap_recovered": card.get("gap_recovered")}


def _csv(curve: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(metrics(point) for point in curve)
    return text.getvalue().encode()


def run_folder(settings: Settings, job: Row) -> Path:
    """Where a job's run lies."""
    return settings.root / "jobs" / str(job["id"]) / RUN
