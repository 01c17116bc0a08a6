"""From a command to its first new request, with very many answers stored.

Two states, with some new rows at the end of the file in both. `ledger`: a run was killed before its answers came into the
transfer set, and all of them are in the ledger alone. `store`: a finished run. The teacher says when the first request
reached it, by the clock of the machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.asking_runs import CLASSES, LEDGER, Child, ask, recipe, served, write_rows
from benchmarks.asking_sizes import PRICE, Sizes
from benchmarks.results import Found, Row, Table
from benchmarks.timing import middle

NEW, HELD = 20, 30
CHUNK = 5_000
PATIENCE_S = 120.0
SPEC = {"mind": {"kind": "rule", "source": ["rows.csv", "held.csv", "new.csv"], "error_rate": 0.0}, "price": PRICE}


def resume(sizes: Sizes, base: Path) -> Row:
    """Seconds to the first new request, of the whole command and of the run alone."""
    work = base / "resume"
    shutil.rmtree(work, ignore_errors=True)
    write_rows(work / "rows.csv", sizes.stored - 2 * HELD)
    write_rows(work / "held.csv", 2 * HELD, "held")
    for part, first in (("validation", 0), ("test", HELD)):
        write_rows(work / f"{part}.csv", HELD, "held", first)
    write_rows(work / "new.csv", 2 * NEW, "new")
    with served(SPEC, work) as at:
        url = at.url
        port = int(url.split(":")[2].split("/")[0])
        _make_states(url, work)
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(sizes.stored_runs):
        for state in ("ledger", "store"):
            for name, start in (("command", _command), ("run", _run)):
                found.setdefault((state, name), []).append(_first_request_s(url, port, work, state, start))
    rows = []
    for (state, name), seconds in found.items():
        value, ends = middle(seconds)
        rows.append([WORDS[state], WORDS[name], value, ends[0], ends[1], len(seconds)])
    columns = ["answers", "from", "seconds to the first new request", "low", "high", "n"]
    table = Table(f"Going on with {sizes.stored:,} answers stored", columns, rows)
    worst = max((middle(seconds) for (_, name), seconds in found.items() if name == "command"), key=lambda one: one[0])
    n = f"{sizes.stored_runs} runs, {sizes.stored:,} answers"
    return Row({"asking-resume-s": Found(worst[0], worst[1], n)}, {"resume": table})


WORDS = {
    "ledger": "in the ledger alone: killed before they were in the transfer set",
    "store": "in the transfer set",
    "command": "the start of the command, Python and its imports included",
    "run": "the start of the run, in a process that has imported what a run needs",
}


def _tree(url: str, work: Path, rows: Path) -> dict[str, Any]:
    files = {"train": str(rows), "validation": str(work / "validation.csv"), "test": str(work / "test.csv")}
    found = recipe(url, rows, 16)
    return {**found, "questions": {"kind": "dataset", "source": files, "input": "text", "label": "label"}}


def _with_new(work: Path, first: int) -> Path:
    """The stored rows, and new ones at the end."""
    path, new = work / f"with-{first}.csv", (work / "new.csv").read_text().splitlines()[1:]
    path.write_text((work / "rows.csv").read_text() + "\n".join(new[first : first + NEW]) + "\n")
    return path


def _make_states(url: str, work: Path) -> None:
    """The two states as run folders: `ledger`, and `store` made from it by running it to its end."""
    tree = _tree(url, work, work / "rows.csv")
    if not Child(lambda: ask({**tree, "budget": {"calls": 1}}, work / "ledger")).ended():
        raise RuntimeError("the run that makes the folder was killed")
    Child(lambda: _fill(tree, work)).ended()
    shutil.copytree(work / "ledger", work / "store")
    if Child(lambda: ask(tree, work / "store")).result() != "done":
        raise RuntimeError("the stored answers were not enough for a run")


def _fill(tree: dict[str, Any], work: Path) -> int:
    """Put every answer into the ledger as if it had been asked for, by the ledger's own writing; how many there are."""
    import numpy as np

    from stillroom.budget import Cost, Limits
    from stillroom.kinds import parse
    from stillroom.ledger import opened
    from stillroom.loopback.chat import Chat
    from stillroom.loopback.spec import Spec

    spec = Spec.from_tree(SPEC)
    mind = spec.mind.build([work])
    files = [work / name for name in ("rows.csv", "validation.csv", "test.csv")]
    texts = [line.rpartition(",")[0] for path in files for line in path.read_text().splitlines()[1:]]
    column = np.empty(len(texts), object)
    column[:] = texts
    asked = parse("teacher", tree["teacher"]).build(Path(), [], sorted(CLASSES))
    wanted = asked.wanted({"text": column})
    with opened(work / "ledger" / LEDGER, tree["name"], Limits(None, None, None)) as ledger:
        kept = ledger.kept_among([one.key for one in wanted])
        wanted = [one for one in wanted if one.key not in kept]
        for start in range(0, len(wanted), CHUNK):
            some, answered = wanted[start : start + CHUNK], []
            held = ledger.reserve_all([(one.key, "label", asked.most_of(one)) for one in some])
            for one, reservation in zip(some, held, strict=True):
                chat = Chat.read(json.loads(one.body), spec)
                body, tokens = chat.answer(mind.say(chat.asked(spec.mind, 0)), spec.model, 0)
                cost: Cost = asked.caller.rates.cost(*tokens)
                answered.append((reservation, json.dumps(body), cost, 0.2))
            ledger.settle_all(answered)
    return len(texts)


def _first_request_s(url: str, port: int, work: Path, state: str, start: Callable[..., Callable[[], None]]) -> float:
    """Start a run on a copy of a state, wait for its first request, kill it."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(work / state, run)
    tree = _tree(url, work, _with_new(work, 0))
    with served(SPEC, work, port) as at:
        began_s = time.monotonic()
        end = start(tree, run, work)
        try:
            while (first_s := at.bill()["first_at_s"]) is None:
                if time.monotonic() - began_s > PATIENCE_S:
                    raise RuntimeError(f"no request within {PATIENCE_S:g} s")
                time.sleep(0.05)
        finally:
            end()
    return float(first_s - began_s)


def _run(tree: dict[str, Any], run: Path, work: Path) -> Callable[[], None]:
    child = Child(lambda: ask(tree, run))

    def end() -> None:
        child.kill()
        child.ended()

    return end


def _command(tree: dict[str, Any], run: Path, work: Path) -> Callable[[], None]:
    path = work / "recipe.json"
    path.write_text(json.dumps(tree))
    words = [sys.executable, "-m", "stillroom", "distill", str(path), "--run", str(run)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end() -> None:
        process.kill()
        process.wait()

    return end
