"""How the service starts and ends: within two seconds, small, without torch, on this machine alone unless told otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from benchmarks.service_jobs import body, moods
from benchmarks.service_process import Served, children_of, environment, memory_mib, private_mib

from stillroom.errors import InputError
from stillroom.service import serving as serving_room
from stillroom.service.door.access import SCOPES, first_project, make_key, revoke_key
from stillroom.service.rows.database import Database
from stillroom.service.settings import Settings
from yardstick import slowness

CANARY = "sk-canary-5f1c2b7d9e"
READY_S, IDLE_BYTES, SETTLED_S = 2.0, 150_000_000, 3.0
NO_TORCH = """
import sys
from pathlib import Path
from stillroom.service.app import create_app
from stillroom.service.settings import Settings
create_app(Settings(Path(sys.argv[1])))
print([name for name in ("torch", "numpy", "transformers", "sklearn", "pandas", "pyarrow", "onnx") if name in sys.modules])
"""
OF_A_WORKER = """
import sys
import stillroom.service.work.worker
waiting = [name for name in ("pydantic", "stillroom.recipe", "numpy") if name in sys.modules]
from stillroom.service.recipes import validation
from stillroom.service.work import attempt
at_work = [name for name in ("fastapi", "starlette", "uvicorn", "anyio", "jinja2", "torch") if name in sys.modules]
print(waiting + at_work)
"""


def is_alive(pid: int) -> bool:
    """True for a process that runs."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids: list[int], within_s: float) -> bool:
    """True once none of them runs."""
    ends = time.monotonic() + within_s
    while any(map(is_alive, pids)) and time.monotonic() < ends:
        time.sleep(0.05)
    return not any(map(is_alive, pids))


def worker_of(service: Served, within_s: float = 20.0) -> list[int]:
    """The server's children, once there is one and it has said that it lives."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if service.children() and service.http().get("/readyz").status_code == 200:
            return service.children()
        time.sleep(0.1)
    raise AssertionError(f"no worker:\n{service.told()}")


def processor_s(pid: int) -> float:
    """Seconds of a processor that a process has had."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_answers_within_two_seconds(serving: Any, record_property: Any) -> None:
    """The best of three. Where other programs want more than the machine has, the processor time counts that it took, and
    half as much again is allowed, since they also take turns in its caches; and a slow processor may take longer."""
    allowed_s = READY_S * slowness()
    took_s = []
    for _ in range(3):
        started = time.monotonic()
        service = serving()
        assert service.http().get("/healthz").status_code == 200
        waited_s = time.monotonic() - started
        is_crowded = os.getloadavg()[0] > (os.cpu_count() or 1)
        took_s.append(min(waited_s, processor_s(service.pid) / 1.5) if is_crowded else waited_s)
        record_property("waited_s", round(waited_s, 2))
        service.stop()
        if took_s[-1] <= allowed_s:
            break
    record_property("ready_s", min(took_s))
    assert min(took_s) <= allowed_s, took_s


def test_it_idles_small(serving: Any, record_property: Any) -> None:
    """The server, and its worker's own pages, when they have settled and nobody has asked for anything."""
    service = serving()
    (worker,) = worker_of(service)
    time.sleep(SETTLED_S)
    held = round((memory_mib(service.pid) + private_mib(worker)) * (1 << 20))
    record_property("held_bytes", held)
    assert held < IDLE_BYTES


def test_it_is_small_until_a_student_is_served(service: Served, record_property: Any) -> None:
    """Server and worker each; what they hold once every kind of page and list was asked for."""
    http = service.http()
    for path in ("/", "/healthz", "/v1/files", "/v1/fine_tuning/jobs", "/v1/models", "/api/openapi.json", "/metrics"):
        assert http.get(path).status_code in (200, 303, 307, 404), path
    workers = worker_of(service)
    server_mib, worker_mib = memory_mib(service.pid), max(map(memory_mib, workers))
    record_property("server_mib", server_mib)
    record_property("worker_mib", worker_mib)
    assert server_mib * (1 << 20) < IDLE_BYTES
    assert worker_mib * (1 << 20) < IDLE_BYTES
    for pid in (service.pid, *workers):
        assert "libtorch" not in (Path("/proc") / str(pid) / "maps").read_text()


@pytest.mark.parametrize("program", [NO_TORCH, OF_A_WORKER])
def test_nothing_slow_is_imported(tmp_path: Path, program: str) -> None:
    """Not by a server; and by a worker nothing that only answers requests, also when it is at a job."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def refused(*words: str) -> str:
    """The error of a server that does not start, which is one line, and exit status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "stillroom", "serve", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_where_others_could_come_in_it_does_not_start(tmp_path: Path, host: str) -> None:
    words = ("--root", str(tmp_path), "--port", "0", "--host", host)
    assert "Add --allow-host NAME" in refused(*words)
    assert "--new-key" in refused(*words, "--allow-host", "stillroom.example")


