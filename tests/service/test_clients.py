"""The official clients, each in a process of its own, do everything against a real server at once: tests/clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.service_process import Served, environment

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "clients"
SECOND, NODE = ROOT / ".venv" / "clients" / "openai-2", ROOT / ".venv" / "clients" / "node" / "node_modules"
PYTHON = {"synchronous": ("flow.py",), "strict": ("flow.py", "--strict"), "asynchronous": ("flow_async.py",)}
WITHIN_S = 1000
Running = dict[str, tuple["subprocess.Popen[bytes]", Path]]


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

    for name, (script, *rest) in PYTHON.items():
        start(f"3 {name}", [sys.executable, str(SCRIPTS / script), *rest], SCRIPTS, {"PYTHONWARNINGS": "error"})
        if (SECOND / "openai").is_dir():
            paths = os.pathsep.join([str(SECOND), str(ROOT / "src")])
            start(f"2 {name}", [sys.executable, str(SCRIPTS / script), *rest], SCRIPTS,
                  {"PYTHONPATH": paths, "PYTHONWARNINGS": "error"})  # fmt: skip
    node = shutil.which("node")
    if node is not None and NODE.is_dir():
        shutil.copy(SCRIPTS / "flow.mjs", folder)
        (folder / "node_modules").symlink_to(NODE, target_is_directory=True)
        start("node", [node, "flow.mjs"], folder)
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
    assert len(http.get("/v1/fine_tuning/jobs").json()["data"]) == len(running)
