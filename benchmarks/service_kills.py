"""kill -9 of the server, its worker and its trainers, at their commit points and at random: what jobs come to all the same.

A job ends right where it succeeds, its weights and answers are byte for byte those of a job that nobody killed, it has one
model, and its events come in order, none twice, one of them saying that it succeeded. Every process that stood below the
killed one must be gone within ORPHAN_S. A kill at a random moment counts while the job under it has not ended.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import func, select

from benchmarks.service_jobs import body, digits, made
from benchmarks.service_process import ENDED, Served, below, children_of
from stillroom.service.rows.tables import jobs, models

ROLES = ("server", "worker", "trainer")
ORPHAN_S, JOB_S = 5.0, 300.0
LEAST_S = 0.1
"""Before a kill at random."""
KILL, AT, LOG = "STILLROOM_KILL", "STILLROOM_KILL_AT", "STILLROOM_COMMIT_LOG"
STEPS = {"epochs": 1, "batch_size": 600, "checkpoint_seconds": 0}
SENDS = 200
SUCCEEDED = "The job has successfully completed"


def recipe() -> dict[str, Any]:
    """A checkpoint after every step, of which there are few."""
    teacher = {"kind": "trained", "model": {"kind": "mlp", "hidden": [8]}, **STEPS}
    return digits(training=STEPS, teacher=teacher)


@dataclass
class Tally:
    """What came of kills."""

    kills: int = 0
    missed: int = 0
    """Commit points that a job did not come to, so that nothing was killed."""
    jobs: int = 0
    right: int = 0
    orphans: int = 0
    lost: int = 0
    """Jobs that were acknowledged, and are not there or not ended."""
    why: list[str] = field(default_factory=list)
    of_roles: dict[str, int] = field(default_factory=dict)
    """Kills at random moments, by role."""

    def add(self, other: Tally) -> None:
        """Both together."""
        for name in ("kills", "missed", "jobs", "right", "orphans", "lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.why += other.why
        for role, count in other.of_roles.items():
            self.of_roles[role] = self.of_roles.get(role, 0) + count


class Struck(Served):
    """A server that is started again whenever it ends, with what is to be killed in its environment."""

    was_killed = False
    """It ended by SIGKILL once."""

    def stop(self, sign: int = signal.SIGTERM, within_s: float = 20.0) -> int | None:
        """See Served."""
        status = super().stop(sign, within_s)
        self.was_killed |= status == -signal.SIGKILL
        return status

    def alive(self) -> bool:
        """Its process runs."""
        return self._process is not None and self._process.poll() is None

    def again(self) -> Struck:
        """Start it where it ended; its own kill is over then."""
        if not self.alive():
            self.stop()
            self._env.pop(AT, None)
            self.start()
        return self

    def send(self, call: str) -> str:
        """Create a job, as a client that does not give up; its id."""
        for _ in range(SENDS):
            try:
                answer = (
                    self.again()
                    .http()
                    .post("/v1/fine_tuning/jobs", json=body(recipe()), headers={"Idempotency-Key": call})
                )
            except (httpx2.TransportError, RuntimeError):
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                return str(answer.json()["id"])
            time.sleep(0.2)
        raise RuntimeError(f"no job was created: {self.told()[-2000:]}")

    def end_of(self, job_id: str) -> dict[str, Any]:
        """The job when it has ended, however often the server is to be started for that."""
        until = time.monotonic() + JOB_S
        while time.monotonic() < until:
            try:
                job: dict[str, Any] = self.again().http().get(f"/v1/fine_tuning/jobs/{job_id}").json()
            except (httpx2.TransportError, RuntimeError):
                continue
            if job.get("status") in ENDED or ("error" in job and job["error"] and "status" not in job):
                return job
            time.sleep(0.1)
        return job

    def has_ended(self, job_id: str) -> bool:
        """By its row, whether a server runs or not."""
        with self.rows.reading() as rows:
            return rows.execute(select(jobs.c.status).where(jobs.c.id == job_id)).scalar() in ENDED

    def events_of(self, job_id: str) -> list[dict[str, Any]]:
        """All events of a job that has ended, by the API, the oldest first."""
        client, found, after = self.again().http(), list[dict[str, Any]](), dict[str, str]()
        while True:
            answer = client.get(f"/v1/fine_tuning/jobs/{job_id}/events", params={"limit": "100", **after})
            answer.raise_for_status()
            page = answer.json()
            found += page["data"]
            if not page["has_more"]:
                return found[::-1]
            after = {"after": found[-1]["id"]}


def reference(folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """What a job makes that nobody kills, and how many commit points each role passes meanwhile."""
    log = folder / "points"
    with Struck(folder, env={LOG: str(log)}) as service:
        job = service.send("reference")
        ended = service.end_of(job)
        if ended["status"] != "succeeded":
            raise RuntimeError(f"the reference failed: {ended}")
        found = made(service.root, job)
    # Each adds its role to the name that it was given by whoever started it.
    paths = {"server": log, "worker": Path(f"{log}.worker"), "trainer": Path(f"{log}.worker.trainer")}
    return found, {role: int(path.read_text()) for role, path in paths.items()}


def struck_at(role: str, point: int, folder: Path, expected: dict[str, str]) -> Tally:
    """One job, with one process of a role killed at one of its commit points.

    In the folder of `reference` the job's estimate is known already, and costs no time again.
    """
    call = f"{role} at point {point}"
    told = folder / call.replace(" ", "-")
    env = {AT: str(point)} if role == "server" else {KILL: f"{role}:{point}:{told}"}
    service = Struck(folder, env=env)
    try:
        with suppress(RuntimeError):  # it is killed before it listens
            service.start()
        tally = _judged(service, service.send(call), expected, call)
        happened = service.was_killed if role == "server" else told.exists()
        tally.kills, tally.missed = int(happened), int(not happened)
        return tally
    finally:
        service.stop()


def struck_at_random(kills: int, folder: Path, expected: dict[str, str], seed: int = 0, roles: tuple[str, ...] = ROLES,
                     most_s: float = 12.0) -> Tally:  # fmt: skip
    """Job after job, with a process of a random role killed at random moments, until there were so many kills.

    `most_s`: of rest before a kill; of further jobs as long as the job before took, so that most moments are within a job.
    """
    rng, tally = random.Random(seed), Tally()
    service = Struck(folder)  # as struck_at
    try:
        while tally.kills < kills:
            job = service.send(f"random {seed} {tally.jobs}")
            for _ in range(rng.randint(1, 2)):  # three without progress in between are a job's end, as promised
                time.sleep(rng.uniform(LEAST_S, most_s))
                if tally.kills < kills and service.alive() and not service.has_ended(job):
                    _strike(service, rng.choice(roles), tally, job)
                    service.again()
            tally.add(_judged(service, job, expected, f"random, job {tally.jobs}"))
            done = service.end_of(job)
            # One that was lost has neither, and is counted already.
            most_s = max(1.0, (done.get("finished_at") or 0.0) - (done.get("created_at") or 0.0))
        return tally
    finally:
        service.stop()


def of_role(service: Served, role: str) -> list[int]:
    """The processes of a role, by their place below the server."""
    workers = service.children()
    if role == "server":
        return [service.pid]
    if role == "worker":
        return workers
    return [child for worker in workers for child in children_of(worker) if is_trainer(child)]


def is_trainer(pid: int) -> bool:
    """It carries a job out, and does not estimate one."""
    try:
        return b"stillroom.service.work.trainer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def gone_within(pids: list[int], seconds: float = ORPHAN_S) -> list[int]:
    """Those that still live after so many seconds."""
    until = time.monotonic() + seconds
    left = list(pids)
    while left and time.monotonic() < until:
        left = [pid for pid in left if lives(pid)]
        time.sleep(0.05)
    return left


def lives(pid: int) -> bool:
    """A process is there, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _strike(service: Struck, role: str, tally: Tally, job: str) -> None:
    """Kill one process of a role, if there is one, and look for orphans. It counts if the job had not ended even then."""
    for pid in of_role(service, role)[:1]:
        under = below(pid)
        os.kill(pid, signal.SIGKILL)
        if not service.has_ended(job):
            tally.kills += 1
            tally.of_roles[role] = tally.of_roles.get(role, 0) + 1
        left = gone_within([pid, *under] if role != "server" else under)
        tally.orphans += len(left)
        if left:
            tally.why.append(f"{len(left)} processes outlived a {role}")


