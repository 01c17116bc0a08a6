"""What every request passes before anything is read of it: its host, its size, its rate; and what every answer carries.

Plain ASGI, so that a body is counted while it comes and no answer is held back. None is read here: that is for who may ask.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, HTTPConnection

from stillroom.errors import StillroomError
from stillroom.service.door.access import counted_as
from stillroom.service.door.fault_answers import response
from stillroom.service.door.faults import ApiError, of
from stillroom.service.door.routes import App, Message, Receive, Scope, Send
from stillroom.service.rows.ids import chance, is_id
from stillroom.service.settings import Settings
from stillroom.service.watch.logs import log, log_error
from stillroom.service.watch.logs import request_id as request_id_here
from stillroom.service.watch.metrics import Meter

Said = dict[bytes, str]

FILE_ROUTES = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts|/data")
"""Where a body may be as large as a file is: it goes to disk while it comes, and is nowhere whole in memory."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
ALWAYS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with `no-referrer` a form of our own pages would hide its origin
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
ONCE = frozenset({b"host", b"origin", b"authorization", b"content-type", b"content-encoding", b"content-length"})
"""Headers that mean something only where they are said once: of two, another reader could believe the other one."""
PORTS = {"http": ":80", "https": ":443"}
"""What an address may leave out."""
MINUTE_S = 60.0
MOST_BUCKETS = 100_000


class Buckets:
    """Requests a minute, for each key: a bucket that fills again evenly."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._left: dict[bytes, tuple[float, float]] = {}

    def take(self, who: bytes) -> tuple[float, int, float]:
        """Seconds until one more is let in (0: it is now), how many are left, and seconds until all are there again."""
        now, rate = time.monotonic(), self.per_minute / MINUTE_S
        left, at = self._left.pop(who, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - at) * rate)
        allowed = left >= 1
        left -= allowed
        if len(self._left) >= MOST_BUCKETS:
            del self._left[next(iter(self._left))]  # whoever has asked for nothing for the longest time
        self._left[who] = (left, now)
        return (0.0 if allowed else (1 - left) / rate), int(left), (self.per_minute - left) / rate


class Wall:
    """Around the whole app."""

    def __init__(self, app: App, settings: Settings, meter: Meter) -> None:
        self._app, self._settings, self._meter = app, settings, meter
        self._buckets = Buckets(settings.limits.requests_per_minute)
        self._names = frozenset(settings.names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, started = f"req_{chance()}", time.perf_counter()
        scope.setdefault("state", {})["request_id"] = request_id
        request_id_here.set(request_id)
        who = counted_as(HTTPConnection(scope))
        wait_s, left, until_s = self._buckets.take(hashlib.sha256(who.encode()).digest())
        more = (
            *ALWAYS,
            (b"x-request-id", request_id.encode()),
            (b"x-ratelimit-limit-requests", b"%d" % self._buckets.per_minute),
            (b"x-ratelimit-remaining-requests", b"%d" % left),
            (b"x-ratelimit-reset-requests", b"%.3fs" % until_s),
        )
        status, begun = 500, False

        async def told(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in there)]
            await send(message)

        try:
            if wait_s:
                raise ApiError(429, "Too many requests a minute with this key.", code="rate_limit_exceeded",
                               headers={"retry-after": str(math.ceil(wait_s))})  # fmt: skip
            said = _said(scope["headers"])
            self._look_at(said)
            await self._app(scope, self._bounded(scope, said, receive), told)
        except ClientDisconnect:
            if begun:
                raise
            await response(ApiError(400, "The body was cut short.", code="incomplete_body"))(scope, receive, told)
        except (ApiError, StillroomError) as error:
            if begun:
                raise
            await response(error if isinstance(error, ApiError) else of(error))(scope, receive, told)
        except Exception as error:
            log_error("fault", error, **_job_of(scope))
            if begun:
                raise
            fault = ApiError(500, f"A fault of the service; its log tells more under {request_id}.")
            await response(fault)(scope, receive, told)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request, and write its line of the log."""
        route, method = getattr(scope.get("route"), "path", "unknown"), scope["method"]
        self._meter.request(route, method, status, seconds)
        log("request", method=method, route=route, status=status, ms=round(1000 * seconds, 2), **_job_of(scope))

    def _look_at(self, said: Said) -> None:
        """Raise ApiError for a host that is none of ours, another site's page, or a body that would have to be unpacked."""
        host = said.get(b"host", "").lower()
        if _name(host) not in self._names:
            raise ApiError(421, "This service does not go by the name in the Host header.", param="host")
        origin = said.get(b"origin")
        if origin is not None and not _is_own(origin.lower(), host):
            raise ApiError(403, "Pages of other sites may not use this service.", param="origin")
        if said.get(b"content-encoding", "identity").lower() not in ("", "identity"):
            raise ApiError(415, "Send the body as it is, not compressed.", param="content-encoding")

    def _bounded(self, scope: Scope, said: Said, receive: Receive) -> Receive:
        """What the app reads from: no more than its route may take."""
        limits, kind = self._settings.limits, said.get(b"content-type", "").lower()
        is_sent = scope["method"] == "POST" and FILE_ROUTES.fullmatch(scope["path"]) is not None
        is_file = is_sent and kind.startswith("multipart/form-data")
        most = limits.file_bytes + (1 << 20) if is_file else limits.body_bytes
        length = said.get(b"content-length", "0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > most:
                raise _too_large(most)
            return message

        return counted


def _said(pairs: Iterable[tuple[bytes, bytes]]) -> Said:
    """The headers of `ONCE`. Raises ApiError 400 where one of them is said more than once."""
    found: Said = {}
    for given, value in pairs:
        name = given.lower()
        if name in found:
            told = f"The header {name.decode()} comes more than once; send it once."
            raise ApiError(400, told, param=name.decode(), code="invalid_value")
        if name in ONCE:
            found[name] = value.decode("latin-1")
    return found


def _is_own(origin: str, host: str) -> bool:
    """True for a page of the very host and port that were asked, with TLS before them or without: another port is another's,
    though a cookie is sent to all. `null` is a page that hides its site.
    """
    try:
        place = urlsplit(origin)
    except ValueError:
        return False
    usual = PORTS.get(place.scheme)
    return usual is not None and bool(place.netloc) and place.netloc.removesuffix(usual) == host.removesuffix(usual)


def _job_of(scope: Scope) -> dict[str, str]:
    """The id of the job that a request is about."""
    found = scope.get("path_params", {}).get("job_id")
    return {"job_id": found} if isinstance(found, str) and is_id(found, "ftjob") else {}


def _name(host: str) -> str:
    """A Host header without its port, in small letters."""
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdigit() else host.lower()


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is larger than {most:,} bytes.", param="body", code="request_too_large")
