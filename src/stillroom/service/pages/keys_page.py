"""The page Keys and usage: who may come in, what was used and saved, and what the project allows."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from sqlalchemy import select, update

from stillroom.service.door.access import SCOPES, Caller, Reads, make_key, revoke_key
from stillroom.service.door.faults import not_found
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import SendsKeys
from stillroom.service.pages.words import SCOPES as SCOPE_WORDS
from stillroom.service.rows.tables import keys, projects
from stillroom.service.students.usage import savings

router = APIRouter(route_class=PageRoute)
DAY_S = 24 * 3600
LONGEST_DAYS = 3650
PERIODS = {"1": "the last day", "7": "the last week", "30": "the last 30 days", "0": "all time"}


@router.get("/keys")
def show(request: Request, caller: Reads, days: str = "30", saved: str = "") -> Response:
    """Keys, usage and settings."""
    return _page(request, caller, days=days, told="The settings were kept." if saved else None)


@router.post("/keys")
def make(
    request: Request, caller: SendsKeys, name: Annotated[str, Form()] = "", scope: Annotated[list[str], Form()] = [],  # noqa: B006
    expires_days: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """Make a key, and show it this once."""
    days = expires_days.strip()
    scopes = tuple(one for one in SCOPES if one in scope)
    wrong = None
    if not name.strip() or len(name) > 100:
        wrong = "A key needs a name of at most 100 letters: where it will be used."
    elif not scopes:
        wrong = "Choose what the key may do."
    elif not caller.scopes.issuperset(scopes):
        wrong = "A key may do no more than the one that makes it."
    elif days and not (days.isdecimal() and len(days) < 9 and 1 <= int(days) <= LONGEST_DAYS):
        wrong = f"Days until it expires should be a number from 1 to {LONGEST_DAYS}, or nothing."
    if wrong:
        return _page(request, caller, 400, wrong=wrong, name=name)
    expires_at = int(time.time()) + int(days) * DAY_S if days else None
    _, secret = make_key(request.app.state.database, caller.project_id, name.strip(), scopes, expires_at)
    return _page(request, caller, secret=secret)


@router.post("/keys/settings")
def settle(
    request: Request, caller: SendsKeys, trains_on_stored: Annotated[str, Form()] = "",
    retention_days: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """Set what the project allows."""
    days = retention_days.strip()
    if days and not (days.isdecimal() and len(days) < 9 and 1 <= int(days) <= LONGEST_DAYS):
        told = f"Days to keep should be a number from 1 to {LONGEST_DAYS}, or nothing."
        return _page(request, caller, 400, wrong_settings=told)
    values = {"trains_on_stored": bool(trains_on_stored), "retention_days": int(days) if days else None}
    with request.app.state.database.writing() as rows:
        rows.execute(update(projects).where(projects.c.id == caller.project_id).values(**values))
    return go_to("/keys?saved=1#settings")


@router.post("/keys/{key_id}/revoke")
def revoke(request: Request, caller: SendsKeys, key_id: str) -> Response:
    """Refuse a key from now on."""
    if not revoke_key(request.app.state.database, caller.project_id, key_id):
        raise not_found("key", key_id)
    request.app.state.access.forget()
    return go_to("/keys")


def _page(request: Request, caller: Caller, status: int = 200, days: str = "30", **values: Any) -> Response:
    days = days if days in PERIODS else "30"
    since = 0 if days == "0" else int(time.time()) - int(days) * DAY_S
    state = request.app.state
    state.usage.flush()
    with state.database.reading() as rows:
        ours = select(keys).where(keys.c.project_id == caller.project_id).order_by(keys.c.number.desc())
        known = rows.execute(ours).mappings().all() if "admin" in caller.scopes else None
        project = rows.execute(select(projects).where(projects.c.id == caller.project_id)).mappings().one()
        used = savings(rows, caller.project_id, since)
    sums = {
        name: sum(one[name] for one in used)
        for name in ("calls", "by_student", "usd", "saved_usd", "audited", "agreed")
    }
    given = {"secret": None, "wrong": None, "wrong_settings": None, "told": None, "name": "", **values}
    return render(
        request, caller, "keys.html", status, keys=known, project=project, used=used, sums=sums, days=days,
        periods=PERIODS, scopes=SCOPE_WORDS, now=time.time(), **given,
    )  # fmt: skip
