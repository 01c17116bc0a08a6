"""Stage report: report.html and the student's model card, from what the evaluation wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillroom.rundir import read_json, sha256_file, verify, write_file

EXPORTED, SEAL = "onnx", "student.json"
"""The folder of an export in a run; which student it is of, written last."""
"""In a run folder: the student for other programs, with what was found when it was checked."""


def report(run: Path) -> Path:
    """Render report.html and the student's model card from what stands in the run folder."""
    from stillroom.report.card import model_card
    from stillroom.report.page import render

    verify(run / "evaluation")
    scorecard = read_json(run / "scorecard.json") | _exported(run)
    details = read_json(run / "evaluation" / "details.json")
    path = run / "report.html"
    write_file(path, render(scorecard, details).encode())
    write_file(run / "student" / "README.md", model_card(scorecard, details["about"]).encode())
    return path


def _exported(run: Path) -> dict[str, Any]:
    """What was found of the student's exported files; nothing where they are of another student, or not there."""
    facts, found = run / EXPORTED / SEAL, run / EXPORTED / "check.json"
    if not found.is_file() or not facts.is_file():
        return {}
    if read_json(facts)["manifest"] != sha256_file(run / "student" / "manifest.json"):
        return {}
    models = {name: one for name, one in read_json(found)["models"].items() if name != "pytorch"}
    return {"export": {name: {**one, "size_bytes": one["bytes"]} for name, one in models.items()}}
