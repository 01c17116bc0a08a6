"""Where a job's work is done: six verbs, so that other machines can be a second implementation. Here: a process on this one.

The work tells what it does in a file of the job's folder, one JSON object a line, so that nothing it told is lost when the
one who reads it ends. This file knows no rows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from stillroom.rundir import read_json, write_json
from stillroom.service.work import processes

TOLD, LOG, BEAT, PLACE, RUN, DATA = "told.jsonl", "log.txt", "beat", "trainer.json", "run", "data"
"""In a job's folder."""
HANDED_FD = "STILLROOM_HANDED_FD"
SILENT_S = 60.0
"""A trainer that shows no sign of life for so long is ended."""
GONE_S = 30.0
"""So long is waited for the end of a process that was killed: it may hang in a disk that does not answer."""
LOG_LINES = 40
Outcome = Literal["succeeded", "failed", "interrupted", "crashed"]


@dataclass(frozen=True)
class Order:
    """A piece of work: the job's folder, with data/ and recipe.json in it, and what its teacher is reached with."""

    job_id: str
    folder: Path
    env: Mapping[str, str]
    handed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How work ended. Crashed: without a word, so it may be tried again."""

    outcome: Outcome
    code: str = ""
    message: str = ""
    where: str = ""


class Unkillable(Exception):
    """A process that does not end, and may still write into its folder: no other can begin there."""


@dataclass(frozen=True)
class Seen:
    """What work told since a place in what it tells, the place after it, and how it ended if it did."""

    lines: list[dict[str, Any]]
    place: int
    ended: Ended | None


class Executor(Protocol):
    """What the worker asks of whatever does the work. A task is what `submit` or `adopt` gave."""

    def submit(self, order: Order) -> Any:
        """Begin the work, or go on with it where it was left."""

    def poll(self, task: Any, place: int) -> Seen:
        """What it told after `place`, and whether it ended; returns at once."""

    def signal(self, task: Any) -> None:
        """Ask it to stop where it can go on later; asked again, without waiting for such a place."""

    def logs(self, folder: Path, lines: int = LOG_LINES) -> str:
        """The last lines of its log."""

    def cancel(self, task: Any) -> None:
        """End it, and all that it started, now."""

    def adopt(self, order: Order) -> Any | None:
        """The task of an earlier worker that still does this work; None where there is none any more. Raises Unkillable."""


@dataclass
class Task:
    """A process at work."""

    process: subprocess.Popen[bytes]
    folder: Path
    begun: float
    first: int
    """Where in the file what it tells begins."""


class Local:
    """A process of this machine for each job, at low priority, that ends with this one."""

    def submit(self, order: Order) -> Task:
        """See Executor."""
        folder = order.folder
        (folder / RUN).mkdir(parents=True, exist_ok=True)
        (folder / BEAT).touch()
        first = (folder / TOLD).stat().st_size if (folder / TOLD).is_file() else 0
        with handed_pipe(order.handed) as (keep, more), open(folder / LOG, "ab") as log:
            process = processes.start(
                "trainer", {"folder": str(folder)}, output=log, errors=log, env={**order.env, **more}, folder=folder,
                keep=keep,
            )  # fmt: skip
        write_json(folder / PLACE, {"pid": process.pid, "started": processes.started_at(process.pid)})
        return Task(process, folder, time.time(), first)

    def poll(self, task: Task, place: int) -> Seen:
        """See Executor."""
        status = task.process.poll()  # before reading: what it told at its very end must not be missed
        if status is None and time.time() - max(task.begun, (task.folder / BEAT).stat().st_mtime) > SILENT_S:
            self.cancel(task)
            return Seen([], place, Ended("crashed", "silent", f"it showed no sign of life for {SILENT_S:.0f} seconds"))
        lines, after = told(task.folder, place)
        if status is None:
            return Seen(lines, after, None)
        processes.reap(task.process)  # and what it started and left behind
        ends = [line["end"] for line in told(task.folder, task.first)[0] if "end" in line]
        if status == 0 and ends:
            return Seen(lines, after, Ended(**ends[-1]))
        words = f"signal {-status}" if status < 0 else f"status {status}"
        return Seen(lines, after, Ended("crashed", "crashed", f"its process ended with {words}"))

    def signal(self, task: Task) -> None:
        """See Executor."""
        if task.process.poll() is None:
            task.process.send_signal(signal.SIGINT)

    def logs(self, folder: Path, lines: int = LOG_LINES) -> str:
        """See Executor."""
        return tail(folder / LOG, lines)

    def cancel(self, task: Task) -> None:
        """See Executor."""
        processes.reap(task.process)

    def adopt(self, order: Order) -> Task | None:
        """None: a process here ends with the worker that began it. One that did not is ended now. Raises Unkillable."""
        known = order.folder / PLACE
        if known.is_file():
            left = read_json(known)
            until = time.monotonic() + GONE_S
            while left["started"] is not None and processes.started_at(left["pid"]) == left["started"]:
                if time.monotonic() > until:
                    raise Unkillable(f"process {left['pid']}, which an earlier worker began, does not end")
                processes.end_group(left["pid"])
                time.sleep(0.02)
        return None


def told(folder: Path, place: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after `place` of what work told, and the place after them; a line that a kill cut is left out."""
    path = folder / TOLD
    if not path.is_file():
        return [], place
    with open(path, "rb") as file:
        file.seek(place)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    found = []
    for line in whole.splitlines():
        with suppress(json.JSONDecodeError):
            read = json.loads(line)
            found += [read] if isinstance(read, dict) else []
    return found, place + len(whole)


def tail(path: Path, lines: int, most: int = 1 << 16) -> str:
    """The last lines of a text, at most so many bytes."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])


@contextmanager
def handed_pipe(handed: Mapping[str, Any]) -> Iterator[tuple[list[int], dict[str, str]]]:
    """A pipe with what a teacher is reached with, to be read once by the process that is given its end.

    There is one also where nothing is handed over: a process that has it connects to no host that is not in it.
    """
    out, into = os.pipe()
    try:
        # In a thread, since a pipe takes no more than some KiB before somebody reads it, and nobody does yet.
        threading.Thread(target=_write, args=(into, json.dumps(dict(handed)).encode()), daemon=True).start()
        yield [out], {HANDED_FD: str(out)}
    finally:
        os.close(out)


def _write(into: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(into, "wb", buffering=0) as pipe:  # whoever should read it may have ended
        rest = memoryview(data)
        while rest:
            rest = rest[pipe.write(rest) :]