@pytest.mark.parametrize(
    "place",
    [
        "foo",
        "http://127.0.0.1:8011",
        "127.0.0.1:",
        ":8011",
        "::1:8011",
        "user@host:80",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:08011",
    ],
)
def test_a_teachers_place_is_its_host_and_port(tmp_path: Path, place: str) -> None:
    Settings(tmp_path, local_teachers=("box.lan:80", "127.0.0.1:8011", "[::1]:8011")).check(has_key=False)
    with pytest.raises(InputError, match=r"--allow-teacher.*such as 127\.0\.0\.1:8011"):
        Settings(tmp_path, local_teachers=(place,)).check(has_key=False)


@pytest.mark.parametrize(
    ("scopes", "expires_in_s", "is_enough"),
    [(SCOPES, None, True), (("admin",), 3600, True), (SCOPES, -1, False), (("read", "write", "teachers"), None, False)],
)
def test_which_keys_let_an_operator_in(
    tmp_path: Path, scopes: tuple[str, ...], expires_in_s: int | None, is_enough: bool
) -> None:
    """Where others could come in, a key that is good now and makes others has to be there: nobody could make one later."""
    database = Database(tmp_path)
    database.upgrade()
    until = None if expires_in_s is None else int(time.time()) + expires_in_s
    row, _ = make_key(database, first_project(database), "a key", scopes, until)
    settings = Settings(tmp_path, "0.0.0.0", allowed_hosts=("stillroom.example",))
    assert serving_room._has_key(settings) == is_enough
    if not is_enough:
        with pytest.raises(InputError, match=r"scope admin.*--new-key"):
            settings.check(serving_room._has_key(settings))
    revoke_key(database, row["project_id"], row["id"])
    assert not serving_room._has_key(settings)
    database.close()


def test_a_port_that_is_taken(service: Served, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2]
    assert "Choose another --port" in refused("--root", str(tmp_path), "--port", port)


def test_a_root_that_is_served_already(service: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stillroom", "serve", "--root", str(service.root), "--port", "0"],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "choose another --root" in done.stderr


def test_nobody_else_on_this_machine_reads_what_it_keeps(serving: Any) -> None:
    """Not what the server writes, nor its worker and trainers; and a root from before is closed to others."""
    old = os.umask(0o022)
    try:
        service = serving()
        http = service.http()
        sent = http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("x.jsonl", moods(60))})
        assert sent.status_code == 200, sent.text
        more = {"model": "small-text-classifier", "training_file": sent.json()["id"]}
        job = http.post("/v1/fine_tuning/jobs", json={**body(), **more, "distillation": {"hold": True}}).json()
        service.wait(job["id"], until=("paused",))
        service.wait(http.post("/v1/fine_tuning/jobs", json=body()).json()["id"], until=("succeeded",))
        paths = [service.root, *service.root.rglob("*")]
        assert {"data", "run"} <= {part for path in paths for part in path.parts}
        assert [path for path in paths if not path.is_symlink() and path.stat().st_mode & 0o077] == []
        service.stop()
        service.root.chmod(0o755)
        service.start()
        assert service.root.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(old)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_worker(serving: Any, sign: int) -> None:
    service = serving()
    pids = [service.pid, *worker_of(service)]
    assert service.stop(sign) in (0, 130, -sign)
    assert gone(pids, 5)


def test_its_worker_ends_with_it(serving: Any) -> None:
    """Also where the server could not say goodbye."""
    service = serving()
    pids = [service.pid, *worker_of(service)]
    service.stop(signal.SIGKILL)
    assert gone(pids, 5), [pid for pid in pids if is_alive(pid)]


def test_a_worker_that_dies_is_started_again(serving: Any) -> None:
    service = serving()
    (worker,) = worker_of(service)
    os.kill(worker, signal.SIGKILL)
    assert gone([worker], 5)
    ends = time.monotonic() + 10
    while not children_of(service.pid) and time.monotonic() < ends:
        time.sleep(0.05)
    (another,) = children_of(service.pid)
    assert another != worker


def test_a_second_start_finds_everything(serving: Any, tmp_path: Path) -> None:
    service = serving(folder=tmp_path / "kept")
    project = service.project("kept")
    key = service.key("kept", project=project)
    service.stop()
    service.start()
    assert service.http(key).get("/v1/files").json()["data"] == []


def test_a_secret_stays_a_secret(serving: Any) -> None:
    """A teacher's key is sealed; neither rows, log, command lines, environments nor answers hold it."""
    service = serving("--allow-teacher", "127.0.0.1:9")
    http = service.http()
    body = {"name": "sealed", "base_url": "http://127.0.0.1:9/v1", "model": "m", "key": CANARY}
    answers = [
        http.post("/api/teachers", json=body),
        http.get("/api/teachers"),
        http.get("/metrics"),
        http.get("/v1/models"),
    ]
    assert answers[0].status_code in (200, 201), answers[0].text
    for answer in answers:
        assert CANARY not in answer.text
    pids = [service.pid, *worker_of(service)]
    for path in [*service.root.rglob("*"), service.log]:
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
    for pid in pids:
        for name in ("environ", "cmdline"):
            assert CANARY.encode() not in (Path("/proc") / str(pid) / name).read_bytes()
