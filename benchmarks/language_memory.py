"""How much memory a training step takes, each in a process of its own, which does nothing else.

    python -m benchmarks.language_memory KIND FOLDER SHAPE

prints {"gib": growth}: from before the first step, with student, teacher and records ready, to the most that two whole
steps held. Gradients and AdamW's moments are in it, weights are not. Before the first step the peak is set back, which
Linux lets a process do to itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.language_sizes import Shape, Sizes
from benchmarks.results import Found, Row, Table
from benchmarks.timing import middle, paired_ratio

STEPS = 2
GIB = 1 << 30
WORDS = {
    "labels": "model(input_ids, labels)",
    "ce": "our fused cross-entropy",
    "hidden": "stored, hidden tail",
    "sample": "stored, samples",
    "live": "live teacher, our fused KL",
}


def memory(sizes: Sizes) -> Row:
    """Growth of every kind of step, `sizes.runs` processes each."""
    usual = _growths(sizes.shape, sizes.memory_kinds, sizes.runs)
    wide = _growths(sizes.wide, ["hidden", "live"], sizes.wide_runs)
    n = f"{sizes.wide_runs} run{'s' if sizes.wide_runs > 1 else ''}"
    bars = {
        "lm-stored-memory": Found(*paired_ratio(usual["hidden"], usual["labels"]), f"{sizes.runs} runs"),
        "lm-152k-live-gib": Found(*middle(wide["live"]), n),
        "lm-152k-stored-gib": Found(*middle(wide["hidden"]), n),
    }
    rows = [
        [WORDS[name], f"{shape.vocabulary:,}", round(median(found), 3), f"{min(found):.3f} to {max(found):.3f}"]
        for shape, growths in ((sizes.shape, usual), (sizes.wide, wide))
        for name, found in growths.items()
    ]
    note = (
        "Growth from before the first step, models and records ready, to the peak of two whole steps of "
        f"{sizes.shape.rows} x {sizes.shape.tokens} tokens; gradients and AdamW's moments are in it."
    )
    return Row(bars, {"memory": Table("Memory of a step", ["", "vocabulary", "GiB", "range"], rows, note)})


def _growths(shape: Shape, kinds: Sequence[str], runs: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory(prefix="stillroom-memory-") as folder:
        for kind in kinds:
            if kind in ("hidden", "sample"):
                _child(f"prepare-{kind}", folder, shape)
        return {kind: [_child(kind, folder, shape) for _ in range(runs)] for kind in kinds}


def _child(kind: str, folder: str, shape: Shape) -> float:
    root = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-m", "benchmarks.language_memory", kind, folder, json.dumps(asdict(shape))]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{kind}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found = float(json.loads(done.stdout.strip().splitlines()[-1])["gib"])
    print(f"  {kind} at {shape.vocabulary:,}: {found:.3f} GiB", flush=True)
    return found


def held(name: str) -> int:
    """This process's memory in bytes, now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


def growth(kind: str, folder: Path, shape: Shape) -> float:
    """Of this process, in GiB."""
    import torch

    from benchmarks.language_steps import Bench

    torch.set_num_threads(1)
    bench = Bench(shape, folder, batches=1)
    if kind.startswith("prepare-"):
        bench.prepare(kind.removeprefix("prepare-"))
        return 0.0
    step = bench.read_stored(kind) if kind in ("hidden", "sample") else getattr(bench, kind)()
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    for _ in range(STEPS):
        step()
    return (held("VmHWM") - before) / GIB


if __name__ == "__main__":
    print(json.dumps({"gib": growth(sys.argv[1], Path(sys.argv[2]), Shape(**json.loads(sys.argv[3])))}))
