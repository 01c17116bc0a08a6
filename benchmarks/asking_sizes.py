"""How much patience the asking bench has: `smoke` shows in a minute or two that everything runs, `time` fits half an hour of
a busy machine, `full` measures what bars.tsv asks for. Latency, faults and prices of the teacher are the same in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LATENCY_MS = 200
FAULTS = {"too_many": 0.05, "server_error": 0.01, "hang": 0.005, "retry_after_s": 0.5}
PRICE = {"input": 0.15, "output": 0.6}
"""USD per million tokens."""
TIMEOUT_S = 3.0
"""After which a request that hangs is cut."""


@dataclass(frozen=True)
class Sizes:
    """What a preset decides."""

    requests_per_minute: int = 6_000
    pace_questions: int = 6_000
    pace_runs: int = 5
    pace_concurrency: int = 64
    kill_questions: int = 240
    kill_concurrency: int = 16
    random_kills: int = 100
    commit_questions: int = 40
    commit_concurrency: int = 8
    commit_kills: int | None = None
    """So many commit points, evenly spread; None: every one."""
    budgets: int = 100
    budget_questions: int = 240
    stored: int = 100_000
    stored_runs: int = 5


PRESETS = {
    "smoke": Sizes(
        requests_per_minute=1_200, pace_questions=60, pace_runs=2, pace_concurrency=16, kill_questions=40, random_kills=3,
        commit_questions=12, commit_kills=4, budgets=3, budget_questions=80, stored=500, stored_runs=2,
    ),
    "time": Sizes(pace_questions=3_000, pace_runs=3, random_kills=30, commit_kills=40, budgets=30, stored_runs=3),
    "full": Sizes(),
}  # fmt: skip


def spec(rows: str, **more: Any) -> dict[str, Any]:
    """The teacher: it looks the label up in a file of rows, and has the latency, faults and prices of the bench."""
    return {
        "mind": {"kind": "rule", "source": rows, "error_rate": 0.0},
        "latency_ms": LATENCY_MS,
        "faults": FAULTS,
        "price": PRICE,
        **more,
    }