def _judged(service: Struck, job_id: str, expected: dict[str, str], words: str) -> Tally:
    """How a job ended."""
    job = service.end_of(job_id)
    tally = Tally(jobs=1, lost=job.get("status") not in ENDED)
    with service.rows.reading() as rows:
        count = rows.execute(select(func.count()).where(models.c.job_id == job_id)).scalar()
        known = rows.execute(select(func.count()).where(jobs.c.id == job_id)).scalar()
    same = job.get("status") == "succeeded" and made(service.root, job_id) == expected
    wrong = wrong_events(service.events_of(job_id)) if same else ""
    tally.right = int(same and count == 1 and known == 1 and not wrong)
    if not tally.right:
        told = f"{job.get('status')}, {count} models, same bytes: {same}, {job.get('error')}"
        tally.why.append(f"{words}: {wrong or told}")
    return tally


def wrong_events(events: list[dict[str, Any]]) -> str:
    """What is wrong with the events of a job that succeeded, the oldest first; empty where nothing is."""
    numbers = [int(event["id"].rpartition("-")[2]) for event in events]
    if any(one >= other for one, other in pairwise(numbers)):
        return "its events are doubled or out of order"
    ends = sum(event["message"] == SUCCEEDED for event in events)
    return "" if ends == 1 else f"{ends} of its events say that it succeeded"
