"""A loopback teacher in a process of its own, and the official client that asks it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from stillroom.loopback.serving import Loopback

Asking = Callable[..., tuple[openai.OpenAI, Loopback]]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """Starts a teacher from a specification; gives a client without retries, and the teacher."""
    started: list[tuple[openai.OpenAI, Loopback]] = []

    def start(key: str = "any", timeout_s: float = 20.0, **spec: Any) -> tuple[openai.OpenAI, Loopback]:
        spec.setdefault("mind", {"kind": "arithmetic", "error_rate": 0.0, "style": "short"})
        teacher = Loopback(spec, tmp_path)
        client = openai.OpenAI(base_url=teacher.start(), api_key=key, max_retries=0, timeout=timeout_s)
        started.append((client, teacher))
        return started[-1]

    yield start
    for client, teacher in started:
        client.close()
        teacher.stop()


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Labelled texts."""
    path = tmp_path / "reviews.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"film {number} was seen by many", number % 3] for number in range(600))
    return path
