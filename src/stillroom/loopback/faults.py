"""What goes wrong on the way to an answer, and how it looks to the one who asked."""

from __future__ import annotations

import json
import math
from typing import Any

from stillroom.loopback.chat import Refusal, as_json
from stillroom.loopback.http import Response
from stillroom.loopback.minds import dice
from stillroom.loopback.spec import SHARES, Faults

PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><h1>Sign in to this network</h1></body></html>\n"
)
BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
SILENT = ("hang", "drop")
"""Faults without an answer."""
SPOILED = ("cut_json", "empty", "other_model")
"""Faults of an answer that was made and is charged."""


def fault_of(faults: Faults, digest: bytes, before: int) -> str | None:
    """Which fault befalls a request that came so often before, if any."""
    chance = dice(faults.seed, digest.hex(), before).random()
    for name in SHARES:
        chance -= getattr(faults, name)
        if chance < 0:
            return name
    return None


def refused(faults: Faults, name: str, digest: bytes, before: int) -> Response:
    """The response to a request that gets no answer."""
    if name == "too_many":
        return too_many("Rate limit reached for requests. Please try again later.", faults.retry_after_s).response()
    if name == "server_error":
        status = dice(faults.seed, "which", digest.hex(), before).choice((500, 502, 503))
        if status == 502:
            return Response(502, BAD_GATEWAY, kind="text/html")
        return Refusal(status, "The server had an error while processing your request.", "server_error").response()
    if name == "html":
        return Response(200, PAGE, kind="text/html; charset=utf-8")
    if name == "redirect":
        return Response(307, b"", {"location": faults.redirect_to})
    assert name == "error_in_200", name
    return as_json(
        {"error": {"message": "The upstream model failed.", "type": "server_error", "code": "upstream_error"}}
    )


def spoiled(name: str, body: dict[str, Any]) -> Response:
    """An answer that is of no use."""
    if name == "empty":
        return as_json({**body, "choices": []})
    if name == "other_model":
        return as_json({**body, "model": f"{body['model']}-mini"})
    whole = json.dumps(body, ensure_ascii=False).encode()
    return Response(200, whole[: len(whole) // 2])


def too_many(message: str, wait_s: float | None, code: str = "rate_limit_exceeded") -> Refusal:
    """429, with how long to wait in whole seconds and in milliseconds."""
    told = {}
    if wait_s is not None:
        told = {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
    return Refusal(429, message, "requests", code, headers=told)
