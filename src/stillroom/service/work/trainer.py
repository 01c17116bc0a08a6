"""The process that carries out one job: it calls flow.distill on the job's recipe and tells how far it is.

It is started by an executor, is given the job's folder, and knows no rows. Each line it tells is a JSON object:
{"stage", "unit", "done", "total"}, {"of", "point"} or {"end"}.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from stillroom.errors import BudgetReached, InputError, Interrupted, StillroomError
from stillroom.evaluation.processes import end_at_once
from stillroom.progress import Done
from stillroom.rundir import read_json
from stillroom.service.work import processes
from stillroom.service.work.executor import BEAT, DATA, RUN, TOLD
from stillroom.service.work.pulse import Pulse

NICE = 19
TELL_S, BEAT_S = 0.5, 2.0
RECIPE = "recipe.json"


class Teller:
    """A Show whose audience reads a file; and where someone asks the work to stop."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab")  # noqa: SIM115 - as long as the process lives
        if self._file.tell():
            self._file.write(b"\n")  # a kill may have cut the last line
        self._asked = 0
        self.pulse = Pulse()

    def tell(self, **line: Any) -> None:
        """One line."""
        self.pulse.moved()
        self._file.write(json.dumps({"at": round(time.time(), 3), **line}).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing more is told."""
        self._file.close()

    def stop(self, sign: int, frame: FrameType | None) -> None:
        """Stop at the next place where it can go on later; asked again, at once."""
        self._asked += 1
        if self._asked > 1:
            raise KeyboardInterrupt

    def may_go_on(self) -> None:
        """See progress.Watching."""
        self.pulse.moved()
        if self._asked:
            raise Interrupted("stopped by hand", cure="Resume the job: it goes on where it was")

    def point(self, words: str, point: dict[str, float]) -> None:
        """See progress.Watching."""
        self.tell(of=words, point=point)

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[Done]:
        """See progress.Show."""
        count, said = 0, time.monotonic()
        self.tell(stage=words, unit=unit, done=0, total=total)
        sys.stderr.write(f"{words}: {total:,} {unit}\n")
        sys.stderr.flush()

        def done(more: int, before: bool = False) -> None:
            nonlocal count, said
            count += more
            self.pulse.moved()
            if unit != "steps":  # a training is stopped after its step is kept, and not in it
                self.may_go_on()
            if time.monotonic() - said >= TELL_S:
                said = time.monotonic()
                self.tell(stage=words, unit=unit, done=count, total=total)

        try:
            yield done
        except BaseException:
            self.tell(stage=words, unit=unit, done=count, total=total)
            raise
        self.tell(stage=words, unit=unit, done=total, total=total)


def main() -> None:
    """Carry out the order on standard input."""
    order = processes.begin(NICE)
    folder = Path(order["folder"])
    teller = Teller(folder / TOLD)
    signal.signal(signal.SIGINT, teller.stop)
    threading.Thread(target=_beat, args=(folder / BEAT, teller.pulse), daemon=True).start()
    teller.tell(end=_distilled(folder, teller))
    teller.close()


def _distilled(folder: Path, teller: Teller) -> dict[str, str]:
    """How it ended; anything but our own errors goes on as it is, and ends the process."""
    from stillroom import flow
    from stillroom.recipe import Recipe

    try:
        teller.may_go_on()
        recipe = Recipe.from_tree(read_json(folder / RECIPE))
        flow.distill(recipe, folder / RUN, show=teller, folder=folder / DATA)
    except (Interrupted, KeyboardInterrupt):
        return {"outcome": "interrupted"}
    except StillroomError as error:
        sys.stderr.write(f"error: {error}\n")
        code = "budget_reached" if isinstance(error, BudgetReached) else _code(error)
        return {"outcome": "failed", "code": code, "message": str(error), "where": error.where}
    return {"outcome": "succeeded"}


def _code(error: StillroomError) -> str:
    return "invalid_recipe" if isinstance(error, InputError) else "run_failed"


def _beat(path: Path, pulse: Pulse) -> None:
    """Signs of life while it goes on; then where every thread stands, for its log, and none any more."""
    while (why := pulse.why_not()) is None:
        os.utime(path)
        time.sleep(BEAT_S)
    sys.stderr.write(f"error: this trainer {why}\n")
    faulthandler.dump_traceback(sys.stderr)


if __name__ == "__main__":
    main()
    end_at_once()
