"""Pages out of templates: everything escaped, nothing inline, and errors as pages that say what to do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stillroom.errors import StillroomError
from stillroom.service.door import faults
from stillroom.service.door.access import COOKIE, Caller
from stillroom.service.door.faults import ApiError
from stillroom.service.pages import tokens, words

HERE = Path(__file__).parent
MENU = (
    ("/", "Home"), ("/new", "New distillation"), ("/jobs", "Jobs"), ("/models", "Models"), ("/compare", "Compare"),
    ("/data", "Data"), ("/teachers", "Teachers"), ("/keys", "Keys and usage"),
)  # fmt: skip
TITLES = {401: "Sign in", 403: "Not allowed", 404: "Not found", 409: "Not as things stand", 413: "Too large"}
HEADERS = {"cache-control": "no-store", "referrer-policy": "same-origin"}
"""With `no-referrer` a browser would send forms with the Origin `null`, as another site's hidden frame does."""


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        auto_reload=False,
    )  # fmt: skip
    found.filters.update(words.FILTERS)
    found.globals.update(menu=MENU, states=words.STATES, over=words.OVER, roles=words.ROLES, stamp=stamp)
    return found


@cache
def static(name: str) -> tuple[bytes, str]:
    """A file that pages ask for, and a short digest of it. Only names that the folder lists are read."""
    found = (HERE / "static" / name).read_bytes()
    return found, hashlib.sha256(found).hexdigest()[:12]


def stamp(name: str) -> str:
    """The address of a static file, which changes when the file does."""
    return f"/static/{name}?v={static(name)[1]}"


environment = _environment()


def warm() -> None:
    """Make every template ready, so that the first who asks for a page does not wait for it."""
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)


def render(request: Request, caller: Caller, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template's page for this caller."""
    found = environment.get_template(template).render(
        path=request.url.path, caller=caller, form_token=tokens.token(request.app.state.vault, caller),
        signed_in=COOKIE in request.cookies, **values,
    )  # fmt: skip
    return HTMLResponse(found, status, HEADERS)


def go_to(path: str) -> RedirectResponse:
    """After a form, another page: loading that one anew sends nothing twice."""
    return RedirectResponse(path, 303, HEADERS)


def error_page(request: Request, error: ApiError) -> Response:
    """An error for a person; who is not signed in is asked to do so, and then brought back."""
    if error.status == 401 and request.method == "GET":
        return go_to(f"/sign-in?next={quote(request.url.path, safe='/')}")
    title = TITLES.get(error.status, "Something is wrong")
    page = render(request, tokens.NOBODY, "error.html", error.status, title=title, error=error)
    page.headers.update({name: value for name, value in error.headers.items() if name != "content-type"})
    return page


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        inner = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await inner(request)
            except ApiError as error:
                return error_page(request, error)
            except RequestValidationError as error:
                first = error.errors()[0]
                return error_page(request, ApiError(400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"))
            except StillroomError as error:
                return error_page(request, faults.of(error))

        return shown
