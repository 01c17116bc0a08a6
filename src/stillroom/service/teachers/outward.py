"""The way out: which addresses this service connects to for somebody, and the connection itself.

An address is resolved once for each use. All that it resolves to must be public, and that very address is connected to,
under the name that was given: so no answer of a name server that comes later, no redirect, no proxy and no other way of
writing an address leads into the network that the service stands in. What the operator names with --allow-teacher
host:port may be private, and without TLS.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from stillroom.errors import RecipeError
from stillroom.service.door.faults import ApiError
from stillroom.service.settings import Settings
from stillroom.teachers.addresses import checked_url
from stillroom.teachers.idle import has_ended

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], list[str]]
"""Host and port -> addresses."""

PORTS = {"http": 80, "https": 443}
NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
"""A host whose last part is one of these is an address in some way of writing, whatever a resolver makes of it."""
WITHIN_V6 = tuple(
    ipaddress.ip_network(one)
    for one in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23",
                "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8")
)  # fmt: skip
"""Addresses that carry another address inside, or belong to nobody's public network."""
NOT_PUBLIC_V4 = tuple(
    ipaddress.ip_network(one)
    for one in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
                "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4")
)  # fmt: skip
CONNECT_S, ANSWER_S, STREAM_S = 10.0, 600.0, 120.0
"""To connect; for a whole answer; between two pieces of a stream."""
MOST_BYTES = 64 << 20
"""Of an answer."""
PIECE_BYTES = 1 << 16
FRESH_S, MOST_IDLE = 30.0, 64
BROKEN = (OSError, http.client.HTTPException)
UNKNOWN = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
"""What a resolver says of a name that there is not; all else it says may be over in a minute."""
AGAIN_S = 30
"""When to ask for such a name again."""


class Pinned(NamedTuple):
    """Where to connect to: a name, and the one address it stands for now."""

    scheme: str
    host: str
    port: int
    ip: str

    @property
    def origin(self) -> str:
        """`host:port`, an IPv6 address without brackets."""
        return f"{self.host}:{self.port}"


class Refused(ApiError):
    """An address that this service does not connect to."""

    def __init__(self, why: str) -> None:
        super().__init__(
            400, f"This address cannot be a teacher's: {why}.", param="base_url", code="address_not_allowed"
        )


class NotResolved(ApiError):
    """A name that nobody could look up just now; another time it may be known."""

    def __init__(self, host: str) -> None:
        super().__init__(
            503, f"The name {host} cannot be looked up just now.", param="base_url", code="name_not_resolved",
            headers={"retry-after": str(AGAIN_S)},
        )  # fmt: skip


def resolved(host: str, port: int) -> list[str]:
    """What the system's resolver gives. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def pinned(base_url: str, settings: Settings, resolve: Resolve = resolved) -> Pinned:
    """The one address a teacher's URL stands for now.

    Raises Refused (ApiError 400) for one that is not allowed, NotResolved (503) where no name server answers.
    """
    scheme, host, port = split(base_url)
    origin = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    allowed = origin in {one.lower() for one in settings.local_teachers}
    literal = _literal(host)
    if not allowed and (scheme != "https" or port != PORTS["https"]):
        raise Refused(
            "it has to be https on port 443; others have to be named by whoever runs this service, with "
            f"--allow-teacher {origin}"
        )
    try:
        found = [str(literal)] if literal is not None else resolve(host, port)
    except (OSError, UnicodeError) as error:
        if isinstance(error, UnicodeError) or getattr(error, "errno", None) in UNKNOWN:
            raise Refused(f"the name {host} is not known here") from error
        raise NotResolved(host) from error
    if not found:
        raise Refused(f"the name {host} has no address")
    found.sort(key=lambda one: ":" in one)  # an IPv4 address first: it is reached from everywhere
    addresses = [_literal(one.partition("%")[0]) for one in found]
    for address in addresses:
        if address is None or not (_may_be_named(address, literal) if allowed else is_public(address)):
            raise Refused(
                f"{host} is not a public address; whoever runs this service can name it with --allow-teacher {origin}"
            )
    return Pinned(scheme, host, port, str(addresses[0]))


def split(base_url: str) -> tuple[str, str, int]:
    """Scheme, host in small letters (no brackets) and port. Raises Refused for what is no plain address."""
    try:
        parts = urlsplit(checked_url(base_url))
        port = parts.port or PORTS[parts.scheme]
    except RecipeError as error:
        raise Refused(f"{error.what}. {error.cure}".rstrip(".")) from error
    host = (parts.hostname or "").lower()
    authority = parts.netloc.rpartition("@")[2]
    if not base_url.isascii() or "\\" in base_url or "%" in authority or "@" in parts.netloc:
        raise Refused("its host should be plain letters, digits, points and dashes")
    if _literal(host) is not None:
        if (":" in host) != authority.startswith("["):
            raise Refused("an IPv6 address stands in brackets, and nothing else does")
        return parts.scheme, host, port
    if authority.startswith("[") or not NAME.fullmatch(host) or NUMBER.fullmatch(host.rpartition(".")[2]):
        raise Refused("its host should be a name, or an address written in full: four numbers, or IPv6 in brackets")
    return parts.scheme, host, port


def is_public(address: Address) -> bool:
    """In nobody's own network, of no other use, and with no other address inside."""
    if isinstance(address, ipaddress.IPv4Address):
        outside = not any(address in one for one in NOT_PUBLIC_V4)
    else:
        outside = not any(address in one for one in WITHIN_V6) and (int(address) >> 32) & 0xFDFFFFFF != 0x5EFE
    return outside and address.is_global and not address.is_multicast


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _may_be_named(address: Address, literal: Address | None) -> bool:
    """The operator named its host: private is well, but a name must not lead to where machines keep their own secrets."""
    if address.is_multicast or address.is_unspecified:
        return False
    return address == literal or not (address.is_link_local or getattr(address, "ipv4_mapped", None) is not None)


