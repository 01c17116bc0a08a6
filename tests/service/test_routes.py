"""How a route is found, what its function is given, and how its answer goes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Query, Request

from stillroom.service.door.arguments import Arguments
from stillroom.service.door.faults import ApiError
from stillroom.service.door.routes import Directory, Json, Route
from stillroom.service.door.schemas import Strict
from stillroom.service.settings import Settings

router = APIRouter(route_class=Route)


class Given(Strict):
    """A body."""

    count: int


async def who(request: Request) -> str:
    return request.headers.get("x-who", "nobody")


Who = Annotated[str, Depends(who)]


@router.get("/things")
async def listed(limit: Annotated[int, Query(ge=1, le=9)] = 3, after: str | None = None) -> dict[str, Any]:
    return {"limit": limit, "after": after}


@router.get("/things/{thing}")
def one(thing: str, name: Who) -> dict[str, Any]:
    return {"thing": thing, "who": name}


@router.post("/things/{thing}")
def put(thing: str, body: Given) -> Json:
    return Json({"thing": thing, "count": body.count}, 202)


@router.post("/things/new")
async def made() -> dict[str, Any]:
    return {"made": True}


@router.get("/paths/{path:path}")
async def whole(path: str) -> dict[str, Any]:
    return {"path": path}


def asked(
    method: str, path: str, query: str = "", body: bytes = b"", kind: str = "", who: str = "me"
) -> tuple[int, dict[str, Any]]:
    """What the routes above answer; 0 for what is not theirs."""
    sent: list[Any] = []
    routes = [route for route in router.routes if isinstance(route, Route)]

    async def others(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 0})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "state": {},
        "headers": [(b"x-who", who.encode()), (b"content-type", kind.encode())],
        "app": SimpleNamespace(state=SimpleNamespace(settings=Settings(Path()))),
    }  # fmt: skip
    asyncio.run(Directory(routes, others)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/things/a b", {"thing": "a b", "who": "me"}),
        ("GET", "/things/new", {"thing": "new", "who": "me"}),
        ("GET", "/things/{}", {"thing": "{}", "who": "me"}),
        ("GET", "/things/{thing}", {"thing": "{thing}", "who": "me"}),
        ("POST", "/things/new", {"made": True}),
        ("GET", "/paths/a/b//c", {"path": "a/b//c"}),
        ("GET", "/paths/", {"path": ""}),
    ],
)
def test_found_by_its_pieces(method: str, path: str, found: dict[str, Any]) -> None:
    assert asked(method, path) == (200, found)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", ""), ("GET", "/things/"), ("GET", "/things/a/b"), ("PUT", "/things/a"), ("GET", "/paths"),
     ("GET", "things"), ("GET", "/Things")],
)  # fmt: skip
def test_left_to_the_framework(method: str, path: str) -> None:
    assert asked(method, path)[0] == 0


def test_words_of_the_address() -> None:
    assert asked("GET", "/things") == (200, {"limit": 3, "after": None})
    assert asked("GET", "/things", "limit=9&after=x%20y&other=1") == (200, {"limit": 9, "after": "x y"})
    for query, code in [("limit=10", "less_than_equal"), ("limit=", "int_parsing"), ("limit=1&limit=x", "int_parsing")]:
        with pytest.raises(ApiError) as raised:
            asked("GET", "/things", query)
        assert (raised.value.status, raised.value.param, raised.value.code) == (400, "limit", code)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/x+json"])
def test_a_body(kind: str) -> None:
    assert asked("POST", "/things/a", body=b'{"count": 2}', kind=kind) == (202, {"thing": "a", "count": 2})


@pytest.mark.parametrize(
    ("body", "kind", "param", "code"),
    [
        (b"", "application/json", "body", "missing"),
        (b"null", "application/json", "body", "missing"),
        (b"[]", "application/json", "body", "model_attributes_type"),
        (b'{"count": 2}', "text/plain", "body", "not_json"),
        (b'{"count": 2}', "text/json", "body", "not_json"),
        (b'{"count": "x"}', "application/json", "count", "int_parsing"),
        (b'{"count": 1, "more": 1}', "application/json", "more", "extra_forbidden"),
    ],
)
def test_a_body_that_is_wrong(body: bytes, kind: str, param: str, code: str) -> None:
    with pytest.raises(ApiError) as raised:
        asked("POST", "/things/a", body=body, kind=kind)
    assert (raised.value.param, raised.value.code) == (param, code)


def test_what_no_function_can_be_given() -> None:
    def number(thing: int) -> None: ...

    def needed(word: str) -> None: ...

    def idle(name: Annotated[str, Depends(lambda: "x")]) -> None: ...

    functions: list[Callable[..., Any]] = [number, needed, idle]
    for function in functions:
        with pytest.raises(TypeError):
            Arguments(function, ["thing"])


def test_json_has_no_word_for_it() -> None:
    assert Json({"a": float("nan"), "b": [float("inf")], "c": 10**400, "d": "ä"}).body.decode() == (
        '{"a":null,"b":[null],"c":1' + "0" * 400 + ',"d":"ä"}'
    )
