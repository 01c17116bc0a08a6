"""How fast this processor is, for promises that are made in seconds and tests that run on any machine, beside others."""

from __future__ import annotations

import time

USUAL_S = 0.06
"""A million additions take CPython 3.11 so long on the processor that the promises were made on."""
ADDITIONS = 1_000_000


def slowness() -> float:
    """How many times longer this processor takes at the moment than that one, the best of five; no less than 1."""
    took_s = []
    for _ in range(5):
        started = time.process_time()
        total = 0
        for one in range(ADDITIONS):
            total += one
        took_s.append(time.process_time() - started)
    return max(1.0, min(took_s) / USUAL_S)
