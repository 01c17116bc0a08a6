"""`make bench-asking`: how fast, how cheaply and how safely a teacher is asked that is paid by the call.

    python benchmarks/asking.py [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

The teacher is the loopback teacher in a process of its own: 200 ms latency, 5 % 429, 1 % 5xx, 0.5 % that hang, prices and
limits. Work is kept in runs/bench-asking/PRESET/; each finished block is written down at once. `--again` runs a finished
block once more, and its last run counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

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
    command = f"make bench-asking ARGS='--preset {preset}'"
    made_with = versions() | {name: version(name) for name in ("openai", "httpx2")}
    write(BENCH, TITLE, words.strip(), command, listed, tables, machine(), made_with, folder)
    return listed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--preset", choices=list(PRESETS), default=DEFAULT, help=f"how much patience (default {DEFAULT})"
    )
    parser.add_argument("--only", nargs="+", choices=list(BLOCKS), metavar="BLOCK", help="just these")
    parser.add_argument("--again", nargs="+", choices=list(BLOCKS), metavar="BLOCK", default=[], help="once more")
    parser.add_argument("--list", action="store_true", help="name the blocks and stop")
    parser.add_argument("--write", action="store_true", help="run nothing, write the results of what is finished")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for and not finished yet; write results after each block."""
    asked = _arguments()
    if asked.list:
        print("\n".join(f"{name:12} {block.words}" for name, block in BLOCKS.items()))
        return
    import openai  # noqa: F401 - runs are forked from here, and start with what they need
    import torch

    from stillroom import flow, ledger  # noqa: F401

    torch.set_num_threads(1)
    sizes, base = PRESETS[asked.preset], HOME / asked.preset
    folder = base / "results" if asked.preset == "smoke" else RESULTS
    rows = Rows(folder / f"{BENCH}.rows.jsonl")
    for name in [] if asked.write else asked.only or asked.again or BLOCKS:
        settings = settings_of(name, sizes)
        if rows.find(name, settings) is not None and name not in asked.again:
            print(f"{name}: finished before")
            continue
        started = time.monotonic()
        print(f"{name}: {BLOCKS[name].words}", flush=True)
        rows.append(name, settings, run(name, sizes, base))
        print(f"{name}: done in {time.monotonic() - started:,.0f} s", flush=True)
        write_results(asked.preset, rows, folder)
    for bar in write_results(asked.preset, rows, folder):
        state = "not run" if "value" not in bar else "met" if bar["met"] else "missed"
        print(
            f"{state:8}{bar['id']:26}{bar.get('value', '')!s:22}{bar['op']} {bar['target']:g}   {bar.get('why', '')[:90]}"
        )


if __name__ == "__main__":
    main()
