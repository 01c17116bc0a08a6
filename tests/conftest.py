"""What every test shares: one torch thread, skips that can count as failures, and where Chromium and the data are."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from service_time import ServiceTime

os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch; processes that a test starts inherit it

NO_SKIPS = os.environ.get("STILLROOM_NO_SKIPS", "") not in ("", "0")
turned: list[str] = []
"""Skips turned into failures."""


def pytest_configure(config: pytest.Config) -> None:
    """Tell how long the service's tests take, once for all processes."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ServiceTime(config))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where a test module has imported torch, hold it to one thread; torch itself is not imported here."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def _fail_if_skipped(report: Any, name: str) -> None:
    if not NO_SKIPS or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{name} was skipped, and STILLROOM_NO_SKIPS is set. {reason}"
    turned.append(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With STILLROOM_NO_SKIPS=1 a skipped test is a failed one."""
    report = yield
    _fail_if_skipped(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """The same for a whole file that skips itself."""
    report = yield
    _fail_if_skipped(report, collector.nodeid)
    return report


SLOW = (
    "service/test_generated.py", "service/test_job_kills.py", "stages/test_footprint.py", "test_kill.py", "test_cli.py",
    "test_core_install.py", "service/pages/test_pages_browser.py", "service/test_clients.py", "test_paid_teacher.py",
    "benchmarks/test_service.py", "benchmarks/test_asking.py", "benchmarks/test_reasoning.py", "models/test_language.py",
    "test_language_ensemble.py", "test_on_policy.py", "test_on_policy_kill.py", "service/test_flywheel.py",
    "service/test_executor.py", "stages/test_rounds.py", "test_recorded_words.py", "export/test_export.py",
    "transfer_set/test_verify.py",
)  # fmt: skip
"""Files that take long for the number of their tests, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, so that of several processes none is left alone with one at the end."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path, len(SLOW)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The names of the skips that were turned into failures."""
    if turned:
        terminalreporter.section("skipped, which counts as failed here")
        for name in turned:
            terminalreporter.line(name)


@pytest.fixture
def chromium(request: pytest.FixtureRequest) -> str:
    """The path of a Chromium; without one the test is skipped by name."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip(f"{request.node.nodeid} needs Chromium, and there is none on PATH (Debian: apt-get install chromium)")


@pytest.fixture
def stillroom_data(request: pytest.FixtureRequest) -> Path:
    """The folder that $STILLROOM_DATA names; without one the test is skipped by name."""
    given = os.environ.get("STILLROOM_DATA", "")
    if not given:
        pytest.skip(f"{request.node.nodeid} needs the data sets that $STILLROOM_DATA names, and it is not set")
    folder = Path(given)
    assert folder.is_dir(), f"STILLROOM_DATA={given} is no folder"
    return folder
