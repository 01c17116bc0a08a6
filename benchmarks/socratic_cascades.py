"""The streams of the benchmark: the cascade as it is shipped, a static one, random deferral, and the teacher alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Found, Row, Table
from benchmarks.socratic_savings import interval
from benchmarks.socratic_sizes import Sizes
from benchmarks.socratic_streams import (
    EVERY,
    RISK,
    SETTLED,
    STATIC_CALLS,
    Outcome,
    Stream,
    draw,
    learning,
    random_deferral,
)
from benchmarks.socratic_tasks import STUDENT, hashed, intents_teacher, numbered, write_answers
from benchmarks.socratic_teacher import UNANSWERED, hear
from stillroom.questions import intents
from stillroom.rows import Array

TEXTS_SEED = 2000
NAMES = ("cascade", "static", "random deferral")
Tree = dict[str, Any]


def run_streams(
    sizes: Sizes, home: Path, known: dict[tuple[str, int], Tree], append: Callable[[str, int, Tree], None]
) -> Row:
    """All streams that are not in `known` yet, then the tables of all."""
    rows_ND, label_N, teacher_N, bill = _heard(sizes, home)
    for seed in range(sizes.streams):
        if ("stream", seed) in known:
            continue
        started = time.monotonic()
        stream = draw(rows_ND, label_N, teacher_N, intents.shares(), sizes.stream_rows, seed)
        known["stream", seed] = _one(stream, seed)
        append("stream", seed, known["stream", seed])
        told = known["stream", seed]["cascade"]
        print(
            f"stream {seed}: saved {told['saved']:.3f}, lost {told['lost']:.2f}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    return _row([known["stream", seed] for seed in range(sizes.streams)], sizes, bill)


def _heard(sizes: Sizes, home: Path) -> tuple[Array, Array, Array, str]:
    """Rows, labels, what the teacher said of those it answered, and what that cost."""
    texts, labels = intents.intents(sizes.stream_pool, TEXTS_SEED)
    answers = home / "teacher.csv"
    if not answers.is_file():
        home.mkdir(parents=True, exist_ok=True)
        said = intents_teacher(sizes)(texts)
        write_answers(answers, texts, [intents.NAMES[place] for place in said.tolist()])
    heard = hear(texts, list(intents.NAMES), answers, "cascade")
    there_N = heard.said_N != UNANSWERED
    bill = f"{heard.calls:,} calls for {len(texts):,} questions, {heard.usd:.4f} USD at the endpoint's prices"
    return hashed(texts)[there_N], numbered(labels)[there_N], heard.said_N[there_N], bill


def _one(stream: Stream, seed: int) -> Tree:
    classes = len(intents.NAMES)
    cascade = learning(stream, STUDENT, classes, seed)
    static = learning(stream, STUDENT, classes, seed, STATIC_CALLS)
    deferral = random_deferral(stream, STUDENT, classes, seed, cascade)
    told = {name: _told(one, stream) for name, one in zip(NAMES, (cascade, static, deferral), strict=True)}
    return {**told, "teacher": float((stream.teacher_N == stream.label_N).mean())}


def _told(one: Outcome, stream: Stream) -> Tree:
    tenth = np.array_split(np.arange(len(one.said_N)), 10)
    return {
        "saved": one.saved(),
        "lost": one.lost(stream),
        "lost_before": one.lost(stream, slice(0, stream.half)),
        "lost_after": one.lost(stream, slice(stream.half, None)),
        "differs": float((one.said_N != stream.teacher_N).mean()),
        "asked_by_tenth": [int(one.asked_N[part].sum()) for part in tenth],
        "lost_by_tenth": [one.lost(stream, slice(part[0], part[-1] + 1)) for part in tenth],
    }


def _row(found: list[Tree], sizes: Sizes, bill: str) -> Row:
    def of(name: str, figure: str) -> Array:
        return np.array([one[name][figure] for one in found])

    saved, lost = of("cascade", "saved"), of("cascade", "lost")
    n = f"{len(found)} streams of {sizes.stream_rows:,} rows"
    bars = {
        "cascade-saved": Found(interval(saved)[0], interval(saved), n),
        "cascade-loss": Found(interval(lost)[1], interval(lost), n),
    }
    lines = [_line(name, of) for name in NAMES]
    teacher = float(np.mean([one["teacher"] for one in found]))
    note = (
        f"The teacher alone is right on {teacher:.4f} of the rows and saves nothing. The threshold is set for {RISK:g} of all "
        f"answers to differ from the teacher's; a promise for rows like those before, which the second half is not. The cascade "
        f"is trained anew after every {EVERY} answers; the static one learns and audits until {STATIC_CALLS} calls are made; "
        f"random deferral asks as many rows of each part of the stream as the cascade. Points lost are of accuracy by the "
        f"labels, below the teacher's. {SETTLED} Heard once, over HTTP: {bill}."
    )
    columns = ["", "calls saved", "points lost", "before the change", "after it", "differs from the teacher"]
    first = Table(f"Cascades: {n}, mean and 95 % interval over streams", columns, lines, note)
    tenths = [
        [
            f"{place * 10} to {place * 10 + 10} %",
            *(float(of(name, key)[:, place].mean()) for name in NAMES for key in BY_TENTH),
        ]
        for place in range(10)
    ]
    heads = [f"{name}: {word}" for name in NAMES for word in ("calls", "points lost")]
    return Row(bars, {"cascades": first, "tenths": Table("Along the stream, a tenth a line", ["part", *heads], tenths)})


BY_TENTH = ("asked_by_tenth", "lost_by_tenth")


def _line(name: str, of: Callable[[str, str], Array]) -> list[str]:
    cells = [name]
    for figure, form in (
        ("saved", ".3f"),
        ("lost", ".2f"),
        ("lost_before", ".2f"),
        ("lost_after", ".2f"),
        ("differs", ".4f"),
    ):
        values = of(name, figure)
        low, high = interval(values)
        cells.append(f"{values.mean():{form}} ({low:{form}} to {high:{form}})")
    return cells
