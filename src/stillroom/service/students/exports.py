"""Students for other programs: exported for ONNX Runtime when somebody asks for it, one at a time, beside everything else.

An export belongs to no job and costs nothing, so no row tells of it: its files are there or not, and one that a service
did not bring to its end is asked for again.
"""

from __future__ import annotations

import json
import subprocess
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from stillroom.service.door.lists import Row
from stillroom.service.settings import Settings
from stillroom.service.watch.logs import log, log_error
from stillroom.service.work import processes
from stillroom.service.work.executor import handed_pipe
from stillroom.service.work.worker import environment
from stillroom.stages.report import EXPORTED, SEAL

LOG = "onnx.log"
"""Beside the run: what its process said."""
MOST_S = 1800.0
NEEDED = ("onnx", "onnxruntime", "onnxscript")
INSTALL = "ONNX Runtime is not installed here. pip install 'stillroom[onnx]', then start the service again"


class Exported(NamedTuple):
    """How a student's export is."""

    state: Literal["none", "going", "there", "failed"]
    why: str = ""


class Exports:
    """Begins them, and knows how they are."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._one_at_a_time, self._lock = settings, threading.Lock(), threading.Lock()
        self._going: set[Path] = set()
        self._failed: dict[Path, str] = {}

    def of(self, row: Row) -> Exported:
        """How it is with this student."""
        with self._lock:
            return self._state(self._run(row))

    def begin(self, row: Row) -> None:
        """Export this student, unless that is under way or done."""
        run = self._run(row)
        with self._lock:
            if self._state(run).state in ("going", "there"):
                return
            if not all(map(find_spec, NEEDED)):
                self._failed[run] = INSTALL
                return
            self._going.add(run)
        # A process ends with the thread that started it, so each has one of its own.
        threading.Thread(target=self._export, args=(run,), name="export", daemon=True).start()

    def _state(self, run: Path) -> Exported:
        """With the lock held."""
        if run in self._going:
            return Exported("going")
        if (run / EXPORTED / SEAL).is_file():
            return Exported("there")
        return Exported("failed", self._failed[run]) if run in self._failed else Exported("none")

    def _run(self, row: Row) -> Path:
        return Path(self._settings.root, row["folder"]).parent.absolute()

    def _export(self, run: Path) -> None:
        why = "the export ended before it was done; the service's log says more"
        try:
            with self._one_at_a_time:
                why = _carried_out(run, environment(self._settings))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page has to say that it failed
            log_error("export broke", error)
        finally:
            log("export ended", "warn" if why else "info", run=run.name, why=why)
            with self._lock:
                self._failed.pop(run, None)
                if why:
                    self._failed[run] = why
                self._going.discard(run)


def _carried_out(run: Path, env: dict[str, str]) -> str:
    """Export a run's student in a process; why that failed, nothing where it did not. Raises OSError, ValueError."""
    with handed_pipe({}) as (keep, more), open(run.parent / LOG, "wb") as errors:
        process = processes.start(
            "exporter", {"run": str(run)}, output=subprocess.PIPE, errors=errors, env={**env, **more}, keep=keep
        )
    if process.stdout is None:
        raise OSError("a child without standard output")
    with process.stdout as told:
        try:
            status = process.wait(MOST_S)
        except subprocess.TimeoutExpired:
            return f"it took longer than {MOST_S / 60:.0f} minutes"
        finally:
            processes.reap(process)
        said = told.read()
    if said:
        return str(json.loads(said)["why"])
    return f"its process ended with status {status}" if status else ""
