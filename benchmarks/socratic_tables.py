"""What the Socratic bench says: tables of one task, and what all tasks together are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.results import Found, Row, Table
from benchmarks.socratic_curves import Curve
from benchmarks.socratic_savings import Saving, holm, interval, of_the_mean_curve, saving
from benchmarks.socratic_sizes import AUDIT, EXPLORED, PRIMARY, Sizes
from benchmarks.socratic_tasks import Task
from benchmarks.socratic_teacher import Heard

SAVED_MEAN, SAVED_LOWER = 0.50, 0.25
"""What a task counts for: calls saved on average at least, and the lower bound of that."""
WORDS = (
    "A teacher that can only be asked is asked in rounds: a student learns from scratch what was answered so far, and the "
    "strategy picks the next questions. Every budget holds the first questions and an audit slice of a tenth, which nobody "
    "learns from. `margin` was named beforehand as what the promise is about; the others are explored. The figure is calls "
    "saved on the way to the accuracy that random questions reach with 1,024 calls (at smaller presets with fewer), from a "
    "monotone fit of each seed's curve; below 0 it took more calls than random. Losses stand in the same tables as gains."
)
REASONS: dict[str, dict[str, str]] = {}


def of_task(task: Task, heard: Heard, curves: Mapping[str, Sequence[Curve]], sizes: Sizes) -> Row:
    """The tables of a task; what counts for the bar is read out of them again by `whole`."""
    random = curves["random"]
    savings = {name: saving(random, curves[name], sizes.anchor) for name in (PRIMARY, *EXPLORED)}
    n = f"{len(random)} paired seeds, {len(task.test_label_M):,} test rows"
    note = (
        f"The teacher is right on {task.teacher_accuracy:.4f} of the test rows. Of {len(task.texts):,} questions "
        f"{int((heard.said_N < 0).sum()):,} were refused or answered with no label there is: paid for, and not learned from. "
        f"Heard once, over HTTP: {heard.calls:,} calls, {heard.tokens:,} tokens, {heard.usd:.4f} USD, so "
        f"{1000 * heard.usd_a_call:.4f} USD for a thousand calls. A seed that never reached random's accuracy counts as "
        f"if it had with its last budget."
    )
    lines = [_saving_line(name, one, random, curves, sizes) for name, one in savings.items()]
    columns = [
        "strategy", "calls saved", "95 % interval", "of the mean curve", "seeds that never got there", "p, one-sided",
    ]  # fmt: skip
    found = {
        f"{task.name}-saved": Table(f"{task.name}: calls saved against random, {n}", columns, lines, note),
        f"{task.name}-curve": _curves(task, heard, curves),
        f"{task.name}-successor": _successors(task, curves, sizes),
    }
    return Row({}, found)


def _saving_line(
    name: str, one: Saving, random: Sequence[Curve], curves: Mapping[str, Sequence[Curve]], sizes: Sizes
) -> list[str | float]:
    low, high = one.ci95
    whole = of_the_mean_curve(random, curves[name], sizes.anchor)
    named = f"{name} (named beforehand)" if name == PRIMARY else name
    return [named, one.mean, f"{low:.3f} to {high:.3f}", whole, one.censored, one.p]


def _curves(task: Task, heard: Heard, curves: Mapping[str, Sequence[Curve]]) -> Table:
    first = curves["random"][0]
    lines = []
    for place, calls in enumerate(first.calls):
        cells: list[str | float] = [calls, f"{calls * heard.usd_a_call:.5f}", first.learned[place]]
        for found in curves.values():
            values = np.array([one.accuracy[place] for one in found])
            low, high = interval(values)
            cells.append(f"{values.mean():.4f} ({low:.4f} to {high:.4f})")
        cells += [f"{np.mean([one.agreement[place] for one in curves[name]]):.4f}" for name in ("random", PRIMARY)]
        lines.append(cells)
    heads = ["calls", "USD", "learned from", *curves, "agreement, random", f"agreement, {PRIMARY}"]
    note = f"Accuracy on test rows by their labels; agreement is with the teacher. {AUDIT:.0%} of the calls are audit."
    return Table(f"{task.name}: learning curves, mean and 95 % interval over seeds", heads, lines, note)


def _successors(task: Task, curves: Mapping[str, Sequence[Curve]], sizes: Sizes) -> Table:
    """A model of another kind on what was chosen for the student: does it gain from it too?"""
    random = [one.successor for one in curves["random"]]
    lines = []
    for name, found in curves.items():
        pairs = [
            (two.successor, one) for two, one in zip(found, random, strict=True) if None not in (two.successor, one)
        ]
        mine = np.array([first for first, _ in pairs], float)
        gain = mine - np.array([second for _, second in pairs], float)
        if not len(gain):
            continue
        low, high = interval(100 * gain)
        lines.append([name, float(mine.mean()), f"{100 * gain.mean():+.2f} ({low:+.2f} to {high:+.2f})"])
    title = f"{task.name}: a support vector machine on the answers that {sizes.anchor:,} calls bought for the student"
    return Table(title, ["chosen by", "accuracy", "points above random's"], lines)


def whole(rows: Mapping[str, Row], tasks: Sequence[str], sizes: Sizes) -> tuple[dict[str, Found], dict[str, Table]]:
    """Bars and tables of all finished experiments."""
    bars: dict[str, Found] = {}
    tables: dict[str, Table] = {}
    there = [name for name in tasks if name in rows]
    lines, tests, counted = [], {}, []
    for name in there:
        saved = rows[name].tables[f"{name}-saved"]
        for line in saved.rows:
            tests[f"{name}, {line[0]}"] = line
        primary = saved.rows[0]
        low = float(str(primary[2]).split(" to ")[0])
        counts = float(primary[1]) >= SAVED_MEAN and low >= SAVED_LOWER
        counted.append(counts)
        lines.append([name, primary[1], primary[2], primary[4], "yes" if counts else "no"])
    explored = {name: float(line[5]) for name, line in tests.items() if PRIMARY not in str(line[0]).split()}
    if lines:
        title = (
            f"What {PRIMARY} saves: a task counts from a mean of {SAVED_MEAN:g} with a lower bound of {SAVED_LOWER:g}"
        )
        tables["saved"] = Table(
            title, ["task", "calls saved", "95 % interval", "seeds that never got there", "counts"], lines
        )
        adjusted = holm(explored)
        rest = [[name, tests[name][1], tests[name][2], tests[name][4], f"{p:.4f}"] for name, p in adjusted.items()]
        heads = ["task, strategy", "calls saved", "95 % interval", "seeds that never got there", "p after Holm"]
        tables["explored"] = Table("What was explored beside it", heads, rest)
    if len(there) == len(tasks):
        bars["socratic-saved"] = Found(float(sum(counted)), None, f"{sizes.seeds} seeds")
    for name, row in rows.items():
        bars |= row.bars
        tables |= (
            {key: table for key, table in row.tables.items() if not key.endswith("-saved")}
            if name in tasks
            else row.tables
        )
    for name in there:
        tables[f"{name}-saved"] = rows[name].tables[f"{name}-saved"]
    return bars, tables
