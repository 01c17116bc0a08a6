"""The exam: from finished models and the teacher's kept answers to a scorecard and the details a report shows.

Predictions are made once and written; every figure of quality comes from them. The test split is read here and nowhere
else. Knows no recipe: flow hands over the folders, the splits and the knobs of the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.evaluation import predictions as predicted
from stillroom.evaluation.cost import Spent, cost, usd_per_million_rows
from stillroom.evaluation.dark_knowledge import ensemble_similarity, group_similarity
from stillroom.evaluation.scores import Said, score
from stillroom.evaluation.speed import measure_together
from stillroom.kinds import AskedTeacher
from stillroom.models.classifier import Classifier, description
from stillroom.models.device import Device
from stillroom.models.references import weight_files
from stillroom.recipe import Evaluation
from stillroom.rows import Answers, Array, Questions, Raw, Splits, row_count
from stillroom.rundir import write_json
from stillroom.teachers.ensemble import members_of

CALIBRATION = ("ece", "ece_scaled")
OF_PROBABILITIES = ("nll", *CALIBRATION)
"""What chosen classes alone do not tell."""
BILLED = ("latency_ms_p50", "latency_ms_p95", "usd_per_million_rows")
"""What the calls to a paid teacher tell of its speed and cost."""
AGREEMENT = ("agreement", "kl_to_teacher", "error_agreement")
SPEED_SECONDS = 0.5
"""Timing takes so long for each model; the teacher and one seed of each role take turns."""


@dataclass(frozen=True)
class Exam:
    """What is evaluated, and by which knobs."""

    name: str
    splits: Splits
    models: Mapping[str, list[Path]]
    """Role -> the folder of each seed's model."""
    teacher: AskedTeacher
    teacher_folders: list[Path]
    """Where the weights of all its members stand, for their size; empty where one has none."""
    teacher_test: Answers | None
    """None where the teacher has no answers for the test rows."""
    teacher_validation: Answers | None
    knobs: Evaluation
    device: Device
    spent: Spent
    unseen: list[int] = field(default_factory=list)
    """Classes left out of the transfer set, as places among the classes."""
    independent: AskedTeacher | None = None
    transfer_set: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    asking: dict[str, Any] = field(default_factory=dict)
    """Of a teacher that is paid by the call: what its calls took and cost, out of the ledger; it is not asked again."""


