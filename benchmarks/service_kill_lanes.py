"""All kills of the bench, in lanes: a job that goes on mostly waits, so several services are struck side by side.

Each kill is written down at once, and a bench that was stopped goes on behind it, while the program and what counts as a kill
are the same and a job that nobody kills makes the same bytes; one that came to its end begins anew. The server and its worker
are struck in folders of their own, where they make the database and the estimate too; the trainer, that knows neither, in a
lane's, where the estimate is known.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import Queue

from benchmarks import service_kills
from benchmarks.results import Finished, Found, Row, Table, fingerprint
from benchmarks.service_kills import ROLES, Tally, reference, struck_at, struck_at_random
from benchmarks.service_process import SOURCE
from benchmarks.service_sizes import Sizes

LANES = 3
RANDOM = "random"
RANDOM_KILLS = 10
"""Of one service, one after another."""
SHOWN = 20
Strike = Callable[[Path], Tally]
"""Strikes once in the lane of that folder."""


def kills(sizes: Sizes, base: Path) -> Row:
    """The share of jobs that end right, however their processes were killed."""
    folder = base / "kills"
    lanes = [folder / f"lane-{number}" for number in range(LANES)]
    for lane in lanes:
        shutil.rmtree(lane, ignore_errors=True)
    expected, points = reference(lanes[0])
    if any(reference(lane)[0] != expected for lane in lanes[1:]):
        raise RuntimeError("two jobs that nobody killed made different bytes")
    finished = Finished(folder / "kills.jsonl", fingerprint([expected, _program()]))
    strikes, known = dict(_strikes(sizes, folder, expected, points)), finished.read()
    _run({one: strike for one, strike in strikes.items() if one not in known}, lanes, finished)
    row = _told(points, {one: Tally(**found) for one, found in finished.read().items() if one in strikes})
    finished.path.unlink(missing_ok=True)
    return row


def _program() -> str:
    """A digest of the program's source and of what kills it: what withstood a kill before says nothing of it now."""
    digest = hashlib.sha256(Path(service_kills.__file__).read_bytes())
    for path in sorted(SOURCE.rglob("*.py")):
        digest.update(str(path.relative_to(SOURCE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _strikes(
    sizes: Sizes, folder: Path, expected: dict[str, str], points: dict[str, int]
) -> Iterator[tuple[tuple[str, int], Strike]]:
    """What is struck: a role and its commit point, or kills at random moments and their seed."""

    def alone(role: str, point: int) -> Strike:
        def strike(lane: Path) -> Tally:
            own = folder / f"{role}-{point}"
            shutil.rmtree(own, ignore_errors=True)
            try:
                return struck_at(role, point, own, expected)
            finally:
                shutil.rmtree(own, ignore_errors=True)

        return strike

    def trainer(point: int) -> Strike:
        return lambda lane: struck_at("trainer", point, lane, expected)

    def at_random(seed: int, count: int) -> Strike:
        return lambda lane: struck_at_random(count, lane, expected, seed)

    for role in ROLES:
        for point in _spread(points[role], sizes.commit_kills):
            yield (role, point), trainer(point) if role == "trainer" else alone(role, point)
    for seed, first in enumerate(range(0, sizes.random_kills, RANDOM_KILLS)):
        yield (RANDOM, seed), at_random(seed, min(RANDOM_KILLS, sizes.random_kills - first))


def _run(strikes: dict[tuple[str, int], Strike], lanes: list[Path], finished: Finished) -> None:
    """All of these, as many at once as there are lanes."""
    free: Queue[Path] = Queue()
    for lane in lanes:
        free.put(lane)
    writing, done = threading.Lock(), 0

    def one(name: str, number: int, strike: Strike) -> None:
        nonlocal done
        lane = free.get()
        try:
            tally = strike(lane)
        finally:
            free.put(lane)
        with writing:
            finished.append(name, number, asdict(tally))
            done += 1
            print(f"kills: {name} {number}, {done:,} of {len(strikes):,}", *tally.why, flush=True)

    with ThreadPoolExecutor(len(lanes)) as pool:
        for work in [pool.submit(one, *key, strike) for key, strike in strikes.items()]:
            work.result()


def _told(points: dict[str, int], found: dict[tuple[str, int], Tally]) -> Row:
    every, rows = Tally(), []
    for name in (*ROLES, RANDOM):
        tally = Tally()
        for (struck, _), one in sorted(found.items()):
            if struck == name:
                tally.add(one)
        words = "any, at random moments" if name == RANDOM else f"{name}, at its commit points ({points[name]:,})"
        rows.append([words, tally.kills, tally.missed, tally.jobs, tally.right, tally.lost, tally.orphans])
        every.add(tally)
    columns = [
        "killed",
        "kills",
        "points a job did not come to",
        "jobs",
        "ended right: byte for byte, events in order",
        "lost",
        "orphans after 5 s",
    ]
    wrong = every.orphans + every.lost
    value = every.right / every.jobs if not wrong else min(every.right / every.jobs, 1 - wrong / (every.kills + 1))
    note = "; ".join(every.why[:SHOWN])
    n = f"{every.kills} kills, {every.jobs} jobs"
    by_role = Table(
        "kill -9 at random moments",
        ["killed", "kills while the job had not ended"],
        [[role, every.of_roles.get(role, 0)] for role in ROLES],
    )
    tables = {"kills": Table("kill -9", columns, rows, note), "random-kills": by_role}
    return Row({"service-kills": Found(value, n=n)}, tables)


def _spread(count: int, wanted: int | None) -> list[int]:
    """Numbers from 1 to count: all of them, or so many evenly spread."""
    if wanted is None or wanted >= count:
        return list(range(1, count + 1))
    return sorted({1 + round(place * (count - 1) / max(wanted - 1, 1)) for place in range(wanted)})
