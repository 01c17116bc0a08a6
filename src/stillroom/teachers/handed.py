"""Keys and addresses that whoever started this process handed over: through a pipe, so that they stand in no environment,
argument, file or log. The number of its file descriptor is in $STILLROOM_HANDED_FD; what is read there is read once.

    {"keys": {NAME: key}, "addresses": {"host:port": "ip"}}     NAME as a recipe's `api_key_env` has it

A process that was handed a pipe, even an empty mapping, connects to the addresses in it and to no other host, and reads no
key of the environment. In a process that was handed no pipe, nothing changes.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

from stillroom.errors import ModelError

VARIABLE = "STILLROOM_HANDED_FD"


def key(name: str) -> str | None:
    """The key of this name, where one was handed over."""
    found = (_handed() or {}).get("keys", {}).get(name)
    return None if found is None else str(found)


def confines() -> bool:
    """There was a pipe: only the addresses in it are connected to, no proxy is, and no key of the environment is used."""
    return _handed() is not None


def address(host: str, port: int) -> str:
    """Where to connect to for a host: the address handed over for it, or the host itself where there was no pipe.

    Raises PermissionError for a host that was not handed over, where there was one.
    """
    given = _handed()
    if given is None:
        return host
    found = given.get("addresses", {}).get(f"{host.strip('[]').lower()}:{port}")
    if found is None:
        raise PermissionError(f"this process may not connect to {host}:{port}")
    return str(found)


@cache
def _handed() -> dict[str, Any] | None:
    """What the pipe holds; None where there is none. Raises ModelError for what is no such thing."""
    number = os.environ.pop(VARIABLE, "")
    if not number:
        return None
    try:
        with os.fdopen(int(number), "rb") as pipe:
            found = json.loads(pipe.read())
    except (OSError, ValueError) as error:
        raise ModelError("what was handed over cannot be read", where=f"${VARIABLE}", cure="Start it anew") from error
    if not isinstance(found, dict):
        raise ModelError("what was handed over is no mapping", where=f"${VARIABLE}", cure="Start it anew")
    return found
