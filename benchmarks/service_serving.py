"""A language student served, beside the same model asked without a server; and many callers at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import service_students
from benchmarks.results import Found, Row, Table
from benchmarks.service_process import Served
from benchmarks.service_sizes import Sizes
from benchmarks.timing import middle

WORDS = ("The order came today.", "Where is my parcel?", "I would like my money back.", "Thank you for the quick help.")
TOKENS, WIDTH, LAYERS = 64, 192, 4
"""Of an answer, and of the student."""
FIRST_S = 300.0
"""So long may the first call take, which loads the student."""


def overhead(sizes: Sizes, base: Path) -> Row:
    """Latency of a call over HTTP, as a multiple of the bare model's; its upper figure counts."""

    def measure(service: Served, name: str, student: Path) -> dict[str, Any]:
        from stillroom.models.loading import load_model

        bare = service_students.of_model(load_model(student), WORDS, TOKENS)
        ask = service_students.over_http(service.http(timeout=FIRST_S), name, WORDS, TOKENS)
        return service_students.overhead(lambda: ask(0), bare, sizes.serving_rounds)

    found = _served(base / "overhead", measure)
    value, ends = middle(found["rounds"])
    row = [found["served_ms"], found["bare_ms"], value, ends[0], ends[1]]
    columns = ["served, ms", "bare, ms", "ratio", "low", "high"]
    n = f"{sizes.serving_rounds} rounds"
    table = Table(f"One client, answers of {TOKENS} tokens", columns, [row])
    return Row({"service-overhead": Found(value, ends, n)}, {"overhead": table})


def batching(sizes: Sizes, base: Path) -> Row:
    """Answers a second of sixteen clients, as a multiple of one client's."""

    def measure(service: Served, name: str, student: Path) -> dict[str, Any]:
        ask = service_students.over_http(service.http(timeout=FIRST_S), name, WORDS, TOKENS)
        return service_students.batching(ask, rounds=sizes.batching_rounds)

    found = _served(base / "batching", measure)
    value, ends = middle(found["rounds"])
    row = [found["together_per_s"], found["one_by_one_per_s"], value, ends[0], ends[1]]
    columns = ["together, a second", "one by one, a second", "ratio", "low", "high"]
    table = Table(f"{service_students.CALLERS} clients, answers of {TOKENS} tokens", columns, [row])
    return Row({"service-batching": Found(value, ends, f"{sizes.batching_rounds} rounds")}, {"batching": table})


def _served(folder: Path, measure: Callable[[Served, str, Path], dict[str, Any]]) -> dict[str, Any]:
    """What is measured of a server that has a student, which has learned nothing: its speed is that of one that has."""
    from tests.service.students import put, written_letters

    shutil.rmtree(folder, ignore_errors=True)
    student = written_letters(folder / "student", WIDTH, LAYERS, 512)
    with Served(folder / "served", "--requests-per-minute", "10000000") as service:
        return measure(service, put(service, student, "language"), student)
