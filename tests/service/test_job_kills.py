"""kill -9 of the server, the worker and the trainer: the job ends as if nothing had been, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from benchmarks.service_jobs import digits
from benchmarks.service_kills import Struck, Tally, reference, struck_at, struck_at_random
from benchmarks.service_process import SOURCE, Served

pytestmark = pytest.mark.kill
SAID = "the last words of a trainer\n"


@dataclass(frozen=True)
class Unkilled:
    """What a job makes that nobody kills, the commit points on its way, the service's folder, and how long it all takes."""

    folder: Path
    made: dict[str, str]
    points: dict[str, int]
    seconds: float


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> Unkilled:
    folder = tmp_path_factory.mktemp("service")
    began = time.monotonic()
    return Unkilled(folder, *reference(folder), time.monotonic() - began)


def all_right(found: Tally) -> bool:
    assert found.why == []
    assert found.jobs > 0
    return (found.right, found.orphans, found.lost) == (found.jobs, 0, 0)


def test_every_role_passes_commit_points(unkilled: Unkilled) -> None:
    points = unkilled.points
    assert points["server"] > 4
    assert points["worker"] > 10
    assert points["trainer"] > 50
    assert any(name.startswith("student/") for name in unkilled.made)


@pytest.mark.parametrize("role", ["server", "worker", "trainer"])
def test_killed_at_a_commit_point(role: str, unkilled: Unkilled, tmp_path: Path) -> None:
    points = unkilled.points
    # The last write of the worker is that the job succeeded, and the server's last are those of the creation.
    point = {"server": points["server"] - 1, "worker": points["worker"] - 1, "trainer": points["trainer"] // 2}[role]
    # A server passes as many only where it makes its database too.
    found = struck_at(role, point, tmp_path if role == "server" else unkilled.folder, unkilled.made)
    assert all_right(found)
    assert (found.kills, found.missed) == (1, 0), "the kill did happen"


def test_killed_at_random(unkilled: Unkilled) -> None:
    # A further job is done in less, for its estimate is known: most moments are within it.
    found = struck_at_random(3, unkilled.folder, unkilled.made, seed=1, most_s=unkilled.seconds / 2)
    assert found.kills == 3
    assert all_right(found)


def test_a_trainer_that_always_breaks_off_is_tried_three_times(unkilled: Unkilled) -> None:
    with Struck(unkilled.folder, env={"STILLROOM_KILL": "trainer:1:"}) as service:
        job_id = service.send("broken")
        log = service.root / "jobs" / job_id / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:  # a trainer that is killed at its first commit point has said nothing yet
            file.write(SAID)
        job = service.end_of(job_id)
        assert job["status"] == "failed"
        assert job["error"]["code"] == "crashed"
        assert f"3 times without progress. The end of its log:\n{SAID.strip()}" in job["error"]["message"]
        told = [one["message"] for one in service.http().get(f"/v1/fine_tuning/jobs/{job['id']}/events").json()["data"]]
        assert sum("broke off" in one for one in told) == 2


def test_an_estimate_that_is_killed_is_made_once_more(tmp_path: Path) -> None:
    """And what libraries print beside it does no harm."""
    killed = tmp_path / "killed"
    (tmp_path / "sitecustomize.py").write_text("print('a library greets')\n")
    env = {"STILLROOM_KILL": f"estimating:1:{killed}", "PYTHONPATH": os.pathsep.join([str(SOURCE), str(tmp_path)])}
    with Served(tmp_path / "service", env=env) as service:
        wanted = {"recipe": digits(), "hold": True}
        body = {"model": "digits", "training_file": "none", "distillation": wanted}
        made = service.http().post("/v1/fine_tuning/jobs", json=body)
        job = service.wait(made.json()["id"], until=("paused",))
    assert killed.exists()
    (told,) = [line for line in service.lines() if line["event"] == "estimate killed"]
    assert (told["job"], told["signal"]) == (job["id"], signal.SIGKILL)
    assert job["status"] == "paused"
    assert job["distillation"]["estimate"]["peak_memory_mib"] > 50
