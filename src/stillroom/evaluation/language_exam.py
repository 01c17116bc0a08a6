"""The exam of language models: from finished models and the teacher to a scorecard and the details a report shows.

As exam.py for classifiers: predictions are made once and written; every figure of quality comes from them. The test
split is read here and nowhere else. Knows no recipe: flow hands over folders, windows and the knobs of the evaluation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.evaluation import language_details as shown
from stillroom.evaluation.cost import Spent, cost, usd_per_million_rows
from stillroom.evaluation.intervals import CONTROL, HARD_TEACHER, STUDENT
from stillroom.evaluation.language_memory import peak_memory_mib
from stillroom.evaluation.language_predictions import TEACHER, Architecture, Load, Speaker, Windows, Writer, read
from stillroom.evaluation.language_scores import COMPARED, Spoken, Text, score_language
from stillroom.evaluation.language_speed import measure_language
from stillroom.models.device import Device
from stillroom.models.references import weight_files
from stillroom.recipe import Evaluation
from stillroom.rows import Array, Splits

AGREEMENT = ("agreement", "kl_to_teacher")
SPEED_SECONDS = 15.0
"""Timing takes about so long for each model; the teacher and one seed of each role take turns."""
PREDICTIONS = "predictions"


def _nobody(done: int) -> None:
    """Progress that nobody is shown."""


@dataclass(frozen=True)
class LanguageExam:
    """What is evaluated, and by which knobs."""

    name: str
    architecture: Architecture
    splits: Splits
    """Of windows; for masked models with the evaluation's masks in place."""
    models: Mapping[str, list[Path]]
    """Role -> the folder of each seed's model."""
    teacher: Speaker | None
    """None where its recorded words are all that is known of it."""
    teacher_folders: list[Path]
    """Where its weights stand, for their size; empty where it is no model of ours."""
    knobs: Evaluation
    device: Device
    spent: Spent
    bytes_N: Array | None = None
    """UTF-8 bytes that the scored tokens of each test window stand for; None where bits per byte mean nothing."""
    transfer_set: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    work: Path | None = None
    """Where predictions are kept until all are made, so that a killed exam goes on; none: it begins anew."""
    load: Load | None = None
    """How a folder becomes a model; none: models/language.py."""
    done: Callable[[int], None] = _nobody
    """Told how many windows were just read, of `windows` in all."""

    @cached_property
    def parts(self) -> dict[str, Windows]:
        """Validation and test."""
        return {name: Windows.of(getattr(self.splits, name), name) for name in ("validation", "test")}

    @property
    def windows(self) -> int:
        """How many windows all models read together: the length of the work."""
        seeds = (self.teacher is not None) + sum(len(folders) for folders in self.models.values())
        return seeds * sum(int(np.count_nonzero(part.count_N)) for part in self.parts.values())

    def loaded(self, folder: Path) -> Speaker:
        """The model in a folder."""
        if self.load is not None:
            return self.load(folder)
        from stillroom.models.language import LanguageModel

        return LanguageModel.load(folder, self.architecture, self.device)


