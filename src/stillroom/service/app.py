"""The app: its parts are made, its routes are hung in, its wall goes around. Nothing is answered here.

A request goes through `door`, is given a project there, and is answered by the file of its noun:

    app  serving  settings  native    put together and started; what has no shape in OpenAI's interface
    door/        what every request passes: sizes, hosts, keys; a route found, called and answered
    data/        what people bring, and may take away: files, stored completions, where they came from, how long they stay
    jobs/        a job as its client sees it: created once, its object, its events as they happen
    recipes/     from a request to a recipe: sources, references, drafts, checks, estimates
    work/        the processes of jobs and exports, and who watches them; what a finished run becomes
    students/    students at work: models, chat, batches, exports, what was used
    teachers/    teachers, what is handed on to them, and the one way out
    rows/        what is kept: SQLite, one file, its tables and migrations
    watch/       how it is: logs, figures, signs of life
    pages/       what a browser is shown
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from stillroom.service import native
from stillroom.service.data import completions, files, lineage, uploads
from stillroom.service.door import fault_answers, keys
from stillroom.service.door.access import Access
from stillroom.service.door.routes import Directory, Route
from stillroom.service.door.schemas import ERRORS
from stillroom.service.door.vault import Vault
from stillroom.service.door.wall import Wall
from stillroom.service.jobs import events, jobs, streams
from stillroom.service.pages import rendering
from stillroom.service.pages.routes import lost, pages
from stillroom.service.rows.database import Database
from stillroom.service.settings import Settings
from stillroom.service.students import chat, models
from stillroom.service.students.exports import Exports
from stillroom.service.students.shelf import Shelf
from stillroom.service.students.usage import Usage
from stillroom.service.teachers import teachers
from stillroom.service.teachers.outward import Outward
from stillroom.service.watch import health
from stillroom.service.watch.metrics import Meter

ROUTERS = (
    files.router, jobs.router, events.router, streams.router, models.router, chat.router, completions.router, teachers.router,
    lineage.router, keys.router, native.router, health.router, uploads.router,
)  # fmt: skip
TOLD = (
    """Distillation as a service, in the shapes of OpenAI's interface where it has one. Not affiliated with OpenAI."""
)


def create_app(settings: Settings) -> FastAPI:
    """The app for these settings; its database is upgraded. Raises StillroomError for what cannot be served."""
    database = Database(settings.root)
    database.upgrade()
    meter = Meter(database)
    app = Service(
        title="Stillroom", version=version("stillroom"), description=TOLD, lifespan=_lifespan, responses=ERRORS,
        docs_url=None, redoc_url=None, openapi_url="/api/openapi.json", redirect_slashes=False,
    )  # fmt: skip
    app.state.settings, app.state.database, app.state.meter = settings, database, meter
    app.state.vault = Vault(settings.root)
    app.state.access = Access(database, settings.is_open)
    app.state.shelf, app.state.exports = Shelf(settings), Exports(settings)
    app.state.outward, app.state.usage = Outward(settings), Usage(database)
    app.state.ending = threading.Event()
    app.state.probe = health.Probe(database.path)
    app.state.pulse = streams.Pulse(database, app.state.ending)
    fault_answers.install(app)
    app.exception_handler(404)(lost)
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(pages)
    return app


class Service(FastAPI):
    """Its document leaves out the framework's own error, which no route answers with.

    The wall is around all else; next to it our own routes are found, and only what they are not goes on to the framework.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """See Starlette."""
        ours = [route for router in ROUTERS for route in router.routes if isinstance(route, Route)]
        inside = Directory(ours, super().build_middleware_stack())
        return Wall(inside, self.state.settings, self.state.meter)

    def openapi(self) -> dict[str, Any]:
        """See FastAPI."""
        found = super().openapi()
        for methods in found["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        return found


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """From the first request to the last."""
    threading.Thread(target=rendering.warm, daemon=True).start()
    try:
        yield {}
    finally:
        app.state.ending.set()
        app.state.shelf.close()
        app.state.outward.close()
        app.state.usage.flush()
        app.state.database.close()
