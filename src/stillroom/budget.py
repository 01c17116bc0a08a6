"""The hard stops of a recipe: how long a run may work, all its attempts together. Knows no stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillroom.errors import BudgetReached
from stillroom.rundir import read_json, write_json

WRITE_SECONDS = 10.0


class Clock:
    """Counts the working time of a run across all its attempts, and stops it at a limit in minutes; none: never."""

    def __init__(self, limit_minutes: float | None, named: str, path: Path) -> None:
        self._limit_s = None if limit_minutes is None else limit_minutes * 60
        self._named, self._file = named, path / "spent.json"
        self._before_s, self._started, self._written = 0.0, 0.0, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the block runs; what was spent stays written whatever ends it, for a limit that comes later."""
        if self._file.is_file():
            self._before_s = float(read_json(self._file)["seconds"])
        self._started = self._written = time.monotonic()
        try:
            yield
        finally:
            write_json(self._file, {"seconds": self.spent_s})

    @property
    def spent_s(self) -> float:
        """Seconds worked so far, all attempts together."""
        return self._before_s + time.monotonic() - self._started

    def check(self) -> None:
        """Raise BudgetReached where the limit is passed; otherwise go on."""
        if self._limit_s is None:
            return
        if self.spent_s >= self._limit_s:
            raise BudgetReached(
                f"the budget of {self._limit_s / 60:g} minutes is used up",
                where=self._named,
                cure="What was done is kept; raise the budget and run again to go on",
            )
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._written = time.monotonic()
            write_json(self._file, {"seconds": self.spent_s})
