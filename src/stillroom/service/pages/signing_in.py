"""Signing in where each request needs a key: the key is sealed into a cookie that no script and no other site can use."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from stillroom.service.door.access import COOKIE, COOKIE_USE
from stillroom.service.door.faults import ApiError
from stillroom.service.pages import tokens
from stillroom.service.pages.rendering import PageRoute, go_to, render

router = APIRouter(route_class=PageRoute)
STAYS_S = 30 * 24 * 3600


@router.get("/sign-in")
def ask(request: Request, next: str = "/") -> Response:
    """Ask for a key."""
    return render(request, tokens.NOBODY, "sign_in.html", next=inside(next), wrong=None)


@router.post("/sign-in")
def sign_in(
    request: Request,
    key: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Look at the key, and remember it in this browser."""
    tokens.check(request, tokens.NOBODY, form_token)
    key = key.strip()
    if not key:
        return render(request, tokens.NOBODY, "sign_in.html", 400, next=inside(next), wrong="Give a key.")
    try:
        request.app.state.access.by_key(key)
    except ApiError as error:
        return render(request, tokens.NOBODY, "sign_in.html", 401, next=inside(next), wrong=error.message)
    found = go_to(inside(next))
    sealed = request.app.state.vault.seal(key.encode(), COOKIE_USE).hex()
    secure = request.url.scheme == "https"
    found.set_cookie(COOKIE, sealed, max_age=STAYS_S, httponly=True, samesite="strict", secure=secure)
    return found


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """Forget the key in this browser. Takes nothing away that another site would want, so it needs no token."""
    found = go_to("/sign-in" if request.app.state.settings.is_open else "/")
    found.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return found


def inside(path: str) -> str:
    """A path of this service; `/` for what would lead elsewhere."""
    parts = urlsplit(path)
    own = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if own and path.isprintable() and "\\" not in path else "/"
