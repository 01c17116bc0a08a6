"""The worker: claims jobs, has them estimated and then carried out, one process each, and writes down how they are.

Two lines of work go side by side: one checks and estimates what came in, the other carries out what is queued. Every write
of either holds a token that rises with each claim, so that a worker that was held up writes nothing of a job that is another's.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from stillroom.rundir import held, take_lock
from stillroom.service.data.retention import Sweeper
from stillroom.service.door.vault import Vault
from stillroom.service.jobs.job_rows import QUEUED, RUNNING, VALIDATING, LeaseLost, claim, free_all
from stillroom.service.rows.database import Database
from stillroom.service.settings import Limits, Settings
from stillroom.service.watch import heartbeat
from stillroom.service.watch.logs import log, log_error
from stillroom.service.work import processes
from stillroom.service.work.executor import Local

if TYPE_CHECKING:
    from stillroom.service.door.lists import Row

LOOK_S, HELD_UP_S = 0.25, 2.0
"""Until it is looked again for a job; and where even that failed."""
LOCK, LOCK_S = ".worker.lock", 30.0
OURS_ALONE = re.compile(
    r"STILLROOM_(SECRET|DATA)|AWS_.*|SSH_AUTH_SOCK|NETRC|PGPASSFILE"
    r"|(?!STILLROOM_).*(PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|APIKEY|CONNECTION_?STRING).*"
    r"|(?!STILLROOM_|(OLD)?PWD$)(.*_)?(KEY|TOKEN|PAT|AUTH|PASS|PWD|PROXY|URL|URI|DSN)S?[0-9]*(_.*)?",
    re.IGNORECASE,
)
"""What a job's process is not told: it has no business with our secret, other people's data, somebody's own keys, or proxies.
The key of its teacher comes through a pipe.
"""
FORBIDDEN = "STILLROOM_FORBID_TEACHERS"


class Line(threading.Thread):
    """A line of work: claims a job, sees to it, claims the next."""

    def __init__(self, worker: Worker, name: str, states: tuple[str, ...], to: str) -> None:
        super().__init__(name=name)
        self.worker, self.states, self.to = worker, states, to

    def run(self) -> None:
        """See threading."""
        while not self.worker.ending.is_set():
            try:
                if not self._next():
                    self.worker.ending.wait(LOOK_S)
            except Exception as error:  # noqa: BLE001 - a disk that is full or held up must not end the worker
                log_error("line held up", error)
                self.worker.ending.wait(HELD_UP_S)

    def _next(self) -> bool:
        """See to one job; False where there is none."""
        job = claim(self.worker.state.database, self.worker.name, self.states, self.to)
        if job is None:
            return False
        try:
            self.worker.see_to(job)
        except LeaseLost:
            log("job left", job_id=job["id"])
        except Exception as error:  # noqa: BLE001 - one job must not end the others; it is tried again, three times
            log_error("job broke", error, job_id=job["id"])
            self.worker.broke(job)
        return True


class Worker:
    """What the lines share."""

    def __init__(self, settings: Settings) -> None:
        database = Database(settings.root)
        self.state = SimpleNamespace(settings=settings, database=database, vault=Vault(settings.root))
        self.executor = Local()
        self.name = f"{socket.gethostname()} {settings.root}"
        self.ending = threading.Event()
        self.env = environment(settings)

    @property
    def settings(self) -> Settings:
        """Of the service."""
        found: Settings = self.state.settings
        return found

    def folder(self, job: Row) -> Path:
        """Of a job."""
        return self.settings.root / "jobs" / str(job["id"])

    def see_to(self, job: Row) -> None:
        """Have a claimed job estimated, or carried out. Raises LeaseLost."""
        # Imported with the first job: a worker that only waits holds less memory without them.
        from stillroom.service.recipes.validation import Validation
        from stillroom.service.work.attempt import Attempt

        attempt = Attempt(self, job)
        if job["left_by"] is not None and attempt.given_up():
            return
        if job["status"] == VALIDATING:
            Validation(self, attempt.job).carry_out()
        else:
            attempt.carry_out()

    def broke(self, job: Row) -> None:
        """Try a job again that the worker itself failed on; three times, and it fails."""
        from stillroom.service.work.attempt import Attempt

        Attempt(self, job).broke()

    def work(self) -> int:
        """Until it is told to end. Its exit status."""
        # The system lets go of the lock when a worker dies, so whoever has it may take over that one's jobs at once.
        with held(take_lock(self.settings.root / LOCK, LOCK_S)):
            free_all(self.state.database, self.name)
            lines: list[threading.Thread] = [Line(self, "validating", (VALIDATING,), VALIDATING)]
            lines += [Line(self, f"running {place}", (QUEUED,), RUNNING) for place in range(self.settings.workers)]
            lines.append(Sweeper(self.state.database, self.settings, self.ending))
            for line in lines:
                line.start()
            while all(line.is_alive() for line in lines) and not self.ending.is_set():
                try:
                    heartbeat.beat(self.settings.root)
                except OSError as error:
                    log_error("no sign of life", error)
                self.ending.wait(heartbeat.BEAT_S)
            broken = not self.ending.is_set()  # a line ended by itself, and the worker with it: it is started anew
            self.ending.set()
            for line in lines:
                line.join()
        self.state.database.close()
        return 1 if broken else 0


def environment(settings: Settings) -> dict[str, str]:
    """What a job's process is told: this one's environment without secrets and proxies, and the operator's forbidden teachers."""
    kept = {name: value for name, value in os.environ.items() if not OURS_ALONE.fullmatch(name)}
    forbidden = filter(None, [kept.get(FORBIDDEN, ""), *settings.forbidden_teachers])
    return {**kept, FORBIDDEN: ",".join(forbidden), "TOKENIZERS_PARALLELISM": "false"}


def settings_of(order: dict[str, Any]) -> Settings:
    """Settings as they came over a pipe."""
    limits = Limits(**order.pop("limits"))
    root = Path(order.pop("root"))
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in order.items()}
    return Settings(root=root, limits=limits, **plain)


def main() -> None:
    """Work for the service whose settings stand on standard input."""
    worker = Worker(settings_of(processes.begin()))

    def end(sign: int, frame: FrameType | None) -> None:
        worker.ending.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(worker.work())


if __name__ == "__main__":
    main()
