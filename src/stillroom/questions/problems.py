"""Rows of a data set as problems: a question in words, and a gold answer that is kept as text and never becomes a class.

The label column of a recipe is the gold answer here, and an empty cell means that none is known. A gold answer that ends in
`#### X`, as GSM8K's rationales do, is X. Rows are split as texts are, whole, since there are no classes to stratify by; each
question counts once. This file knows the knobs of a data set; it knows no teacher and no verifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.columns import objects
from stillroom.errors import DataError, RecipeError
from stillroom.questions import sources
from stillroom.questions.dataset import DEFAULT_SPLIT, Dataset, lessened, note_copies
from stillroom.questions.part import Part
from stillroom.questions.split_off import beside
from stillroom.questions.tables import Columns
from stillroom.rows import Questions, Splits

QUESTION = "question"
"""What the column of questions is called once it is read; its name in the file is the recipe's."""
ANSWER = "####"
FOR_CLASSES = ("labelled", "omit", "class_weights", "augment", "views", "pack", "skip", "scale", "texts")


def problems(knobs: Dataset, folders: list[Path]) -> Splits:
    """Read and split; `gold` holds the answers by the questions' keys, `classes` is empty. Raises DataError, RecipeError."""
    for name in FOR_CLASSES:
        if getattr(knobs, name) != type(knobs).model_fields[name].default:
            raise RecipeError(
                f"{name} is for labels or pictures or running text, and these are problems",
                where=f"questions.{name}",
                cure="Take it out",
            )
    also = tuple(dict.fromkeys(name for name in (knobs.split.column(), knobs.slice) if name is not None))
    parts = sources.read(knobs.source, folders, Columns(knobs.input, knobs.label, also))
    gold: dict[bytes, str] = {}
    whole, notes = {}, list[str]()
    for role, part in parts.items():
        whole[role] = _read(part, role, gold, notes)
    # Nothing is chosen by validation rows here, so none are taken away from training.
    whole.setdefault("validation", whole["train"].take(np.arange(0)))
    rows = knobs.split.off(whole, replace(parts["train"], running=True), DEFAULT_SPLIT, knobs.seed, notes)
    lessened(knobs, rows, notes)
    note_copies(rows, notes)
    missing = sum(key.tobytes() not in gold for key in rows["test"].key_N)
    if missing:
        raise DataError(
            f"{missing:,} of {len(rows['test']):,} test questions have no gold answer to be judged by",
            where="questions.label",
            cure="Give test rows with answers",
        )
    source = parts.get("test", parts["train"])
    slice_N = None if knobs.slice is None else beside(source, knobs.slice, "questions.slice")[rows["test"].row_N]
    none = rows["train"].take(np.arange(0))
    used = {key.tobytes() for part in rows.values() for key in part.key_N}
    gold = {key: answer for key, answer in gold.items() if key in used}
    return Splits(rows["train"], rows["validation"], rows["test"], none, [], notes, slice_N, gold)


def _read(part: Part, role: str, gold: dict[bytes, str], notes: list[str]) -> Questions:
    """The questions of one part, each once; their gold answers are added to `gold`."""
    asked = _texts(part)
    there, seen = [], set[bytes]()
    questions = Questions.of({QUESTION: objects(asked)})
    for row, (text, label) in enumerate(zip(asked, part.label_N.tolist(), strict=True)):
        where = f"{part.place}, row {row + 1}"
        if not text:
            raise DataError("this question is empty", where=where, cure="Write it, or take the row out")
        key, answer = questions.key_N[row].tobytes(), gold_of(label)
        if answer is not None and gold.setdefault(key, answer) != answer:
            raise DataError(
                f"this question has two gold answers, {gold[key]!r} and {answer!r}",
                where=where,
                cure="Keep the right one",
            )
        if key not in seen:
            seen.add(key)
            there.append(row)
    if len(there) < len(asked):
        notes.append(f"{role}: {len(asked) - len(there):,} questions stood there twice and count once")
    return questions.take(np.array(there, np.int64))


def _texts(part: Part) -> list[str]:
    """The questions as they are asked."""
    columns: Mapping[str, Any] = part.raw if isinstance(part.raw, dict) else {}
    if len(columns) != 1:
        found = "columns " + ", ".join(columns) if columns else "arrays"
        raise DataError(
            f"a problem is one column of text, and these rows are {found}",
            where=part.place,
            cure="Name it: questions: {input: question, label: answer}",
        )
    (column,) = columns.values()
    return ["" if value is None else str(value).strip() for value in column.tolist()]


def gold_of(value: Any) -> str | None:
    """A gold answer as text; what stands after the last ####, where it is a rationale."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).rpartition(ANSWER)[2].strip()
