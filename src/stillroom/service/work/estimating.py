"""The process that estimates a job before it is queued, as `stillroom check --json` does. Spends nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stillroom.errors import StillroomError
from stillroom.evaluation.processes import end_at_once
from stillroom.rundir import read_json
from stillroom.service.work import processes
from stillroom.service.work.executor import DATA
from stillroom.service.work.trainer import NICE, RECIPE


def main() -> None:
    """Estimate the recipe in the folder that standard input names; `alone`: in this one process (see flow.plan)."""
    order = processes.begin(NICE)
    folder, alone = Path(order["folder"]), order["alone"]
    from stillroom import flow
    from stillroom.recipe import Recipe

    try:
        found = flow.plan(Recipe.from_tree(read_json(folder / RECIPE)), folder / DATA, alone=alone)
        answer = {name: found[name] for name in ("figures", "teacher", "notes")}
    except StillroomError as error:
        refused = {"code": type(error).__name__, "message": str(error), "param": error.where}
        answer = {"refused": refused} if error.exit_status == 2 else {"why": str(error)}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")  # a line of its own, whatever a library printed


if __name__ == "__main__":
    main()
    end_at_once()
