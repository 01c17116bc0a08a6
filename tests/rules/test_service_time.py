"""The plugin that tells how long the service's tests take, in a real run of pytest in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
from service_time import ServiceTime

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ServiceTime(config))
"""
WAITS = "import time\n\ndef test_it():\n    time.sleep(0.6)\n\ndef test_again():\n    time.sleep(0.6)\n"


@pytest.mark.parametrize(
    ("within", "more", "status"),
    [("", (), 0), ("60", (), 0), ("0.5", (), 1), ("1", ("-p", "xdist", "-n", "2", "--dist", "loadfile"), 1)],
)
def test_too_long_fails_where_it_is_asked_for(
    tmp_path: Path, root: Path, child_environment: dict[str, str], within: str, more: tuple[str, ...], status: int
) -> None:
    """Two processes do not make one file shorter."""
    for folder, text in (("service", WAITS), ("other", WAITS)):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / f"test_{folder}.py").write_text(text)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    env = {**child_environment, "PYTHONPATH": str(root / "tests"), "STILLROOM_SERVICE_WITHIN_S": within}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take seconds to import, four times
    env["PYTEST_ADDOPTS"] = ""  # what somebody asks of this run is not asked of that one
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *more, "tests"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "the service's tests: " in line]
    assert len(told) == 1
    assert float(told[0].partition("tests: ")[2].partition(" s")[0]) >= 1
    assert ("allows no more" in told[0]) is bool(status)
    assert "test_other" not in done.stdout[done.stdout.index(told[0]) :].partition("4 passed")[0]
