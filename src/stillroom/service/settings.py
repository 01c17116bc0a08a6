"""What `stillroom serve` is told, checked before it listens."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stillroom.errors import InputError

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
PLACE = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+):(?P<port>[1-9][0-9]{0,4})", re.IGNORECASE)
"""Of a teacher: host:port."""
MOST_PORT = 65_535


@dataclass(frozen=True)
class Limits:
    """Sizes and rates beyond which a request is refused."""

    body_bytes: int = 8 << 20
    """Of a JSON body or a form."""
    file_bytes: int = 512 << 20
    """Of an uploaded file."""
    file_rows: int = 1_000_000
    line_bytes: int = 1 << 20
    """Of one line of an uploaded .jsonl file."""
    json_depth: int = 64
    requests_per_minute: int = 60_000
    """Of one key."""
    streams: int = 100
    """Open event streams of one key."""


@dataclass(frozen=True)
class Settings:
    """Where the service keeps its things, where it listens, and what it lets in."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 8010
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside those of this machine, that a Host header may have; without port."""
    local_teachers: tuple[str, ...] = ()
    """host:port of teachers on private addresses that the operator allows."""
    forbidden_teachers: tuple[str, ...] = ()
    """Hosts or model names that the operator lets nobody distil from."""
    redact: tuple[str, ...] = ()
    """Regular expressions whose matches are blanked before a completion is stored."""
    redact_with: str = ""
    """`module:function`, which does so too: a text -> the text as it may be kept."""
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    """Jobs at once; 0: none is started here."""

    @cached_property
    def is_open(self) -> bool:
        """It listens to other machines, so every request needs a key."""
        return not _is_loopback(self.host)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What a Host header may say, without port, in small letters."""
        own = LOCAL_NAMES if not self.is_open else ()
        return tuple(name.lower() for name in (*own, *self.allowed_hosts))

    def check(self, has_key: bool) -> None:
        """Raise InputError for a teacher's place that is none, and where other machines could come in unasked."""
        for place in self.local_teachers:
            found = PLACE.fullmatch(place)
            if found is None or int(found["port"]) > MOST_PORT:
                cure = "Give its host and its port, such as 127.0.0.1:8011 or [::1]:8011"
                raise InputError(f"{place!r} is no place of a teacher", where="--allow-teacher", cure=cure)
        if not self.is_open:
            return
        if not self.allowed_hosts:
            raise InputError(
                f"{self.host} can be reached by other machines, and no name is said that they may use",
                where="--host",
                cure="Add --allow-host NAME for each name or address in its URL, or leave --host out",
            )
        if not has_key:
            raise InputError(
                f"{self.host} can be reached by other machines, and no key is good now that has the scope admin",
                where="--host",
                cure=f"Make one first: stillroom serve --root {self.root} --new-key NAME",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
