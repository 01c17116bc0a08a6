"""One attempt at a job: its trainer is started, followed, paused where that is wished, and what came of it is written down.

A trainer that ends without a word is tried again; after three attempts in which nothing was added to the run, the job fails
with the end of its log. So does one with which the worker itself ended, five times in a row.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from stillroom.errors import StillroomError
from stillroom.service.data.file_rows import with_names
from stillroom.service.door.faults import ApiError
from stillroom.service.jobs.event_rows import tell
from stillroom.service.jobs.job_rows import (
    PAUSED,
    QUEUED,
    VALIDATING,
    LeaseLost,
    Row,
    by_id,
    fenced,
    told_after_cancel,
    wish_of,
    written,
)  # fmt: skip
from stillroom.service.recipes.sources import handed_to
from stillroom.service.teachers.outward import NotResolved
from stillroom.service.watch.logs import log
from stillroom.service.work import finishing
from stillroom.service.work.executor import RUN, Ended, Order, Seen, Unkillable
from stillroom.service.work.leases import Lease
from stillroom.service.work.ledgers import answers_kept, ledgers_in, spent_in
from stillroom.service.work.progress_told import advanced, is_known, new_point

if TYPE_CHECKING:
    from stillroom.service.work.worker import Worker

POLL_S, WRITE_S = 0.2, 1.0
ATTEMPTS, LOST = 3, 5
"""Without progress in between: of a trainer; and workers that ended while they had the job, which may be its fault or not."""
AGAIN_S, HARD_S, END_S = 10.0, 30.0, 5.0
"""After a first signal: a second one, then an end; and how long a service that ends waits."""
TAIL = 12
WAIT_S, MOST_WAIT_S, MOST_DOUBLED = 15.0, 600.0, 6
"""Before a job is tried again whose teacher's name could not be looked up: at first, at most, and how often it doubles."""


