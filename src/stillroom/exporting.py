"""A finished run's student for other programs: exported, checked on the run's test rows, and told in its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import InputError, ModelError
from stillroom.finished import recipe_file
from stillroom.progress import Silent
from stillroom.rundir import RunDir, sha256_file, write_json
from stillroom.stages.opening import Run, clock_of, load, look_in
from stillroom.stages.report import EXPORTED, SEAL, report

MOST_ROWS = 2000
"""Test rows that an export is checked on; of a language model so many windows would take hours."""
MOST_WINDOWS = 16


def export_student(run: Path, out: Path | None, int8: bool) -> dict[str, Any]:
    """Export a run's student, in 8 bits too where asked; what the check found, with the folder. Raises StillroomError."""
    student = recipe_file(run).parent / "student"
    if not (student / "manifest.json").is_file():
        raise ModelError("this run has no finished student", where=str(run), cure=f"Go on with: stillroom train {run}")
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise InputError("this folder is not empty", where=str(out), cure="Choose another name, or remove it first")
    recipe, folder = load(recipe_file(run))
    work = Run(recipe, RunDir(run), look_in(folder), Silent(), clock_of(recipe, run))
    with work.dir.hold(recipe.name):  # so that no run makes the student anew meanwhile
        return _exported(work, run, student, out, int8)


def _exported(work: Run, run: Path, student: Path, out: Path | None, int8: bool) -> dict[str, Any]:
    from stillroom.export.check import export_checked

    test, is_language = work.splits.test, work.recipe.is_language
    most = MOST_WINDOWS if is_language else MOST_ROWS
    test = test.take(np.unique(np.linspace(0, len(test) - 1, min(most, len(test))).astype(np.int64)))
    target = out or run / EXPORTED
    target.mkdir(parents=True, exist_ok=True)
    (target / SEAL).unlink(missing_ok=True)  # of an earlier export, whose files are replaced from here on
    label_N = None if is_language else test.label_N
    _, found = export_checked(student, target, test.raw, label_N, int8=int8)
    write_json(target / SEAL, {"manifest": sha256_file(student / "manifest.json")})
    if out is None and (run / "report.html").is_file():
        report(run)
    return {"folder": str(target), **found}
