"""Keys and addresses that whoever started this process handed over: through a pipe, so that they stand in no environment,
argument, file or log. The number of its file descriptor is in $STILLROOM_HANDED_FD; what is read there is read once.

    {"keys": {NAME: key}, "addresses": {"host:port": "ip"}}     NAME as a recipe's `api_key_env` has it

Where any address was handed over, no other host is connected to. In a process that was handed nothing, nothing changes.
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
    found = _handed().get("keys", {}).get(name)
    return None if found is None else str(found)


def confines() -> bool:
    """Only the addresses that were handed over are connected to, and no proxy is."""
    return bool(_handed().get("addresses"))


def address(host: str, port: int) -> str:
    """Where to connect to for a host: the address handed over for it, or the host itself where none were.

    Raises PermissionError for a host that was not handed over, where others were.
    """
    addresses = _handed().get("addresses")
    if not addresses:
        return host
    found = addresses.get(f"{host.strip('[]').lower()}:{port}")
    if found is None:
        raise PermissionError(f"this process may not connect to {host}:{port}")
    return str(found)


@cache
def _handed() -> dict[str, Any]:
    """What the pipe holds; nothing where there is none. Raises ModelError for what is no such thing."""
    number = os.environ.pop(VARIABLE, "")
    if not number:
        return {}
    try:
        with os.fdopen(int(number), "rb") as pipe:
            found = json.loads(pipe.read())
    except (OSError, ValueError) as error:
        raise ModelError("what was handed over cannot be read", where=f"${VARIABLE}", cure="Start it anew") from error
    if not isinstance(found, dict):
        raise ModelError("what was handed over is no mapping", where=f"${VARIABLE}", cure="Start it anew")
    return found
