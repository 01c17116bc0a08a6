"""Errors as the official clients read them: {"error": {"message", "type", "param", "code"}}, and when to try again.

The clients try 408, 409, 429 and 5xx again by themselves; a conflict that would come again says that it is of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillroom.errors import RunBusy, StillroomError

KINDS = {401: "authentication_error", 403: "permission_error", 404: "invalid_request_error", 429: "rate_limit_error"}
NO_USE = {"x-should-retry": "false"}


class ApiError(Exception):
    """An answer that is an error. `param`: the field it is about, as a path like messages.0.role."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        again = NO_USE if status == 409 else {}
        self.headers = {**again, **(headers or {})}


def envelope(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def not_found(what: str, name: str, param: str | None = None) -> ApiError:
    """The same for what never was, what is gone, and what is another project's."""
    return ApiError(
        404, f"No such {what}: '{name[:200]}'", param=param or "id", code=f"{what.replace(' ', '_')}_not_found"
    )


def of(error: StillroomError, param: str | None = None) -> ApiError:
    """An error of the program as one of the interface: what is wrong with what was sent is a 400, the rest a 500."""
    where = param or error.where or None
    if isinstance(error, RunBusy):
        return ApiError(409, str(error), param=where, code="busy")
    status = 400 if error.exit_status == 2 else 500
    return ApiError(status, str(error), param=where, code=type(error).__name__)
