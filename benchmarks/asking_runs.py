"""What the blocks of the asking bench share: rows to ask about, a recipe, processes that can be killed, and the ledger.

Runs are forked from a process that has done the imports and has no threads; the teacher is in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.asking_sizes import PRICE, TIMEOUT_S

CLASSES = ("first", "second", "third")
LEDGER = "transfer_set/ledger.sqlite"


def write_rows(path: Path, count: int, word: str = "message", first: int = 0) -> Path:
    """A file of so many different texts with their labels."""
    lines = [f"{word} {number} has something to say,{CLASSES[number % 3]}" for number in range(first, first + count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def recipe(url: str, rows: Path, concurrency: int, **more: Any) -> dict[str, Any]:
    """All rows are asked about: nine in ten to learn from, the others to see how good the teacher is."""
    return {
        "name": "asking",
        "seeds": 1,
        "questions": {
            "kind": "dataset", "source": str(rows), "input": "text", "label": "label",
            "split": {"validation": 0.05, "test": 0.05},
        },
        "teacher": teacher(url, concurrency),
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4]}},
        "objectives": [{"kind": "hard_label", "from": "teacher"}],
        **more,
    }  # fmt: skip


def teacher(url: str, concurrency: int, **limits: Any) -> dict[str, Any]:
    """The teacher of the recipe, with the bench's prices."""
    return {
        "kind": "openai_api", "model": "loopback", "base_url": url, "prompt": "{text}", "timeout_s": TIMEOUT_S,
        "max_tokens": 8, "price": PRICE, "limits": {"concurrency": concurrency, **limits}, "licence": "none",
    }  # fmt: skip


class Child:
    """A forked process that does something and may tell what came of it."""

    def __init__(self, work: Callable[[], Any], kill_at: int = 0, log: Path | None = None) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        from stillroom import rundir

        code = 1
        try:
            os.close(self._read)
            rundir._commit_points = 0
            os.environ["STILLROOM_KILL_AT"] = str(kill_at)
            if log is not None:
                os.environ["STILLROOM_COMMIT_LOG"] = str(log)
            with os.fdopen(write, "w") as told:
                json.dump(work(), told)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> bool:
        """Wait for it. True where it came to its end, False where it was killed. Raises RuntimeError where it failed."""
        return self.result() is not None

    def result(self) -> Any:
        """What it told at its end; None where it was killed. Raises RuntimeError where it failed."""
        with os.fdopen(self._read) as told:
            text = told.read()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return None
        if os.WEXITSTATUS(status):
            raise RuntimeError("a run that was not killed failed")
        return json.loads(text)


def ask(tree: dict[str, Any], run: Path) -> str:
    """Run a recipe up to its answers; "done", or "budget" where one was reached."""
    from stillroom import flow
    from stillroom.errors import BudgetReached

    try:
        flow.distill(tree, run, until="ask")
    except BudgetReached:
        return "budget"
    return "done"


@contextmanager
def served(spec: dict[str, Any], folder: Path, port: int = 0) -> Iterator[Any]:
    """A loopback teacher at work, on a port that is free or on this one."""
    from stillroom.loopback.serving import Loopback

    teacher = Loopback(spec, folder, port=port)
    teacher.start()
    try:
        yield teacher
    finally:
        teacher.stop()


def states(ledger: Path) -> Counter[tuple[bytes, str]]:
    """How many rows each request has in each state; none where the ledger was not made yet."""
    if not ledger.is_file():
        return Counter()
    at = sqlite3.connect(ledger, timeout=30)
    try:
        rows = at.execute("SELECT key, state, count(*) FROM requests GROUP BY key, state").fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        rows = []
    finally:
        at.close()
    return Counter({(key, state): count for key, state, count in rows})


def keys_of(tree: dict[str, Any], rows: Path) -> dict[str, bytes]:
    """Text -> key in the ledger, of every question of a recipe."""
    import numpy as np

    from stillroom.kinds import parse

    texts = [line.rpartition(",")[0] for line in rows.read_text().splitlines()[1:]]
    column = np.empty(len(texts), object)
    column[:] = texts
    asked = parse("teacher", tree["teacher"]).build(Path(), [], sorted(CLASSES))
    return dict(zip(texts, (one.key for one in asked.wanted({"text": column})), strict=True))
