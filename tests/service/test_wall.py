"""The wall: hosts, origins, sizes, packed bodies, JSON, rates, and what every answer carries; also where `assert` is off."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from benchmarks.service_attacks import attacked, path_attacks
from benchmarks.service_process import Served, environment
from sqlalchemy import select

from service.conftest import BOTH_WAYS
from stillroom.service.door.access import revoke_key
from stillroom.service.door.faults import ApiError
from stillroom.service.door.wall import POLICY, Buckets, Wall
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import keys
from stillroom.service.settings import Settings
from stillroom.service.watch.metrics import Meter

CHAT = "/v1/chat/completions"
LIMITS = {"body_bytes": 20_000, "file_bytes": 100_000}


@pytest.fixture(scope="module", **BOTH_WAYS)
def walled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with small limits, once as it is and once under `python -O`."""
    folder = tmp_path_factory.mktemp("walled")
    with Served(folder, limits=LIMITS, env=request.param) as found:
        yield found


@pytest.fixture
def walled_open(tmp_path: Path) -> Any:
    """The wall of a service that other machines reach by three names."""
    names = ("127.0.0.1", "[::1]", "stillroom.example")
    return Wall(None, Settings(tmp_path, "0.0.0.0", allowed_hosts=names), None)  # type: ignore[arg-type]


