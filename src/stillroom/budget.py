"""The hard stops of a recipe: how long a run may work, all its attempts together, and what it may spend. Knows no stage.

Money is whole nano-USD: nothing drifts, and no budget is passed by rounding.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path

from stillroom.errors import BudgetReached, Overbilled
from stillroom.rundir import read_json, write_json

WRITE_SECONDS = 10.0
NANO = 10**9
MILLION = 10**6


class Clock:
    """Counts the working time of a run across all its attempts, and stops it at a limit in minutes; none: never."""

    def __init__(self, limit_minutes: float | None, named: str, path: Path) -> None:
        self._limit_s = None if limit_minutes is None else limit_minutes * 60
        self._named, self._file = named, path / "spent.json"
        self._before_s, self._started, self._written = 0.0, 0.0, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the block runs; what was spent stays written whatever ends it, for a limit that comes later."""
        if self._file.is_file():
            self._before_s = float(read_json(self._file)["seconds"])
        self._started = self._written = time.monotonic()
        try:
            yield
        finally:
            write_json(self._file, {"seconds": self.spent_s})

    @property
    def spent_s(self) -> float:
        """Seconds worked so far, all attempts together."""
        return self._before_s + time.monotonic() - self._started

    def check(self) -> None:
        """Raise BudgetReached where the limit is passed; otherwise go on."""
        if self._limit_s is None:
            return
        if self.spent_s >= self._limit_s:
            raise BudgetReached(
                f"the budget of {self._limit_s / 60:g} minutes is used up",
                where=self._named,
                cure="What was done is kept; raise the budget and run again to go on",
            )
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._written = time.monotonic()
            write_json(self._file, {"seconds": self.spent_s})


@dataclass(frozen=True)
class Cost:
    """Of one request: nano-USD and tokens, whole numbers."""

    nano_usd: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def usd(self) -> float:
        """In USD, for people."""
        return self.nano_usd / NANO

    @property
    def tokens(self) -> int:
        """Read and written together."""
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True)
class Rates:
    """What tokens cost: nano-USD a million tokens read, and a million written."""

    nano_usd_in: int = 0
    nano_usd_out: int = 0

    @classmethod
    def of(cls, usd_in: float, usd_out: float, share: float = 1.0) -> Rates:
        """From USD a million tokens, as price lists give them; `share` of it, where a slower mode is cheaper. Rounds up."""
        return cls(*(_nano(Decimal(str(usd)) * Decimal(str(share)), ROUND_CEILING) for usd in (usd_in, usd_out)))

    def cost(self, tokens_in: int, tokens_out: int) -> Cost:
        """Of so many tokens, rounded up to a whole nano-USD."""
        nano_usd = -(-(tokens_in * self.nano_usd_in + tokens_out * self.nano_usd_out) // MILLION)
        return Cost(nano_usd, tokens_in, tokens_out)


@dataclass(frozen=True)
class Limits:
    """The hard stops of a run that asks a paid teacher; None: no such stop."""

    usd: float | None = None
    tokens: int | None = None
    calls: int | None = None

    @property
    def nano_usd(self) -> int | None:
        """The limit in USD as whole nano-USD, rounded down."""
        return None if self.usd is None else _nano(Decimal(str(self.usd)), ROUND_FLOOR)

    @property
    def of_bills(self) -> bool:
        """There is a stop that depends on what an endpoint says a call took."""
        return self.usd is not None or self.tokens is not None

    def refuse_overbilled(self, most: Cost, cost: Cost, where: str) -> None:
        """Raise Overbilled where a call took more of what is limited here than its most, which was set aside for it."""
        by_usd = self.usd is not None and cost.nano_usd > most.nano_usd
        if not by_usd and (self.tokens is None or cost.tokens <= most.tokens):
            return
        times = max(cost.nano_usd / max(1, most.nano_usd), cost.tokens / max(1, most.tokens))
        raise Overbilled(
            f"a call was billed at {cost.tokens:,} tokens, {cost.usd:.4g} USD, and the most that was set aside for it is "
            f"{most.tokens:,} tokens, {most.usd:.4g} USD, so the budget could be passed; such bills come of hidden thoughts "
            "or a hidden prompt",
            where=where,
            cure=f"What was bought is kept and counted. Make teacher.reserve {times:.3g} times what it is, or more, or raise "
            "teacher.max_tokens; then run again",
        )


@dataclass(frozen=True)
class Paid:
    """Of a run: requests that were, or may have been, billed; the seconds that the answered ones took, added up."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    nano_usd: int = 0
    seconds: float = 0.0

    @property
    def usd(self) -> float:
        """In USD."""
        return self.nano_usd / NANO

    @property
    def tokens(self) -> int:
        """Read and written together."""
        return self.tokens_in + self.tokens_out


def _nano(usd: Decimal, rounding: str) -> int:
    return int((usd * NANO).to_integral_value(rounding))
