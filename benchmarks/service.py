"""`make bench-service`: how fast the service answers while it trains, and what it withstands.

    python -m benchmarks.service [--preset smoke|time|full] [--only BLOCK ...] [--again BLOCK ...] [--list] [--write]

Every block starts real servers on this machine. Work is kept in runs/bench-service/PRESET/; each finished block is written
down at once. `--again` runs a finished block once more, and its last run counts.
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
from benchmarks.results import RESULTS, Found, Row, Rows, Table, bars_of, fingerprint, read_bars, write
from benchmarks.service_sizes import PRESETS, Sizes

BENCH = "service"
HOME = Path(__file__).resolve().parent.parent / "runs" / "bench-service"
DEFAULT = "full"
TITLE = "Distillation as a service"
WORDS = (
    "Servers are started as a person starts them, `stillroom serve`, and asked over HTTP on the same machine. Two processes "
    "that multiply matrices at nice 19 stand for a trainer. What is killed is killed with SIGKILL. "
)
PRESET_WORDS = {
    "smoke": "Preset smoke: everything runs, nothing is measured.",
    "time": "Preset time: fewer runs and kills than bars.tsv asks for; the column n says how many.",
    "full": "",
}
LIBRARIES = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "httptools", "uvloop", "openai")


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
    "load": Block(
        "answers while a trainer works", "service_load.load", ("load_s", "load_rate", "load_runs", "jobs", "events"), True,
    ),
    "upload": Block("memory during a large upload", "service_uploads.upload", ("upload_mib", "upload_runs"), True),
    "streams": Block("event streams that break", "service_streams.streams", ("streams", "reconnects", "stream_events")),
    "kills": Block("kill -9 of server, worker and trainer", "service_safety.kills", ("commit_kills", "random_kills")),
    "duplicates": Block("creates whose answers are dropped", "service_safety.duplicates", ("calls",)),
    "bad-input": Block("bad files and bodies", "service_safety.bad_input", ("bad_inputs",)),
    "attacks": Block("attacks with paths and addresses", "service_safety.attacks", ("attacks",)),
    "overhead": Block("a student served, beside the bare model", "service_serving.overhead", ("serving_rounds",), True),
    "batching": Block("many clients at once", "service_serving.batching", ("batching_rounds",), True),
    "axe": Block("the pages, looked at by axe-core", "service_axe.axe", ("pages",)),
}  # fmt: skip


def settings_of(name: str, sizes: Sizes) -> str:
    """The fingerprint of all that a block's figures depend on."""
    from benchmarks.machine import machine

    block = BLOCKS[name]
    parts = [str(getattr(sizes, one)) for one in block.depends]
    return fingerprint([name, *parts, machine() if block.timed else None])


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
    line = f"make bench-service ARGS='--preset {preset}'"
    made_with = versions() | {name: version(name) for name in LIBRARIES}
    write(BENCH, TITLE, words.strip(), line, listed, tables, machine(), made_with, folder)
    return listed


def main() -> None:
    """Run what is asked for and not finished yet; write results after each block."""
    words = {name: block.words for name, block in BLOCKS.items()}
    asked = command.parser(__doc__, BLOCKS, PRESETS, DEFAULT).parse_args()
    if asked.list:
        print(command.listed(words))
        return
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
