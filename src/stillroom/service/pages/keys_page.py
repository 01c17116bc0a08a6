"""The page Keys and usage: who may come in, what was used and saved, and what the project allows."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from pydantic import ValidationError
from sqlalchemy import select

from stillroom.service.door.access import Caller, Reads, revoke_key
from stillroom.service.door.creation_rows import BY_KEY, Once
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.keys import DAY_S, LONGEST_DAYS, NewKey, new_key, set_project
from stillroom.service.pages.job_views import MOST_JOBS
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import SendsKeys
from stillroom.service.pages.typed import said
from stillroom.service.pages.words import SCOPES as SCOPE_WORDS
from stillroom.service.rows.tables import keys, projects
from stillroom.service.students.usage import savings, spent_by_jobs

router = APIRouter(route_class=PageRoute)
PERIODS = {"1": "the last day", "7": "the last week", "30": "the last 30 days", "0": "all time"}
MADE_BEFORE = (
    "This form was sent before, and a key is shown once. If you have not copied it, revoke it below and make another."
)


@router.get("/keys")
def show(request: Request, caller: Reads, days: str = "30", saved: str = "") -> Response:
    """Keys, usage and settings."""
    return _page(request, caller, days=days, told="The settings were kept." if saved else None)


@router.post("/keys")
def make(
    request: Request, caller: SendsKeys, name: Annotated[str, Form()] = "", scope: Annotated[list[str], Form()] = [],  # noqa: B006
    expires_days: Annotated[str, Form()] = "", form_token: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """Make a key, and show it this once. A page that is loaded again sends its form again, and makes no other key for a day."""
    digest = hashlib.sha256(json.dumps([form_token, name, sorted(scope), expires_days]).encode()).hexdigest()
    try:
        days = _days(expires_days, "Days until it expires")
        life = {} if days is None else {"expires_in_s": days * DAY_S}
        wanted = NewKey(name=name.strip(), scopes=scope, **life)
        _, secret = new_key(request.app.state, caller, wanted, Once(f"{BY_KEY}form {digest}", digest, True, False))
    except ValidationError as error:
        return _page(request, caller, 400, wrong=said(error), name=name)
    except ApiError as error:
        return _page(request, caller, error.status, wrong=error.message, name=name)
    if secret is None:
        return _page(request, caller, 409, wrong=MADE_BEFORE, name=name)
    return _page(request, caller, secret=secret)


@router.post("/keys/settings")
def settle(
    request: Request, caller: SendsKeys, trains_on_stored: Annotated[str, Form()] = "",
    retention_days: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """Set what the project allows."""
    try:
        days = _days(retention_days, "Days to keep")
    except ApiError as error:
        return _page(request, caller, error.status, wrong_settings=error.message)
    values = {"trains_on_stored": bool(trains_on_stored), "retention_days": days}
    with request.app.state.database.writing() as rows:
        set_project(rows, caller, caller.project_id, values)
    return go_to("/keys?saved=1#settings")


@router.post("/keys/{key_id}/revoke")
def revoke(request: Request, caller: SendsKeys, key_id: str) -> Response:
    """Refuse a key from now on."""
    if not revoke_key(request.app.state.database, caller.project_id, key_id):
        raise not_found("key", key_id)
    request.app.state.access.forget()
    return go_to("/keys")


def _days(typed: str, what: str) -> int | None:
    """So many days; None where nothing was typed. Raises ApiError 400."""
    text = typed.strip()
    if text and not (text.isdecimal() and len(text) < 9 and 1 <= int(text) <= LONGEST_DAYS):
        raise ApiError(400, f"{what} should be a number from 1 to {LONGEST_DAYS}, or nothing.")
    return int(text) if text else None


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
        by_job = spent_by_jobs(rows, caller.project_id, since)
    sums = {
        name: sum(one[name] for one in used)
        for name in ("calls", "by_student", "usd", "saved_usd", "audited", "agreed")
    }
    paid = {name: sum(one[name] for one in by_job) for name in ("calls", "tokens", "usd")}
    given = {"secret": None, "wrong": None, "wrong_settings": None, "told": None, "name": "", **values}
    return render(
        request, caller, "keys.html", status, keys=known, project=project, used=used, sums=sums, by_job=by_job[:MOST_JOBS],
        paid=paid, days=days, periods=PERIODS, scopes=SCOPE_WORDS, now=time.time(), **given,
    )  # fmt: skip
