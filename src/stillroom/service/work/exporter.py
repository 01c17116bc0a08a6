"""The process that exports one student for ONNX Runtime. It is started by students/exports.py and ends with the service."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stillroom.errors import StillroomError
from stillroom.evaluation.processes import end_at_once
from stillroom.service.work import processes

NICE = 19


def main() -> None:
    """Carry out the order on standard input, the run's folder; why it failed on standard output, as a line of JSON."""
    order = processes.begin(NICE)
    told, sys.stdout = sys.stdout, sys.stderr  # whatever the exporters print is not ours
    from stillroom.exporting import export_student

    try:
        export_student(Path(order["run"]), None, int8=False)
    except StillroomError as error:
        # Where, and how to mend it, is told for who sits at the machine: in the log, not on a page.
        sys.stderr.write(f"error: {error}\n")
        told.write(json.dumps({"why": error.what}) + "\n")
        told.flush()


if __name__ == "__main__":
    main()
    end_at_once()
