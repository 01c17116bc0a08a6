"""How fast this machine is, for promises that are made in seconds and tests that run on any machine, beside others."""

from __future__ import annotations

import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage

LIBRARIES = "import fastapi, sqlalchemy, uvicorn"
USUAL_S = 0.65
"""Of a processor, to start Python and load these libraries on the machine that the promises were made on."""


def slowness() -> float:
    """How many times longer loading libraries takes here at the moment than there, the best of three; no less than 1."""
    took_s = []
    for _ in range(3):
        before = getrusage(RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
        after = getrusage(RUSAGE_CHILDREN)
        took_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return max(1.0, min(took_s) / USUAL_S)
