"""Timing of variants against each other in one process: blocks take turns, each round starts with another one.

The clock is the processor time of this process: on one thread without waiting that is the time on the wall of a quiet
machine, and on a busy one it does not count the turns of others. What a neighbour does to the caches in one block of a
round it likely does in the next, so a ratio is taken within each round and the median of those is given, with the order
statistics that hold the true median 95 % of the time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

Block = Callable[[], None]


def rounds(blocks: Mapping[str, Block], count: int) -> dict[str, list[float]]:
    """Processor seconds of each block in each of `count` rounds; one round before them is not counted."""
    names = list(blocks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, count):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            began = time.process_time()
            blocks[name]()
            if turn >= 0:
                seconds[name].append(time.process_time() - began)
    return seconds


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, list[float]]:
    """Median of the ratios within each round, and its interval."""
    return middle([one / other for one, other in zip(above, below, strict=True)])


def paired_difference(more: Sequence[float], less: Sequence[float]) -> tuple[float, list[float]]:
    """Median of the differences within each round, and its interval."""
    return middle([one - other for one, other in zip(more, less, strict=True)])


def middle(values: Sequence[float]) -> tuple[float, list[float]]:
    """The median, and the two values that hold the true median with at least 95 %; all of them where they are too few."""
    ordered = sorted(values)
    count, outside = len(ordered), 0
    # Of n draws, k lie below the true median with binomial(n, 1/2) probability.
    while 2 * sum(math.comb(count, k) for k in range(outside + 2)) / 2**count <= 0.05:
        outside += 1
    keep = outside if 2 * sum(math.comb(count, k) for k in range(outside + 1)) / 2**count <= 0.05 else 0
    return median(ordered), [ordered[keep], ordered[count - 1 - keep]]
