"""Holding a job while it is worked on: its lease is renewed beside the work, and a job that was taken away is noticed."""

from __future__ import annotations

import threading

from stillroom.service.jobs.job_rows import LEASE_S, LeaseLost, Row, renew
from stillroom.service.rows.database import Database

RENEW_S = LEASE_S / 5


class Lease:
    """A context in which a job stays this worker's, as long as nobody takes it away."""

    def __init__(self, database: Database, job: Row) -> None:
        self._database, self._job = database, job
        self._ending, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost where the job is not this worker's any more."""
        if self._lost.is_set() or not self._thread.is_alive():
            raise LeaseLost(self._job["id"])

    def _renew(self) -> None:
        while not self._ending.wait(RENEW_S):
            try:
                renew(self._database, self._job)
            except LeaseLost:
                self._lost.set()
                return
