"""`make bench-speed`: what a training costs beside the plain one, as ratios in one process, on one thread.

    python benchmarks/speed.py [--rounds N] [--out FOLDER]

Needs no data. With $STILLROOM_TORCHDISTILL_PYTHON, the path of a Python that has torchdistill, that tool is timed too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import command
from benchmarks.results import (
    RESULTS,
    Found,
    Row,
    Rows,
    Table,
    bars_of,
    fingerprint,
    origins_of,
    read_bars,
    write,
)
from benchmarks.speed_blocks import SMALL, WIDE, Bench, products
from benchmarks.timing import paired_difference, paired_ratio, rounds
from stillroom.models.device import gains_from_bfloat16

BENCH = "speed"
PEER = "STILLROOM_TORCHDISTILL_PYTHON"
EPOCH = 60_000
SLOWER = "this processor multiplies bfloat16 slower than float32, or has no arithmetic for it"
WORDS = (
    "Each figure is a ratio (or a difference) of two trainings that take turns in one process on one thread, so that what "
    "slows the machine slows both: the median over the rounds of the ratio within a round, with the order statistics that "
    "hold the true median with 95 %. The clock is the processor time of the process, which leaves out the turns of other "
    "programs. Plain is a bare PyTorch loop on labels with a lean index loader (`benchmarks/speed_blocks.py`); networks are "
    "784-800-800-10 with a 784-1200-1200-10 teacher, batch 128, momentum SGD, float32 unless said otherwise. Times come "
    "from blocks of 100 steps and are scaled to an epoch of 60,000 rows."
)


def epochs(count: int, folder: Path) -> Row:
    """Stored and live epochs over the plain one."""
    bench, native = Bench(WIDE, folder), gains_from_bfloat16("cpu")
    blocks = {
        "plain": bench.plain(),
        "supervised": bench.supervised(),
        "stored": bench.stored(),
        "live": bench.live("float32"),
    }
    if native:
        blocks["live_bf16"] = bench.live("bfloat16")
    seconds = rounds(blocks, count)
    n = f"{count} rounds"
    live = paired_ratio(seconds["live_bf16" if native else "live"], seconds["plain"])
    words = {
        "plain": "bare PyTorch, labels", "supervised": "Stillroom's loop, labels", "stored": "Stillroom, stored answers",
        "live": "Stillroom, live teacher in float32", "live_bf16": "Stillroom, live teacher in bfloat16",
    }  # fmt: skip
    table = _table("An epoch of 60,000 rows", words, seconds, EPOCH / WIDE.rows, "s/epoch")
    why = "" if native else f"measured with the teacher in float32, for {SLOWER}"
    return Row(
        {
            "speed-stored-epoch": Found(*paired_ratio(seconds["stored"], seconds["plain"]), n),
            "speed-live-epoch": Found(*live, n, why),
        },
        {"epochs": table},
    )


def loop(count: int, folder: Path) -> Row:
    """What the loop adds to a step of a small network."""
    bench = Bench(SMALL, folder)
    blocks = {
        "plain": bench.plain(),
        "supervised": bench.supervised(),
        "plain_soft": bench.plain_soft(),
        "stored": bench.stored(),
    }
    seconds = rounds(blocks, count)
    per_step = {name: [1000 * one * SMALL.batch_size / SMALL.rows for one in times] for name, times in seconds.items()}
    added = paired_difference(per_step["supervised"], per_step["plain"])
    words = {
        "plain": "bare PyTorch, labels",
        "supervised": "Stillroom's loop, labels",
        "plain_soft": "bare PyTorch, soft targets in memory",
        "stored": "Stillroom's loop, stored answers",
    }
    table = _table("A step of 64-32-10, batch 32", words, seconds, 1000 * SMALL.batch_size / SMALL.rows, "ms/step")
    return Row({"speed-loop": Found(*added, f"{count} rounds")}, {"loop": table})


def bf16(count: int, folder: Path) -> Row:
    """A step in bfloat16 over one in float32, where the processor has it."""
    if not gains_from_bfloat16("cpu"):
        return Row({"speed-bf16": Found(None, why=f"not run: {SLOWER}, so Stillroom does not use it here")})
    bench = Bench(WIDE, folder)
    steps = rounds({"plain": bench.stored(), "bfloat16": bench.stored("bfloat16")}, count)
    found = paired_ratio(steps["bfloat16"], steps["plain"])
    bare = rounds({"plain": products(WIDE, torch.float32), "bfloat16": products(WIDE, torch.bfloat16)}, count)
    least, _ = paired_ratio(bare["bfloat16"], bare["plain"])
    why = f"On this processor the matrix products alone take {least:.2f} of their time in float32, the optimiser all of it"
    words = {"plain": "float32", "bfloat16": "bfloat16"}
    per_step = 1000 * WIDE.batch_size / WIDE.rows
    return Row(
        {"speed-bf16": Found(*found, f"{count} rounds", why)},
        {
            "bf16": _table("A step of 784-800-800-10, batch 128, on stored answers", words, steps, per_step, "ms/step"),
            "products": _table("The matrix products of that step alone", words, bare, per_step, "ms/step"),
        },
    )


def peer(count: int, stored: Found | None) -> Row:
    """Stored epoch over torchdistill's, each over the plain epoch of its own process."""
    python = os.environ.get(PEER, "")
    if not python:
        return Row(
            {"speed-vs-torchdistill": Found(None, why=f"not run: no Python with torchdistill is named by ${PEER}")}
        )
    script = Path(__file__).resolve().parent / "torchdistill_epoch.py"
    done = subprocess.run([python, str(script), str(count)], capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Row({"speed-vs-torchdistill": Found(None, why=f"not run: torchdistill's side failed: {told}")})
    seconds: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    theirs, ends = paired_ratio(seconds["torchdistill"], seconds["plain"])
    numbers = seconds["versions"]
    words = {"plain": "bare PyTorch, labels", "torchdistill": f"torchdistill {numbers['torchdistill']}, live teacher"}
    times = {name: seconds[name] for name in words}
    note = f"In a process of its own with torch {numbers['torch']}; torchdistill has no stored answers."
    table = _table("torchdistill's epoch of 60,000 rows", words, times, EPOCH / WIDE.rows, "s/epoch", note)
    if stored is None or stored.value is None or stored.ci95 is None:
        return Row(
            {"speed-vs-torchdistill": Found(None, why="not run: no stored epoch to compare with")}, {"peer": table}
        )
    low, high = stored.ci95
    value = Found(stored.value / theirs, [low / ends[1], high / ends[0]], f"{count} rounds")
    return Row({"speed-vs-torchdistill": value}, {"peer": table})


def _table(
    title: str,
    words: Mapping[str, str],
    seconds: Mapping[str, Sequence[float]],
    scale: float,
    unit: str,
    note: str = "",
) -> Table:
    rows = []
    for name, times in seconds.items():
        ratio, ends = paired_ratio(times, seconds["plain"])
        span = f"{min(times) * scale:.3g} to {max(times) * scale:.3g}"
        rows.append(
            [words[name], round(median(times) * scale, 4), span, f"{ratio:.3f}", f"{ends[0]:.3f} to {ends[1]:.3f}"]
        )
    return Table(title, ["", unit, "range", "over plain", "95 % interval"], rows, note)


def _timed(name: str, count: int, stored: Found | None) -> Row:
    if name == "torchdistill":
        return peer(count, stored)
    with tempfile.TemporaryDirectory(prefix="stillroom-speed-") as folder:
        return {"epochs": epochs, "loop": loop, "bf16": bf16}[name](count, Path(folder))


def main() -> None:
    """Time everything that is not finished, write the results."""
    from benchmarks.machine import machine, versions

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="how often the blocks take turns")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, settings = Rows(asked.out / f"{BENCH}.rows.jsonl"), fingerprint([asked.rounds, machine(), versions()])
    bars: dict[str, Found] = {}
    tables: dict[str, Table] = {}
    finished: dict[str, Row] = {}
    for name in ("epochs", "loop", "bf16", "torchdistill"):
        row = rows.find(name, settings)
        if row is not None and any(found.value is None for found in row.bars.values()):
            row = None  # it could not be run then; perhaps it can now
        if row is None:
            print(f"{name} ..", flush=True)
            row = _timed(name, asked.rounds, bars.get("speed-stored-epoch"))
            rows.append(name, settings, row)
            row = rows.find(name, settings) or row
        finished[name] = row
        bars |= row.bars
        tables |= row.tables
    listed = bars_of(read_bars(BENCH), bars, {})
    write(
        BENCH,
        "Speed",
        WORDS,
        "make bench-speed",
        listed,
        tables,
        machine(),
        versions(),
        asked.out,
        origins_of(finished),
    )
    print(command.last_word(listed))


if __name__ == "__main__":
    main()
