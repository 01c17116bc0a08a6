"""What a route's function is given: worked out once from its signature, then taken from each request in one pass.

The signature is the one that the framework makes the OpenAPI document of: the request itself, pieces of the address, words
after its question mark with their limits, one body, and what `Depends` names. Something else is refused when it is declared.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from fastapi import Request
from fastapi.params import Depends
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from stillroom.service.door import bodies
from stillroom.service.door.fault_answers import invalid, not_json
from stillroom.service.door.faults import ApiError

MISSING = {"type": "missing", "loc": (), "msg": "Field required"}
LONG_BYTES = 1 << 18
"""JSON longer than this is read in a thread, so that other requests need not wait for it."""
LONG_TURNS = asyncio.Semaphore(2)
"""So many at once: what is made of a long body while it is read takes far more memory than the body does."""


class Arguments:
    """Of one function. `pieces`: what stands in braces in its route's address."""

    def __init__(self, function: Callable[..., Any], pieces: Collection[str]) -> None:
        self._requests: list[str] = []
        self._pieces: list[str] = []
        self._asked: list[tuple[str, Callable[..., Any], Arguments]] = []
        self._words: list[tuple[str, TypeAdapter[Any], Any]] = []
        self._body: tuple[str, TypeAdapter[Any]] | None = None
        by_call = function if inspect.isroutine(function) else type(function).__call__
        hints = get_type_hints(by_call, include_extras=True)
        for name, one in inspect.signature(function).parameters.items():
            self._add(name, hints[name], one.default, pieces)

    def _add(self, name: str, kind: Any, default: Any, pieces: Collection[str]) -> None:
        asked = _asked(kind)
        if isinstance(kind, type) and issubclass(Request, kind):
            self._requests.append(name)
        elif asked is not None:
            self._asked.append((name, asked, Arguments(asked, ())))
        elif name in pieces and kind is str:
            self._pieces.append(name)
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and self._body is None:
            self._body = name, TypeAdapter(kind)
        elif default is not inspect.Parameter.empty and name not in pieces:
            self._words.append((name, TypeAdapter(kind), default))
        else:
            raise TypeError(f"{name}: {kind} is nothing that a route's function can be given")

    async def of(self, request: Request) -> dict[str, Any]:
        """The arguments. Raises ApiError 400 for what is wrong with them, and what `Depends` raises before that: of whoever
        may not ask, no body is read.
        """
        found: dict[str, Any] = dict.fromkeys(self._requests, request)
        for name, function, inner in self._asked:
            found[name] = await function(**await inner.of(request))
        for name in self._pieces:
            found[name] = request.path_params[name]
        if self._words:
            given = request.query_params if request.scope["query_string"] else {}
            for name, adapter, default in self._words:
                found[name] = _checked(adapter, given[name], name) if name in given else default
        if self._body is not None:
            name, adapter = self._body
            value = await _body(request)
            if value is None:
                raise invalid(MISSING)
            found[name] = _checked(adapter, value)
        return found


def _asked(kind: Any) -> Callable[..., Any] | None:
    """What is called for an argument; None where nothing is."""
    said = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    found = next((one.dependency for one in said if isinstance(one, Depends)), None)
    if found is not None and not inspect.iscoroutinefunction(
        found if inspect.isroutine(found) else type(found).__call__
    ):
        raise TypeError(f"{found} does not wait, so it would need a thread of its own")
    return found


async def _body(request: Request) -> Any:
    """The JSON that came; None for nothing. Raises ApiError 400, also for what is not called JSON."""
    data = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not data:
        return None
    if not kind.startswith("application/") or not (kind.endswith("+json") or kind == "application/json"):
        raise not_json()
    return await read_json(data, request.app.state.settings.limits.json_depth)


async def read_json(data: bytes, deepest: int) -> Any:
    """The value of a JSON body. Raises ApiError 400."""
    try:
        if len(data) <= LONG_BYTES:
            return bodies.read(data, deepest)
        async with LONG_TURNS:
            return await run_in_threadpool(bodies.read, data, deepest)
    except bodies.BadJson as error:
        raise ApiError(400, f"The body cannot be read: {error}.", param="body", code="invalid_json") from error


def _checked(adapter: TypeAdapter[Any], value: Any, *place: str) -> Any:
    try:
        return adapter.validate_python(value, from_attributes=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise invalid({**first, "loc": (*place, *first["loc"])}) from error