@dataclass
class Answered:
    """What came back: all of it, or a stream that is read by lines. Close it."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    _response: http.client.HTTPResponse
    _done: Callable[[bool], None]
    _is_over: bool = False

    def read(self) -> bytes:
        """The whole body. Raises OSError or HTTPException where it is cut, too large, or comes too slowly."""
        pieces, size, until_s, whole = [], 0, time.monotonic() + ANSWER_S, False
        try:
            while piece := self._response.read1(PIECE_BYTES):
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES or time.monotonic() > until_s:
                    raise http.client.HTTPException("an answer that is too large, or too slow")
            if self._response.length:
                raise http.client.IncompleteRead(b"", self._response.length)
            whole = True
        finally:
            self._over(whole)
        return b"".join(pieces)

    def lines(self) -> Iterator[bytes]:
        """One line after another, as they come. Raises as `read` does."""
        size, whole = 0, False
        try:
            while line := self._response.readline(PIECE_BYTES + 1):
                size += len(line)
                if size > MOST_BYTES or len(line) > PIECE_BYTES:
                    raise http.client.HTTPException("a stream that is too large")
                yield line.rstrip(b"\r\n")
            whole = True
        finally:
            self._over(whole)

    def close(self) -> None:
        """Hang up, unless it was read to its end."""
        self._over(False)

    def _over(self, whole: bool) -> None:
        if self._is_over:  # its connection may be another's by now
            return
        self._is_over = True
        again = whole and not self._response.will_close
        self._response.close()
        self._done(again)


class Outward:
    """Connections to teachers, kept open between requests; many threads may use one."""

    def __init__(self, settings: Settings, resolve: Resolve = resolved, tls: ssl.SSLContext | None = None) -> None:
        self._settings, self._resolve, self._tls = settings, resolve, tls
        self._idle: deque[tuple[Pinned, Any, float]] = deque()
        self._lock = threading.Lock()

    def post(
        self, base_url: str, path: str, body: bytes, headers: Mapping[str, str], wait_s: float = ANSWER_S
    ) -> Answered:
        """Send a body of JSON to `base_url/path`. Raises ApiError for an address that is not allowed, OSError or
        HTTPException where there is no answer. `wait_s`: the longest silence.
        """
        at = pinned(base_url, self._settings, self._resolve)
        target = f"{urlsplit(base_url).path.rstrip('/')}/{path}"
        sent = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "stillroom", **headers}
        # One that breaks is not tried again from here: what was asked may be done and paid for. Clients decide that.
        return self._sent(self._kept(at) or _Connection(at, self._context(at)), at, target, body, sent, wait_s)

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            while self._idle:
                self._idle.pop()[1].close()

    def _sent(
        self, connection: _Connection, at: Pinned, target: str, body: bytes, headers: Mapping[str, str], wait_s: float
    ) -> Answered:
        try:
            connection.timeout = CONNECT_S
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(wait_s)
            connection.request("POST", target, body, dict(headers))
            response = connection.getresponse()
        except BROKEN:
            connection.close()
            raise
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answered(response.status, told, response, lambda again: self._back(at, connection, again))

    def _back(self, at: Pinned, connection: _Connection, again: bool) -> None:
        """A connection whose answer was read."""
        with self._lock:
            keeps = again and connection.sock is not None and len(self._idle) < MOST_IDLE
            if keeps:
                self._idle.append((at, connection, time.monotonic()))
        if not keeps:
            connection.close()

    def _kept(self, at: Pinned) -> _Connection | None:
        """An open connection to the same name at the same address."""
        with self._lock:
            idle, self._idle = list(self._idle), deque()
            found: _Connection | None = None
            for to, connection, since_s in reversed(idle):
                is_open = time.monotonic() - since_s < FRESH_S and not has_ended(connection.sock)
                if not is_open:
                    connection.close()
                elif found is None and to == at:
                    found = connection
                else:
                    self._idle.appendleft((to, connection, since_s))
        return found

    def _context(self, at: Pinned) -> ssl.SSLContext | None:
        if at.scheme != "https":
            return None
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class _Connection(http.client.HTTPConnection):
    """To one address, under a name: the Host header's and the certificate's. Knows no proxy and follows no redirect."""

    def __init__(self, at: Pinned, tls: ssl.SSLContext | None) -> None:
        super().__init__(f"[{at.host}]" if ":" in at.host else at.host, at.port, timeout=CONNECT_S)
        self.default_port = PORTS[at.scheme]
        self._at, self._secure = at, tls

    def connect(self) -> None:
        """See http.client."""
        sock = socket.create_connection((self._at.ip, self._at.port), CONNECT_S)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = sock if self._secure is None else self._secure.wrap_socket(sock, server_hostname=self._at.host)
        except BaseException:
            sock.close()
            raise