def sit(exam: Exam, folder: Path) -> tuple[dict[str, Any], predicted.Predictions]:
    """Predict, write the predictions into `folder`, and return the scorecard and what was predicted."""
    splits, knobs = exam.splits, exam.knobs
    found = predicted.predict(exam.models, splits, exam.device)
    predicted.add_bias_variants(found, splits, exam.unseen)
    if exam.teacher_test is not None:
        validation = exam.teacher_validation
        found.said["teacher"] = Said(
            exam.teacher_test.log_probabilities_NC[None].astype(np.float32),
            None if validation is None else validation.log_probabilities_NC[None].astype(np.float32),
        )
    predicted.write(found, folder / "predictions", splits)
    scores = score(
        found.said, splits.test.label_N, splits.validation.label_N, splits.classes, similarity_CC=_similarity(exam)
    )
    models = {name: dict(figures) for name, figures in scores.models.items()}
    for figures in models.values():
        for metric, fields in (("calibration", CALIBRATION), ("agreement", AGREEMENT)):
            if metric not in knobs.metrics:
                for name in fields:
                    figures.pop(name, None)
    if "probabilities" not in exam.teacher.gives:
        _leave_probabilities_out(models, scores.differences)
    _add_recalls(models, found, exam)
    _add_independent(models, found, exam)
    if "size" in knobs.metrics:
        _add_sizes(models, exam)
    if "speed" in knobs.metrics:
        _add_speed(models, exam)
    scorecard = {
        "schema": 1,
        "name": exam.name,
        "task": "classification",
        "rows": {
            "train": len(splits.train),
            "labelled": int(splits.train.labelled_N.sum()),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "seeds": list(range(max(len(folders) for folders in exam.models.values()))),
        "models": models,
        "gap_recovered": scores.gap_recovered,
        "differences": scores.differences,
        "transfer_set": exam.transfer_set,
        "versions": exam.versions,
    }
    if exam.asking:
        scorecard["asking"] = exam.asking
    if splits.slice_N is not None:
        scorecard["slices"] = _slices(found, exam, splits.slice_N)
    if exam.unseen:
        scorecard["omitted_classes"] = [splits.classes[place] for place in exam.unseen]
    if "cost" in knobs.metrics:
        scorecard["cost"] = _cost(models, exam)
    write_json(folder / "temperatures.json", scores.temperatures)
    return scorecard, found


def _leave_probabilities_out(models: dict[str, dict[str, Any]], differences: dict[str, dict[str, Any]]) -> None:
    """A teacher that chose classes gave no probabilities, so what is computed from those was not measured."""
    for name, figures in models.items():
        for left in (*OF_PROBABILITIES, "kl_to_teacher") if name == "teacher" else ("kl_to_teacher",):
            figures.pop(left, None)
        for pair in (f"{name}-teacher", f"teacher-{name}"):
            for left in OF_PROBABILITIES:
                differences.get(pair, {}).pop(left, None)


def _similarity(exam: Exam) -> Array | None:
    """How alike the classes are: by the recipe's groups, or by a teacher that was not this one; else unknown."""
    if exam.knobs.groups is not None:
        return group_similarity(exam.knobs.groups, exam.splits.classes)
    if exam.independent is not None:
        rows = exam.splits.validation
        return ensemble_similarity(exam.independent.answer(rows).log_probabilities_NC, rows.label_N)
    return None


def _add_recalls(models: dict[str, dict[str, Any]], found: predicted.Predictions, exam: Exam) -> None:
    """Recall of each class that was left out of the transfer set."""
    label_N = exam.splits.test.label_N
    for place in exam.unseen:
        rows = np.flatnonzero(label_N == place)
        if not len(rows):
            continue
        said = {name: Said(one.test_SNC[:, rows]) for name, one in found.said.items()}
        scores = score(said, label_N[rows], np.empty(0, np.int64), exam.splits.classes)
        for name, figures in scores.models.items():
            recalls = models[name].setdefault("recall_by_class", {})
            recalls[str(exam.splits.classes[place])] = figures["accuracy"]


def _slices(found: predicted.Predictions, exam: Exam, slice_N: Array) -> dict[str, dict[str, Any]]:
    """model -> slice of the test rows -> accuracy and number of rows; which slice a model is weakest on is told so."""
    label_N = exam.splits.test.label_N
    slices: dict[str, dict[str, Any]] = {}
    for value in sorted({str(value) for value in slice_N.tolist() if value is not None}):
        rows = np.flatnonzero(np.array([str(one) == value for one in slice_N.tolist()]))
        said = {name: Said(one.test_SNC[:, rows]) for name, one in found.said.items()}
        scores = score(said, label_N[rows], np.empty(0, np.int64), exam.splits.classes)
        for name, figures in scores.models.items():
            slices.setdefault(name, {})[value] = {"accuracy": figures["accuracy"], "rows": len(rows)}
    return slices


def _add_independent(models: dict[str, dict[str, Any]], found: predicted.Predictions, exam: Exam) -> None:
    """Agreement with a teacher the student did not learn from: as high as with its own, it is accuracy, not fidelity.

    Stanton and others 2021, arXiv:2106.05945.
    """
    if exam.independent is None:
        return
    said_NC = exam.independent.answer(exam.splits.test).log_probabilities_NC
    said = {name: Said(one.test_SNC) for name, one in found.said.items() if name != "teacher"}
    said["teacher"] = Said(said_NC[None].astype(np.float32))
    scores = score(said, exam.splits.test.label_N, np.empty(0, np.int64), exam.splits.classes)
    for name, figures in scores.models.items():
        if name != "teacher" and "agreement" in figures:
            models[name]["agreement_with_independent_teacher"] = figures["agreement"]


def _add_sizes(models: dict[str, dict[str, Any]], exam: Exam) -> None:
    """Of each role's first seed, and of the teacher's members together, as far as their weights stand somewhere."""
    counted = {name: int(description(folders[0])["parameters"]) for name, folders in exam.models.items()}
    members = [member for member in members_of(exam.teacher) if isinstance(member, Classifier)]
    counted["teacher"] = sum(member.parameters for member in members)
    for name, folders in [*exam.models.items(), ("teacher", exam.teacher_folders)]:
        if name in models and folders:
            files = [path for folder in folders[: None if name == "teacher" else 1] for path in weight_files(folder)]
            models[name]["parameters"] = counted[name]
            models[name]["size_bytes"] = sum(path.stat().st_size for path in files)


def answers_raw(teacher: AskedTeacher) -> Callable[[Raw], Any]:
    """The teacher as a function of raw rows alone, as it would stand behind a service."""

    def answer(raw: Raw) -> Answers:
        # Keys, labels and weights are not looked at by a teacher that answers new rows, and making them takes time.
        nothing = np.zeros(row_count(raw))
        return teacher.answer(Questions(raw, nothing, nothing, nothing, nothing))

    return answer


def _add_speed(models: dict[str, dict[str, Any]], exam: Exam) -> None:
    """Speed of the teacher and of each role's first seed, in turns; a recorded teacher has none."""
    timed: dict[str, Callable[[Raw], Any]] = {}
    if "teacher" in models and exam.asking:
        models["teacher"] |= {name: _once(exam.asking[name]) for name in BILLED if name in exam.asking}
    elif "teacher" in models and not exam.teacher.by_key:
        timed["teacher"] = answers_raw(exam.teacher)
    for name, folders in exam.models.items():
        timed[name] = Classifier.load(folders[0], exam.device).log_probabilities
    for name, figures in measure_together(timed, exam.splits.test.raw, seconds=SPEED_SECONDS * len(timed)).items():
        models[name] |= figures
        if exam.knobs.price is not None and "cost" in exam.knobs.metrics:
            models[name]["usd_per_million_rows"] = usd_per_million_rows(
                figures["rows_per_s"], exam.knobs.price.usd_per_hour
            )


def _once(value: float) -> dict[str, Any]:
    """A figure that was measured once."""
    return {"mean": value, "per_seed": [value]}


def _cost(models: dict[str, dict[str, Any]], exam: Exam) -> dict[str, Any]:
    def million(name: str) -> float | None:
        figure = models.get(name, {}).get("usd_per_million_rows")
        return None if figure is None else float(figure["mean"])

    price = exam.knobs.price
    return cost(
        exam.spent,
        usd_per_hour=None if price is None else price.usd_per_hour,
        teacher_usd_per_million_rows=million("teacher"),
        student_usd_per_million_rows=million("student"),
    )
