"""What has no shape in OpenAI's interface: labels of rows, tables and images; starters and checks of recipes; finished runs;
the catalogue of kinds; and what a project saved by asking students.
"""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import and_, bindparam, select

from stillroom.catalogue import GROUPS, catalogue
from stillroom.errors import RecipeError
from stillroom.rundir import read_json
from stillroom.service.door.access import Reads, Writes
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row, as_list
from stillroom.service.door.routes import Route
from stillroom.service.door.schemas import LIMIT, Listed, Strict
from stillroom.service.recipes.references import resolved
from stillroom.service.rows.ids import is_id
from stillroom.service.rows.statements import Listing, Statement
from stillroom.service.rows.tables import jobs
from stillroom.service.settings import Settings
from stillroom.service.students import usage
from stillroom.service.students.chat import in_thread
from stillroom.service.students.model_rows import find_model
from stillroom.service.students.shelf import Labelled
from stillroom.starters import STARTERS, starter

router = APIRouter(route_class=Route, prefix="/api", tags=["native"])

MOST_ROWS = 10_000
SUCCEEDED = "succeeded"
FILE = "recipe.yaml"
_OURS = and_(jobs.c.project_id == bindparam("project_id"), jobs.c.status == SUCCEEDED)
_RUN_OF = Statement(select(jobs).where(_OURS, jobs.c.id == bindparam("id")))
_RUNS = Listing(jobs, _OURS, "run")


class Predict(Strict):
    """Rows for a classifier."""

    model: str = Field(min_length=1, max_length=300)
    rows: list[Any] = Field(
        min_length=1, max_length=MOST_ROWS,
        description="Texts, mappings of columns, lists of numbers in training order, or images as lists of lists.",
    )  # fmt: skip


class Predicted(BaseModel):
    """A label a row, with its probability of each class, in the order of `classes`."""

    object: Literal["predictions"]
    model: str
    classes: list[Any]
    data: list[dict[str, Any]]


class CheckRecipe(Strict):
    """A recipe to be looked at."""

    recipe: dict[str, Any]


class Checked(BaseModel):
    """A recipe that could be run: as a job it would be this."""

    object: Literal["recipe"]
    valid: bool
    recipe: dict[str, Any]


class Starter(BaseModel):
    """A recipe to begin from."""

    id: str
    object: Literal["recipe.starter"]
    yaml: str


class Run(BaseModel):
    """A finished job's figures; `scorecard` as its run folder has it."""

    id: str
    object: Literal["run"]
    created_at: int
    finished_at: int | None
    model: str | None
    scorecard: dict[str, Any] | None


class Savings(BaseModel):
    """What a project's calls cost, what the teacher would have cost where a student answered, and what its jobs paid teachers."""

    object: Literal["savings"]
    calls: int
    usd: float
    saved_usd: float
    data: list[dict[str, Any]]
    jobs_usd: float
    jobs: list[dict[str, Any]]


@router.post("/predict", response_model=Predicted)
async def predict(request: Request, caller: Writes, body: Predict) -> dict[str, Any]:
    """Labels of rows, tables or images by a finished classifier."""
    state = request.app.state
    return await in_thread(state, lambda: _predicted(state, caller.project_id, caller.key_id, body))


def _predicted(state: Any, project_id: str, key_id: str, body: Predict) -> dict[str, Any]:
    with state.database.reading() as rows:
        row = find_model(rows, project_id, body.model)
    if row["kind"] != "classifier":
        told = f"'{body.model}' writes, and gives no labels; ask it by /v1/chat/completions."
        raise ApiError(400, told, param="model", code="model_not_a_classifier")
    said: Labelled = state.shelf.labels(row, as_given(body.rows))
    counts = {"tokens_in": 0, "tokens_out": len(body.rows), "nano_usd": 0}
    state.usage.add(project_id=project_id, key_id=key_id or None, model=body.model, by="student", **counts)
    data = [
        {"label": label, "probabilities": [round(math.exp(log_p), 6) for log_p in logs_C]}
        for label, logs_C in zip(said.names(), said.log_probabilities_NC.tolist(), strict=True)
    ]
    return {"object": "predictions", "model": body.model, "classes": said.classes, "data": data}


