"""Fine-tuning jobs: a distillation asked for in OpenAI's shape. A job is a row; its worker and its folder come later."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection, bindparam, func, insert, select, update
from starlette.concurrency import run_in_threadpool

from stillroom.rundir import read_json
from stillroom.service.door import fragments, lists
from stillroom.service.door.access import Caller, Reads, Writes
from stillroom.service.door.creations import Retriable, answered
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.fragments import Fragments
from stillroom.service.door.lists import Row
from stillroom.service.door.routes import Json, Route, Text
from stillroom.service.door.schemas import LIMIT, Listed
from stillroom.service.jobs.asked import CreateJob
from stillroom.service.jobs.event_rows import tell
from stillroom.service.jobs.job_object import PHASES, Job, show_job
from stillroom.service.jobs.job_rows import ENDED, PAUSED, QUEUED, RUNNING, VALIDATING, position, written
from stillroom.service.recipes.sources import REJECTED, checked
from stillroom.service.rows.database import Database
from stillroom.service.rows.ids import is_id, new_id
from stillroom.service.rows.statements import Listing, Raw, Statement
from stillroom.service.rows.tables import jobs
from stillroom.service.settings import Settings
from stillroom.service.work.executor import RUN
from stillroom.service.work.ledgers import spent_in
from stillroom.service.work.report_page import served

router = APIRouter(route_class=Route, tags=["fine-tuning"])
WHAT = "fine-tuning job"
Wish = Literal["cancel", "pause", "resume"]
NOT_SHOWN = ("recipe",)
"""Columns which may be long, and are not shown."""
_OURS = (jobs.c.id == bindparam("id")) & (jobs.c.project_id == bindparam("project_id"))
FIND = Statement(select(jobs).where(_OURS))
_FIND_SHOWN = Statement(select(*(one for one in jobs.c if one.name not in NOT_SHOWN)).where(_OURS))
_SENT = Fragments(lambda row, place: [show_job(row, place)])
FEW = 20
"""So many are looked up without a thread of their own."""
REPORT: dict[int | str, dict[str, Any]] = {200: {"description": "The report", "content": {"text/html": {}}}}


def job_folder(settings: Settings, job_id: str) -> Path:
    """Where a job's data, run and log lie. Raises ApiError 404 for what is no id of a job."""
    if not is_id(job_id, "ftjob"):
        raise not_found(WHAT, job_id)
    return settings.root / "jobs" / job_id


def find_job(rows: Connection, project_id: str, job_id: str) -> Row:
    """A project's job. Raises ApiError 404."""
    found = FIND.first(rows, id=job_id, project_id=project_id)
    if found is None:
        raise not_found(WHAT, job_id)
    return found


def checked_job(state: Any, caller: Caller, body: CreateJob) -> Callable[[Connection], Row]:
    """What writes a job's row, once all is checked that can be without reading its data. Raises ApiError."""
    with state.database.reading() as rows:
        found = checked(rows, state, caller.project_id, body)
    values = {
        "id": new_id("ftjob"), "project_id": caller.project_id, "created_at": int(time.time()), "status": VALIDATING,
        "model": body.model, "training_file": found.training_file, "validation_file": body.validation_file,
        "suffix": body.suffix, "seed": secrets.randbelow(1 << 31) if body.seed is None else body.seed,
        "hyperparameters": body.knobs.model_dump(), "metadata": body.metadata,
        "asked": body.model_dump(mode="json", exclude_none=True), "recipe": {}, "phases": PHASES,
        "figures": {"teacher": found.teacher}, "token": 0, "attempts": 0,
    }  # fmt: skip

    def write(rows: Connection) -> Row:
        rows.execute(insert(jobs).values(**values))
        tell(rows, values, f"Created fine-tuning job: {values['id']}")
        return find_job(rows, caller.project_id, str(values["id"]))

    return write


def wish(state: Any, caller: Caller, job_id: str, wanted: Wish) -> Row:
    """Cancel, pause or resume. Raises ApiError 404, and 409 where the job is past that.

    What waits changes at once. A running trainer is paused where it can go on later; cancelled, it is ended by its worker,
    which finds that the job is not its any more.
    """
    run = job_folder(state.settings, job_id) / RUN
    with written(state.database) as rows:
        row = find_job(rows, caller.project_id, job_id)
        values, told = _wished(row, wanted)
        if values:
            if wanted == "cancel":  # its worker adds what is spent until the trainer is ended, if there is one
                values["figures"] = {**row["figures"], **spent_in(run)}
            rows.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
            tell(rows, row, told)
        return find_job(rows, caller.project_id, job_id)


