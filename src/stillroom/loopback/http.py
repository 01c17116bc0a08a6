"""HTTP/1.1 as far as a client of the chat interface needs it: kept connections, bodies of known length, one answer at a time.

A protocol of asyncio without a coroutine in it: hundreds of answers a second that all wait are as many timers, and no
thread. What to answer is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MOST_HEAD_BYTES, MOST_BODY_BYTES = 64 << 10, 256 << 20
PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True)
class Request:
    """What came."""

    method: str
    path: str
    """Without its query."""
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes


@dataclass(frozen=True)
class Response:
    """What goes back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"


class Connection(asyncio.Protocol):
    """One client's connection. `answer` gets a request and this connection, and replies at once or later."""

    def __init__(self, answer: Callable[[Request, Connection], None], all_open: set[Connection]) -> None:
        self._answer, self._all = answer, all_open
        self._buffer = bytearray()
        self._busy = False
        self._last = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport
        self._all.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        self._all.discard(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._buffer += data
        self._next()

    @property
    def gone(self) -> bool:
        """The client has hung up."""
        return self._transport is None or bool(self._transport.is_closing())

    def reply(self, response: Response) -> None:
        """Send the answer to the request at hand, and go on to the next."""
        if self.gone:
            return
        lines = [
            f"HTTP/1.1 {response.status} {PHRASES.get(response.status, 'Unknown')}",
            f"content-type: {response.kind}",
            f"content-length: {len(response.body)}",
            *(f"{name}: {value}" for name, value in response.headers.items()),
        ]
        if self._last:
            lines.append("connection: close")
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode() + response.body)
        self._busy = False
        if self._last:
            self.close()
        elif self._buffer:
            self._next()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> None:
        """Answer the next request, once the one before is answered and all of it has come."""
        if self._busy or self.gone:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MOST_HEAD_BYTES:
                self._refuse(431)
            return
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        words = lines[0].split()
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = headers.get("content-length", "0")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._refuse(400)
        elif "transfer-encoding" in headers or not length.isdigit():
            self._refuse(411)
        elif int(length) > MOST_BODY_BYTES:
            self._refuse(413)
        elif len(self._buffer) < end + 4 + int(length):
            if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) == end + 4:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            body = bytes(self._buffer[end + 4 : end + 4 + int(length)])
            del self._buffer[: end + 4 + int(length)]
            self._busy = True
            self._last = headers.get("connection", "").lower() == "close" or words[2] == "HTTP/1.0"
            self._answer(Request(words[0], words[1].partition("?")[0], headers, body), self)

    def _refuse(self, status: int) -> None:
        self._last = True
        self.reply(Response(status, b"{}"))
