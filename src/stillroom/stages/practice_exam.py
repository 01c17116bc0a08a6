"""The part of a rehearsal that answers rows: how fast, and what a whole batch of them holds; and an exam in small.

Models are those that a rehearsal trained. Scores are computed for made-up predictions of all test rows, since what that
takes depends on how many there are, and not on what they say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.evaluation.processes import give_back, held_bytes
from stillroom.inputs import Texts
from stillroom.kinds import AskedTeacher
from stillroom.rows import Questions, take_rows
from stillroom.stages.opening import Run
from stillroom.stages.practice import QUICK_S, few, lengths, most_bytes, rising

if TYPE_CHECKING:
    from stillroom.stages.practice import Line

TIMED_ROWS = 8
DRAWS, FIGURES = 10_000, 20
"""Of the bootstrap: draws, and about so many figures that each is kept for."""
SCORED_DRAWS = 100
"""Of them that are made here; more hold no more, but the values themselves."""


def answering(run: Run, asked: AskedTeacher) -> tuple[int, float]:
    """What a batch of rows holds while a teacher answers it, beside the teacher itself, and the seconds a row takes."""
    rows = longest(run.splits.train)
    if run.recipe.is_language:
        from stillroom.teachers.language import FORWARD_TOKENS, AskedLanguageModel

        assert isinstance(asked, AskedLanguageModel), "a language task has one"
        assert isinstance(rows.raw, dict), "windows are named arrays"
        whole = max(1, min(len(rows), FORWARD_TOKENS // rows.raw["ids"].shape[1]))
        line, row_s = rising(lambda count: list(asked.outputs(rows.take(np.arange(count)))), whole)
        return line.at(whole), row_s
    whole = forward_rows(getattr(asked, "inputs", None), rows)
    line, _ = rising(lambda count: asked.answer(rows.take(np.arange(count))), whole)
    return line.at(whole), timed(asked, run.splits.train)


def timed(asked: AskedTeacher, questions: Questions) -> float:
    """Seconds in which it answers a row, of a few from all over."""
    rows = few(questions, TIMED_ROWS)
    started = time.perf_counter()
    asked.answer(rows)
    return (time.perf_counter() - started) / len(rows)


def longest(questions: Questions) -> Questions:
    """The rows, those of most letters first where they are texts."""
    length_N = lengths(questions)
    return questions if length_N is None else questions.take(np.argsort(-length_N, kind="stable"))


def forward_rows(inputs: Any, rows: Questions) -> int:
    """How many of these rows a classifier answers at once."""
    from stillroom.models.classifier import FORWARD_ROWS, FORWARD_TOKENS

    if not isinstance(inputs, Texts):
        return max(1, min(len(rows), FORWARD_ROWS))
    width: int = inputs.encode(take_rows(rows.raw, np.arange(min(len(rows), TIMED_ROWS)))).shape[1]
    return max(1, min(len(rows), FORWARD_TOKENS // width))


def sit(run: Run, asked: AskedTeacher, folders: Mapping[str, Path], place: Path) -> tuple[int, Line, float]:
    """What an exam holds at most, how a batch that a student answers grows, and the seconds a row takes it."""
    return (_language if run.recipe.is_language else _classes)(run, asked, folders, place)


def _classes(run: Run, asked: AskedTeacher, folders: Mapping[str, Path], place: Path) -> tuple[int, Line, float]:
    import stillroom.evaluation.details
    import stillroom.evaluation.exam
    import stillroom.report.page  # noqa: F401 - a run has imported these in the end
    from stillroom.models.classifier import Classifier

    students = [Classifier.load(folder, run.device) for folder in folders.values()]
    test = longest(run.splits.test)
    whole = forward_rows(students[0].inputs, test)
    give_back()
    standing = held_bytes()
    line, _ = rising(lambda count: students[0].log_probabilities(take_rows(test.raw, np.arange(count))), whole)
    scoring = most_bytes(lambda: _scored(run, list(folders)))
    seeds = run.recipe.seeds if run.recipe.seeds > 1 else 0
    draws = DRAWS * FIGURES * 8 * (1 + len(folders)) * seeds
    return max(standing + line.at(whole), scoring + draws), line, timed(students[0], run.splits.test)


def _scored(run: Run, names: list[str]) -> None:
    """Scores of made-up predictions, as many as there will be."""
    from stillroom.evaluation.scores import Said, score

    splits, rng = run.splits, np.random.default_rng(0)

    def said(seeds: int) -> Said:
        logits_SNC = rng.normal(size=(seeds, len(splits.test), len(splits.classes)))
        return Said((logits_SNC - np.log(np.exp(logits_SNC).sum(2, keepdims=True))).astype(np.float32))

    models = {"teacher": said(1), **{name: said(run.recipe.seeds) for name in names}}
    score(models, splits.test.label_N, np.empty(0, np.int64), splits.classes, draws=SCORED_DRAWS)


def _language(run: Run, asked: Any, folders: Mapping[str, Path], place: Path) -> tuple[int, Line, float]:
    import stillroom.evaluation.language_exam
    import stillroom.report.language_page  # noqa: F401 - a run has imported these in the end
    from stillroom.evaluation.language_predictions import CHUNK_CELLS, FORWARD_TOKENS, Windows, Writer, hear, ids_of
    from stillroom.models.language import LanguageModel
    from stillroom.teachers.language import Speaks

    kind: Any = run.recipe.teacher.solves()
    students = [LanguageModel.load(folder, kind, run.device) for folder in folders.values()]
    speakers = {"student": students[0], **({"teacher": asked.model} if isinstance(asked, Speaks) else {})}
    windows = Windows.of(run.splits.test, "test")
    scored = np.flatnonzero(windows.count_N)
    order = scored[np.argsort(-windows.length_N[scored], kind="stable")]
    whole = max(1, min(len(order), FORWARD_TOKENS // int(windows.length_N[order[0]])))

    def heard(speaker: Any, count: int) -> None:
        hear(speaker, windows, order[:count], run.device, ids_of(speaker.tokenizer))

    give_back()
    standing = held_bytes()
    lines = {name: rising(partial(heard, speaker), whole) for name, speaker in speakers.items()}
    # At least as many windows as fill a chunk of logits: what is compared is held chunk by chunk.
    chunk = CHUNK_CELLS // ids_of(students[0].tokenizer) // int(windows.count_N[order[0]]) + 1
    count = min(whole, max(chunk, int(QUICK_S / max(row_s for _, row_s in lines.values()))))
    some = {"test": Windows.of(run.splits.test.take(order[:count]), "test")}
    writer = Writer(place / "predictions", some, run.device, speakers.get("teacher"), lambda windows: None)

    def predicted() -> None:
        for name in reversed(speakers):
            writer.write(name, 0, name, lambda name=name: speakers[name])  # type: ignore[misc]

    predicting = most_bytes(predicted) - standing
    grown = max(line.at(whole) - line.at(count) for line, _ in lines.values())
    said = 8 * len(windows) * 2 * (1 + len(folders) * run.recipe.seeds)
    return standing + predicting + max(0, grown) + said, *lines["student"]