def _wished(row: Row, wanted: Wish) -> tuple[dict[str, Any], str]:
    """What to write, and what to say of it; nothing where it is so already. Raises ApiError 409."""
    status, raised = row["status"], {"token": row["token"] + 1, "lease_until": None, "worker": None}
    if status in ENDED and not (wanted == "cancel" and status == "cancelled"):
        raise ApiError(409, f"This job has {status} already." if status != "cancelled" else "This job is cancelled.",
                       param="id", code="job_ended")  # fmt: skip
    if wanted == "cancel":
        done = {"status": "cancelled", "finished_at": int(time.time()), "wish": None, **raised}
        return ({} if status == "cancelled" else done), "Fine-tuning job cancelled"
    if wanted == "pause":
        if status == RUNNING:
            return ({} if row["wish"] == "pause" else {"wish": "pause"}), "Fine-tuning job is pausing"
        return ({} if status == PAUSED else {"status": PAUSED, "wish": None, **raised}), "Fine-tuning job paused"
    if status == RUNNING:  # it may be on its way to a pause: then it comes back into the queue
        return ({"wish": None} if row["wish"] else {}), "Fine-tuning job goes on"
    waits = QUEUED if row["estimate"] else VALIDATING
    told = "resumed" if (row["figures"] or {}).get("begun_at") else "started"
    return ({"status": waits, "wish": None, **raised} if status == PAUSED else {}), f"Fine-tuning job {told}"


def _shown(rows: Connection, row: Row) -> dict[str, Any]:
    return show_job(row, position(rows, row))


def _place(rows: Connection, statement: Statement, raw: Raw) -> int | None:
    """The place in the queue of a job whose row is not read yet."""
    return position(rows, {"number": raw[0], "status": raw[statement.place("status")]})


@router.post("/v1/fine_tuning/jobs", response_model=Job)
def create(request: Request, caller: Writes, body: CreateJob, one: Retriable) -> Json:
    """Create a job. Sent again by the client's own retries, or with the same Idempotency-Key, it is the same job."""
    state = request.app.state

    def make() -> Callable[[Connection], dict[str, Any]]:
        write = checked_job(state, caller, body)
        return lambda rows: _shown(rows, write(rows))

    return answered(state.database, caller, one, make)


