"""The pages Models, Model and Compare: what there is, its files, a question to ask it by hand, and students side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select

from stillroom.errors import StillroomError
from stillroom.rundir import read_json
from stillroom.service.data import lineage_rows
from stillroom.service.door import faults
from stillroom.service.door.access import Caller, Reads, Writes
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.pages import job_views, student_files, tokens, trying
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import Sends
from stillroom.service.pages.words import FILTERS, mean
from stillroom.service.rows.tables import jobs as jobs_table
from stillroom.service.rows.tables import models
from stillroom.service.students.model_rows import find_model, folder_of
from stillroom.service.students.models import delete_model

router = APIRouter(route_class=PageRoute)
MOST_MODELS, MOST_COMPARED = 100, 12
COMPARED = (
    ("accuracy", "Right answers", "share", True), ("exact_match", "Right answers", "share", True),
    ("bits_per_byte", "Bits a byte", "figure", False), ("perplexity", "Perplexity", "figure", False),
    ("agreement", "Like its teacher", "share", True), ("latency_ms_p50", "Milliseconds a row", "figure", False),
    ("size_bytes", "Size", "size", False), ("usd_per_million_rows", "USD a million rows", "usd", False),
)  # fmt: skip
"""Key, words, how it is written, whether more is better."""
OF_ANY_TEST = ("latency_ms_p50", "size_bytes", "usd_per_million_rows")
"""What may be compared where students were not tested on the same rows."""
AS_GOOD = {"latency_ms_p50": 1.1, "usd_per_million_rows": 1.1}
"""Times, and what they cost, are as good as the best up to so many times it: they were taken at different hours. Other figures
are so where they are written alike.
"""
DOWNLOAD = "application/octet-stream"


@router.get("/models")
def show_all(request: Request, caller: Reads) -> Response:
    """Every finished student."""
    state = request.app.state
    found = []
    for row in _rows(request, caller):
        with state.database.reading() as rows:
            job, gone = _of(rows, caller, row)
        student = (job_views.scorecard(state.settings, job).get("models") or {}).get("student") or {} if job else {}
        right = next((value for key in ("accuracy", "exact_match") if (value := mean(student, key)) is not None), None)
        found.append({
            "row": row, "title": job_views.title(job) if job else row["id"], "right": right,
            "agreement": mean(student, "agreement"), "size": student.get("size_bytes"), "contains_deleted": gone,
        })  # fmt: skip
    return render(request, caller, "models.html", models=found)


@router.get("/models/{model_id}")
def show(request: Request, caller: Reads, model_id: str) -> Response:
    """One student."""
    return _page(request, caller, model_id)


@router.post("/models/{model_id}")
async def ask(request: Request, caller: Writes, model_id: str) -> Response:
    """Ask it something by hand."""
    from starlette.concurrency import run_in_threadpool

    async with request.form(max_files=0, max_fields=trying.MOST_FIELDS, max_part_size=trying.FIELD_BYTES) as form:
        given = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    tokens.check(request, caller, given.pop(tokens.FIELD, ""))
    return await run_in_threadpool(_asked, request, caller, model_id, given)


@router.post("/models/{model_id}/delete")
def delete(request: Request, caller: Sends, model_id: str) -> Response:
    """Serve it no more."""
    delete_model(request, caller, model_id)
    return go_to("/models")


@router.post("/models/{model_id}/onnx")
def export(request: Request, caller: Sends, model_id: str) -> Response:
    """Make a file of it that ONNX Runtime takes."""
    request.app.state.exports.begin(_row(request, caller, model_id))
    return go_to(f"/models/{model_id}#files")


@router.get("/models/{model_id}/onnx")
def show_export(request: Request, caller: Reads, model_id: str) -> Response:
    """The part of the page that waits for that file."""
    row = _row(request, caller, model_id)
    return render(request, caller, "model_onnx.html", model=row, exported=request.app.state.exports.of(row))


@router.get("/models/{model_id}/student.zip")
def download(request: Request, caller: Reads, model_id: str) -> Response:
    """All of its files."""
    row = _row(request, caller, model_id)
    name = student_files.short(row)
    found = student_files.files(request.app.state.settings, row)
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}.zip"}
    return StreamingResponse(student_files.zipped(found, name), media_type="application/zip", headers=headers)


@router.get("/models/{model_id}/files/{name:path}")
def download_one(request: Request, caller: Reads, model_id: str, name: str) -> Response:
    """One of its files; `name` is looked up in the list of them, and no path is made of it."""
    row = _row(request, caller, model_id)
    path = student_files.files(request.app.state.settings, row).get(name)
    if path is None:
        raise not_found("file", name, "name")
    shown = quote(path.name, safe="")
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{shown}",
        "content-length": str(path.stat().st_size),
    }
    return StreamingResponse(student_files.pieces(path), media_type=DOWNLOAD, headers=headers)


@router.get("/compare")
def compare(request: Request, caller: Reads, model: Annotated[list[str] | None, Query()] = None) -> Response:
    """Students side by side, with their teachers."""
    state = request.app.state
    known = _rows(request, caller)
    chosen = [row for row in known if not model or row["id"] in model][:MOST_COMPARED]
    columns = []
    for row in chosen:
        with state.database.reading() as rows:
            job, _ = _of(rows, caller, row)
        card = job_views.scorecard(state.settings, job) if job else {}
        found = card.get("models") or {}
        is_paid = job is not None and job_views.answered(job) == "paid"
        by_data = job is not None and job_views.is_judged_by_data(job)
        columns.append({
            "row": row, "title": job_views.title(job) if job else row["id"],
            "usd": mean(card.get("cost") or {}, "teacher_usd") if is_paid else None,
            "tested": (job_views.tested_on(state.settings, job) if job else None) or row["id"],
            "student": found.get("student") or {}, "teacher": {} if by_data else found.get("teacher") or {},
            "control": found.get("control") or {},
        })  # fmt: skip
    alike = len({one["tested"] for one in columns}) == 1
    metrics = [_metric(columns, *one, alike=alike) for one in COMPARED]
    metrics = [one for one in metrics if any(value is not None for value in one["values"])]
    return render(
        request, caller, "compare.html", known=known, chosen={row["id"] for row in chosen}, columns=columns, metrics=metrics,
        alike=alike, titles=_titles(request, caller, known),
    )  # fmt: skip


def _titles(request: Request, caller: Caller, known: list[Row]) -> dict[str, str]:
    """What the jobs are called that made these students."""
    wanted = jobs_table.c.id.in_({row["job_id"] for row in known}) & (jobs_table.c.project_id == caller.project_id)
    with request.app.state.database.reading() as rows:
        found = {row["id"]: job_views.title(row) for row in rows.execute(select(jobs_table).where(wanted)).mappings()}
    return {row["id"]: found[row["job_id"]] for row in known if row["job_id"] in found}


def _metric(columns: list[dict[str, Any]], key: str, words: str, form: str, more: bool, alike: bool) -> dict[str, Any]:
    """A row of the comparison: the students' figures, their teachers' and controls', and which are best. `alike`: all were
    tested on the same rows.
    """
    values = [mean(one["student"], key) for one in columns]
    known = [value for value in values if value is not None]
    is_fair = len(known) > 1 and (alike or key in OF_ANY_TEST)
    best: list[float] = []
    if is_fair:
        top = max(known) if more else min(known)
        alike_to = [value for value in known if FILTERS[form](value) == FILTERS[form](top)]
        best = [value for value in known if value in alike_to or (not more and value <= AS_GOOD.get(key, 1) * top)]
    if len(best) == len(known):  # all alike
        best = []
    beside = {role: [mean(one[role], key) for one in columns] for role in ("teacher", "control")}
    return {"words": words, "form": form, "values": values, "best": best, **beside}


def _rows(request: Request, caller: Caller) -> list[Row]:
    wanted = (models.c.project_id == caller.project_id) & models.c.deleted_at.is_(None)
    with request.app.state.database.reading() as rows:
        asked = select(models).where(wanted).order_by(models.c.number.desc()).limit(MOST_MODELS)
        return list(rows.execute(asked).mappings())


def _row(request: Request, caller: Caller, model_id: str) -> Row:
    """A student whose files are there. Raises ApiError 404."""
    with request.app.state.database.reading() as rows:
        row = find_model(rows, caller.project_id, model_id)
    folder_of(request.app.state.settings, row)
    return row


def _of(rows: Any, caller: Caller, row: Row) -> tuple[Row | None, int]:
    """The job that made a student, and how many rows it learned from are deleted by now."""
    wanted = (jobs_table.c.id == row["job_id"]) & (jobs_table.c.project_id == caller.project_id)
    job = rows.execute(select(jobs_table).where(wanted)).mappings().first()
    return job, lineage_rows.contains_deleted(rows, caller.project_id, row["job_id"]) if job else 0


def _asked(request: Request, caller: Caller, model_id: str, given: Mapping[str, str]) -> Response:
    row = _row(request, caller, model_id)
    try:
        said = trying.answer(request.app.state, row, given)
    except ApiError as error:
        return _page(request, caller, model_id, given, wrong=error.message)
    except StillroomError as error:
        return _page(request, caller, model_id, given, wrong=faults.of(error).message)
    return _page(request, caller, model_id, given, said=said)


def _page(
    request: Request, caller: Caller, model_id: str, given: Mapping[str, str] | None = None, wrong: str | None = None,
    said: dict[str, Any] | None = None,
) -> Response:  # fmt: skip
    state = request.app.state
    row = _row(request, caller, model_id)
    with state.database.reading() as rows:
        job, gone = _of(rows, caller, row)
    folder = state.settings.root / row["folder"]
    files = [
        {"name": name, "size": path.stat().st_size, "words": student_files.words(name)}
        for name, path in student_files.files(state.settings, row).items()
    ]
    results = job_views.results(state.settings, job) if job else None
    config, takes = read_json(folder / "config.json"), trying.takes(row, folder)
    return render(
        request, caller, "model.html", 400 if wrong else 200, model=row, job=job, contains_deleted=gone, files=files,
        title=job_views.title(job) if job else row["id"], results=results, takes=takes,
        exported=state.exports.of(row),
        weights=config.get("parameters") if isinstance(config, dict) else None, given=given or {}, wrong=wrong, said=said,
        call=trying.call(row["id"], takes),
    )  # fmt: skip
