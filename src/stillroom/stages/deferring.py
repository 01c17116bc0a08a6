"""Of stage evaluate, where the recipe has a cascade: when the student leaves a question to its teacher, and what that gives.

The threshold is set on rows that the teacher answered and no student learned from: the validation split and, of a run in
rounds, the audit slice. Where the student was chosen on the validation split, by patience or among temperatures, it looks
better there than it is, and the audit slice alone counts. The test split is then read to say what the threshold is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.cascade import FILE
from stillroom.errors import ModelError, RecipeError
from stillroom.evaluation.deferral import Deferral, figures
from stillroom.rows import Answers, Array, Questions
from stillroom.rundir import read_json, write_file, write_json
from stillroom.stages.opening import Run
from stillroom.stages.round_students import taken
from stillroom.stages.rounds import FILE as ROUNDS_FILE
from stillroom.stages.rounds import ROUNDS

if TYPE_CHECKING:
    from stillroom.evaluation.exam import Exam
    from stillroom.evaluation.predictions import Predictions
    from stillroom.recipe import Recipe
    from stillroom.transfer_set.store import Kept


def chosen_by(recipe: Recipe) -> str:
    """The knob by which a recipe's student is chosen on validation rows; empty where nothing is."""
    if recipe.training.patience is not None:
        return "training.patience"
    return "objectives, temperature: auto" if any(one.heat() == "auto" for one in recipe.objectives) else ""


def check_cascade(recipe: Recipe) -> None:
    """Raise RecipeError where all the rows that a threshold can be set on are those on which the student is chosen."""
    knob = chosen_by(recipe) if recipe.cascade is not None else ""
    if knob and (recipe.rounds is None or not recipe.rounds.audit):
        raise RecipeError(
            "the student is chosen on the validation rows, and a threshold set on the same rows would promise too much",
            where=f"cascade, {knob}",
            cure="Take one of the two out, or ask in rounds with an audit slice, which then sets the threshold alone",
        )


def settle_cascade(run: Run, exam: Exam, found: Predictions, kept: Kept, folder: Path) -> dict[str, Any]:
    """Write what the first seed's student needs into `folder`, and give the scorecard's `cascade`; nothing without one.

    Raises ModelError where the teacher answered no held-out row.
    """
    from stillroom.models.classifier import Classifier

    knobs, student = run.recipe.cascade, found.said["student"]
    if knobs is None:
        return {}
    audit = audit_of(run, kept)
    said = None if chosen_by(run.recipe) else exam.teacher_validation
    teacher_M = _answers(said, len(run.splits.validation))
    if not len(teacher_M) + len(audit):
        raise ModelError(
            "the teacher answered no held-out row, so nobody knows when the student differs from it", where="cascade",
            cure="Give validation rows that it answers, or rounds with an audit slice",
        )  # fmt: skip
    audit_A = kept.reader(audit.key_N).all().argmax(1) if len(audit) else np.empty(0, np.int64)
    settled = []
    for seed, place in enumerate(exam.models["student"]):
        parts = [student.validation_SNC[seed]] if len(teacher_M) and student.validation_SNC is not None else []
        if len(audit):
            parts.append(Classifier.load(place, run.device).log_probabilities(audit.raw))
        settled.append(Deferral.settle(np.concatenate(parts), np.concatenate([teacher_M, audit_A]), knobs.risk))
    first = settled[0].to_json() | {"validation_rows": len(teacher_M), "audit_rows": len(audit)}
    write_json(folder / FILE, first)
    told: dict[str, Any] = {
        "risk_allowed": knobs.risk,
        "threshold_nats": first["threshold_nats"],
        "held_out_rows": first["rows"],
        "held_out": {name: first[name] for name in ("coverage", "differs", "below")},
    }
    if exam.teacher_test is not None:
        sure_SN = np.stack([one.sure(said_NC) for one, said_NC in zip(settled, student.test_SNC, strict=True)])
        teacher_N = exam.teacher_test.log_probabilities_NC.argmax(1)
        told |= figures(sure_SN, student.test_SNC.argmax(2), teacher_N, run.splits.test.label_N)
    return {"cascade": told}


def _answers(said: Answers | None, rows: int) -> Array:
    """The class the teacher chose for each held-out row; none where it answered none."""
    return np.empty(0, np.int64) if said is None or not rows else said.log_probabilities_NC.argmax(1)


def audit_of(run: Run, kept: Kept) -> Questions:
    """The audit slice of a run in rounds, as far as the teacher answered it."""
    whole = run.recipe.questions.build(run.folders).train if run.recipe.rounds is not None else run.splits.train
    rows = read_json(run.dir.path / ROUNDS / ROUNDS_FILE)["audit"]["rows"] if run.recipe.rounds is not None else []
    audit = taken(whole, rows)
    return audit.take(np.flatnonzero(kept.answered(audit.key_N)))


def show_cascade(run: Run) -> None:
    """Put it beside the student's weights, where the cascade looks for it; lost or changed, it comes back."""
    written, beside = run.dir.path / "evaluation" / FILE, run.dir.path / "student" / FILE
    if written.is_file() and (not beside.is_file() or beside.read_bytes() != written.read_bytes()):
        write_file(beside, written.read_bytes())
