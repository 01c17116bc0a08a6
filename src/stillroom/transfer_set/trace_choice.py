"""Which traces to keep, how many more to sample, and what each kept one cost. Pure functions of what was sampled."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol

from stillroom.rows import Verdict
from stillroom.transfer_set.decontaminate import normalised
from stillroom.transfer_set.traces import Trace

Length = Literal["short", "long", "mixed", "first"]
LONG_SHARE = 0.2
"""Of the questions of a mixed set: those that keep their longest trace."""
RATE_COUNTS = 2
"""As so many samples of a question, what was accepted of all others."""


class Billed(Protocol):
    """What one sample cost."""

    @property
    def tokens_in(self) -> int:
        """Read."""
        ...

    @property
    def tokens_out(self) -> int:
        """Written."""
        ...

    @property
    def usd(self) -> float:
        """Charged."""
        ...


def choose_traces(
    traces: Sequence[Trace], verdicts: Sequence[Verdict], key: str, length: Length = "mixed", count: int = 1
) -> list[int]:
    """Positions of at most `count` traces to keep of one question: complete, accepted, each text once.

    short and long: the shortest or longest by words, ties by place. first: as sampled. mixed: for one question in five
    the longest, for the others the shortest (Li et al. 2025, arXiv:2502.12143); which, the question's `key` decides.
    """
    kept: dict[str, int] = {}
    for place, (trace, verdict) in enumerate(zip(traces, verdicts, strict=True)):
        if trace.complete and verdict.accepted:
            kept.setdefault(normalised(f"{trace.thought}\n{trace.solution}"), place)
    places = list(kept.values())
    if length == "mixed":
        length = "long" if _drawn(key) < LONG_SHARE else "short"
    if length != "first":
        sign = 1 if length == "short" else -1
        places.sort(key=lambda place: (sign * traces[place].length, place))
    return places[:count]


def _drawn(key: str) -> float:
    """A number from 0 to 1 that the key alone decides."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def more_needed(
    verdicts: Sequence[Verdict],
    most: int,
    wanted: int = 1,
    rate: float = 0.5,
    worth: float = 0.05,
    at_once: int = 1,
) -> int:
    """How many more samples of a question to ask for now; 0: stop.

    verdicts: of all samples so far, None-answers as unsure. most: samples of a question at the most. wanted: accepted ones
    that are enough. Stop when there are `wanted`, when there are `most`, or when the chance that the next sample is
    accepted, (accepted + 2 rate) / (samples + 2), is below `worth`: `rate` is the share accepted over the whole run so far,
    and counts for two samples. Else ask for as many as should bring what is lacking at that
    chance, at most `at_once`.
    """
    samples = len(verdicts)
    accepted = sum(verdict.accepted for verdict in verdicts)
    lacking, room = wanted - accepted, most - samples
    if lacking <= 0 or room <= 0:
        return 0
    chance = (accepted + RATE_COUNTS * rate) / (samples + RATE_COUNTS)
    if chance < worth:
        return 0
    expected = ceil(lacking / chance - 1e-9) if chance > 0 else room
    return max(1, min(expected, at_once, room))


@dataclass(frozen=True)
class CostOfKept:
    """What sampling cost, rejected samples included, and how much of it falls on one kept trace."""

    kept: int
    calls: int
    tokens_in: int
    tokens_out: int
    usd: float
    outcomes: dict[str, int]
    """accepted, rejected and unsure: how many samples."""
    usd_per_kept: float | None
    """None where nothing was kept; so are the next two."""
    tokens_per_kept: float | None
    calls_per_kept: float | None


def cost_of_kept(
    samples: Sequence[Billed], verdicts: Sequence[Verdict], kept: int | None = None, calls: int | None = None
) -> CostOfKept:
    """The cost of all samples over those kept. kept: where fewer were kept than accepted; calls: where one call gave several."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    left = outcomes["accepted"] if kept is None else kept
    made = len(samples) if calls is None else calls
    tokens_in, tokens_out = (sum(getattr(one, side) for one in samples) for side in ("tokens_in", "tokens_out"))
    usd = float(sum(one.usd for one in samples))

    def each(total: float) -> float | None:
        return total / left if left else None

    every = {name: outcomes[name] for name in ("accepted", "rejected", "unsure")}
    return CostOfKept(
        left, made, tokens_in, tokens_out, usd, every, each(usd), each(tokens_in + tokens_out), each(made)
    )
