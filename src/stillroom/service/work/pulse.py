"""Whether a trainer still goes on: it shows signs of life while it does, and none once it stands still or goes in circles.

Much of a job tells nothing for long: a model is loaded, a teacher is fitted, an interface is out of order and asked again for an
hour. So what nothing is told of may take very long where the process computes, and long where it only waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WAITS_S, WORKS_S = 3 * 3_600.0, 24 * 3_600.0
"""Without a step of progress: so long it may do nothing at all, and so long it may compute."""
BUSY_SHARE = 0.01
"""Of a processor; who shows signs of life takes less."""


class Pulse:
    """Of one process."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, spent: Callable[[], float] = time.process_time
    ) -> None:
        self._clock, self._spent = clock, spent
        self._moved = self._busy = self._looked = clock()
        self._spent_s = spent()

    def moved(self) -> None:
        """Some of the work is done."""
        self._moved = self._clock()

    def why_not(self) -> str | None:
        """Why it does not go on any more; None while it does. To be asked every few seconds."""
        now, spent_s = self._clock(), self._spent()
        if spent_s - self._spent_s > BUSY_SHARE * (now - self._looked):
            self._busy = now
        self._looked, self._spent_s = now, spent_s
        if now - max(self._moved, self._busy) > WAITS_S:
            return f"stands still: it has waited for {WAITS_S / 3600:g} hours"
        if now - self._moved > WORKS_S:
            return f"gets nowhere: it has computed for {WORKS_S / 3600:g} hours, and nothing was done"
        return None
