"""`make bench-asking`: how fast, how cheaply and how safely a teacher is asked that is paid by the call.

    python benchmarks/asking.py [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

The teacher is the loopback teacher in a process of its own: 200 ms latency, 5 % 429, 1 % 5xx, 0.5 % that hang, prices and
limits. Work is kept in runs/bench-asking/PRESET/; each finished block is written down at once. `--again` runs a finished
block once more, and its last run counts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import command
from benchmarks.asking_sizes import FAULTS, LATENCY_MS, PRESETS, PRICE, Sizes
from benchmarks.results import RESULTS, Found, Row, Rows, Table, bars_of, fingerprint, read_bars, write

BENCH = "asking"
HOME = Path(__file__).resolve().parent.parent / "runs" / "bench-asking"
DEFAULT = "full"
TITLE = "Asking a teacher that is paid by the call"
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


@dataclass(frozen=True)
class Block:
    """A part of the bench that is run, and found again, by itself."""

    words: str
    run: str
    """`module.function`."""
    depends: tuple[str, ...]
    """The sizes that its figures depend on."""
    timed: bool = False
    """Its figures belong to one machine."""


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


def settings_of(name: str, sizes: Sizes) -> str:
    """The fingerprint of all that a block's figures depend on."""
    from benchmarks.machine import machine

    block = BLOCKS[name]
    parts = [str(getattr(sizes, one)) for one in block.depends]
    return fingerprint([name, LATENCY_MS, FAULTS, PRICE, *parts, machine() if block.timed else None])


def run(name: str, sizes: Sizes, base: Path) -> Row:
    """Run a block to its end."""
    module, _, function = BLOCKS[name].run.partition(".")
    call: Callable[[Sizes, Path], Row] = getattr(import_module(f"benchmarks.{module}"), function)
    return call(sizes, base)


def write_results(preset: str, rows: Rows, folder: Path) -> list[dict[str, Any]]:
    """The two files from every finished block of a preset."""
    from benchmarks.machine import machine, versions

    bars: dict[str, Found] = {}
    tables: dict[str, Table] = {}
    left = []
    for name, block in BLOCKS.items():
        row = rows.find(name, settings_of(name, PRESETS[preset]))
        if row is None:
            left.append(f"{name} ({block.words})")
            continue
        bars |= row.bars
        tables |= row.tables
    listed = bars_of(read_bars(BENCH), bars, {})
    words = WORDS + PRESET_WORDS[preset] + (f" Not finished at this preset: {', '.join(left)}." if left else "")
    line = f"make bench-asking ARGS='--preset {preset}'"
    made_with = versions() | {name: version(name) for name in ("openai", "httpx2")}
    write(BENCH, TITLE, words.strip(), line, listed, tables, machine(), made_with, folder)
    return listed


def main() -> None:
    """Run what is asked for and not finished yet; write results after each block."""
    words = {name: block.words for name, block in BLOCKS.items()}
    asked = command.parser(__doc__, BLOCKS, PRESETS, DEFAULT).parse_args()
    if asked.list:
        print(command.listed(words))
        return
    import openai  # noqa: F401 - runs are forked from here, and start with what they need
    import torch

    from stillroom import flow, ledger  # noqa: F401

    torch.set_num_threads(1)
    sizes, base = PRESETS[asked.preset], HOME / asked.preset
    folder = base / "results" if asked.preset == "smoke" else RESULTS
    rows = Rows(folder / f"{BENCH}.rows.jsonl")
    command.run_each(
        {name: words[name] for name in command.wanted(asked, BLOCKS)},
        asked.again,
        rows,
        lambda name: settings_of(name, sizes),
        lambda name: run(name, sizes, base),
        lambda: write_results(asked.preset, rows, folder),
    )
    print(command.last_word(write_results(asked.preset, rows, folder)))


if __name__ == "__main__":
    main()
