"""How much patience the Socratic bench has: `smoke` shows in minutes that everything runs, `time` fits half an hour, `full`
measures what bars.tsv asks for. Latency, limits, faults and prices of the teacher are the same in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.language_sizes import SMOLLM2

PRICE = {"input": 0.15, "output": 0.6}
"""USD per million tokens."""
FAULTS = {"too_many": 0.05, "server_error": 0.01, "hang": 0.001, "retry_after_s": 0.1}
REFUSED, INVENTED = 0.005, 0.002
"""Shares of questions that the teacher refuses, or answers with a label there is none of: paid for, and not learned from."""
LATENCY_MS, SPREAD_MS = 20, 30
TIMEOUT_S = 3.0
CONCURRENCY = 64
LIMITS = {"requests_per_minute": 120_000, "tokens_per_minute": 30_000_000}
"""What the endpoint lets through, and what it is told not to pass. 64 requests in flight at this latency come to 110,000 a
minute: the limits are kept to, and cost no time."""

PRIMARY = "margin"
EXPLORED = ("entropy", "committee", "diverse", "margin_diverse")
AUDIT = 0.1
"""Share of every budget that is spent on random questions nobody learns from."""
TASKS = ("digits", "sst2", "intents")


@dataclass(frozen=True)
class PromptSizes:
    """What a preset decides of the prompts put to a language model."""

    model: str = SMOLLM2
    """The teacher, of which some layers are the student."""
    layers: int = 4
    held_out: int = 2000
    pool: int = 1500
    budget: int = 60_000
    """Tokens of the teacher, read and written, that each way of choosing prompts may spend."""
    answer_tokens: int = 24
    """The most of an answer; what is longer is cut, and its end is neither learned nor judged."""
    write_tokens: int = 240
    """The most of a call that writes prompts."""
    steps: int = 260
    seeds: int = 3


@dataclass(frozen=True)
class Sizes:
    """What a preset decides."""

    seeds: int = 20
    budgets: tuple[int, ...] = (32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048)
    """Calls in all at the end of each round, the audit slice included: about 1.4 times those before."""
    anchor: int = 1024
    """Calls at which random's accuracy is what a strategy has to reach."""
    pool: int = 8000
    test: int = 2500
    digits_pool: int = 1347
    teacher_rows: int = 20_000
    teacher_steps: int = 3000
    streams: int = 20
    stream_rows: int = 10_000
    stream_pool: int = 42_000
    prompts: PromptSizes = field(default_factory=PromptSizes)


PRESETS = {
    "smoke": Sizes(
        seeds=2,
        budgets=(32, 64, 128, 256),
        anchor=128,
        pool=400,
        test=300,
        digits_pool=400,
        teacher_rows=1500,
        teacher_steps=300,
        streams=2,
        stream_rows=600,
        stream_pool=6000,
        prompts=PromptSizes(
            layers=2, held_out=8, pool=40, budget=1000, answer_tokens=8, write_tokens=60, steps=4, seeds=1
        ),
    ),
    "time": Sizes(seeds=5, streams=5, prompts=PromptSizes(held_out=100, pool=200, budget=4000, steps=25, seeds=1)),
    "full": Sizes(),
}


def spec(rows: str) -> dict[str, Any]:
    """The teacher behind its endpoint: what it says stands in a file."""
    return {
        "mind": {"kind": "rule", "source": rows, "error_rate": 0.0, "refuse": REFUSED, "invent": INVENTED},
        "latency_ms": LATENCY_MS,
        "latency_spread_ms": SPREAD_MS,
        "limits": LIMITS,
        "faults": FAULTS,
        "price": PRICE,
    }