def sit_language(exam: LanguageExam, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Predict, write the predictions into `folder`, and return the scorecard and the details.

    Raises NotFinite with the folder of a model that answers NaN, DataError for splits without a scored token, WrongAnswer
    for a model that lacks the text's tokens.
    """
    kept = _predict(exam, folder)
    test = exam.parts["test"]
    sample_Q = np.fromfile(kept / "test.sample.i32", np.int32)
    text = Text.of(test.target_P, test.window_P, test.document_N, sample_Q, exam.bytes_N)
    said = {name: read(kept, name, count, compared=exam.teacher is not None) for name, count in _seeds(exam).items()}
    scores = score_language(said, text)
    models = {name: dict(figures) for name, figures in scores.models.items()}
    if "agreement" not in exam.knobs.metrics:
        for figures in models.values():
            for name in AGREEMENT:
                figures.pop(name, None)
    speakers = {name: exam.loaded(folders[0]) for name, folders in exam.models.items()}
    if exam.teacher is not None:
        speakers = {TEACHER: exam.teacher, **speakers}
    if "size" in exam.knobs.metrics:
        _add_sizes(models, speakers, exam)
    if "speed" in exam.knobs.metrics:
        _add_speed(models, speakers, exam)
    scorecard = {
        "schema": 1,
        "name": exam.name,
        "task": "language",
        "architecture": exam.architecture,
        "rows": _rows(exam, text),
        "seeds": list(range(max(len(folders) for folders in exam.models.values()))),
        "models": models,
        "gap_recovered": scores.gap_recovered,
        "differences": scores.differences,
        "transfer_set": exam.transfer_set,
        "versions": exam.versions,
    }
    if exam.splits.slice_N is not None:
        scorecard["slices"] = _slices(exam, said, exam.splits.slice_N)
    if "cost" in exam.knobs.metrics:
        scorecard["cost"] = _cost(models, exam)
    return scorecard, _details(exam, said, text, speakers, kept)


def _predict(exam: LanguageExam, folder: Path) -> Path:
    """Write what every model says; the folder of the predictions."""
    kept = folder / PREDICTIONS
    writer = Writer(exam.work or kept, exam.parts, exam.device, exam.teacher, exam.done)
    teacher = exam.teacher
    if teacher is not None:
        place = str(exam.teacher_folders[0]) if exam.teacher_folders else "teacher"
        writer.write(TEACHER, 0, place, lambda: teacher)
    for name, folders in exam.models.items():
        for seed, one in enumerate(folders):
            writer.write(name, seed, str(one), lambda one=one: exam.loaded(one))  # type: ignore[misc]
    writer.finish(_seeds(exam))
    if exam.work is not None:
        shutil.copytree(exam.work, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.staged"))
    return kept


def _seeds(exam: LanguageExam) -> dict[str, int]:
    """Every model that is judged, and of how many seeds."""
    students = {name: len(folders) for name, folders in exam.models.items()}
    return students if exam.teacher is None else {TEACHER: 1, **students}


def _rows(exam: LanguageExam, text: Text) -> dict[str, Any]:
    """Windows of each split; tokens of train and test, and those of test that are scored; what the bootstrap draws."""
    test = exam.parts["test"]
    train = exam.splits.train
    return {
        "train": len(train),
        "validation": len(exam.splits.validation),
        "test": len(exam.splits.test),
        "train_tokens": int((train.raw["ids"] >= 0).sum()) if isinstance(train.raw, dict) else 0,
        "test_tokens": int(test.length_N.sum()),
        "test_scored": len(test),
        "test_sampled": len(text.sample_Q),
        "documents": len(np.unique(test.document_N)),
        "drawn": text.drawn,
    }


def _slices(exam: LanguageExam, said: Mapping[str, Spoken], slice_N: Array) -> dict[str, dict[str, Any]]:
    """model -> slice of the test windows -> figures on it, how many windows it has, and how many scored tokens."""
    test, nowhere_Q = exam.parts["test"], np.empty(0, np.int64)
    named_P = np.array([str(one) for one in slice_N.tolist()])[test.window_P]
    slices: dict[str, dict[str, Any]] = {}
    for value in sorted({str(one) for one in slice_N.tolist() if one is not None} & set(named_P.tolist())):
        at = np.flatnonzero(named_P == value)
        text = Text.of(test.target_P[at], test.window_P[at], test.document_N, nowhere_Q, exam.bytes_N)
        spoken = {name: Spoken(one.nll_SP[:, at], one.top_SP[:, at]) for name, one in said.items()}
        sizes = {"rows": len(np.unique(test.window_P[at])), "tokens": len(at)}
        for name, figures in score_language(spoken, text).models.items():
            shown = {figure: figures[figure] for figure in COMPARED if figure in figures}
            slices.setdefault(name, {})[value] = shown | sizes
    return slices


def _add_sizes(models: dict[str, dict[str, Any]], speakers: Mapping[str, Speaker], exam: LanguageExam) -> None:
    for name, speaker in speakers.items():
        models[name]["parameters"] = speaker.parameters
        places = exam.teacher_folders if name == TEACHER else exam.models[name][:1]
        weights = [path for place in places for path in weight_files(place)]
        if weights:
            models[name]["size_bytes"] = sum(path.stat().st_size for path in weights)


def _add_speed(models: dict[str, dict[str, Any]], speakers: Mapping[str, Speaker], exam: LanguageExam) -> None:
    """Speed of the teacher and of each role's first seed, in turns; then the memory of each, alone."""
    test, price = exam.parts["test"], exam.knobs.price
    timed = measure_language(speakers, test, exam.architecture, exam.device, seconds=SPEED_SECONDS * len(speakers))
    longest = int(np.argmax(test.length_N))
    ids_T = test.ids_NT[longest, : test.length_N[longest]].tolist()
    for name, figures in timed.items():
        models[name] |= figures
        folders = exam.teacher_folders if name == TEACHER else exam.models[name][:1]
        # One that is given in memory cannot be loaded elsewhere, nor can an ensemble be as one.
        if exam.load is None and len(folders) == 1:
            grown_mib = peak_memory_mib(folders[0], exam.architecture, exam.device, ids_T)
            if grown_mib is not None:
                models[name]["peak_memory_mib"] = {"mean": grown_mib, "per_seed": [grown_mib]}
        if price is not None and "cost" in exam.knobs.metrics:
            models[name]["usd_per_million_tokens"] = usd_per_million_rows(figures["tokens_per_s"], price.usd_per_hour)


def _cost(models: dict[str, dict[str, Any]], exam: LanguageExam) -> dict[str, Any]:
    """As of a classifier, with tokens for rows."""

    def million(name: str) -> float | None:
        figure = models.get(name, {}).get("usd_per_million_tokens")
        return None if figure is None else float(figure["mean"])

    price = exam.knobs.price
    found = cost(
        exam.spent,
        usd_per_hour=None if price is None else price.usd_per_hour,
        teacher_usd_per_million_rows=million(TEACHER),
        student_usd_per_million_rows=million(STUDENT),
    )
    renamed = {
        "saved_usd_per_million_rows": "saved_usd_per_million_tokens",
        "break_even_rows": "break_even_tokens",
    }
    return {renamed.get(name, name): value for name, value in found.items()}


def _details(
    exam: LanguageExam, said: Mapping[str, Spoken], text: Text, speakers: Mapping[str, Speaker], kept: Path
) -> dict[str, Any]:
    test = exam.parts["test"]
    validation = {name: read(kept, name, model.seeds, "validation") for name, model in said.items()}
    taught = {TEACHER: exam.teacher_folders} if exam.teacher_folders else {}
    first = {name: speakers[name] for name in (TEACHER, STUDENT, CONTROL, HARD_TEACHER) if name in speakers}
    found: dict[str, Any] = {
        "about": exam.about,
        **shown.histories({**exam.models, **taught}),
        "nll_by_position": shown.nll_by_position(said, test, exam.architecture),
        "validation_nll": {name: float(model.nll_SP.mean(dtype=np.float64)) for name, model in validation.items()},
    }
    if TEACHER in said:
        entropy_Q = np.fromfile(kept / f"{TEACHER}.0.test.entropy.f32", np.float32)
        chosen = shown.chosen_positions(said, text, test, entropy_Q)
        found["examples"] = shown.examples(chosen, first, test, exam.architecture, exam.device)
        found["entropy"] = shown.entropy_shown(entropy_Q)
    if exam.architecture == "causal":
        found["samples"] = shown.samples(first, test)
    if "fidelity" in exam.transfer_set:
        found["fidelity"] = exam.transfer_set["fidelity"]
    return found