def error_of(answer: Any, status: int) -> dict[str, Any]:
    """The error of an answer, in the clients' form."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error"}
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert told["error"]["message"]
    assert answer.headers["x-request-id"].startswith("req_")
    return told["error"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "", "127.0.0.2", "0.0.0.0"]
    + ["[::1].evil", "localhost@evil.example", "127.1", "2130706433", "LOCALHOST.", "localhost:x", "localhost:80:80"],
)
@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/files", "/nowhere"])
def test_another_host(walled: Served, host: str, path: str) -> None:
    """A page whose name was pointed here after it was loaded still says its own name."""
    assert error_of(walled.http().get(path, headers={"host": host}), 421)["param"] == "host"


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1234", "127.0.0.1", "[::1]:8010", "[::1]"])
def test_its_own_names(walled: Served, host: str) -> None:
    assert walled.http().get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://localhost.evil.example", "http://localhost:1", "file://", "http://["]
    + ["", "localhost", "http://127.0.0.1", "chrome-extension://abc", "http://localhost@evil.example"],
)
def test_pages_of_other_sites(walled: Served, origin: str) -> None:
    for method, path in [("GET", "/v1/files"), ("POST", CHAT), ("OPTIONS", CHAT), ("DELETE", "/v1/files/x")]:
        answer = walled.http().request(method, path, headers={"origin": origin})
        assert error_of(answer, 403)["param"] == "origin"
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [("http://127.0.0.1:8010", "127.0.0.1:8010", True), ("http://127.0.0.1:9", "127.0.0.1:8010", False)]
    + [("http://127.0.0.1", "127.0.0.1:8010", False), ("http://[::1]:9", "[::1]:8010", False)]
    + [("https://stillroom.example", host, True) for host in ("stillroom.example", "stillroom.example:443")]
    + [("http://stillroom.example", host, True) for host in ("stillroom.example", "stillroom.example:80")]
    + [("https://stillroom.example:8443", "stillroom.example:8443", True)]
    + [
        ("https://stillroom.example:8443", "stillroom.example", False),
        ("https://stillroom.example", "127.0.0.1", False),
    ]
    + [
        ("http://stillroom.example:443", "stillroom.example", False),
        ("ftp://stillroom.example", "stillroom.example", False),
    ],
)
def test_a_page_of_another_port_is_another_site(walled_open: Wall, origin: str, host: str, is_own: bool) -> None:
    """Also where its host is allowed: a cookie knows no ports."""
    with nullcontext() if is_own else pytest.raises(ApiError, match="Pages of other sites"):
        walled_open._look_at({b"host": host, b"origin": origin})


def test_its_own_pages(walled: Served) -> None:
    assert walled.http().get("/healthz", headers={"origin": walled.url}).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate", "gzip, identity", "zstd"])
def test_packed_bodies(walled: Served, coding: str) -> None:
    body = gzip.compress(json.dumps({"model": "m", "messages": []}).encode())
    for path, kind in [(CHAT, "application/json"), ("/v1/files", "multipart/form-data; boundary=x")]:
        headers = {"content-encoding": coding, "content-type": kind}
        assert error_of(walled.http().post(path, content=body, headers=headers), 415)["param"] == "content-encoding"


def pieces(count: int, size: int = 4096) -> Iterator[bytes]:
    """A body that does not say how long it will be."""
    for _ in range(count):
        yield b" " * size


@pytest.mark.parametrize(
    ("path", "kind", "limit"),
    [
        (CHAT, "application/json", LIMITS["body_bytes"]),
        (CHAT, "Application/JSON; charset=utf-8", LIMITS["body_bytes"]),
        ("/v1/files", "multipart/form-data; boundary=x", LIMITS["file_bytes"] + (1 << 20)),
        ("/v1/uploads", "application/json", LIMITS["body_bytes"]),
    ],
)
def test_bodies_are_counted(walled: Served, path: str, kind: str, limit: int) -> None:
    headers = {"content-type": kind}
    for content in (b" " * (limit + 1), pieces(limit // 4096 + 2)):
        assert error_of(walled.http().post(path, content=content, headers=headers), 413)["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("method", "path", "is_file"),
    [("POST", "/v1/files", True), ("POST", "/v1/uploads/upload_x/parts", True), ("POST", "/data", True)]
    + [
        ("PUT", "/v1/files", False),
        ("POST", "/v1/files/x", False),
        ("POST", "/v1/files/", False),
        ("POST", CHAT, False),
    ]
    + [("POST", f"/v1/uploads{rest}", False) for rest in ("", "/x/complete", "/x/cancel", "/x/parts/y", "//parts")]
    + [("POST", f"/data{rest}", False) for rest in ("base", "/x/delete", "/completions/x/delete", "\n")],
)
def test_only_what_goes_to_disk_may_be_as_large_as_a_file(
    walled: Served, method: str, path: str, is_file: bool
) -> None:
    for kind in ("multipart/form-data; boundary=x", "application/json; multipart/form-data"):
        headers, body = {"content-type": kind}, b" " * (LIMITS["body_bytes"] + 1)
        answer = walled.http().request(method, path.replace("\n", "%0A"), content=body, headers=headers)
        assert (answer.status_code != 413) == (is_file and kind.startswith("multipart")), answer.text


def test_a_length_that_is_too_large_is_refused_unread(walled: Served) -> None:
    place = urlsplit(walled.url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as line:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {1 << 40}\r\n"
        line.sendall(f"{head}\r\n".encode())
        assert line.recv(64).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/vnd.api+json"])
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
    ]
    + [b'{"a": "\\u0000"}', b'{"a": "\\ud800"}', b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 9000 + b"]" * 9000]
    + [b'{"a": ' + b"9" * 5000 + b"}", b"{}{}", "{}".encode("utf-16")],
)
def test_json_that_is_none(walled: Served, body: bytes, kind: str) -> None:
    error = error_of(walled.http().post(CHAT, content=body, headers={"content-type": kind}), 400)
    assert (error["param"], error["code"]) == ("body", "invalid_json")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/files/", 404), ("PUT", "/healthz", 405), ("DELETE", "/healthz", 405)]
    + [("PATCH", "/healthz", 405), ("PROPFIND", "/healthz", 405), ("TRACE", "/healthz", 405), ("GET", "//evil/", 404)],
)
def test_routes_and_methods_there_are_not(walled: Served, method: str, path: str, status: int) -> None:
    answer = walled.http().request(method, walled.url + path)
    assert error_of(answer, status)["code"] == ("not_found" if status == 404 else "method_not_allowed")


def test_what_every_answer_carries(walled: Served) -> None:
    http = walled.http()
    answers = [
        http.get("/healthz"), http.get("/nothing"), http.put("/healthz"), http.get("/", headers={"host": "evil.example"}),
        http.get("/", headers={"origin": "null"}), http.post(CHAT, content=b"{", headers={"content-type": "application/json"}),
        http.get("/api/openapi.json"), http.get("/metrics"), http.get("/v1/files"),
        http.post(CHAT, content=b" " * 30_000), http.get("/v1/files", headers={"authorization": "Bearer sr_wrong"}),
    ]  # fmt: skip
    for answer in answers:
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert int(answer.headers["x-ratelimit-limit-requests"]) == 60_000
        assert 0 < int(answer.headers["x-ratelimit-remaining-requests"]) < 60_000
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
        assert "server" not in answer.headers
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    assert "unsafe" not in POLICY


def test_no_inline_script_is_allowed() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"


def test_rates(serving: Any) -> None:
    """A key that asks too often waits; others do not notice."""
    service = serving("--requests-per-minute", "30")
    busy, calm = service.http(service.key("busy")), service.http(service.key("calm"))
    statuses = [busy.get("/healthz").status_code for _ in range(60)]
    assert statuses[:30] == [200] * 30
    assert statuses.count(429) >= 28
    refused = busy.get("/healthz")
    if refused.status_code == 200:  # half a second makes room for one
        refused = busy.get("/healthz")
    error = error_of(refused, 429)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert refused.headers["retry-after"] in ("1", "2"), "one in two seconds, of which some have passed"
    assert refused.headers["x-ratelimit-limit-requests"] == "30"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["content-security-policy"] == POLICY
    assert calm.get("/healthz").headers["x-ratelimit-remaining-requests"] == "29"
    time.sleep(2.1)
    assert busy.get("/healthz").status_code == 200


def test_another_way_of_writing_is_no_new_bucket(serving: Any) -> None:
    """Nor is a word that is no key, a key that nobody made, or a cookie that is not ours."""
    service = serving("--requests-per-minute", "30")
    ways = [{}, {"cookie": "stillroom=x"}, {"cookie": "a=1"}, {"authorization": "Basic a"}, {"authorization": "sr_b"}]
    ways += [{"authorization": f"Bearer {word}"} for word in ("any", "other", "sr_short")]
    left = [service.http(headers=one).get("/healthz").headers["x-ratelimit-remaining-requests"] for one in ways]
    assert int(left[-1]) <= 27  # 22, and one more for every two seconds that it took
    made_up = [{"authorization": f"Bearer sr_{place:043}"} for place in range(5)]
    made_up += [{"cookie": f"stillroom={place:060}"} for place in range(5)]
    left = [service.http(headers=one).get("/healthz").headers["x-ratelimit-remaining-requests"] for one in made_up]
    assert int(left[-1]) <= 20
    key = service.key("one")
    ways = [{"authorization": before + key} for before in ("Bearer ", "Bearer  ", "bearer ", "BEARER   ") * 2]
    left = [service.http(headers=one).get("/healthz").headers["x-ratelimit-remaining-requests"] for one in ways]
    assert int(left[-1]) <= 27


def test_a_browsers_cookie_has_a_bucket_of_its_own(serving: Any) -> None:
    service = serving("--requests-per-minute", "30")
    page = service.http().get("/sign-in").text
    token = page.partition('name="form_token" value="')[2].partition('"')[0]
    signed = service.http()
    sent = signed.post("/sign-in", data={"key": service.key("a browser's"), "form_token": token, "next": "/"})
    assert "set-cookie" in sent.headers
    assert signed.get("/healthz").headers["x-ratelimit-remaining-requests"] == "29"


def test_many_names_do_not_fill_anybodys_bucket_but_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillroom.service.door.wall.MOST_BUCKETS", 10)
    buckets = Buckets(2)
    spent = [buckets.take(b"busy")[0] for _ in range(3)]
    assert spent == [0, 0, pytest.approx(30, abs=1)]
    for number in range(50):
        buckets.take(b"%d" % number)
        assert buckets.take(b"busy")[0] > 0


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("content-type", "text/plain", "application/json"),
        ("Content-Type", "application/json", "text/plain"),
        ("host", "localhost", "localhost"),
        ("authorization", "Bearer any", "Bearer other"),
        ("content-encoding", "identity", "gzip"),
        ("content-length", "12", "12"),
        ("origin", "http://evil.example", "http://localhost"),
    ],
)
def test_headers_that_come_twice(walled: Served, name: str, first: str, second: str) -> None:
    place = urlsplit(walled.url)
    lines = {"host": "localhost", "content-type": "application/json", "content-length": "12"}
    told = [f"{key}: {value}" for key, value in lines.items() if key != name.lower()]
    told += [f"{name}: {first}", f"{name}: {second}", "connection: close"]
    with socket.create_connection((place.hostname, place.port), timeout=5) as line:
        line.sendall(("\r\n".join([f"POST {CHAT} HTTP/1.1", *told]) + '\r\n\r\n{"a":1,"a":2}'[:16]).encode())
        answer = b"".join(iter(lambda: line.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    if name != "content-length":  # the parser of HTTP refuses that one itself
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["param"] == name.lower()


def test_keys(walled: Served) -> None:
    """None, wrong, too old, revoked, or without the right."""
    project = walled.project()
    reader, late = (
        walled.key("reader", ("read",), project),
        walled.key("late", project=project, expires_at=int(time.time()) - 1),
    )
    assert walled.http(reader).get("/v1/files").status_code == 200
    for wrong in (late, "sr_" + "x" * 43, "sr_short", "sr_" + "x" * 5000):
        error = error_of(walled.http(wrong).get("/v1/files"), 401)
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert error_of(walled.http(headers={"authorization": "Basic abc"}).get("/v1/files"), 401)
    refused = walled.http(reader).post("/v1/fine_tuning/jobs", json={"model": "m", "training_file": "f"})
    assert error_of(refused, 403)["code"] == "insufficient_scope"
    with walled.rows.reading() as rows:
        key_id = rows.execute(
            select(keys.c.id).where(keys.c.name == "reader", keys.c.project_id == project)
        ).scalar_one()
    assert revoke_key(walled.rows, project, key_id)
    revoked = time.monotonic()
    while walled.http(reader).get("/v1/files").status_code == 200:
        assert time.monotonic() - revoked < 1.2, "a revoked key was let in for more than a second"
        time.sleep(0.05)
    assert error_of(walled.http(reader).get("/v1/files"), 401)


def new_key(root: Path) -> str:
    """A key made on the command line, before anything is served."""
    command = [sys.executable, "-m", "stillroom", "serve", "--root", str(root), "--new-key", "first"]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()


def test_where_others_can_come_in(serving: Any, tmp_path: Path) -> None:
    """Every request needs a key, and the names of the machine itself are none of its names."""
    folder = tmp_path / "open"
    secret = new_key(folder / "service")
    service = serving("--host", "0.0.0.0", "--allow-host", "stillroom.example", folder=folder)
    service.url = service.url.replace("0.0.0.0", "127.0.0.1")
    named = {"host": "stillroom.example"}
    assert error_of(service.http().get("/healthz"), 421)
    assert service.http(headers=named).get("/healthz").status_code == 200
    for path in ("/v1/files", "/v1/models", "/metrics", "/api/kinds"):
        assert error_of(service.http(headers=named).get(path), 401)["code"] == "invalid_api_key"
    for any_word in ("any", "sk-abc"):
        assert error_of(service.http(any_word, headers=named).get("/v1/files"), 401)
    assert service.http(secret, headers=named).get("/v1/files").status_code == 200


def test_attacks_with_paths(walled: Served) -> None:
    assert len(list(path_attacks())) == 400
    assert attacked(walled) == []


def test_a_fault_of_a_route_is_an_error_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its id, its headers and its line of the log; what the exception says stays inside."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("what a person wrote")

    database = Database(tmp_path)
    database.upgrade()
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(Wall(broken, Settings(tmp_path), Meter(database))(scope, receive, send))
    database.close()
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 500
    assert headers[b"content-security-policy"] == POLICY.encode()
    told = json.loads(sent[1]["body"])["error"]
    assert told["type"] == "server_error"
    assert headers[b"x-request-id"].decode() in told["message"]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["fault", "request"]
    assert lines[0]["error"] == "ZeroDivisionError"
    assert lines[0]["request_id"] == headers[b"x-request-id"].decode()
    assert "what a person wrote" not in json.dumps(sent, default=str) + json.dumps(lines)
