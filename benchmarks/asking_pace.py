"""How much of the permitted rate a run of requests reaches, and what a request costs the one who asks in processor time."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.asking_runs import CLASSES, Child, served, teacher, write_rows
from benchmarks.asking_sizes import Sizes, spec
from benchmarks.results import Found, Row, Table
from benchmarks.timing import middle


def pace(sizes: Sizes, base: Path) -> Row:
    """So many questions at a limit of requests a minute, several times with other faults."""
    work = base / "pace"
    shutil.rmtree(work, ignore_errors=True)
    write_rows(work / "rows.csv", sizes.pace_questions)
    shares, cpu_ms, rows = [], [], []
    for run in range(sizes.pace_runs):
        found = _one(sizes, work, run)
        bill = found["bill"]
        permitted = sizes.requests_per_minute / 60
        shares.append((bill["let_through_while_new"] - 1) / (permitted * bill["while_new_s"]))
        cpu_ms.append(1000 * found["cpu_s"] / found["answers"])
        rows.append(
            [
                run + 1,
                found["answers"],
                bill["let_through"],
                bill["statuses"].get("429 rate_limit_exceeded", 0),
                shares[-1],
                found["answers"] / found["wall_s"] / permitted,
                cpu_ms[-1],
                found["wall_s"],
                found["load"],
            ]
        )
    columns = [
        "run", "answers", "requests let through", "refused by the limit", "share of the rate",
        "answers / permitted requests", "client CPU ms an answer", "seconds", "load of the machine",
    ]  # fmt: skip
    note = (
        "The share is of requests that the server let through, in the time from the first to the last one that was not a "
        "repetition: what follows is waiting for the last that hang. Faulty ones count, as the limit counts them. Answers by "
        "permitted requests counts the whole time, faults as losses. Processor time is the asking process's own, of all its "
        "threads, the ledger's writing included, divided by answers."
    )
    table = Table(
        f"At {sizes.requests_per_minute:,} requests a minute, {sizes.pace_concurrency} in flight at most",
        columns,
        rows,
        note,
    )
    share, share_ends = middle(shares)
    cpu, cpu_ends = middle(cpu_ms)
    n = f"{sizes.pace_runs} runs of {sizes.pace_questions:,} questions"
    return Row({"asking-rate": Found(share, share_ends, n), "asking-cpu-ms": Found(cpu, cpu_ends, n)}, {"pace": table})


def _one(sizes: Sizes, work: Path, run: int) -> dict[str, Any]:
    """One run: a new teacher with faults of its own, and a new ledger."""
    asked = spec(
        "rows.csv", limits={"requests_per_minute": sizes.requests_per_minute, "burst_s": 1.0}, model="loopback"
    )
    asked["faults"] = {**asked["faults"], "seed": run}
    with served(asked, work) as at:
        found = Child(lambda: _ask(at.url, sizes, work, run)).result()
        return {**found, "bill": at.bill(), "load": round(os.getloadavg()[0], 1)}


def _ask(url: str, sizes: Sizes, work: Path, run: int) -> dict[str, Any]:
    """Ask every question once, as a run does: through the ledger, with the teacher's own limits."""
    import numpy as np

    from stillroom.budget import Limits
    from stillroom.kinds import parse
    from stillroom.ledger import opened
    from stillroom.rows import Questions, content_keys

    texts = [line.rpartition(",")[0] for line in (work / "rows.csv").read_text().splitlines()[1:]]
    column = np.empty(len(texts), object)
    column[:] = texts
    raw = {"text": column}
    count = len(texts)
    questions = Questions(raw, content_keys(raw), np.zeros(count, np.int64), np.ones(count), np.arange(count))
    knobs = parse("teacher", teacher(url, sizes.pace_concurrency, requests_per_minute=sizes.requests_per_minute))
    asked = knobs.build(Path(), [], sorted(CLASSES))
    with opened(work / f"ledger-{run}.sqlite", "pace", Limits(None, None, None)) as ledger:
        charged = asked.charge(ledger, "label")
        before, began = _cpu_s(), time.monotonic()
        answers = charged.answer(questions)
        wall_s, cpu_s = time.monotonic() - began, _cpu_s() - before
    return {"answers": int(answers.answered_N.sum()), "cpu_s": cpu_s, "wall_s": wall_s}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
