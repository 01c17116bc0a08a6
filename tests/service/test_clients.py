"""The official clients, each in a process of its own, do everything against a real server at once: tests/clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.service_process import Served, environment

from clients.flow import training_rows
from stillroom.loopback.serving import Loopback

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "clients"
SECOND, NODE = ROOT / ".venv" / "clients" / "openai-2", ROOT / ".venv" / "clients" / "node" / "node_modules"
PYTHON = {"synchronous": ("flow.py",), "strict": ("flow.py", "--strict"), "asynchronous": ("flow_async.py",),
          "asynchronous strict": ("flow_async.py", "--strict")}  # fmt: skip
WITHIN_S = 1000
HELD = 3
"""Jobs that each client has estimated and then cancels."""
TEACHER = "moods"
pytestmark = pytest.mark.timeout(WITHIN_S)  # all of them wait for one worker
Running = dict[str, tuple["subprocess.Popen[bytes]", Path]]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a teacher that knows what the scripts ask."""
    folder = tmp_path_factory.mktemp("teacher")
    talks = [json.loads(line)["messages"] for line in training_rows().splitlines()]
    rows = [json.dumps({"text": asked["content"], "label": said["content"]}) for asked, said in talks]
    (folder / "moods.jsonl").write_text("\n".join(rows))
    found = Loopback({"model": "large", "mind": {"kind": "rule", "source": "moods.jsonl", "error_rate": 0.0}}, folder)
    found.start()
    yield found.url
    found.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Iterator[Served]:
    """A server that has that teacher, and whose project lets what it stores be trained on."""
    with Served(tmp_path_factory.mktemp("served"), "--allow-teacher", teacher.split("/")[2]) as found:
        http, price = found.http(), {"input": 1.0, "output": 2.0}
        made = {"name": TEACHER, "base_url": teacher, "model": "large", "price": price}
        http.post("/api/teachers", json=made).raise_for_status()
        http.post(f"/api/projects/{found.first_project()}", json={"trains_on_stored": True}).raise_for_status()
        yield found


@pytest.fixture(scope="module")
def running(service: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Every client there is, at work; the client's own warnings are errors. They share one server and its one worker."""
    folder = tmp_path_factory.mktemp("clients")
    found: Running = {}

    def start(name: str, command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
        words = [*command[:2], f"{service.url}/v1", service.key(name), *command[2:]]
        with (folder / f"{name}.txt").open("wb") as out:
            process = subprocess.Popen(words, cwd=cwd, env=environment(env), stdout=out, stderr=out)
        found[name] = process, folder / f"{name}.txt"

    for name, (script, *words) in PYTHON.items():
        rest = [*words, "--teacher", TEACHER]
        start(f"3 {name}", [sys.executable, str(SCRIPTS / script), *rest], SCRIPTS, {"PYTHONWARNINGS": "error"})
        if (SECOND / "openai").is_dir():
            paths = os.pathsep.join([str(SECOND), str(ROOT / "src")])
            start(f"2 {name}", [sys.executable, str(SCRIPTS / script), *rest], SCRIPTS,
                  {"PYTHONPATH": paths, "PYTHONWARNINGS": "error"})  # fmt: skip
    node = shutil.which("node")
    if node is not None and NODE.is_dir():
        shutil.copy(SCRIPTS / "flow.mjs", folder)
        (folder / "node_modules").symlink_to(NODE, target_is_directory=True)
        start("node", [node, "flow.mjs", TEACHER], folder)
    yield found
    for process, _ in found.values():
        process.kill()
        process.wait()


def said(running: Running, name: str) -> str:
    """What a client that ends well says."""
    process, out = running[name]
    status = process.wait(WITHIN_S)
    assert status == 0, out.read_text()
    return out.read_text()


@pytest.mark.parametrize("way", PYTHON)
def test_the_third_version(running: Running, way: str) -> None:
    told = said(running, f"3 {way}")
    assert told.startswith("openai 3.")
    assert told.endswith("every step went well\n")


@pytest.mark.parametrize("way", PYTHON)
def test_the_second_version(running: Running, way: str, request: pytest.FixtureRequest) -> None:
    if not (SECOND / "openai").is_dir():
        pytest.skip(f"{request.node.nodeid} needs the client's second version: make .venv/clients/openai-2/.installed")
    told = said(running, f"2 {way}")
    assert told.startswith("openai 2.")
    assert told.endswith("every step went well\n")


def test_node(running: Running, request: pytest.FixtureRequest) -> None:
    if "node" not in running:
        pytest.skip(f"{request.node.nodeid} needs Node and its client: make .venv/clients/node/.installed")
    assert said(running, "node").endswith("for Node: every step went well\n")


def test_they_leave_nothing_behind(running: Running, service: Served) -> None:
    """Their files and models are deleted, and their jobs stay as what was done."""
    for name in running:
        said(running, name)
    http = service.http()
    left = http.get("/v1/files", params={"limit": 100}).json()["data"]
    assert {one["purpose"] for one in left} <= {"fine-tune-results"}  # each job leaves the curve of its losses
    assert not [one for one in http.get("/v1/models").json()["data"] if one["id"].startswith("ft:")]
    assert http.get("/v1/chat/completions").json()["data"] == []
    assert len(http.get("/v1/fine_tuning/jobs", params={"limit": 100}).json()["data"]) == len(running) * (1 + HELD)
