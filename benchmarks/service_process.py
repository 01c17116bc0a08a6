"""A real `stillroom serve` in a process of its own, on a free port of this machine, ended by its process id.

    with Served(folder) as service:
        service.url, service.root, service.pid
        service.key("reader", ("read",), service.project())      # a key and a project, written into its database
        service.http(key).post("/v1/chat/completions", json={..})
        service.wait(job_id)

Nothing in it is replaced: the same command that a person types. The tests and `make bench-service` use it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2

from stillroom.service.door.access import SCOPES, first_project, make_key, make_project
from stillroom.service.rows.database import Database
from stillroom.service.settings import Limits

SOURCE = Path(__file__).resolve().parent.parent / "src"
READY = re.compile(r"serves at (http://\S+?);")
ENDED = ("succeeded", "failed", "cancelled")
ASKED_S = 0.1
WITH_LIMITS = """
import json, sys
from pathlib import Path
from stillroom.service.serving import serve
from stillroom.service.settings import Limits, Settings
given = json.loads(sys.argv[1])
settings = Settings(root=Path(given.pop("root")), limits=Limits(**given.pop("limits")), **given)
serve(settings, lambda url: print(f"Stillroom serves at {url};", file=sys.stderr, flush=True))
"""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a server's process is given: this process's environment without proxies, keys and an older secret.

    And without the wishes that no bytecode be kept, for what pip installs has its own, and that nothing be buffered.
    """
    dropped = (
        "http_proxy", "https_proxy", "all_proxy", "openai_api_key", "stillroom_secret", "pythondontwritebytecode",
        "pythonunbuffered",
    )  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name.lower() not in dropped}
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **(more or {})}


class Served:
    """A server of one folder. `words` are options of `stillroom serve`; `limits` replaces some of Limits."""

    def __init__(
        self, folder: Path, *words: str, env: Mapping[str, str] | None = None, limits: Mapping[str, int] | None = None,
        python: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.folder, self.root, self.log = folder, folder / "service", folder / "server.log"
        self.words, self.limits, self._env, self._python = words, limits, environment(env), python
        self.url, self.ready_s = "", 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._database: Database | None = None
        self._clients: list[httpx2.Client] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self, within_s: float = 180.0) -> Served:
        """Start it, and wait until it listens. Raises RuntimeError with its log where it does not."""
        told = self.log.stat().st_size if self.log.exists() else 0
        started = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        while time.monotonic() - started < within_s:
            with self.log.open("rb") as log:
                log.seek(told)
                found = READY.search(log.read(1 << 16).decode("utf-8", "replace"))
            if found:
                self.url, self.ready_s = found[1], time.monotonic() - started
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the server did not start:\n{self.told()}")

    def command(self) -> list[str]:
        """What is run: the program's own command, or for other limits the function behind it."""
        python = [sys.executable, *self._python]
        if self.limits is None:
            return [*python, "-m", "stillroom", "serve", "--root", str(self.root), "--port", "0", *self.words]
        given = {"root": str(self.root), "port": 0, "limits": {**asdict(Limits()), **self.limits}}
        return [*python, "-c", WITH_LIMITS, json.dumps(given)]

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def children(self) -> list[int]:
        """The processes that it started and that live: its worker."""
        return children_of(self.pid)

    def stop(self, sign: int = signal.SIGTERM, within_s: float = 20.0) -> int | None:
        """End it and give its exit status; SIGKILL where it does not end in time. Clients and rows are closed."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._process is None:
            return None
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(sign)
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def told(self) -> str:
        """All that it and its worker have written to their log."""
        return self.log.read_text("utf-8", "replace")

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines that are JSON."""
        return [json.loads(line) for line in self.told().splitlines() if line.startswith("{") and line.endswith("}")]

    @property
    def rows(self) -> Database:
        """Its database, open in this process too: rows.reading(), rows.writing()."""
        if self._database is None:
            self._database = Database(self.root)
        return self._database

    def first_project(self) -> str:
        """The id of the project of the person at the keyboard."""
        return first_project(self.rows)

    def project(self, name: str = "another") -> str:
        """The id of a new project."""
        return make_project(self.rows, name)

    def key(
        self, name: str = "a key", scopes: Collection[str] = SCOPES, project: str | None = None,
        expires_at: int | None = None,
    ) -> str:  # fmt: skip
        """A new key of a project, the first one if none is named."""
        _, secret = make_key(self.rows, project or self.first_project(), name, tuple(scopes), expires_at)
        return secret

    def http(self, key: str | None = None, **more: Any) -> httpx2.Client:
        """A client of its address; closed with it."""
        headers = {**({"authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        # Plain HTTP needs none of the world's certificates, and reading them takes a fortieth of a second each time.
        plain = {"base_url": self.url, "headers": headers, "trust_env": False, "verify": False, "timeout": 30.0}
        client = httpx2.Client(**{**plain, **more})
        self._clients.append(client)
        return client

    def wait(
        self, job_id: str, key: str | None = None, until: Collection[str] = ENDED, within_s: float = 120.0
    ) -> dict[str, Any]:
        """The job once its status is one of `until`. Raises RuntimeError where it ends otherwise or in no time."""
        ends = time.monotonic() + within_s
        client = self.http(key)
        while True:
            answer = client.get(f"/v1/fine_tuning/jobs/{job_id}")
            answer.raise_for_status()
            job: dict[str, Any] = answer.json()
            if job["status"] in until:
                return job
            if job["status"] in ENDED or time.monotonic() > ends:
                raise RuntimeError(
                    f"{job_id} is {job['status']}, not {' or '.join(until)}: {job}\n{self.told()[-3000:]}"
                )
            time.sleep(ASKED_S)

    def memory_mib(self, pid: int | None = None) -> float:
        """What a process holds of the machine's memory now; the server's, if none is named."""
        return memory_mib(pid or self.pid)


def memory_mib(pid: int, which: str = "VmRSS") -> float:
    """Resident memory of a process; VmHWM: the most it ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no {which}")


def private_mib(pid: int) -> float:
    """What a process holds that no other one has a part in."""
    return _rollup_mib(pid, "Private_")


def _rollup_mib(pid: int, which: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def children_of(pid: int) -> list[int]:
    """Process ids whose parent is this one; zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended just now
        if int(parent) == pid and state != "Z":
            found.append(int(entry.name))
    return sorted(found)


def below(pid: int) -> list[int]:
    """Every process below one, at any depth."""
    found = children_of(pid)
    return [*found, *(one for child in found for one in below(child))]
