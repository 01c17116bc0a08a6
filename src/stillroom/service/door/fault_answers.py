"""Every error as it goes out, also those of the framework: in the clients' form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from stillroom.errors import StillroomError
from stillroom.service.door.faults import ApiError, envelope, of

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CODES = {404: "not_found", 405: "method_not_allowed"}


def invalid(found: Mapping[str, Any]) -> ApiError:
    """One of pydantic's findings as an error of the interface."""
    place = [str(part) for part in found["loc"] if part not in ("body", "query", "path", "header")]
    message = str(found["msg"]).removeprefix("Value error, ")
    told = f"{'.'.join(place)}: {message}" if place else message
    return ApiError(400, told, param=".".join(place) or "body", code=str(found["type"]))


def not_json() -> ApiError:
    """Of a body that is not said to be JSON."""
    told = "The body is read as JSON where the header Content-Type: application/json says that it is."
    return ApiError(400, told, param="body", code="not_json")


def response(error: ApiError) -> JSONResponse:
    """An error as it goes out."""
    return JSONResponse(
        envelope(error.status, error.message, error.param, error.code), error.status, dict(error.headers)
    )


def of_framework(request: Request, error: HTTPException, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The framework's own error in the clients' form."""
    told = f"{request.method} {request.url.path}: {error.detail}"
    return response(ApiError(error.status_code, told, code=CODES.get(error.status_code), headers=headers))


def install(app: FastAPI) -> None:
    """Answer every error of an app in the clients' form."""

    @app.exception_handler(ApiError)
    async def ours(request: Request, error: ApiError) -> JSONResponse:
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def unread(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()[0]
        if tuple(found["loc"]) == ("body",) and "json" not in request.headers.get("content-type", ""):
            return response(not_json())
        return response(invalid(found))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        headers = {"allow": _methods(request)} if error.status_code == 405 else error.headers
        return of_framework(request, error, headers)

    @app.exception_handler(StillroomError)
    async def told(request: Request, error: StillroomError) -> JSONResponse:
        return response(of(error))


def _methods(request: Request) -> str:
    """What may be done with an address; the framework names the first route's methods alone."""
    tried = ((method, {**request.scope, "method": method}) for method in METHODS)
    routes = request.app.routes
    return ", ".join(name for name, scope in tried if any(one.matches(scope)[0] == Match.FULL for one in routes))
