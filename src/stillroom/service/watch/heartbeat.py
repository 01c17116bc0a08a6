"""That the worker lives: it marks a file every few seconds, and whoever asks looks how old the mark is.

A file and not a row, so that a worker that only waits writes nothing to the database, and its mark costs no disk flush.
"""

from __future__ import annotations

import time
from pathlib import Path

FILE = "worker.alive"
BEAT_S = 3.0
"""How often the worker marks it."""
DEAD_S = 30.0
"""From this age on, no jobs are carried out."""


def beat(root: Path) -> None:
    """Say that the worker of this root lives. Raises OSError where the folder is gone or full."""
    path = root / FILE
    path.touch()


def age_s(root: Path) -> float | None:
    """Seconds since the worker said so; None where none ever did."""
    try:
        return max(time.time() - (root / FILE).stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None