class Attempt:
    """At a job that this worker claimed."""

    def __init__(self, worker: Worker, job: Row) -> None:
        self.worker, self.database, self.executor = worker, worker.state.database, worker.executor
        self.job: dict[str, Any] = dict(job)
        self.folder = worker.folder(job)
        self._wrote, self._asked, self._asked_at = 0.0, 0, 0.0

    def carry_out(self) -> None:
        """From its start to what came of it. Raises LeaseLost, with the trainer ended."""
        with Lease(self.database, self.job) as lease:
            try:
                handed = handed_to(self.worker.state, self.job)
            except NotResolved as error:
                self.put_off(error)
                return
            except (StillroomError, ApiError) as error:
                self.fail(*of_error(error))
                return
            order = Order(self.job["id"], self.folder, self.worker.env, handed)
            self._begin()
            try:
                task = self.executor.adopt(order) or self.executor.submit(order)
            except Unkillable as error:
                self.crashed(Ended("crashed", "unkillable", str(error)))
                return
            try:
                ended = self._follow(task, lease)
            except BaseException:
                self.executor.cancel(task)
                with written(self.database) as rows:
                    told_after_cancel(rows, self.job, spent_in(self.folder / RUN))
                raise
            self._settle(ended)

    def _figures(self) -> dict[str, Any]:
        """The job's, with what its teachers took by now."""
        return {**self.job["figures"], **spent_in(self.folder / RUN)}

    def _begin(self) -> None:
        self.job["figures"].setdefault("begun_at", time.time())
        self.job["figures"].pop("waits", None)
        goes_on = (self.folder / RUN).is_dir()
        with written(self.database) as rows:
            fenced(rows, self.job, figures=self.job["figures"])
            tell(rows, self.job, "Fine-tuning job goes on" if goes_on else "Fine-tuning job started")

    def _follow(self, task: Any, lease: Lease) -> Ended:
        """Until it ended. Raises LeaseLost."""
        while True:
            seen = self.executor.poll(task, self.job["figures"].get("told", 0))
            self._take(seen)
            if seen.ended is not None:
                return seen.ended
            lease.check()
            wish = wish_of(self.database, self.job)
            if self.worker.ending.is_set() or wish == "pause":
                self._ask(task)
            time.sleep(POLL_S)

    def _ask(self, task: Any) -> None:
        """Ask it to stop: at a place where it can go on, then wherever it is, then not at all."""
        waited = time.monotonic() - self._asked_at
        hard = END_S if self.worker.ending.is_set() else HARD_S
        if self._asked == 0:
            self._asked_at = time.monotonic()
        elif waited > hard:
            self.executor.cancel(task)
            return
        elif self._asked > 1 or waited < AGAIN_S:
            return
        self._asked += 1
        self.executor.signal(task)

    def _take(self, seen: Seen) -> None:
        """Write down what it told: points at once, the rest once a second. Raises LeaseLost."""
        points = any("point" in line for line in seen.lines)
        if not seen.lines or not (points or seen.ended or time.monotonic() - self._wrote > WRITE_S):
            return
        self._wrote = time.monotonic()
        figures, phases = self._figures(), self.job["phases"]
        models = (self.job["estimate"] or {}).get("models_trained")
        last = dict(figures.get("last", {}))
        with written(self.database) as rows:
            for line in seen.lines:
                if "stage" in line:
                    if not is_known(phases, line):
                        tell(rows, self.job, f"{line['stage']}: {line['total']:,} {line['unit']}")
                    phases = advanced(phases, line, models)
                elif "point" in line:
                    self._point(rows, last, line)
            figures = {**figures, "told": seen.place, "last": last}
            fenced(rows, self.job, figures=figures, phases=phases)
        self.job["figures"], self.job["phases"] = figures, phases

    def _point(self, rows: Connection, last: dict[str, float], line: Mapping[str, Any]) -> None:
        data = new_point(last, line)
        if data is not None:
            last[line["of"]] = data["step"]
            words = f"Step {data['step']:,} of {line['of']}: training loss={data['train_loss']:.4f}"
            tell(rows, self.job, words, type="metrics", data=data)

    def _settle(self, ended: Ended) -> None:
        log("trainer ended", job_id=self.job["id"], outcome=ended.outcome, code=ended.code)
        if ended.outcome == "succeeded":
            size = finishing.write_metrics(self.worker.settings, self.job)
            with written(self.database) as rows:
                finishing.succeed(self.worker.settings, rows, self.job, size)
        elif ended.outcome == "failed":
            self.fail(ended.code, ended.message, ended.where or None)
        elif ended.outcome == "interrupted" or self._asked:
            self._put_back()
        else:
            self.crashed(ended)

    def _put_back(self) -> None:
        """Paused, where that is still wished; else into the queue."""
        with written(self.database) as rows:
            paused = by_id(rows, self.job["id"])["wish"] == "pause"
            fenced(
                rows, self.job, status=PAUSED if paused else QUEUED, figures=self._figures(), wish=None, lease_until=None,
                worker=None,
            )  # fmt: skip
            tell(rows, self.job, "Fine-tuning job paused" if paused else "Fine-tuning job was put back into the queue")

    def put_off(self, error: ApiError) -> None:
        """Back to where it was claimed, for a while that doubles each time: nothing is wrong with it. Raises LeaseLost."""
        figures = self.job["figures"]
        waits = figures.get("waits", 0)
        wait_s = min(WAIT_S * 2**waits, MOST_WAIT_S)
        with written(self.database) as rows:
            paused = by_id(rows, self.job["id"])["wish"] == "pause"
            back = PAUSED if paused else VALIDATING if self.job["status"] == VALIDATING else QUEUED
            fenced(
                rows, self.job, status=back, wish=None, figures={**figures, "waits": min(waits + 1, MOST_DOUBLED)},
                lease_until=None if paused else time.time() + wait_s, worker=None,
            )  # fmt: skip
            tell(rows, self.job, f"{error.message} The job is tried again in {wait_s:.0f} seconds", "warn")

    def crashed(self, ended: Ended) -> None:
        """Try it again, unless it was the third time without progress."""
        mark = progress_of(self.folder / RUN)
        attempts = 1 if mark != self.job["progress"] else self.job["attempts"] + 1
        if attempts >= ATTEMPTS:
            told = self.executor.logs(self.folder, TAIL)
            self.fail(
                ended.code, f"{ended.message}, {attempts} times without progress. The end of its log:\n{told}", None
            )
            return
        back = VALIDATING if self.job["status"] == VALIDATING else QUEUED
        with written(self.database) as rows:
            fenced(
                rows, self.job, status=back, attempts=attempts, progress=mark, figures=self._figures(), lease_until=None,
                worker=None,
            )  # fmt: skip
            tell(rows, self.job, f"The trainer broke off: {ended.message}. It is tried again", "warn")

    def given_up(self) -> bool:
        """Count that a worker ended while it had this job; True where that came so often that it fails. Raises LeaseLost."""
        mark, figures = progress_of(self.folder / RUN), self.job["figures"]
        before = figures.get("lost", {})
        times: int = 1 + (before.get("times", 0) if before.get("at") == mark else 0)
        self.job["figures"] = {**figures, "lost": {"times": times, "at": mark}}
        if times >= LOST:
            told = f"The service ended {times} times while it was at this job, which did not get on in between."
            self.fail("worker_lost", told, None)
            return True
        with written(self.database) as rows:
            fenced(rows, self.job, figures=self.job["figures"])
        return False

    def broke(self) -> None:
        """The worker itself failed on it."""
        with suppress(LeaseLost):
            self.crashed(Ended("crashed", "internal_error", "the service failed on this job; see its log"))

    def fail(self, code: str, message: str, param: str | None) -> None:
        """The end, and why. Raises LeaseLost."""
        with written(self.database) as rows:
            message = with_names(rows, self.job["project_id"], message)
            error = {"code": code, "message": message, "param": param}
            now = int(time.time())
            fenced(
                rows, self.job, status="failed", finished_at=now, error=error, figures=self._figures(), wish=None,
                lease_until=None, worker=None,
            )  # fmt: skip
            tell(rows, self.job, f"The job failed: {message}", "error", data=error)


def of_error(error: StillroomError | ApiError) -> tuple[str, str, str | None]:
    """Code, message and param of an error as a job keeps them."""
    if isinstance(error, ApiError):
        return error.code or "invalid_request", error.message, error.param
    return type(error).__name__, str(error), error.where or None


def progress_of(run: Path) -> str:
    """A digest of what a run has for good: finished folders, kept answers, checkpoints. Equal: nothing was added."""
    kept = [path for path in run.rglob("*") if path.is_file() and _lasts(path.relative_to(run))]
    answers = {str(path.relative_to(run)): answers_kept(path) for path in ledgers_in(run)}
    told = sorted((str(path.relative_to(run)), path.stat().st_size, path.stat().st_mtime_ns) for path in kept)
    return hashlib.sha256(repr((told, answers)).encode()).hexdigest()


def _lasts(path: Path) -> bool:
    return path.name == "manifest.json" or path.parts[0] == ".work"
