"""A teacher that is known by what it said: its recorded words in the place of the questions' own, before windows are cut.

Training questions must all be answered. A held-out one that the teacher never answered is judged by its own words, where
it has some. What the questions themselves say of training rows is what a control learns from, where it is something else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.columns import objects
from stillroom.errors import DataError, ModelError
from stillroom.kinds import Ground, Teacher
from stillroom.rows import Array, Questions, Splits

if TYPE_CHECKING:
    from stillroom.stages.opening import Run
    from stillroom.teachers.recorded_text import RecordedText, Talk


def is_recorded(teacher: Teacher) -> bool:
    """It cannot be asked: its words are all that is known of it."""
    from stillroom.teachers.recorded import Recorded

    return isinstance(teacher, Recorded) and teacher.solves() == "causal"


def words_of(teacher: Teacher) -> Teacher | None:
    """The teacher, where its recorded words are what windows are cut from; any other reads the questions' own."""
    return teacher if is_recorded(teacher) else None


def reads(run: Run) -> tuple[Any, int]:
    """The student's tokenizer and how many tokens it looks at, where the teacher has none. Raises ModelError."""
    from stillroom.models.transformers import Transformers
    from stillroom.students.cutting import larger
    from stillroom.students.shrink import Shrink

    student, ground = run.recipe.student, Ground(run.folders, "causal")
    design = larger(student, ground) if isinstance(student, Shrink) else student.architecture()
    if not isinstance(design, Transformers):
        raise ModelError(
            "this student reads no tokens, and the teacher's words are to be learned token by token",
            where="student",
            cure="Use a causal model: pretrained, lora, shrink with from:, or fresh with kind transformers",
        )
    return design.reads(ground), design.context(ground)


def spoken(run: Run, documents: Splits) -> Splits:
    """The documents with the teacher's words in them. Raises WrongAnswer, DataError."""
    from stillroom.teachers.recorded_text import RecordedText

    teacher = run.recipe.teacher.build(run.dir.path, run.folders, [])
    assert isinstance(teacher, RecordedText), "recorded words of a causal task"
    notes, found, slice_N = list(documents.notes), dict[str, Questions](), documents.slice_N
    for role in ("train", "validation", "test"):
        part: Questions = getattr(documents, role)
        questions = talks_in(part)
        said = _said(teacher, questions, part.row_N, role, notes)
        index = np.repeat(np.arange(len(part)), [len(talks) for talks in said])
        found[role] = _questions([talk for talks in said for talk in talks], part.row_N[index])
        if role == "test" and slice_N is not None:
            slice_N = slice_N[index]
    none = found["train"].take(np.arange(0))
    return Splits(found["train"], found["validation"], found["test"], none, [], notes, slice_N)


def _said(teacher: RecordedText, questions: list[Talk], row_N: Array, role: str, notes: list[str]) -> list[list[Talk]]:
    """Every recorded conversation of each question; a held-out one that has none stands for itself."""
    from stillroom.teachers.recorded_text import refuse_unanswered

    said = teacher.answers_to(questions)
    if role == "train":
        refuse_unanswered(said, row_N, teacher, role)
    own = [not talks and question[-1]["role"] == "assistant" for talks, question in zip(said, questions, strict=True)]
    said = [[question] if is_own else talks for talks, question, is_own in zip(said, questions, own, strict=True)]
    refuse_unanswered(said, row_N, teacher, role)
    answers = sum(map(len, said))
    notes.append(
        f"{role}: {answers:,} answers to {len(said):,} questions recorded in {teacher.file}"
        if not any(own)
        else f"{role}: of {sum(own):,} of {len(said):,} questions no answer is recorded; their own is what models are judged by"
    )
    return said


def own_words(documents: Splits, taught: Splits) -> Questions | None:
    """Training conversations as the questions themselves have them; None where they have none, or say the same."""
    talks = talks_in(documents.train)
    if not all(talk[-1]["role"] == "assistant" for talk in talks):
        return None
    own = _questions(talks, documents.train.row_N)
    same = {key.tobytes() for key in own.key_N} == {key.tobytes() for key in taught.train.key_N}
    return None if same else own


def talks_in(part: Questions) -> list[Talk]:
    """Each document as a conversation; a text is what a user asks. Raises DataError for rows that are neither."""
    from stillroom.questions.running import MESSAGES, TEXT, conversation
    from stillroom.teachers.recorded_text import as_question

    if isinstance(part.raw, dict) and set(part.raw) == {MESSAGES}:
        return [conversation(kept) for kept in part.raw[MESSAGES].tolist()]
    if isinstance(part.raw, dict) and set(part.raw) == {TEXT}:
        return [as_question(text) for text in part.raw[TEXT].tolist()]
    raise DataError(
        "recorded words answer conversations or texts, and these rows are neither",
        where="questions",
        cure="Give a column messages, the columns question and answer, or a column text, and no label",
    )


def _questions(talks: Sequence[Talk], row_N: Array) -> Questions:
    from stillroom.questions.running import MESSAGES

    kept = objects([json.dumps(talk, ensure_ascii=False, sort_keys=True) for talk in talks])
    return Questions.of({MESSAGES: kept}, row_N=row_N)
