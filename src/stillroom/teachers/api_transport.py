"""HTTP/1.1 under the official client, for an endpoint that is asked thousands of times: half the processor time of its own.

A connection to each thread that asks, kept open between requests; a time and a size that no response goes beyond, however
slowly it drips in. A response is parsed by the standard library; TLS is checked as the client's own transport does.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections import deque
from typing import Any

import httpx2

from stillroom.teachers import handed, idle

MOST_BYTES = 1 << 30
"""Of a response."""
PIECE_BYTES = 1 << 16
FRESH_S = 30.0
"""A connection that was not used for longer may be half closed, and is not used again."""
BROKEN = (OSError, http.client.HTTPException)


class Transport(httpx2.BaseTransport):
    """Sends requests to the host they name, without a proxy; many threads may use one."""

    def __init__(self) -> None:
        self._idle: deque[tuple[tuple[str, str, int], socket.socket, float]] = deque()
        self._tls: Any = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2. Raises ConnectError, ConnectTimeout, ReadTimeout or ReadError."""
        body = request.read()
        limit_s = request.extensions.get("timeout", {}).get("read")
        until_s = float("inf") if limit_s is None else time.monotonic() + limit_s
        at = (request.url.scheme, request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80))
        sock = self._kept(at) or self._connected(at, until_s, request)
        try:
            sock.settimeout(_left_s(until_s))
            sock.sendall(_head(request) + body)
            response = http.client.HTTPResponse(sock, method=request.method)
            response.begin()
            read = _body(response, sock, until_s)
        except BROKEN as error:
            sock.close()
            late = isinstance(error, TimeoutError)
            raise (httpx2.ReadTimeout if late else httpx2.ReadError)(
                str(error) or "cut off", request=request
            ) from error
        except BaseException:
            sock.close()
            raise
        if response.will_close:
            sock.close()
        else:
            self._idle.append((at, sock, time.monotonic()))
        return httpx2.Response(response.status, headers=response.getheaders(), content=read, request=request)

    def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop()[1].close()

    def _kept(self, at: tuple[str, str, int]) -> socket.socket | None:
        """An open connection; the last one used is the first one used again."""
        while True:
            try:
                to, sock, since_s = self._idle.pop()
            except IndexError:
                return None
            if to == at and time.monotonic() - since_s < FRESH_S and not idle.has_ended(sock):
                return sock
            sock.close()

    def _connected(self, at: tuple[str, str, int], until_s: float, request: httpx2.Request) -> socket.socket:
        scheme, host, port = at
        try:
            sock = socket.create_connection((handed.address(host, port), port), _left_s(until_s))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                self._tls = self._tls or httpx2.create_ssl_context()
                return self._tls.wrap_socket(sock, server_hostname=host)  # type: ignore[no-any-return]
            return sock
        except OSError as error:
            late = isinstance(error, TimeoutError)
            raise (httpx2.ConnectTimeout if late else httpx2.ConnectError)(str(error), request=request) from error


def _head(request: httpx2.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % pair for pair in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _body(response: http.client.HTTPResponse, sock: socket.socket, until_s: float) -> bytes:
    """All of a response's body. Raises TimeoutError where it comes too slowly, HTTPException where it is cut or endless."""
    pieces, size = [], 0
    while piece := response.read1(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MOST_BYTES >> 20} MiB")
        if response.length != 0:
            sock.settimeout(_left_s(until_s))
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    response.close()
    return b"".join(pieces)


def _left_s(until_s: float) -> float | None:
    """Seconds that are left. Raises TimeoutError where none are; None: there is no limit."""
    if until_s == float("inf"):
        return None
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the answer comes too slowly")
    return left_s
