"""Routes whose functions are called, and whose answers go out, in one step each. The framework declares and documents them.

The documented form of an answer is held against it by tests, not by each request: checking it again on its way out took a
sixth of a read's processor time, and what the framework does around a function more than most functions take.

A function that waits (`async def`) is called where the requests are read: for rows that are found by an index and are few.
Any other gets a thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from functools import cached_property
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from stillroom.service.door.arguments import Arguments

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ANY, REST, HERE = object(), object(), object()
"""In the tree of addresses, where a client's words can never be: any one piece, all pieces that are left, and the routes."""


def json_of(value: Any) -> bytes:
    """A value of ours as JSON. A number that is none becomes null, since JSON has no word for it."""
    return to_json(value, inf_nan_mode="null")


class Text(Response):
    """JSON that is written already."""

    media_type = "application/json"


class Json(Text):
    """A value of ours as JSON."""

    def render(self, content: Any) -> bytes:
        """See starlette."""
        return json_of(content)


class Route(APIRoute):
    """A route that sends what its function returns as JSON, or the response that it returns."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        return self._handler

    @cached_property
    def _handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        function, waits = self.endpoint, inspect.iscoroutinefunction(self.endpoint)
        arguments = Arguments(function, self.param_convertors)

        async def answer(request: Request) -> Response:
            given = await arguments.of(request)
            found = await (function(**given) if waits else run_in_threadpool(function, **given))
            return found if isinstance(found, Response) else Json(found)

        return answer


class Directory:
    """Finds a route by the pieces of its address, where the framework would try one after the other.

    What is not found here the framework answers: pages, and whatever there is not.
    """

    def __init__(self, routes: Iterable[Route], others: App) -> None:
        self._others, self._tree = others, dict[Any, Any]()
        for route in routes:
            names, at = [], self._tree
            for piece in route.path_format.split("/")[1:]:
                if piece.startswith("{"):
                    names.append(piece[1:-1])
                    is_rest = route.param_convertors[names[-1]].regex == ".*"
                    at = at.setdefault(REST if is_rest else ANY, {})
                else:
                    at = at.setdefault(piece, {})
            for method in route.methods or ():
                at.setdefault(HERE, {})[method] = (route, route.get_route_handler(), names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        found = None
        if scope["type"] == "http":
            found = _find(self._tree, scope["path"].split("/"), 1, scope["method"], ())
        if found is None:
            await self._others(scope, receive, send)
            return
        (scope["route"], answer, names), pieces = found
        scope["path_params"] = dict(zip(names, pieces, strict=True))
        response = await answer(Request(scope, receive, send))
        await response(scope, receive, send)


def _find(at: dict[Any, Any], pieces: list[str], place: int, method: str, seen: tuple[str, ...]) -> Any:
    """The route for a method below a node of the tree, with what stands for names; None where there is none."""
    if place == len(pieces):
        found = at.get(HERE, {}).get(method)
        return None if found is None else (found, seen)
    piece = pieces[place]
    ways = (
        (piece, place + 1, seen),
        (ANY if piece else None, place + 1, (*seen, piece)),
        (REST, len(pieces), (*seen, "/".join(pieces[place:]))),
    )
    for key, next_place, with_it in ways:
        below = at.get(key)
        if below is not None and (found := _find(below, pieces, next_place, method, with_it)) is not None:
            return found
    return None
