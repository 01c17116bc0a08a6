"""How long the service's tests would take by themselves on as many processes, told at the end of a run and held to a bound.

    STILLROOM_SERVICE_WITHIN_S=360 make test

All of their set-ups, calls and ends are added up and shared among the processes; a file is never split, so it is no less
than the longest file. What a test waits for other processes' tests counts too: on a busy machine the figure is larger.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

FOLDER = "tests/service/"
WITHIN = "STILLROOM_SERVICE_WITHIN_S"


class ServiceTime:
    """A plugin: it hears of every test, whichever process ran it."""

    def __init__(self, config: pytest.Config) -> None:
        self._processes = max(1, int(getattr(config.option, "numprocesses", None) or 1))
        self._by_file: Counter[str] = Counter()
        self._within_s = float(os.environ.get(WITHIN) or "inf")

    @property
    def took_s(self) -> float:
        """What they would take."""
        each = sum(self._by_file.values()) / self._processes
        return max([each, *self._by_file.values()])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up."""
        file = report.nodeid.partition("::")[0]
        if file.startswith(FOLDER):
            self._by_file[file] += report.duration  # type: ignore[assignment]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Too long is a failure."""
        if self.took_s > self._within_s and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The figure, and which files it is made of."""
        if not self._by_file:
            return
        words = f"the service's tests: {self.took_s:.0f} s on {self._processes} processes"
        too_long = self.took_s > self._within_s
        terminalreporter.section(words + (f", and {WITHIN}={self._within_s:g} allows no more" if too_long else ""))
        for file, seconds in self._by_file.most_common(5):
            terminalreporter.line(f"{seconds:7.1f} s  {file}")
