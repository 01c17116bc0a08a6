"""`make bench-asking`: how fast, how cheaply and how safely a teacher is asked that is paid by the call.

    python benchmarks/asking.py [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

The teacher is the loopback teacher in a process of its own: 200 ms latency, 5 % 429, 1 % 5xx, 0.5 % that hang, prices and
limits. Work is kept in runs/bench-asking/PRESET/; each finished block is written down at once. `--again` runs a finished
block once more, and its last run counts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.asking_sizes import FAULTS, LATENCY_MS, PRESETS, PRICE
from benchmarks.blocks import Bench, Block

WORDS = (
    f"The teacher is Stillroom's loopback teacher in a process of its own on the same machine, with {LATENCY_MS} ms latency; "
    f"{FAULTS['too_many']:.0%} of requests get 429, {FAULTS['server_error']:.0%} a 5xx, {FAULTS['hang']:.1%} no answer at all. "
    "What was paid for, and how often, is counted by the teacher. "
)
PRESET_WORDS = {
    "smoke": "Preset smoke: everything runs, nothing is measured.",
    "time": "Preset time: fewer runs and kills than bars.tsv asks for; the column n says how many.",
    "full": "",
}


BLOCKS = {
    "pace": Block(
        "rate and processor time", "asking_pace.pace",
        ("requests_per_minute", "pace_questions", "pace_runs", "pace_concurrency"), True,
    ),
    "kill": Block(
        "killed and run again", "asking_kill.kill",
        ("kill_questions", "kill_concurrency", "random_kills", "commit_questions", "commit_concurrency", "commit_kills"),
    ),
    "budget": Block(
        "budgets drawn at random", "asking_budget.budget", ("budgets", "budget_questions", "kill_concurrency"),
    ),
    "resume": Block("going on with many answers", "asking_resume.resume", ("stored", "stored_runs"), True),
}  # fmt: skip
BENCH = Bench(
    "asking", "Asking a teacher that is paid by the call", WORDS, PRESET_WORDS, BLOCKS, PRESETS,
    libraries=("openai", "httpx2"), constants=(LATENCY_MS, FAULTS, PRICE),
)  # fmt: skip


if __name__ == "__main__":
    import openai  # noqa: F401 - runs are forked from here, and start with what they need

    from stillroom import flow, ledger  # noqa: F401

    BENCH.main(__doc__)
