"""Students served, beside the same models asked without a server; and many callers at once of the one that writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import service_students
from benchmarks.results import Found, Row, Table, shown
from benchmarks.service_process import Served
from benchmarks.service_sizes import Sizes
from benchmarks.timing import middle

WORDS = ("The order came today.", "Where is my parcel?", "I would like my money back.", "Thank you for the quick help.")
TOKENS, WIDTH, LAYERS = 64, 192, 4
"""Of an answer, and of the student."""
LANGUAGE, CLASSIFIER = "language", "classifier"
FIRST_S = 300.0
"""So long may the first call take, which loads the student."""


def overhead(sizes: Sizes, base: Path) -> Row:
    """Latency of a call over HTTP, as a multiple of the bare model's: the language student's counts, a classifier's is told."""

    def measure(service: Served, name: str, student: Path) -> dict[str, Any]:
        from tests.service.students import distilled_texts, put

        from stillroom.models.loading import load_model

        texts = base / "overhead" / "texts"
        texts.mkdir()
        labels = distilled_texts(texts) / "student"
        client = service.http(timeout=FIRST_S)
        ask = service_students.over_http(client, name, WORDS, TOKENS)
        label = service_students.over_http(client, put(service, labels, "classifier"), WORDS, TOKENS)
        pairs = {
            LANGUAGE: (lambda: ask(0), service_students.of_model(load_model(student), WORDS, TOKENS)),
            CLASSIFIER: (lambda: label(0), service_students.of_classifier(load_model(labels), WORDS)),
        }
        return service_students.overheads(pairs, sizes.serving_rounds)

    return _told(_served(base / "overhead", measure), sizes.serving_rounds)


def _told(found: dict[str, Any], rounds: int) -> Row:
    """The bar of the language student, and the table of both."""
    middles = {name: middle(one["rounds"]) for name, one in found.items()}
    rows = [
        [name, one["served_ms"], one["bare_ms"], middles[name][0], *middles[name][1]] for name, one in found.items()
    ]
    columns = ["student", "served, ms", "bare, ms", "ratio", "low", "high"]
    small = found[CLASSIFIER]
    note = (
        f"The figure above is the language student's. Of a call to a classifier the HTTP call is most: {shown(small['bare_ms'])} "
        f"ms of the bare model are {shown(small['served_ms'])} ms served, {shown(middles[CLASSIFIER][0])} times as long."
    )
    table = Table(
        f"One client, a language student's answers of {TOKENS} tokens, a classifier's labels", columns, rows, note
    )
    value, ends = middles[LANGUAGE]
    return Row({"service-overhead": Found(value, ends, f"{rounds} rounds, a language student")}, {"overhead": table})


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
