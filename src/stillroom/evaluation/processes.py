"""This process: how much memory it holds, as its system counts it (resident pages), and how one beside it is started."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")
FIRST_TO_GO = Path("/proc/self/oom_score_adj")


def held_bytes() -> int:
    """Now; where the system does not tell, the most so far."""
    return _told("VmRSS") or _most_ever_bytes()


def most_held_bytes() -> int:
    """At most, since the process began or since `forget_most`.

    Linux passes the most that the starting process ever held on to its child as ru_maxrss, so that a child of a large
    one would seem never to grow; /proc counts anew. Elsewhere ru_maxrss is all there is.
    """
    return _told("VmHWM") or _most_ever_bytes()


def forget_most() -> None:
    """Count the most from now on; where the system has no such thing, it stays the most since the process began."""
    with suppress(OSError):
        if FORGET.exists():
            FORGET.write_text("5")


def give_back() -> None:
    """Give freed memory back to the system, where its C library keeps it: pieces that a later stage cannot use add up."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def end_first() -> None:
    """Ask the system to end this process before any other when memory runs out; where it cannot be asked, nothing."""
    with suppress(OSError):
        if FIRST_TO_GO.exists():
            FIRST_TO_GO.write_text("1000")


def collect_seldom() -> None:
    """Look for garbage at every 10,000 new objects from now on: nothing imported is any, and looking took a fifth of a start.

    Python looks at every 700 (3.11). What matters in training are tensors, which go when nobody holds them, without a look.
    """
    gc.set_threshold(10_000)


def end_at_once() -> NoReturn:
    """End a process whose work is done and written; Python would take apart all that it imported, which takes up to a second."""
    # What stands behind a stream that was replaced, too.
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(0)


def _told(name: str) -> int:
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def _most_ever_bytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def package_path() -> str:
    """A PYTHONPATH with which a process of its own finds this very package."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
