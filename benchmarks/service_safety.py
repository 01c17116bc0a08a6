"""What must not happen: jobs lost or doubled, bad input let in, attacks that get through. Each counts over real servers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.results import Found, Row, Table
from benchmarks.service_attacks import attacked, path_attacks
from benchmarks.service_creations import duplicates as doubled
from benchmarks.service_kills import ROLES, Tally, reference, struck_at, struck_at_random
from benchmarks.service_process import Served
from benchmarks.service_sizes import Sizes

SHOWN = 20


def kills(sizes: Sizes, base: Path) -> Row:
    """The share of jobs that end right, however their processes were killed."""
    folder = base / "kills"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    expected, points = reference(folder)
    rows, every = [], Tally()
    for role in ROLES:
        tally = Tally()
        for point in _spread(points[role], sizes.commit_kills):
            where = folder / f"{role}-{point}"
            tally.add(struck_at(role, point, where, expected))
            shutil.rmtree(where, ignore_errors=True)
        rows.append(_told(f"{role}, at its commit points ({points[role]:,})", tally))
        every.add(tally)
    tally = struck_at_random(sizes.random_kills, folder / "random", expected)
    rows.append(_told("any, at random moments", tally))
    every.add(tally)
    columns = ["killed", "kills", "jobs", "ended right, byte for byte", "lost", "orphans after 5 s"]
    wrong = every.orphans + every.lost
    value = every.right / every.jobs if not wrong else min(every.right / every.jobs, 1 - wrong / (every.kills + 1))
    note = "; ".join(every.why[:SHOWN])
    n = f"{every.kills} kills, {every.jobs} jobs"
    return Row({"service-kills": Found(value, n=n)}, {"kills": Table("kill -9", columns, rows, note)})


def _spread(count: int, wanted: int | None) -> list[int]:
    """Numbers from 1 to count: all of them, or so many evenly spread."""
    if wanted is None or wanted >= count:
        return list(range(1, count + 1))
    return sorted({1 + round(place * (count - 1) / max(wanted - 1, 1)) for place in range(wanted)})


def _told(words: str, tally: Tally) -> list[Any]:
    return [words, tally.kills, tally.jobs, tally.right, tally.lost, tally.orphans]


def duplicates(sizes: Sizes, base: Path) -> Row:
    """Jobs beyond one a call, over creates whose answers were dropped."""
    folder = base / "duplicates"
    shutil.rmtree(folder, ignore_errors=True)
    found = doubled(sizes.calls, folder)
    value = abs(found["jobs"] - found["calls"]) + found["wrong"]
    table = Table("Creates with dropped answers", list(found), [list(found.values())])
    return Row({"service-duplicates": Found(value, n=f"{sizes.calls} creates")}, {"duplicates": table})


def bad_input(sizes: Sizes, base: Path) -> Row:
    """Bad files and bodies that were not refused as they should be."""
    from tests.service.bad_cases import bad_cases, prepare

    cases = bad_cases()[: sizes.bad_inputs]
    shutil.rmtree(base / "bad-input", ignore_errors=True)
    with Served(base / "bad-input") as service:
        made, http = prepare(service), service.http()
        faults = [(case.name, case.wrong(case.send(http, made))) for case in cases]
    wrong = [[name, fault] for name, fault in faults if fault]
    table = Table("Bad input not refused as it should be", ["what", "how it was answered"], wrong[:SHOWN])
    return Row({"service-bad-input": Found(len(wrong), n=f"{len(cases)} cases")}, {"bad-input": table})


def attacks(sizes: Sizes, base: Path) -> Row:
    """Attacks with paths and addresses that got through, with and without `python -O`."""
    from tests.service.attacks import address_attacks, gets_through

    rows, count = [], 0
    for words, env in (("plain", {}), ("python -O", {"PYTHONOPTIMIZE": "1"})):
        folder = base / f"attacks-{words.replace(' ', '')}"
        shutil.rmtree(folder, ignore_errors=True)
        with Served(folder, env=env) as service:
            rows += [[words, f"{one.method} {one.target}"[:120], how] for one, how in attacked(service)]
    paths, addresses = list(path_attacks()), list(address_attacks())
    count = len(paths) + len(addresses)
    rows += [["plain", one.url, "connected"] for one in addresses if gets_through(one)]
    table = Table("Attacks that got through", ["server", "attack", "how"], rows[:SHOWN])
    n = f"{len(paths)} paths, {len(addresses)} addresses ({count})"
    return Row({"service-attacks": Found(len(rows), n=n)}, {"attacks": table})
