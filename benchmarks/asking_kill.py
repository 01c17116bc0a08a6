"""kill -9 while a teacher is paid by the call, then the same command again: what is paid twice is what was in flight.

What was paid is counted by the teacher, what was in flight is read from the ledger right after each kill. A run that is
killed is run again and killed again, until it comes to its end; then its answers are compared with those of a run that was
never killed.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.asking_runs import LEDGER, Child, ask, keys_of, recipe, served, states, write_rows
from benchmarks.asking_sizes import Sizes, spec
from benchmarks.results import Found, Row, Table

REST_S = 0.5
"""After a kill: the teacher finishes what it was asked, and charges for it."""


@dataclass
class Tally:
    """What came of all the kills of one kind."""

    kills: int = 0
    in_flight: int = 0
    ends: int = 0
    same: int = 0
    paid_twice: int = 0
    beyond: int = 0
    kept_twice: int = 0
    sizes: list[int] = field(default_factory=list)


def digests(run: Path) -> dict[str, str]:
    """The sha256 of the answers and their keys, by place in the teacher's folder; the teacher's address is in its name."""
    files = [*run.rglob("*.f16"), *run.rglob("keys.arrow")]
    return {f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Chains:
    """Runs of one recipe that are killed until they end."""

    def __init__(self, work: Path, questions: int, concurrency: int) -> None:
        shutil.rmtree(work, ignore_errors=True)
        self.work, self.concurrency = work, concurrency
        self.rows = write_rows(work / "rows.csv", questions)
        self.tally = Tally()
        self._chain = 0
        self.expected, self.points, self.whole_s = self._whole()

    def _whole(self) -> tuple[dict[str, str], int, float]:
        """A run that is never killed: its answers, commit points and seconds."""
        log, run = self.work / "points.txt", self.work / "whole"
        with served(spec("rows.csv"), self.work) as at:
            tree = recipe(at.url, self.rows, self.concurrency)
            began = time.monotonic()
            if not Child(lambda: ask(tree, run), log=log).ended():
                raise RuntimeError("the run to compare with was killed")
            return digests(run), int(log.read_text()), time.monotonic() - began

    def run(self, kills: list[tuple[int, float | None]]) -> None:
        """Kill at these commit points, or after so many seconds; a chain that ends early gives way to a new one."""
        left = list(kills)
        while left:
            self._chain += 1
            run = self.work / "killed"
            shutil.rmtree(run, ignore_errors=True)
            asked = spec("rows.csv")
            asked["faults"] = {**asked["faults"], "seed": self._chain}
            with served(asked, self.work) as at:
                self._until_it_ends(at, run, left)

    def _until_it_ends(self, at: Any, run: Path, left: list[tuple[int, float | None]]) -> None:
        tree = recipe(at.url, self.rows, self.concurrency)
        allowed: Counter[bytes] = Counter()
        done, fresh = False, True
        while not done:
            point, after_s = left[0] if left else (0, None)
            child = Child(lambda: ask(tree, run), kill_at=point)
            if after_s is not None:
                time.sleep(after_s)
                child.kill()
            done = child.ended()
            if not done:
                left.pop(0)
                time.sleep(REST_S)
                self.tally.kills += 1
                cut = Counter({key: count for (key, state), count in states(run / LEDGER).items() if state == "open"})
                self.tally.in_flight += sum(cut.values())
                self.tally.sizes.append(sum(cut.values()))
                allowed += cut
            elif fresh and left:  # a run of fewer commit points than were counted, or a faster one
                left.pop(0)
                left += [] if after_s is None else [(0, after_s / 2)]
            fresh = False
        self._compare(at, tree, run, allowed)

    def _compare(self, at: Any, tree: dict[str, Any], run: Path, allowed: Counter[bytes]) -> None:
        """What the teacher was paid for, against what was in flight when the runs were killed or cut it off themselves."""
        keys, found, tally = keys_of(tree, self.rows), states(run / LEDGER), self.tally
        if {key for key, _ in found} != set(keys.values()):
            raise RuntimeError("the ledger holds other requests than were made")
        cut = {key: count for (key, state), count in found.items() if state == "lost"}
        for one in at.about("twice")["requests"]:
            key, extra = keys[one["question"]], one["served"] - 1
            tally.paid_twice += extra
            # Rows are lost by a kill, or where the run itself gave up waiting: both were in flight, and are told as lost.
            tally.beyond += max(0, extra - max(allowed[key], cut.get(key, 0)))
        tally.kept_twice += sum(count > 1 for (_, state), count in found.items() if state == "kept")
        tally.ends += 1
        tally.same += digests(run) == self.expected


def kill(sizes: Sizes, base: Path) -> Row:
    """Requests paid for twice beyond those in flight, over all kills."""
    points = Chains(base / "commits", sizes.commit_questions, sizes.commit_concurrency)
    count = points.points if sizes.commit_kills is None else min(points.points, sizes.commit_kills)
    chosen = sorted({round(1 + place * (points.points - 1) / max(1, count - 1)) for place in range(count)})
    points.run([(point, None) for point in chosen])
    moments = Chains(base / "moments", sizes.kill_questions, sizes.kill_concurrency)
    chance = random.Random(0)
    moments.run([(0, chance.uniform(0, moments.whole_s)) for _ in range(sizes.random_kills)])
    rows = [
        _line(f"at commit points, {len(chosen)} of {points.points}", points),
        _line("at random moments", moments),
    ]
    columns = [
        "", "kills", "questions of a run", "in flight at a kill, mean and most", "paid twice",
        "of these beyond what was in flight", "kept twice", "runs that ended", "with the answers of a run never killed",
    ]  # fmt: skip
    note = (
        "Paid twice is counted by the teacher, which charges for every answer it makes, whether or not anybody is there to "
        "take it. In flight is what the ledger has reserved and not settled right after the kill."
    )
    both = (points.tally, moments.tally)
    beyond, others = sum(tally.beyond for tally in both), sum(tally.ends - tally.same for tally in both)
    why = f"{others} runs ended with other answers than a run that was never killed" if others else ""
    n = f"{len(chosen)} of {points.points} commit points, {moments.tally.kills} random moments"
    return Row(
        {"asking-paid-twice": Found(beyond, None, n, why)}, {"kill": Table("Killed while asking", columns, rows, note)}
    )


def _line(name: str, chains: Chains) -> list[Any]:
    tally = chains.tally
    questions = len(chains.rows.read_text().splitlines()) - 1
    told = f"{tally.in_flight / max(1, tally.kills):.1f} and {max(tally.sizes, default=0)}"
    counts = [tally.paid_twice, tally.beyond, tally.kept_twice, tally.ends, tally.same]
    return [name, tally.kills, questions, told, *counts]
