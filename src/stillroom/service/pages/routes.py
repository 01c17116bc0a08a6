"""Every page in one router, the front page, and the files that pages ask for."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import func, select
from starlette.exceptions import HTTPException

from stillroom.service.door.access import Reads
from stillroom.service.door.fault_answers import of_framework
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.pages import (
    data_page,
    job_page,
    job_views,
    keys_page,
    models_page,
    new_page,
    signing_in,
    teachers_page,
)
from stillroom.service.pages.rendering import HERE, PageRoute, error_page, render, static
from stillroom.service.pages.samples import SAMPLES
from stillroom.service.rows.tables import models

home = APIRouter(route_class=PageRoute)
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}
STATIC = {
    path.name: KINDS[path.suffix]
    for path in sorted((HERE / "static").iterdir())
    if path.suffix in KINDS and path.is_file()
}
FOR_EVER = "public, max-age=31536000, immutable"
RECENT = 5
INTERFACES = ("/v1/", "/api/")


@home.get("/")
def front(request: Request, caller: Reads) -> Response:
    """What this is, and the shortest way to a first student."""
    with request.app.state.database.reading() as rows:
        recent = job_views.listed(rows, caller.project_id, RECENT)
        wanted = (models.c.project_id == caller.project_id) & models.c.deleted_at.is_(None)
        finished = rows.execute(select(func.count()).select_from(models).where(wanted)).scalar_one()
    return render(request, caller, "home.html", samples=SAMPLES, recent=recent, finished=finished)


@home.get("/static/{name}")
def static_file(name: str, v: str = "") -> Response:
    """A file of pages; asked for with its digest it may be kept, since another one would have another address."""
    if name not in STATIC:
        raise not_found("file", name, "name")
    found, digest = static(name)
    kept = {"cache-control": FOR_EVER if v == digest else "no-cache"}
    return Response(found, media_type=f"{STATIC[name]}; charset=utf-8", headers=kept)


async def lost(request: Request, error: HTTPException) -> Response:
    """For an address that there is not: a page for a person, the clients' form for everyone else."""
    path = request.url.path
    is_read = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if not is_read or path.startswith(INTERFACES):
        return of_framework(request, error)
    return error_page(request, ApiError(404, f"There is no page {path}.", code="not_found"))


pages = APIRouter(include_in_schema=False)
for part in (
    home, signing_in.router, new_page.router, job_page.router, models_page.router, data_page.router,
    teachers_page.router, keys_page.router,
):  # fmt: skip
    pages.include_router(part)
