"""The exam of students that write their reasoning: from finished models to a scorecard and what a report shows.

Answers are written once and kept; every figure of quality comes from them. The test split is read here and nowhere else.
Knows no recipe: stages hand over folders, questions and the knobs of the evaluation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.evaluation.cost import Spent, cost
from stillroom.evaluation.intervals import CONTROL, STUDENT, TEACHER
from stillroom.evaluation.language_details import histories
from stillroom.evaluation.reasoning_answers import Sheet, answer_all, seconds_each
from stillroom.evaluation.reasoning_scores import Marks, by_slice, score_reasoning
from stillroom.kinds import Verifier
from stillroom.models.device import Device
from stillroom.models.references import weight_files
from stillroom.recipe import Evaluation
from stillroom.rows import Array
from stillroom.transfer_set.sampling import Sampled, Traces

PREDICTIONS = "predictions"
EXAMPLES, TRACES = 6, 4
"""So many test questions, and so many sampled traces of each outcome, are shown in full."""
LONGEST_SHOWN = 4000
"""Characters of a text that is shown."""


def _nobody(done: int) -> None:
    """Progress that nobody is shown."""


@dataclass(frozen=True)
class Candidate:
    """The students of one role, a folder a seed, and how they are asked."""

    folders: list[Path]
    prompts: Callable[[Any], list[list[int]]]
    """The test questions in tokens of a given tokenizer."""
    most_tokens: int
    facts: Mapping[str, Any]
    """What it was taught, and how much of it."""


@dataclass(frozen=True)
class ReasoningExam:
    """What is evaluated, and by which knobs."""

    name: str
    rows: Mapping[str, int]
    """Of train and test."""
    questions: Sequence[str]
    keys: Sequence[str]
    gold: Sequence[str]
    slice_N: Array | None
    candidates: Mapping[str, Candidate]
    teacher: Sequence[Sampled]
    """What it said to test questions, to some of them or to none."""
    traces: Traces
    kept: Mapping[str, Any]
    """What a scorecard says of the traces."""
    verifier: Verifier
    knobs: Evaluation
    device: Device
    spent: Spent
    versions: Mapping[str, str]
    about: Mapping[str, Any]
    work: Path
    """Where answers are kept until all are written."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """The training questions, by their keys."""
    done: Callable[[int], None] = _nobody


def sit_reasoning(exam: ReasoningExam, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Have every student answer, write the answers into `folder`, and return the scorecard and the details."""
    sheets = {name: _sheets(exam, name, one) for name, one in exam.candidates.items()}
    shutil.copytree(exam.work, folder / PREDICTIONS, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.staged"))
    marks = {name: _marks(several) for name, several in sheets.items()}
    said = _teacher_marks(exam)
    scores = score_reasoning(marks if said is None else {TEACHER: said, **marks})
    models = {name: dict(figures) for name, figures in scores.models.items()}
    some = _some_of_teacher(exam, said)
    models.setdefault(TEACHER, {}).update(some)
    models = {name: figures for name, figures in models.items() if figures}
    for name, one in exam.candidates.items():
        _add_size_and_speed(exam, one, sheets[name], models[name])
    seeds = max(len(one.folders) for one in exam.candidates.values())
    scorecard = {
        "schema": 1,
        "name": exam.name,
        "task": "reasoning",
        "rows": {**exam.rows, "test": len(exam.questions)},
        "seeds": list(range(seeds)),
        "models": models,
        "gap_recovered": _no_gap(some["asked"], exam) if some else scores.gap_recovered,
        "differences": scores.differences,
        "transfer_set": dict(exam.kept),
        "versions": dict(exam.versions),
    }
    if exam.slice_N is not None:
        scorecard["slices"] = by_slice(marks if said is None else {TEACHER: said, **marks}, exam.slice_N)
    if "cost" in exam.knobs.metrics:
        price = exam.knobs.price
        scorecard["cost"] = cost(exam.spent, usd_per_hour=None if price is None else price.usd_per_hour)
    return scorecard, _details(exam, sheets)


def _sheets(exam: ReasoningExam, name: str, one: Candidate) -> list[Sheet]:
    from stillroom.models.language import LanguageModel

    found = []
    for seed, folder in enumerate(one.folders):
        path = exam.work / f"{name}.{seed}.jsonl"
        if path.is_file():
            exam.done(len(exam.questions))
        else:
            model = LanguageModel.load(folder, "causal", exam.device)
            prompts = one.prompts(model.tokenizer)
            answer_all(model, prompts, exam.gold, exam.verifier, one.most_tokens, exam.done).write(path)
        found.append(Sheet.read(path))
    return found


def _marks(sheets: Sequence[Sheet]) -> Marks:
    return Marks(
        np.stack([one.right_N for one in sheets]), np.stack([one.tokens_N for one in sheets]),
        np.stack([one.unfinished_N for one in sheets]),
    )  # fmt: skip


def _teacher_marks(exam: ReasoningExam) -> Marks | None:
    """What the teacher got right, where it was asked every test question."""
    said = {one.key: one for one in exam.teacher}
    if not exam.keys or any(key not in said for key in exam.keys):
        return None
    several = [said[key] for key in exam.keys]
    tokens_SN = np.array([[one.tokens_out for one in several]])
    return Marks(
        np.array([[one.verdict.accepted for one in several]]),
        tokens_SN if tokens_SN.any() else None,  # of recorded answers nobody counted them
        np.array([[not one.trace.complete for one in several]]),
    )


def _some_of_teacher(exam: ReasoningExam, said: Marks | None) -> dict[str, Any]:
    """The teacher's exact match on those test questions that it was asked, where they are not all; its interval is Wilson's."""
    from stillroom.evaluation.proportions import wilson

    asked = [one for one in exam.teacher if one.key in set(exam.keys)]
    if said is not None or not asked:
        return {}
    right = sum(one.verdict.accepted for one in asked)
    mean = right / len(asked)
    return {
        "exact_match": {"mean": mean, "ci95": list(wilson(right, len(asked))), "per_seed": [mean]},
        "asked": len(asked),
    }


def _no_gap(asked: int, exam: ReasoningExam) -> dict[str, Any]:
    told = f"the teacher was asked {asked:,} of the {len(exam.keys):,} test questions (traces.score)"
    return {"absent": f"{told}, and it takes all of them to tell the gap"}


def _add_size_and_speed(exam: ReasoningExam, one: Candidate, sheets: Sequence[Sheet], figures: dict[str, Any]) -> None:
    """Of the first seed: weights, bytes, and how fast it answers; rows a second of every seed, many at once."""
    from stillroom.models.language import LanguageModel

    model = LanguageModel.load(one.folders[0], "causal", exam.device)
    if "size" in exam.knobs.metrics:
        figures["parameters"] = model.parameters
        figures["size_bytes"] = sum(path.stat().st_size for path in weight_files(one.folders[0]))
    if "speed" in exam.knobs.metrics:
        each = [1000 * seconds for seconds in seconds_each(model, one.prompts(model.tokenizer), one.most_tokens)]
        figures["latency_ms_p50"] = {"mean": float(np.median(each)), "per_seed": [float(np.median(each))]}
        rates = [len(sheet.answers) / max(sheet.seconds, 1e-9) for sheet in sheets]
        figures["rows_per_s"] = {"mean": float(np.mean(rates)), "per_seed": rates}
        price = exam.knobs.price
        if price is not None and "cost" in exam.knobs.metrics:
            usd = [1e6 / rate * price.usd_per_hour / 3600 for rate in rates]
            figures["usd_per_million_rows"] = {"mean": float(np.mean(usd)), "per_seed": usd}


def _details(exam: ReasoningExam, sheets: Mapping[str, Sequence[Sheet]]) -> dict[str, Any]:
    folders = {name: one.folders for name, one in exam.candidates.items()}
    return {
        "about": dict(exam.about),
        **histories(folders),
        "taught": {name: dict(one.facts) for name, one in exam.candidates.items()},
        "traces": _shown_traces(exam),
        "examples": _examples(exam, sheets),
        "kept": dict(exam.kept),
    }


def _shown_traces(exam: ReasoningExam) -> list[dict[str, Any]]:
    """Sampled traces of each outcome, drawn evenly: the question, the text, and what the verifier said."""
    found = []
    for outcome in ("accepted", "rejected", "unsure"):
        several = [one for one in exam.traces.samples if one.outcome == outcome]
        for place in np.unique(np.linspace(0, len(several) - 1, min(TRACES, len(several))).astype(np.int64)):
            one = several[int(place)]
            found.append(
                {
                    "outcome": outcome, "reason": one.reason, "question": exam.asked.get(one.key, ""),
                    "text": one.text[:LONGEST_SHOWN], "answer": one.trace.answer, "sample": one.place,
                    "tokens": one.tokens_out, "usd": one.usd,
                }
            )  # fmt: skip
    return found


def _examples(exam: ReasoningExam, sheets: Mapping[str, Sequence[Sheet]]) -> list[dict[str, Any]]:
    """Test questions where student and control differ first, then others in order, with what each model wrote."""
    student, control = (sheets[name][0].right_N if name in sheets else None for name in (STUDENT, CONTROL))
    count = len(exam.questions)
    apart_N = np.zeros(count, bool) if student is None or control is None else student != control
    order = [*np.flatnonzero(apart_N).tolist(), *np.flatnonzero(~apart_N).tolist()]
    half = EXAMPLES // 2
    apart = int(apart_N.sum())
    chosen = [*order[: min(half, apart)], *order[apart : apart + EXAMPLES - min(half, apart)]]
    teacher = {one.key: one for one in exam.teacher}
    found = []
    for place in chosen:
        said = {
            name: _told(several[0].answers[place]) for name, several in sheets.items() if name in (STUDENT, CONTROL)
        }
        if exam.keys[place] in teacher:
            one = teacher[exam.keys[place]]
            told = {"text": one.text[:LONGEST_SHOWN], "answer": one.trace.answer, "outcome": one.outcome}
            said = {TEACHER: told, **said}
        found.append({"question": exam.questions[place], "gold": exam.gold[place], "said": said})
    return found


def _told(one: Any) -> dict[str, Any]:
    return {"text": one.text[:LONGEST_SHOWN], "answer": one.answer, "outcome": one.outcome}
