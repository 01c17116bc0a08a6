"""The pages Jobs, Job and Report. A job's state is in the rows and its run folder, so every browser sees the same."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from stillroom.service.door.access import Caller, Reads
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.jobs import jobs
from stillroom.service.pages import job_views
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import Sends
from stillroom.service.work.executor import RUN
from stillroom.service.work.report_page import served

router = APIRouter(route_class=PageRoute)
SHOWN_REJECTED = 100
WISHES: dict[str, jobs.Wish] = {"start": "resume", "resume": "resume", "pause": "pause", "cancel": "cancel"}


@router.get("/jobs")
def show_all(request: Request, caller: Reads) -> Response:
    """Every job."""
    with request.app.state.database.reading() as rows:
        found = job_views.listed(rows, caller.project_id)
    return render(request, caller, "jobs.html", jobs=found)


@router.get("/jobs/{job_id}")
def show(request: Request, caller: Reads, job_id: str) -> Response:
    """One job."""
    return render(request, caller, "job.html", **_view(request, caller, job_id))


@router.get("/jobs/{job_id}/live")
def show_live(request: Request, caller: Reads, job_id: str) -> Response:
    """The part of the page that changes while the job runs."""
    return render(request, caller, "job_live.html", **_view(request, caller, job_id))


@router.get("/jobs/{job_id}/rejected")
def show_rejected(request: Request, caller: Reads, job_id: str, after: str | None = None) -> Response:
    """The rows that a job leaves out, each with the reason, some at a time."""
    state = request.app.state
    with state.database.reading() as rows:
        row = jobs.find_job(rows, caller.project_id, job_id)
    found = jobs.rejected_page(state.settings, job_id, after, SHOWN_REJECTED)
    return render(request, caller, "job_rejected.html", job=row, title=job_views.title(row), found=found)


@router.get("/jobs/{job_id}/report")
def report(request: Request, caller: Reads, job_id: str) -> Response:
    """The run's report, in a sandbox: it can reach neither this service nor its cookie."""
    state = request.app.state
    with state.database.reading() as rows:
        row = jobs.find_job(rows, caller.project_id, job_id)
    path = job_views.folder(state.settings, row) / RUN / "report.html"
    if not path.is_file():
        raise not_found("report", job_id, "job_id")
    return served(path)


@router.post("/jobs/{job_id}/{wish}")
def act(request: Request, caller: Sends, job_id: str, wish: str) -> Response:
    """Start, pause, resume or cancel it. One that has ended meanwhile stays as it is, and its page says so."""
    if wish not in WISHES:
        raise not_found("action", wish)
    try:
        jobs.wish(request.app.state, caller, job_id, WISHES[wish])
    except ApiError as error:
        if error.status != 409:
            raise
    return go_to(f"/jobs/{job_id}")


def _view(request: Request, caller: Caller, job_id: str) -> dict[str, Any]:
    state = request.app.state
    with state.database.reading() as rows:
        row = jobs.find_job(rows, caller.project_id, job_id)
        found = job_views.view(rows, state.settings, row)
    results = job_views.results(state.settings, row) if row["status"] == "succeeded" else None
    return {**found, "results": results}