def as_given(rows: list[Any]) -> Any:
    """Rows of JSON as `predict` takes them. Raises ApiError 400 for rows of different kinds or lengths."""
    import numpy as np

    kinds = {type(row) for row in rows}
    if kinds <= {str} or kinds <= {dict}:
        return rows
    if kinds == {list}:
        try:
            found = np.asarray(rows)
        except ValueError as error:
            told = "rows: lists of different lengths."
            raise ApiError(400, told, param="rows", code="invalid_value") from error
        if found.dtype.kind in "fiu":
            return found
    told = "rows: all texts, all mappings of columns, or all lists of numbers."
    raise ApiError(400, told, param="rows", code="invalid_value")


@router.get("/recipes", response_model=Listed)
def list_starters(request: Request, caller: Reads) -> dict[str, Any]:
    """Recipes to begin from."""
    data = [_starter(name) for name in STARTERS]
    return {"object": "list", "data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}


@router.get("/recipes/{name}", response_model=Starter)
def retrieve_starter(request: Request, caller: Reads, name: str) -> dict[str, Any]:
    """One of them."""
    if name not in STARTERS:
        raise not_found("recipe", name, "name")
    return _starter(name)


@router.post("/recipes/check", response_model=Checked)
def check_recipe(request: Request, caller: Reads, body: CheckRecipe) -> dict[str, Any]:
    """Whether a recipe could be run as a job, and as what; nothing of its data is looked at, and nothing is spent."""
    state = request.app.state
    with state.database.reading() as rows:
        found = resolved(rows, state, caller.project_id, body.recipe)
    return {"object": "recipe", "valid": True, "recipe": found.recipe.to_tree()}


@router.get("/runs", response_model=Listed)
def list_runs(
    request: Request, caller: Reads, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> dict[str, Any]:
    """Finished jobs with their scorecards, newest first."""
    state = request.app.state
    with state.database.reading() as rows:
        found, more = _RUNS.page(rows, after, limit, project_id=caller.project_id)
    return as_list([_run(state.settings, row) for row in found], more)


@router.get("/runs/{job_id}", response_model=Run)
def retrieve_run(request: Request, caller: Reads, job_id: str) -> dict[str, Any]:
    """One finished job with its scorecard."""
    state = request.app.state
    with state.database.reading() as rows:
        row = _RUN_OF.first(rows, project_id=caller.project_id, id=job_id)
    if row is None or not is_id(job_id, "ftjob"):
        raise not_found("run", job_id, "job_id")
    return _run(state.settings, row)


@router.get("/kinds", response_model=dict[str, dict[str, Any]])
def list_kinds(request: Request, caller: Reads) -> dict[str, Any]:
    """Every teacher, question source, student, objective and metric with its knobs."""
    return _kinds()


@router.get("/kinds/{name}", response_model=dict[str, dict[str, Any]])
def retrieve_kind(request: Request, caller: Reads, name: str) -> dict[str, Any]:
    """A group of kinds, or one kind in each group that has it."""
    if name in (*GROUPS, "metric"):
        return {name: _kinds()[name]}
    try:
        return catalogue(name)
    except RecipeError as error:
        raise not_found("kind", name, "name") from error


@router.get("/savings", response_model=Savings)
def read_savings(
    request: Request, caller: Reads, since: Annotated[int, Query(ge=0, le=1 << 40, description="Unix seconds.")] = 0
) -> dict[str, Any]:
    """Calls, USD paid and saved, and how often student and teacher agreed on the audit slice, by model; what jobs paid, by job.

    What was saved is an estimate: what the student's teacher would have cost at four letters a token.
    """
    state = request.app.state
    state.usage.flush()
    with state.database.reading() as rows:
        data = usage.savings(rows, caller.project_id, since)
        by_job = usage.spent_by_jobs(rows, caller.project_id, since)
    sums = {name: sum(one[name] for one in data) for name in ("calls", "usd", "saved_usd")}
    return {"object": "savings", **sums, "data": data, "jobs_usd": sum(one["usd"] for one in by_job), "jobs": by_job}


@functools.cache
def _kinds() -> dict[str, Any]:
    return catalogue()


def _starter(name: str) -> dict[str, Any]:
    return {"id": name, "object": "recipe.starter", "yaml": starter(name, FILE)}


def _run(settings: Settings, row: Row) -> dict[str, Any]:
    path = settings.root / "jobs" / row["id"] / "run" / "scorecard.json"
    return {
        "id": row["id"], "object": "run", "created_at": row["created_at"], "finished_at": row["finished_at"],
        "model": row["fine_tuned_model"], "scorecard": read_json(path) if path.is_file() else None,
    }  # fmt: skip
