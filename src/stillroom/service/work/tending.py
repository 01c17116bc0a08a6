"""The worker beside the server: started with it, started again where it dies, ended with it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from contextlib import suppress

from stillroom.service.settings import Settings
from stillroom.service.watch.logs import log, log_error
from stillroom.service.work import processes

AGAIN_S, HELD_UP_S = 0.2, 2.0
END_S = 8.0


class Tended:
    """A context in which a worker carries out jobs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ending = threading.Event()
        # A child ends with the thread that started it, so one thread does for as long as the server lives.
        self._thread = threading.Thread(target=self._tend, name="tending", daemon=True)

    def __enter__(self) -> Tended:
        if self._settings.workers:
            self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """End it: it is asked to put its jobs back into the queue, and not waited for longer than END_S."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(END_S + 2)

    def _tend(self) -> None:
        while not self._ending.is_set():
            order = dataclasses.asdict(self._settings) | {"root": str(self._settings.root.absolute())}
            try:
                process = processes.start("worker", order, output=sys.stderr.fileno(), errors=None, env=os.environ)
            except OSError as error:  # no memory or no process to be had: perhaps in a while
                log_error("worker not started", error)
                self._ending.wait(HELD_UP_S)
                continue
            while process.poll() is None and not self._ending.wait(AGAIN_S):
                pass
            if self._ending.is_set():
                _end(process)
            else:
                log("worker ended", "warn", status=processes.reap(process))
                self._ending.wait(AGAIN_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    processes.reap(process)
