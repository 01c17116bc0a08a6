"""What every request passes before anything is read of it: its host, its size, its rate; and what every answer carries.

Plain ASGI, so that a body is counted while it comes and no answer is held back. JSON is read here once, strictly, before
the framework reads it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from stillroom.service import bodies
from stillroom.service.access import counted_as
from stillroom.service.faults import ApiError, response
from stillroom.service.ids import chance, is_id
from stillroom.service.logs import log, log_error
from stillroom.service.logs import request_id as request_id_here
from stillroom.service.metrics import Meter
from stillroom.service.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

FILE_ROUTES = ("/v1/files", "/v1/uploads/", "/data")
"""Where a body may be as large as a file is."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
ALWAYS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with `no-referrer` a form of our own pages would hide its origin
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}
ONCE = ("host", "origin", "authorization", "content-type", "content-encoding", "content-length")
"""Headers that mean something only where they are said once: of two, another reader could believe the other one."""
MINUTE_S = 60.0
MOST_BUCKETS = 100_000


class Buckets:
    """Requests a minute, for each key: a bucket that fills again evenly."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._left: dict[bytes, tuple[float, float]] = {}

    def take(self, who: bytes) -> tuple[bool, int, float]:
        """Whether one more is let in, how many are left, and seconds until all are there again."""
        now, rate = time.monotonic(), self.per_minute / MINUTE_S
        left, at = self._left.pop(who, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - at) * rate)
        allowed = left >= 1
        left -= allowed
        if len(self._left) >= MOST_BUCKETS:
            del self._left[next(iter(self._left))]  # whoever has asked for nothing for the longest time
        self._left[who] = (left, now)
        return allowed, int(left), (self.per_minute - left) / rate


class Wall:
    """Around the whole app."""

    def __init__(self, app: App, settings: Settings, meter: Meter) -> None:
        self._app, self._settings, self._meter = app, settings, meter
        self._buckets = Buckets(settings.limits.requests_per_minute)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        headers = request.headers
        request_id, started = f"req_{chance()}", time.perf_counter()
        scope.setdefault("state", {})["request_id"] = request_id
        request_id_here.set(request_id)
        allowed, left, until_s = self._buckets.take(hashlib.sha256(counted_as(request).encode()).digest())
        more = {
            "x-request-id": request_id,
            "x-ratelimit-limit-requests": str(self._settings.limits.requests_per_minute),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{until_s:.3f}s",
        }
        status, begun = 500, False

        async def told(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                there = {name.lower() for name, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in {**ALWAYS, **more}.items() if k.encode() not in there]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            if not allowed:
                raise ApiError(429, "Too many requests a minute with this key.", code="rate_limit_exceeded",
                               headers={"retry-after": "1"})  # fmt: skip
            _refuse_doubled(scope["headers"])
            self._look_at(headers)
            await self._app(scope, await self._bounded(scope, headers, receive), told)
        except ApiError as error:
            await response(error)(scope, receive, told)
        except Exception as error:
            log_error("fault", error, **_job_of(scope))
            if begun:
                raise
            fault = ApiError(500, f"A fault of the service; its log tells more under {request_id}.")
            await response(fault)(scope, receive, told)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Count a request, and write its line of the log."""
        route, method = getattr(scope.get("route"), "path", "unknown"), scope["method"]
        self._meter.request(route, method, status, seconds)
        log("request", method=method, route=route, status=status, ms=round(1000 * seconds, 2), **_job_of(scope))

    def _look_at(self, headers: Mapping[str, str]) -> None:
        """Raise ApiError for a host that is none of ours, another site's page, or a body that would have to be unpacked."""
        host = headers.get("host", "").lower()
        if _name(host) not in self._settings.names:
            raise ApiError(421, "This service does not go by the name in the Host header.", param="host")
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin.lower(), host):
            raise ApiError(403, "Pages of other sites may not use this service.", param="origin")
        if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise ApiError(415, "Send the body as it is, not compressed.", param="content-encoding")

    def _is_own(self, origin: str, host: str) -> bool:
        """True for a page of this very address, or of a name that the operator allows. `null` is a page that hides its site."""
        try:
            place = urlsplit(origin).netloc
        except ValueError:
            return False
        return bool(place) and (place == host or _name(place) in map(str.lower, self._settings.allowed_hosts))

    async def _bounded(self, scope: MutableMapping[str, Any], headers: Mapping[str, str], receive: Receive) -> Receive:
        """What the app reads from: no more than its route may take; JSON is read to its end and looked at."""
        limits = self._settings.limits
        is_file = scope["path"].startswith(FILE_ROUTES) and "multipart" in headers.get("content-type", "").lower()
        most = limits.file_bytes + (1 << 20) if is_file else limits.body_bytes
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        if "json" in headers.get("content-type", "").lower():
            return await _read_json(receive, most, limits.json_depth)
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > most:
                raise _too_large(most)
            return message

        return counted


def _refuse_doubled(pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ApiError 400 where one of `ONCE` is said more than once."""
    names = [name.lower().decode("latin-1") for name, _ in pairs]
    for name in ONCE:
        if names.count(name) > 1:
            raise ApiError(
                400, f"The header {name} comes more than once; send it once.", param=name, code="invalid_value"
            )


def _job_of(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """The id of the job that a request is about."""
    found = scope.get("path_params", {}).get("job_id")
    return {"job_id": found} if isinstance(found, str) and is_id(found, "ftjob") else {}


def _name(host: str) -> str:
    """A Host header without its port, in small letters."""
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdigit() else host.lower()


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is larger than {most:,} bytes.", param="body", code="request_too_large")


async def _read_json(receive: Receive, most: int, deepest: int) -> Receive:
    """Read a JSON body, look at it, and give it again. Raises ApiError 400 or 413."""
    pieces, size, going = [], 0, True
    while going:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > most:
            raise _too_large(most)
        going = message.get("more_body", False)
    data = b"".join(pieces)
    if data:
        try:
            bodies.read(data, deepest)
        except bodies.BadJson as error:
            raise ApiError(400, f"The body cannot be read: {error}.", param="body", code="invalid_json") from error
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": data, "more_body": False}

    return again
