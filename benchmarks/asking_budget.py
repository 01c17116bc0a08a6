"""Runs with a budget drawn at random, half of them killed on the way and run again: what the teacher's bill says in the end."""

from __future__ import annotations

import random
import shutil
import statistics
import time
from functools import partial
from pathlib import Path

from benchmarks.asking_runs import Child, ask, recipe, served, write_rows
from benchmarks.asking_sizes import LATENCY_MS, Sizes, spec
from benchmarks.results import Found, Row, Table

REST_S = 0.5
MOST = 1.2
"""Of what a whole run costs; a budget is drawn below it."""


def budget(sizes: Sizes, base: Path) -> Row:
    """The most USD that any run was billed beyond its budget."""
    work = base / "budget"
    shutil.rmtree(work, ignore_errors=True)
    rows = write_rows(work / "rows.csv", sizes.budget_questions)
    chance, concurrency = random.Random(1), sizes.kill_concurrency
    over, used, reached, killed = [], [], 0, 0
    with served(spec("rows.csv"), work) as at:
        tree = recipe(at.url, rows, concurrency)
        began = time.monotonic()
        Child(lambda: ask(tree, work / "whole")).ended()
        whole_usd, whole_s = at.bill()["usd"], time.monotonic() - began
        for turn in range(sizes.budgets):
            run = work / "run"
            shutil.rmtree(run, ignore_errors=True)
            before_usd = at.bill()["usd"]
            limit_usd = chance.uniform(0, MOST * whole_usd)
            tree = recipe(at.url, rows, concurrency, budget={"usd": limit_usd})
            if turn % 2:
                child = Child(partial(ask, tree, run))
                time.sleep(chance.uniform(0, whole_s))
                child.kill()
                killed += not child.ended()
            ended = Child(partial(ask, tree, run)).result()
            time.sleep(REST_S + LATENCY_MS / 1000)
            paid_usd = at.bill()["usd"] - before_usd
            over.append(paid_usd - limit_usd)
            if ended == "budget":
                reached += 1
                used.append(paid_usd / limit_usd)
    share = statistics.median(used) if used else 0.0
    table = Table(
        "Budgets in USD, drawn at random up to a fifth more than a whole run costs",
        ["runs", "killed once and run again", "stopped by the budget", "most beyond, USD", "USD of a whole run",
         "share of the budget used, median"],
        [[sizes.budgets, killed, reached, max(0.0, *over), whole_usd, share]],
        "The bill is the teacher's. A run stops where the most that the next request can cost would pass the budget, so a little "
        "is left; what a killed run had in flight counts at its most from then on.",
    )  # fmt: skip
    return Row({"asking-over-budget": Found(max(0.0, *over), None, f"{sizes.budgets} runs")}, {"budget": table})