@router.get("/v1/fine_tuning/jobs", response_model=Listed)
async def list_jobs(
    request: Request, caller: Reads, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> Response:
    """The project's jobs, newest first; metadata[KEY]=VALUE keeps those with that pair, metadata=null those with none."""
    pairs, bare = lists.metadata_filter(request), request.query_params.get("metadata") == "null"
    asked = request.app.state.database, caller.project_id, pairs, bare, after, limit
    page = _page(*asked) if limit <= FEW and not pairs and not bare else await run_in_threadpool(_page, *asked)
    return page() if _SENT.left(page.rows) <= fragments.AT_ONCE_BYTES else await run_in_threadpool(page)


@dataclass(frozen=True)
class _Page:
    """A page of jobs as the database has them, and their places in the queue; called, the answer."""

    statement: Statement
    rows: list[Raw]
    places: list[int | None]
    has_more: bool

    def __call__(self) -> Response:
        sent = [_SENT.of(self.statement, raw, place) for raw, place in zip(self.rows, self.places, strict=True)]
        ids = self.statement.place("id")
        return fragments.as_list(sent, [raw[ids] for raw in self.rows], self.has_more)


def _page(
    database: Database, project_id: str, pairs: Mapping[str, str], bare: bool, after: str | None, limit: int
) -> _Page:
    listing, given = _listed(len(pairs), bare), lists.numbered(pairs)
    with database.reading() as rows:
        statement, found, more = listing.raw_page(rows, after, limit, project_id=project_id, **given)
        return _Page(statement, found, [_place(rows, statement, raw) for raw in found], more)


@lru_cache
def _listed(pairs: int, bare: bool) -> Listing:
    """A project's jobs with so many pairs of metadata; `bare`: with none at all."""
    wanted = jobs.c.project_id == bindparam("project_id")
    for place in range(pairs):
        pair = func.json_each(jobs.c.metadata).table_valued("key", "value")
        same = (pair.c.key == bindparam(f"key_{place}")) & (pair.c.value == bindparam(f"value_{place}"))
        wanted &= select(pair.c.key).where(same).exists()
    if bare:
        wanted &= func.coalesce(func.json_type(jobs.c.metadata), "null") == "null"
    return Listing(jobs, wanted, WHAT, but=NOT_SHOWN)


@router.get("/v1/fine_tuning/jobs/{job_id}", response_model=Job)
async def retrieve(request: Request, caller: Reads, job_id: str) -> Response:
    """One job."""
    with request.app.state.database.reading() as rows:
        found = _FIND_SHOWN.raw(rows, id=job_id, project_id=caller.project_id)
        if not found:
            raise not_found(WHAT, job_id)
        place = _place(rows, _FIND_SHOWN, found[0])
    return Text(_SENT.of(_FIND_SHOWN, found[0], place))


def _do(request: Request, caller: Caller, job_id: str, wanted: Wish) -> dict[str, Any]:
    row = wish(request.app.state, caller, job_id, wanted)
    with request.app.state.database.reading() as rows:
        return _shown(rows, row)


@router.post("/v1/fine_tuning/jobs/{job_id}/cancel", response_model=Job)
def cancel(request: Request, caller: Writes, job_id: str) -> dict[str, Any]:
    """End a job for good; what it paid for stays in its folder."""
    return _do(request, caller, job_id, "cancel")


@router.post("/v1/fine_tuning/jobs/{job_id}/pause", response_model=Job)
def pause(request: Request, caller: Writes, job_id: str) -> dict[str, Any]:
    """Stop a job where it can go on later: `pausing` while it runs, then `paused`."""
    return _do(request, caller, job_id, "pause")


@router.post("/v1/fine_tuning/jobs/{job_id}/resume", response_model=Job)
def resume(request: Request, caller: Writes, job_id: str) -> dict[str, Any]:
    """Put a paused job back into the queue."""
    return _do(request, caller, job_id, "resume")


@router.get("/v1/fine_tuning/jobs/{job_id}/checkpoints", response_model=Listed)
async def checkpoints(
    request: Request, caller: Reads, job_id: str, after: str | None = None, limit: Annotated[int, LIMIT] = 10
) -> dict[str, Any]:
    """The students of a job that can be asked: the finished one."""
    with request.app.state.database.reading() as rows:
        row = find_job(rows, caller.project_id, job_id)
    found = row["figures"].get("checkpoint")
    data = [] if found is None else [{"object": "fine_tuning.job.checkpoint", "fine_tuning_job_id": job_id, **found}]
    if after is not None:
        if all(one["id"] != after for one in data):
            raise not_found("checkpoint", after, "after")
        data = []
    return lists.as_list(data[:limit])


@router.get("/v1/fine_tuning/jobs/{job_id}/report", response_class=Response, responses=REPORT)
def report(request: Request, caller: Reads, job_id: str) -> HTMLResponse:
    """The report of a finished job: one page that opens offline."""
    return served(_finished(request, caller, job_id) / "report.html")


@router.get("/v1/fine_tuning/jobs/{job_id}/scorecard", response_model=dict[str, Any])
def scorecard(request: Request, caller: Reads, job_id: str) -> Mapping[str, Any]:
    """Every figure of a finished job."""
    found: dict[str, Any] = read_json(_finished(request, caller, job_id) / "scorecard.json")
    return found


def _finished(request: Request, caller: Caller, job_id: str) -> Path:
    """The run folder of a job that succeeded. Raises ApiError 404."""
    with request.app.state.database.reading() as rows:
        row = find_job(rows, caller.project_id, job_id)
    if row["status"] != "succeeded":
        told = f"This job is {row['status']}; there is a report when it has succeeded."
        raise ApiError(404, told, param="id", code="not_finished")
    return job_folder(request.app.state.settings, job_id) / RUN


@router.get("/v1/fine_tuning/jobs/{job_id}/rejected", response_model=Listed)
def rejected(
    request: Request, caller: Reads, job_id: str, after: str | None = None, limit: Annotated[int, LIMIT] = 20
) -> dict[str, Any]:
    """The rows of its source that a job leaves out, and why; `after` is the id of the last one seen."""
    with request.app.state.database.reading() as rows:
        find_job(rows, caller.project_id, job_id)
    return rejected_page(request.app.state.settings, job_id, after, limit)


def rejected_page(settings: Settings, job_id: str, after: str | None, limit: int) -> dict[str, Any]:
    """The same as a list. Raises ApiError 404 for an `after` that is no place in one."""
    path = job_folder(settings, job_id) / REJECTED
    first = 0 if after is None else int(after) + 1 if after.isdecimal() and len(after) < 10 else None
    if first is None:
        raise not_found("row", str(after), "after")
    data, more = [], False
    if path.is_file():
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file):
                more = number >= first + limit
                if more:
                    break
                if number >= first:
                    data.append({"id": str(number), "object": "fine_tuning.job.rejected", **json.loads(line)})
    return lists.as_list(data, more)
