"""kill -9 while a language model is asked, then the same command again: the transfer set ends byte for byte the same.

A tiny language recipe, as far as its stage `ask`. Runs are forked from this process, which has done the imports.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks import language_tiny
from benchmarks.language_sizes import Sizes
from benchmarks.results import Found, Row, Table

FOLDER = "transfer_set"


def recipe(model: Path, text: Path) -> dict[str, Any]:
    """Some dozen windows of a small text, with a hidden tail and a basis to be fitted."""
    return {
        "name": "killed",
        "seeds": 1,
        "questions": {
            "kind": "dataset", "source": {"train": str(text), "test": str(text)}, "window": 32, "pack": False,
            "split": {"validation": 0.2},
        },
        "teacher": {"kind": "transformers", "model": str(model), "task": "causal"},
        "student": {"kind": "pretrained", "from": str(model), "task": "causal"},
        "objectives": [{"kind": "soft_target", "temperature": 1}],
        "transfer_set": {"head": 4, "tail_bytes": 8},
    }  # fmt: skip


def digests(run: Path) -> dict[str, str]:
    """The sha256 of every file of the transfer set, by its place; the lock is not one."""
    files = [path for path in (run / FOLDER).rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(tree: dict[str, Any], run: Path, kill_at: int = 0, log: Path | None = None) -> int:
    """The process that runs the recipe; it kills itself at a commit point where one is named."""
    child = os.fork()
    if child:
        return child
    from stillroom import flow, rundir

    code = 1
    try:
        rundir._commit_points = 0
        os.environ["STILLROOM_KILL_AT"] = str(kill_at)
        if log is not None:
            os.environ["STILLROOM_COMMIT_LOG"] = str(log)
        flow.distill(tree, run, until="ask")
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> bool:
    """Wait for it. True where it came to its end, False where it was killed. Raises RuntimeError where it failed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise RuntimeError("a run that was not killed failed")
    return True


def kill(sizes: Sizes, base: Path) -> Row:
    """Share of kills after which the next run ends with the very bytes of a run that was never killed."""
    work = base / "kill"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    text = work / "text.txt"
    text.write_text("\n\n".join(f"{' '.join(language_tiny.TEXT)} part {part}" for part in range(6)) * 2)
    tree = recipe(language_tiny.folder(base / "tiny").absolute(), text)
    log = work / "points.txt"
    if not ended(start(tree, work / "whole", log=log)):
        raise RuntimeError("the run to compare with was killed")
    expected, points = digests(work / "whole"), int(log.read_text())
    began = time.monotonic()
    ended(start(tree, work / "timed"))
    whole_s = time.monotonic() - began
    same = [digests(work / "timed") == expected]
    count = points if sizes.commit_kills is None else min(points, sizes.commit_kills)
    chosen = sorted({round(1 + place * (points - 1) / max(1, count - 1)) for place in range(count)})
    at_points = [_killed(tree, work, expected, start_at=point) for point in chosen]
    chance = random.Random(0)
    at_random = [_killed(tree, work, expected, after=chance.uniform(0, whole_s)) for _ in range(sizes.random_kills)]
    same += at_points + at_random
    rows = [
        [f"at commit points, {len(chosen)} of {points}", len(at_points), sum(at_points)],
        ["at random moments", len(at_random), sum(at_random)],
    ]
    table = Table("Killed while asking, and run again", ["", "kills", "ended byte-equal"], rows)
    kills = at_points + at_random
    n = f"{len(chosen)} of {points} commit points, {len(at_random)} random moments"
    return Row({"lm-kill": Found(sum(kills) / len(kills), None, n)}, {"kill": table})


def _killed(
    tree: dict[str, Any], work: Path, expected: dict[str, str], *, start_at: int = 0, after: float | None = None
) -> bool:
    """One kill, one run to the end, one comparison."""
    run = work / "killed"
    shutil.rmtree(run, ignore_errors=True)
    child = start(tree, run, start_at)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    elif ended(child):
        raise RuntimeError(f"no commit point {start_at}")
    if after is not None:
        os.waitpid(child, 0)
    if not ended(start(tree, run)):
        return False
    return digests(run) == expected
