"""Stage report: report.html and the student's model card, from what the evaluation wrote."""

from __future__ import annotations

from pathlib import Path

from stillroom.rundir import read_json, verify, write_file
from stillroom.stages.opening import Run


def report(run: Run) -> Path:
    """Render report.html and the student's model card from what the evaluation wrote."""
    from stillroom.report.card import model_card
    from stillroom.report.page import render

    verify(run.dir.path / "evaluation")
    scorecard = read_json(run.dir.path / "scorecard.json")
    details = read_json(run.dir.path / "evaluation" / "details.json")
    path = run.dir.path / "report.html"
    write_file(path, render(scorecard, details).encode())
    write_file(run.dir.path / "student" / "README.md", model_card(scorecard, details["about"]).encode())
    return path
