"""How fast an endpoint is asked, and how long to wait before it is asked again."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

CAUGHT_UP_S = 0.25
"""What a limit left unused in so many seconds may be used at once: threads do not wake on the dot."""
TOGETHER_S = 0.05
"""Slots of a moment of this length begin together. A processor that is woken for each of a hundred requests a second finds its
caches cold each time, and takes twice as long for all of them."""


@dataclass(frozen=True)
class Patience:
    """How long to wait before trying again: evenly drawn from 0 to base * 2^tries seconds, at most `cap_s`."""

    base_s: float = 1.0
    cap_s: float = 60.0
    tries: int = 8
    """Of one request; after that its question is left unanswered."""
    seed: int | None = None
    """Of the draws; none: each process waits otherwise, as it should where several ask."""

    def dice(self) -> random.Random:
        """What the waits are drawn with."""
        return random.Random(self.seed)

    def wait_s(self, tries: int, chance: float, told_s: float | None = None) -> float:
        """Seconds before the next try; `chance` is a draw from 0 to 1, `told_s` what the server asks for."""
        if told_s is not None:  # a little later than told, so that not all come back at once
            return told_s + chance * min(self.base_s, told_s)
        return chance * min(self.cap_s, self.base_s * 2.0**tries)


@dataclass(frozen=True)
class Manners:
    """How fast an endpoint may be asked, and how long it may take."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 16
    timeout_s: float = 60.0
    patience: Patience = field(default_factory=Patience)


class Pace:
    """So many a minute, spread evenly over moments; what was left unused in the last ones may be caught up."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_s = 0.0 if per_minute is None else 60 / per_minute
        self._clock, self._lock = clock, threading.Lock()
        self._next_s = clock()

    def wait_s(self, amount: float = 1.0) -> float:
        """Take the next slot; the seconds until it begins."""
        with self._lock:
            now_s = self._clock()
            start_s = max(self._next_s, now_s - CAUGHT_UP_S)
            lasts_s = amount * self._each_s
            self._next_s = start_s + lasts_s
            if start_s > now_s and 0 < lasts_s < TOGETHER_S:
                start_s = math.ceil(start_s / TOGETHER_S) * TOGETHER_S
            return max(0.0, start_s - now_s)

    def give_back(self, amount: float) -> None:
        """What was taken and not used; negative where more was used."""
        with self._lock:
            self._next_s -= amount * self._each_s

    def pause(self, for_s: float) -> None:
        """No slot begins before so many seconds are over."""
        with self._lock:
            self._next_s = max(self._next_s, self._clock() + for_s)
