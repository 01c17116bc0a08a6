"""The process that estimates a job before it is queued, as `stillroom check --json` does. Spends nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stillroom.errors import StillroomError
from stillroom.rundir import read_json
from stillroom.service.work import processes
from stillroom.service.work.executor import DATA
from stillroom.service.work.trainer import NICE, RECIPE


def main() -> None:
    """Estimate the recipe in the folder that standard input names."""
    folder = Path(processes.begin(NICE)["folder"])
    from stillroom import flow
    from stillroom.recipe import Recipe

    try:
        found = flow.plan(Recipe.from_tree(read_json(folder / RECIPE)), folder / DATA)
        answer = {name: found[name] for name in ("figures", "teacher", "notes")}
    except StillroomError as error:
        refused = {"code": type(error).__name__, "message": str(error), "param": error.where}
        answer = {"refused": refused} if error.exit_status == 2 else {"why": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
