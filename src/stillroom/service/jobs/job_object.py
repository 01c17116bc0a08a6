"""A job as the clients read it: OpenAI's fields, and beside them what only this service has to say of a distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stillroom.service.jobs.job_rows import RUNNING, Row
from stillroom.service.work.progress_told import PARTS

PHASES: dict[str, dict[str, Any]] = {name: {"done": 0, "total": 0} for name in ("asking", "training", "evaluation")}
NOT_ASKED = ("hold", "recipe")


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class Job(BaseModel):
    """A fine_tuning.job; `distillation` is ours."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    error: JobError | None
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    distillation: dict[str, Any] = Field(
        description="phases (asking, training, evaluation: done and total), estimate, position in the queue, teacher_calls, "
        "teacher_tokens and usd so far, rejected_rows and rejected_reasons, and where the report and the scorecard are"
    )


def show_job(row: Row, position: int | None = None) -> dict[str, Any]:
    """A row as a fine_tuning.job; `position`: its place in the queue, where it waits in one."""
    figures, wanted = row["figures"], wanted_of(row)
    knobs = row["hyperparameters"]
    done = row["status"] == "succeeded"
    place = f"/v1/fine_tuning/jobs/{row['id']}"
    return {
        "id": row["id"], "object": "fine_tuning.job", "created_at": row["created_at"], "finished_at": row["finished_at"],
        "estimated_finish": _finish(row), "model": row["model"], "fine_tuned_model": row["fine_tuned_model"],
        "organization_id": row["project_id"], "status": status_of(row), "hyperparameters": knobs,
        "method": {"type": "supervised", "supervised": {"hyperparameters": knobs}},
        "training_file": row["training_file"], "validation_file": row["validation_file"],
        "result_files": figures.get("result_files", []), "trained_tokens": None,
        "seed": row["seed"], "error": row["error"], "integrations": [], "metadata": row["metadata"],
        "distillation": {
            "teacher": figures.get("teacher"), "suffix": row["suffix"],
            "asked": {name: value for name, value in wanted.items() if name not in NOT_ASKED and value is not None},
            "phases": phases_of(row), "position": position, "estimate": estimate_of(row),
            "teacher_calls": figures.get("teacher_calls", 0), "teacher_tokens": figures.get("teacher_tokens", 0),
            "usd": figures.get("usd", 0.0),
            "rejected_rows": figures.get("rejected_rows"), "rejected_reasons": figures.get("rejected_reasons"),
            "attempts": row["attempts"],
            "report": f"{place}/report" if done else None, "scorecard": f"{place}/scorecard" if done else None,
            "figures": figures.get("scorecard"),
        },
    }  # fmt: skip


def wanted_of(row: Row) -> Mapping[str, Any]:
    """The distillation that was asked for, wherever it stood in the call."""
    asked = row["asked"] or {}
    return asked.get("distillation") or (asked.get("method") or {}).get("distillation") or {}


def phases_of(row: Row) -> dict[str, dict[str, Any]]:
    """Of each phase: done and total, in which unit, and what is going on."""
    return {
        phase: {name: value for name, value in told.items() if name != PARTS} for phase, told in row["phases"].items()
    }


def estimate_of(row: Row) -> dict[str, Any] | None:
    """The estimate, without the mark by which it is found again."""
    found = row["estimate"]
    return None if found is None else {name: value for name, value in found.items() if name != "of"}


def machine_usd(estimate: Mapping[str, Any]) -> Any:
    """What this machine's time costs by an estimate, without the teacher, whom `usd` has in it beside a `training_usd`."""
    return estimate.get("training_usd", estimate.get("usd"))


def status_of(row: Row) -> str:
    """Its status; one that runs and is to pause is pausing."""
    return "pausing" if row["status"] == RUNNING and row["wish"] == "pause" else str(row["status"])


def _finish(row: Row) -> int | None:
    """When it may be done, by its estimate."""
    begun, estimate = row["figures"].get("begun_at"), row["estimate"] or {}
    minutes = estimate.get("minutes")
    if row["status"] == RUNNING and begun and minutes is not None:
        return int(begun + 60 * minutes)
    return None
