"""Processes that do not outlive whoever started them, whatever ends that one, and the process groups they lead.

A child is told its order as one line of JSON on standard input, and the pipe then stays open as long as its starter lives.
When it closes, the system itself signals the child's whole group (O_ASYNC); where it cannot, a thread of the child does;
and on Linux the child is killed with its starter even where it is held (PR_SET_PDEATHSIG). No order is ever in an argument.

For tests, STILLROOM_KILL=ROLE:POINT:FILE ends one child of that role at that commit point, once: FILE is made where
it is started. Without a FILE it ends each of them.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from stillroom.evaluation.processes import collect_seldom

PR_SET_PDEATHSIG = 1
KILL, AT, LOG = "STILLROOM_KILL", "STILLROOM_KILL_AT", "STILLROOM_COMMIT_LOG"
STARTER = "stillroom_starter"
SOURCE = Path(__file__).parents[3]
FIRST_TO_GO = Path("/proc/self/oom_score_adj")


def start(
    role: str, order: Mapping[str, Any], *, output: IO[bytes] | int, errors: IO[bytes] | int | None,
    env: Mapping[str, str], folder: Path | None = None, keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start `python -m stillroom.service.work.ROLE` at the head of a group of its own and hand it its order."""
    found = subprocess.Popen(
        [sys.executable, "-m", f"stillroom.service.work.{role}"], stdin=subprocess.PIPE, stdout=output, stderr=errors,
        env=_for_role(role, env), cwd=folder, pass_fds=tuple(keep), start_new_session=True,
    )  # fmt: skip
    if found.stdin is None:
        raise OSError("a child without standard input")
    with suppress(BrokenPipeError):  # it ended at once; whoever waits for it will see how
        found.stdin.write(json.dumps({**order, STARTER: os.getpid()}).encode() + b"\n")
        found.stdin.flush()
    return found


def begin(nice: int = 0) -> dict[str, Any]:
    """In the child: its order; from now on it ends with its starter. `nice`: how far it stands back from other work."""
    order: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
    starter = order.pop(STARTER, 0)
    collect_seldom()
    os.nice(nice)
    if nice and FIRST_TO_GO.exists():
        with suppress(OSError):  # some systems do not let it be asked
            FIRST_TO_GO.write_text("1000")
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_end_with_pipe, daemon=True).start()
    if os.getppid() != starter:
        end_group(os.getpgrp())
    return order


def end_group(group: int, sign: int = signal.SIGKILL) -> bool:
    """Signal every process of a group; False where there is none."""
    try:
        os.killpg(group, sign)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return False
    return True


def reap(process: subprocess.Popen[bytes]) -> int:
    """End a child and all of its group, now, where it has not ended yet. Its exit status."""
    end_group(process.pid)
    if process.stdin is not None:
        process.stdin.close()
    return process.wait()


def started_at(pid: int) -> str | None:
    """When a process began, as its system counts it, so that another one with its id is not taken for it; None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _end_with_pipe() -> None:
    while os.read(0, 1):
        pass
    end_group(os.getpgrp())


def _for_role(role: str, env: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in env.items() if name != AT}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCE), found.get("PYTHONPATH", "")]))
    if LOG in env:
        found[LOG] = f"{env[LOG]}.{role}"
    struck, _, rest = env.get(KILL, "").partition(":")
    point, _, once = rest.partition(":")
    if struck == role and not once:
        found[AT] = point
    elif struck == role:
        with suppress(FileExistsError):
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
            found[AT] = point
    return found
