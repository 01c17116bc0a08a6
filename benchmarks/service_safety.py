"""What must not happen: jobs doubled, bad input let in, attacks that get through. Each counts over real servers."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.results import Found, Row, Table
from benchmarks.service_addresses import attacked_by_address
from benchmarks.service_attacks import attacked, path_attacks
from benchmarks.service_creations import at_once
from benchmarks.service_creations import duplicates as doubled
from benchmarks.service_process import Served
from benchmarks.service_sizes import Sizes

SHOWN = 20


def duplicates(sizes: Sizes, base: Path) -> Row:
    """Jobs beyond one a call, over creates whose answers were dropped, and over some that were sent twice at once."""
    folder, twice = base / "duplicates", max(sizes.calls // 5, 1)
    shutil.rmtree(folder, ignore_errors=True)
    found, beside = doubled(sizes.calls, folder / "dropped"), at_once(twice, folder / "at-once")
    value = sum(abs(one["jobs"] - one["calls"]) + one["wrong"] for one in (found, beside))
    columns = ["creates", "calls", "jobs", "answers dropped", "sent again before an answer came", "wrong answers"]
    rows = [
        ["whose answers are dropped", found["calls"], found["jobs"], found["dropped"], 0, found["wrong"]],
        ["sent twice at once", beside["calls"], beside["jobs"], 0, beside["overlapped"], beside["wrong"]],
    ]
    n = f"{sizes.calls} creates with dropped answers, {twice} sent twice at once"
    return Row({"service-duplicates": Found(value, n=n)}, {"duplicates": Table("Creates sent again", columns, rows)})


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
    rows += [["none", one.url, "connected"] for one in addresses if gets_through(one)]
    shutil.rmtree(base / "attacks-addresses", ignore_errors=True)
    over_http, through = attacked_by_address(base / "attacks-addresses")
    rows += [["plain", name, how] for name, how in through]
    table = Table("Attacks that got through", ["server", "attack", "how"], rows[:SHOWN])
    n = f"{count}: {len(paths)} paths, {len(addresses)} addresses in one process; and over HTTP {over_http} with addresses"
    return Row({"service-attacks": Found(len(rows), n=n)}, {"attacks": table})
