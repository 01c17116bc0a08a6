"""A forked process that is killed at a commit point, as a power cut would end it, and what tells that from a crash."""

from __future__ import annotations

import faulthandler
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from stillroom import rundir

AT, LOG = "STILLROOM_KILL_AT", "STILLROOM_COMMIT_LOG"
HUNG_S = 240
"""A child that has not ended by then hangs: a lock that another thread held when it was forked is never given back."""


def came_to_its_end(work: Callable[[], object], kill_at: int = -1, log: Path | None = None) -> bool:
    """Do the work in a forked process that ends itself at a commit point. True where it came to its end instead.

    An error of the work's own is printed, and fails the test: it is neither a kill nor an end. So is where it hangs.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faulthandler.dump_traceback_later(HUNG_S, exit=True, file=2)
            rundir._commit_points = 0
            os.environ[AT] = str(kill_at)
            if log is not None:
                os.environ[LOG] = str(log)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - nothing may come back out of the fork into the test runner
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the work failed before it was killed; its error stands above"
    return True


def commit_points(work: Callable[[], object], log: Path) -> int:
    """Do the work to its end in a forked process, and count the commit points on the way."""
    assert came_to_its_end(work, log=log)
    return int(log.read_text())
