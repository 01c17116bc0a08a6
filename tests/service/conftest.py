"""A real `stillroom serve` for each test module, on a free port, with a temporary root; the official client that asks it.

`service` has url, root, log, pid, key(name, scopes, project), project(), http(key), wait(job_id), told(), rows: see
benchmarks/service_process.py. `serving` starts others: `serving("--redact", "[0-9]+", env={..}, limits={..})`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from benchmarks.service_process import Served

from scripted_endpoint import Endpoint
from stillroom.service.rows.database import Database

Serving = Callable[..., Served]
AsClient = Callable[..., openai.OpenAI]
BOTH_WAYS: dict[str, Any] = {"params": [{}, {"PYTHONOPTIMIZE": "1"}], "ids": ["plain", "optimised"]}
"""For a fixture that serves: once as it is, once under `python -O`, where no `assert` holds; `request.param` is for `env`."""


@pytest.fixture(scope="module")
def teacher(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    """An endpoint that answers as the module's own `script` says; modules whose teacher is another have their own."""
    with Endpoint(request.module.script) as found:
        yield found


@contextmanager
def with_teacher(folder: Path, url: str, *words: str, **teacher: Any) -> Iterator[Served]:
    """A server that has this teacher, and may ask it at this address."""
    with Served(folder, "--allow-teacher", url.split("/")[2], *words) as found:
        found.http().post("/api/teachers", json={"base_url": url, **teacher}).raise_for_status()
        yield found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of this module's own."""
    with Served(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Starts servers with other options, each in a folder of its own (or `folder=`); ended with the test."""
    started: list[Served] = []

    def start(*words: str, folder: Path | None = None, within_s: float = 180.0, **more: object) -> Served:
        found = Served(folder or tmp_path / f"served-{len(started)}", *words, **more)  # type: ignore[arg-type]
        started.append(found)
        return found.start(within_s)

    yield start
    for found in started:
        found.stop()


@pytest.fixture(scope="module")
def as_client(service: Served) -> Iterator[AsClient]:
    """Makes official clients of `service` with another key, or other options."""
    made: list[openai.OpenAI] = []

    def make(key: str | None = None, **more: object) -> openai.OpenAI:
        options = {"max_retries": 0, "timeout": 30.0, **more}
        made.append(openai.OpenAI(base_url=f"{service.url}/v1", api_key=key or "any", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def client(as_client: AsClient) -> openai.OpenAI:
    """The official client, as the person at the keyboard; it does not try again by itself."""
    return as_client()


@pytest.fixture(scope="module")
def stranger(service: Served, as_client: AsClient) -> openai.OpenAI:
    """The official client with every right in another project."""
    return as_client(service.key("stranger", project=service.project("strangers")))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A new one, upgraded, without a server."""
    found = Database(tmp_path)
    found.upgrade()
    yield found
    found.close()
