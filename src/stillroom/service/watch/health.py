"""Whether the service lives, whether it can work, and what Prometheus reads."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from stillroom.service.door.access import Administers
from stillroom.service.door.faults import ApiError
from stillroom.service.door.routes import Route
from stillroom.service.settings import Settings
from stillroom.service.watch import heartbeat

LEAST_FREE_MIB = 256
"""Of the disk that holds the root: less, and no job ends well."""
FRESH_S = 1.0
"""How long what was found of the database is told again."""
WRITES_S = 2.0
"""So long may the database be busy with others before it counts as stuck."""
router = APIRouter(route_class=Route, tags=["health"])


class Healthy(BaseModel):
    """The process answers."""

    status: str = "ok"


class Ready(BaseModel):
    """What was looked at, and how it is."""

    status: str = "ready"
    database_ms: float
    free_mib: int
    worker_s: float | None
    """Seconds since the worker's last mark; null where this server starts none."""


@router.get("/healthz", response_model=Healthy)
async def healthz() -> Healthy:
    """The process answers."""
    return Healthy()


@router.get("/readyz", response_model=Ready)
def readyz(request: Request) -> Ready:
    """It can work: a row can be written, the disk has room, and the worker lives. 503 says which of these fails."""
    settings: Settings = request.app.state.settings
    database_ms, wrong = request.app.state.probe.looked()
    free_mib = shutil.disk_usage(settings.root).free >> 20
    worker_s = heartbeat.age_s(settings.root) if settings.workers else None
    if free_mib < LEAST_FREE_MIB:
        wrong.append(f"the disk has {free_mib} MiB left, and {LEAST_FREE_MIB} are the least")
    if settings.workers and worker_s is None:
        wrong.append("the worker has not begun yet")
    elif worker_s is not None and worker_s > heartbeat.DEAD_S:
        wrong.append(f"the worker was last seen {worker_s:.0f} s ago")
    if wrong:
        raise ApiError(503, f"Not ready: {'; '.join(wrong)}.", code="not_ready", headers={"retry-after": "5"})
    return Ready(database_ms=database_ms, free_mib=free_mib, worker_s=None if worker_s is None else round(worker_s, 1))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request, caller: Administers) -> Response:
    """What Prometheus reads: sums over all projects, so a key needs the scope `admin`."""
    return Response(request.app.state.meter.page(), media_type=CONTENT_TYPE_LATEST)


class Probe:
    """Whether rows can be written, looked at once a second at most: everybody may ask, and each look costs a flush."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._last: tuple[float, float, list[str]] | None = None

    def looked(self) -> tuple[float, list[str]]:
        """Milliseconds that one durable write took, and what went wrong."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
                found = _write(self._path)
                self._last = (time.monotonic(), *found)
            return self._last[1], [*self._last[2]]


def _write(path: Path) -> tuple[float, list[str]]:
    """Milliseconds that one durable write took, and what went wrong. It changes a number that nothing else uses."""
    started = time.perf_counter()
    try:
        rows = sqlite3.connect(path, timeout=WRITES_S, isolation_level=None)
        try:
            rows.execute("PRAGMA wal_autocheckpoint=0")  # its time would be measured too
            rows.execute(f"PRAGMA user_version = {int(time.time()) % (1 << 31)}")
        finally:
            rows.close()
    except sqlite3.Error as error:
        return 0.0, [f"the database cannot be written to ({error})"]
    return round(1000 * (time.perf_counter() - started), 2), []
