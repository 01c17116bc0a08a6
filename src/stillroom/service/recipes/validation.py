"""A job that came in, before it is queued: its data is written, its recipe made, its cost and time estimated."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from stillroom.errors import StillroomError
from stillroom.rundir import fingerprint, sha256_file
from stillroom.service.data import lineage_rows
from stillroom.service.door.faults import ApiError
from stillroom.service.jobs.event_rows import tell
from stillroom.service.jobs.job_object import machine_usd
from stillroom.service.jobs.job_rows import PAUSED, QUEUED, Row, fenced, wish_of, written
from stillroom.service.recipes.sources import Prepared, handed_to, prepared
from stillroom.service.rows.tables import jobs
from stillroom.service.teachers.outward import NotResolved
from stillroom.service.watch.logs import log
from stillroom.service.work import processes
from stillroom.service.work.attempt import Attempt, of_error
from stillroom.service.work.executor import DATA, LOG, handed_pipe
from stillroom.service.work.leases import Lease

if TYPE_CHECKING:
    from stillroom.service.work.worker import Worker

LIMIT_S, POLL_S = 300.0, 0.1
OUTPUT = "estimate.json"
MOST_REASONS = 20
ENDS = ("_low", "", "_high")


class Validation:
    """Of a claimed job."""

    def __init__(self, worker: Worker, job: Row) -> None:
        self.worker, self.job, self.folder = worker, job, worker.folder(job)
        self.database = worker.state.database

    def carry_out(self) -> None:
        """Queue it, hold it, or fail it with what is wrong. Raises LeaseLost."""
        with Lease(self.database, self.job) as lease:
            try:
                found = prepared(self.worker.state, self.job, self.folder)
                handed = handed_to(self.worker.state, self.job)
                lease.check()
                with written(self.database) as rows:
                    fenced(rows, self.job, recipe=found.recipe.to_tree())
                    tell(rows, self.job, "Files validated; estimating time and cost")
                    if found.note is not None:
                        tell(rows, self.job, found.note)
                made_from = made_of(found, self.folder / DATA)
                estimate = self._known(made_from) or self._estimated(handed, lease)
            except NotResolved as error:
                Attempt(self.worker, self.job).put_off(error)
                return
            except (StillroomError, ApiError) as error:
                Attempt(self.worker, self.job).fail(*of_error(error))
                return
            if estimate is None:  # the service ends; it is done again when it is back
                with written(self.database) as rows:
                    fenced(rows, self.job, lease_until=None, worker=None)
                return
            refused = estimate.get("refused")
            if refused is not None:
                Attempt(self.worker, self.job).fail(refused["code"], refused["message"], refused["param"] or None)
                return
            self._queue(found, {**estimate, "of": made_from})

    def _known(self, made_from: str) -> dict[str, Any] | None:
        """The estimate of an earlier job of this project with this very recipe and data."""
        same = (jobs.c.project_id == self.job["project_id"]) & (jobs.c.estimate["of"].as_string() == made_from)
        timed = jobs.c.estimate["minutes"].as_float().is_not(None)
        newest = select(jobs.c.estimate).where(same & timed).order_by(jobs.c.number.desc()).limit(1)
        with self.database.reading() as rows:
            found: dict[str, Any] | None = rows.execute(newest).scalar()
        return found

    def _queue(self, found: Prepared, estimate: dict[str, Any]) -> None:
        wanted = self.job["asked"].get("distillation") or (self.job["asked"].get("method") or {}).get("distillation")
        holds = bool(wanted and wanted.get("hold"))
        figures = {**self.job["figures"], **left_out(found.rejected)}
        lineage_rows.record_all(self.database, self.job, found.sources)
        with written(self.database) as rows:
            fenced(
                rows, self.job, status=PAUSED if holds else QUEUED, estimate=estimate, figures=figures, lease_until=None,
                worker=None,
            )  # fmt: skip
            tell(rows, self.job, told_of(estimate), data=estimate)
            tell(rows, self.job, "Fine-tuning job waits to be started" if holds else "Fine-tuning job queued")

    def _estimated(self, handed: dict[str, Any], lease: Lease) -> dict[str, Any] | None:
        """The figures of `stillroom check`; {"why"} where they could not be had in time; None: the service ends."""
        until = time.monotonic() + LIMIT_S
        status, found = self._estimating(handed, lease, until, alone=True)
        if status is not None and status < 0:
            # Killed, by whatever: where it rehearses in another process, it lives to tell of that one's end.
            log("estimate killed", "warning", job=self.job["id"], signal=-status)
            status, found = self._estimating(handed, lease, until, alone=False)
        if status is None or status == 0:
            return found
        return {"why": f"the estimate broke off with status {status}"}

    def _estimating(
        self, handed: dict[str, Any], lease: Lease, until: float, alone: bool
    ) -> tuple[int | None, dict[str, Any] | None]:
        """The exit status of one try, and what it found; no status where it was ended here: then what `_estimated` returns."""
        path = self.folder / OUTPUT
        with handed_pipe(handed) as (keep, more), open(path, "wb") as output, open(self.folder / LOG, "ab") as errors:
            child = processes.start(
                "estimating", {"folder": str(self.folder), "alone": alone}, output=output, errors=errors,
                folder=self.folder, env={**self.worker.env, **more}, keep=keep,
            )  # fmt: skip
        try:
            while child.poll() is None:
                lease.check()
                wish_of(self.database, self.job)
                if self.worker.ending.is_set():
                    return None, None
                if time.monotonic() > until:
                    return None, {"why": f"the estimate took longer than {LIMIT_S:.0f} seconds"}
                time.sleep(POLL_S)
        finally:
            processes.reap(child)
        if child.returncode != 0:
            return child.returncode, None
        found = json.loads(path.read_bytes().splitlines()[-1])
        return 0, as_estimate(found) if "figures" in found else dict(found)


def made_of(found: Prepared, data: Path) -> str:
    """A digest of a recipe, its name left aside, and of all data that was written for it."""
    tree = {name: value for name, value in found.recipe.to_tree().items() if name != "name"}
    sums = {str(path.relative_to(data)): sha256_file(path) for path in sorted(data.rglob("*")) if path.is_file()}
    return fingerprint(tree, sums)


def left_out(rejected: Counter[str] | None) -> dict[str, Any]:
    """Figures of a job: how many rows were left out, and how many for each reason, the commonest first."""
    if rejected is None:
        return {"rejected_rows": None, "rejected_reasons": None}
    common = rejected.most_common(MOST_REASONS)
    others = rejected.total() - sum(count for _, count in common)
    told = [*common, ("other reasons", others)] if others else common
    reasons = [{"why": why, "rows": count} for why, count in told]
    return {"rejected_rows": rejected.total(), "rejected_reasons": reasons}


def as_estimate(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan's figures under names that are one word each, and what a paid teacher takes as numbers.

    `teacher_calls`, `teacher_tokens` and `teacher_usd` are then what is likely, with `_low` and `_high` the ends of an interval.
    """
    figures = {re.sub(r"\W+", "_", name): value for name, value in plan["figures"].items()}
    numbers = {
        f"teacher_{name}{end}": value
        for name, ends in plan["teacher"].items()
        for end, value in zip(ENDS, ends, strict=True)
    }
    return {**figures, **numbers, "notes": plan["notes"]}


def told_of(estimate: dict[str, Any]) -> str:
    """An estimate in a line."""
    if "why" in estimate:
        return f"No estimate: {estimate['why']}"
    machine = machine_usd(estimate)
    told = [] if machine is None else [f"{machine} USD of this machine"]
    if "teacher_usd_high" in estimate:
        told.append(f"{estimate['teacher_usd_low']:,.4g} to {estimate['teacher_usd_high']:,.4g} USD of its teacher")
    parts = [" and ".join(told)] if told else []
    if "minutes" in estimate:  # what is reckoned on paper has been neither timed nor weighed
        parts = [f"{estimate['minutes']:g} minutes", *parts, f"{estimate['peak_memory_mib']:,} MiB of memory"]
    return f"Estimated: {', '.join(parts) or 'see its notes'}"
