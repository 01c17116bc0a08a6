"""Keys and addresses that come through a pipe: read once, in no environment, and no other host is connected to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from scripted_endpoint import Endpoint, said

KEY = "sk-a-canary-of-the-pipe"
NAME = "STILLROOM_TEACHER_abc"
ASKS = """
import json, os, sys
from stillroom.errors import StillroomError
from stillroom.teachers import handed
from stillroom.teachers.api_wire import Came, Wire
from stillroom.teachers.openai_api import OpenAIApi
told = {}
teacher = OpenAIApi(model="a-model", base_url=sys.argv[1], api_key_env="STILLROOM_TEACHER_abc")
told["key"] = teacher.key()
told["environment"] = [name for name, value in os.environ.items() if "canary" in value or "HANDED" in name]
told["confines"] = handed.confines()
body = json.dumps({"model": "a-model", "messages": [{"role": "user", "content": "x"}]}).encode()
for url in sys.argv[1:]:
    came = Wire(url, teacher.key(), 5.0, 1).post("chat/completions", body)
    told[url] = came.status if isinstance(came, Came) else came.why
print(json.dumps(told))
"""


def run(given: dict[str, Any] | bytes | None, *urls: str, **environment: str) -> dict[str, Any]:
    """What a process says that is handed this."""
    env, keeps = {**os.environ, **environment}, ()
    out = None
    if given is not None:
        out, into = os.pipe()
        with open(into, "wb") as pipe:
            pipe.write(given if isinstance(given, bytes) else json.dumps(given).encode())
        env["STILLROOM_HANDED_FD"], keeps = str(out), (out,)
    done = subprocess.run([sys.executable, "-c", ASKS, *urls], env=env, pass_fds=keeps, capture_output=True, text=True)
    if out is not None:
        os.close(out)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr}
    return found


def test_a_handed_key_goes_to_the_handed_address_alone() -> None:
    with Endpoint(lambda body, number: said("yes")) as teacher, Endpoint(lambda body, number: said("no")) as other:
        port = teacher.url.split(":")[2].split("/")[0]
        named = f"http://teacher.example:{port}/v1"  # a name that no name server knows
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), other.url.removesuffix("/v1"))
        given = {"keys": {NAME: KEY}, "addresses": {f"teacher.example:{port}": "127.0.0.1"}}
        told = run(given, named, other.url, **proxies)
        assert (told["key"], told["environment"], told["confines"]) == (KEY, [], True)
        assert told[named] == 200
        assert teacher.keys == [f"Bearer {KEY}"]
        assert "may not connect" in told[other.url]
        assert other.asked == []


def test_a_handed_key_is_looked_at_before_the_environment() -> None:
    told = run({"keys": {NAME: KEY}}, "http://127.0.0.1:9/v1", **{NAME: "another"})
    assert (told["key"], told["confines"]) == (KEY, True)


def test_an_empty_pipe_confines_too() -> None:
    with Endpoint(lambda body, number: said("no")) as other:
        told = run({"keys": {NAME: KEY}}, other.url)
        assert told["confines"]
        assert "may not connect" in told[other.url]
        for given in ({}, {"addresses": {}}):
            told = run(given, other.url, **{NAME: "of the environment"})
            assert f"{NAME} is not set" in told["failed"]
        assert other.asked == []


def test_nothing_handed_changes_nothing() -> None:
    with Endpoint(lambda body, number: said("yes")) as teacher:
        told = run(None, teacher.url, **{NAME: "of the environment"})
        assert (told["key"], told["confines"], told[teacher.url]) == ("of the environment", False, 200)


def test_what_cannot_be_read_is_an_error_without_its_text() -> None:
    for given in (b'{"keys": canary', b"[1]"):
        told = run(given, "http://127.0.0.1:9/v1")
        assert "ModelError" in told["failed"]
        assert "handed over" in told["failed"]
        assert "canary" not in told["failed"].replace("a-canary", "")
