"""Rows -> a recipe and its data files, where a job names a teacher, a student and a source and no recipe.

Answers that are few and repeat are classes, and make a classifier; others make a language student. Where the answers are all
that is known of a teacher, its training rows have no labels of their own, so that no control is claimed. Rows that cannot be
learned from are kept with the reason. The same rows give the same files, whenever they are written.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillroom.errors import DataError
from stillroom.rundir import write_file
from stillroom.service.recipes.presets import Preset, Task
from stillroom.service.recipes.soft import soft_answers
from stillroom.service.students.shelf import question_of

MOST_CLASSES, LEAST_TIMES = 200, 5
LEAST_OF_A_CLASS, LEAST_ROWS = 3, 10
TEST, VALIDATION = 0.2, 0.1
TALKS, ROWS, ANSWERS = "talks.jsonl", "rows.jsonl", "answers.jsonl"
ROLES = ("train", "validation", "test")
SOFT: dict[str, Any] = {"kind": "soft_target", "temperature": 2}
HARD: dict[str, Any] = {"kind": "hard_label", "from": "teacher"}


@dataclass(frozen=True)
class Talk:
    """A conversation of a source: which one it is there, its messages, and the answer that ends it if it has one."""

    source: str
    line: int
    messages: list[dict[str, Any]]
    answer: str | None
    tokens: str | None = None
    """The log-probabilities that the answer came with, where they are wanted: see soft.py."""
    cut: bool = False
    """The answer ends where it was not to be longer (`finish_reason` `length`): no whole text, and yet it may name a class."""

    @property
    def question(self) -> str:
        """What a classifier looks at."""
        return question_of(self.messages).strip()


@dataclass(frozen=True)
class Rejected:
    """A row that is left out."""

    talk: Talk
    why: str
    says_same: Talk | None = None
    """A row with the same question and answer, which it helped to be chosen; None: there is none."""


@dataclass(frozen=True)
class Drafted:
    """Sections of a recipe (name, questions, teacher, objectives), what was left out, and the rows that the data is made of."""

    sections: dict[str, Any]
    task: Task
    sources: list[Talk]
    """Learned from, held out to judge by, or of the same words as one of these."""
    rejected: list[Rejected]
    note: str | None = None
    """What else is to be told of them."""


def are_classes(answers: Sequence[str]) -> bool:
    """They are few, and repeat."""
    distinct = len(set(answers))
    return 2 <= distinct <= MOST_CLASSES and len(answers) >= LEAST_TIMES * distinct


def recorded(
    talks: list[Talk], preset: Preset, data: Path, licence: str | None, left_out: Sequence[Rejected] = (),
    soft: bool = False,
) -> Drafted:  # fmt: skip
    """A student of what was said already; `left_out`: rows that are no conversations; `soft`: a classifier learns how likely
    each class was, where answers tell. Raises DataError where nothing can be learned from it.
    """
    talks, empty = _with_words(talks)
    talks, halves = _with_an_end(talks)
    empty = [*left_out, *empty, *halves]
    answers = [(talk.answer or "").strip() for talk in talks]
    classes = are_classes(answers)
    task = preset.task or ("classification" if classes else "causal")
    if task == "classification" and not classes:
        if len(set(answers)) == 1:
            raise DataError(
                f"all {len(talks):,} answers are the same, and a classifier has at least two classes to tell apart",
                where="training_file",
                cure="Give rows with other answers too",
            )
        raise DataError(
            f"{len(talks):,} answers with {len(set(answers)):,} different texts are no classes",
            where="training_file",
            cure=f"A classifier wants at most {MOST_CLASSES} different answers, each at least {LEAST_TIMES} times on "
            "average; for free text take the model tiny-language, or a package",
        )
    said = {} if licence is None else {"licence": licence}
    if task == "causal":
        return _spoken(talks, empty, preset, data, said)
    talks = [replace(talk, answer=answer) for talk, answer in zip(talks, answers, strict=True)]
    kept, rejected = _one_answer_each(talks)
    kept, rejected = _of_enough(kept, empty + rejected)
    _enough(kept, rejected)
    teacher, objective, note = _answers(kept, data, soft)
    for role, part in _split(kept).items():
        labels = (None if role == "train" else talk.answer for talk in part)
        _write(
            data / f"{role}.jsonl",
            ({"text": talk.question, "label": label} for talk, label in zip(part, labels, strict=True)),
        )
    sections = {
        "questions": {**_table({role: f"{role}.jsonl" for role in ROLES}), **said},
        "teacher": {**teacher, **said},
        "objectives": [objective],
    }
    return Drafted(sections, task, _with_their_like(kept, rejected), rejected, note)


def _answers(kept: list[Talk], data: Path, soft: bool) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Write what was said; the teacher that it makes, what a student learns of it, and what is to be told."""
    rows: list[dict[str, Any]] = [{"text": talk.question, "answer": talk.answer} for talk in kept]
    read, objective, note = {"answer": "answer"}, HARD, None
    if soft:
        likely, count = soft_answers([talk.answer or "" for talk in kept], [talk.tokens for talk in kept])
        rows = [{**row, "top_logprobs": one} for row, one in zip(rows, likely, strict=True)]
        read, objective = {"top_log_probabilities": "top_logprobs"}, SOFT
        note = f"Soft targets: {count:,} of {len(kept):,} answers came with log-probabilities of the classes"
        note += f"; of the other {len(kept) - count:,} what was said is learned" if count < len(kept) else ""
    _write(data / ANSWERS, rows)
    return {"kind": "recorded", "source": ANSWERS, **read}, objective, note


def asked(
    talks: list[Talk], held_out: list[Talk], teacher: dict[str, Any], labels: Sequence[str] | None, data: Path
) -> Drafted:
    """A classifier of what a teacher will be asked; `held_out`, where there is any, has the rows with right answers.

    Raises DataError where nobody says what is right.
    """
    if not held_out and any(talk.answer is None for talk in talks):
        raise DataError(
            "these are questions without answers, so nothing could say how good the teacher and its student are",
            where="validation_file",
            cure="Name a validation_file with a few right answers of each kind, or store the teacher's answers first",
        )
    talks, empty = _with_words(talks)
    held_out, more_empty = _with_words(held_out)
    judged = held_out or talks
    if not are_classes([talk.answer or "" for talk in judged]) and labels is None:
        raise DataError(
            "the right answers are no classes, and a teacher that is asked here is asked for one",
            where="validation_file" if held_out else "training_file",
            cure="For free text, store the teacher's answers first (store: true) and learn from those",
        )
    kept, rejected = _one_answer_each(talks)
    rejected = empty + more_empty + rejected
    used = kept
    if not held_out:
        used, rejected = _of_enough(kept, rejected)
        _enough(used, rejected)
        _write(data / ROWS, ({"text": talk.question, "label": talk.answer} for talk in used))
        source: Any = ROWS
    else:
        right, wrong = _of_enough(*_one_answer_each(held_out))
        _enough(right, wrong)
        half = _split(right, {"validation": 1 / 3, "test": 2 / 3})
        parts = {"train": kept, "validation": half["validation"], "test": half["test"]}
        for role, part in parts.items():
            _write(data / f"{role}.jsonl", ({"text": talk.question, "label": talk.answer} for talk in part))
        source = {role: f"{role}.jsonl" for role in ROLES}
        used, rejected = [talk for part in parts.values() for talk in part], rejected + wrong
    soft = teacher.get("read") == "logprobs"
    told = {"labels": list(labels)} if labels else {}
    teacher = {"prompt": "{text}", **teacher, **told}
    sections = {"questions": _table(source), "teacher": teacher, "objectives": [SOFT if soft else HARD]}
    return Drafted(sections, "classification", _with_their_like(used, rejected), rejected)


def _table(source: Any) -> dict[str, Any]:
    return {"kind": "dataset", "source": source, "input": "text", "texts": ["text"], "label": "label"}


def _spoken(talks: list[Talk], empty: list[Rejected], preset: Preset, data: Path, said: Mapping[str, str]) -> Drafted:
    """Conversations as they are; those that a student could not see whole are left out."""
    kept, rejected = [], [*empty]
    for talk in talks:
        size = sum(len(message["content"].encode()) + len("assistant") + 4 for message in talk.messages) + 2
        if preset.window is not None and size > preset.window:
            why = f"longer than the {preset.window:,} bytes that this student looks at"
            rejected.append(Rejected(talk, why))
        elif any(map(_is_weightless, talk.messages)):
            rejected.append(
                Rejected(talk, "an answer in it has weight 0, and this student learns every answer of a row")
            )
        else:
            kept.append(talk)
    _enough(kept, rejected)
    _write(data / TALKS, ({"messages": talk.messages} for talk in kept))
    questions: dict[str, Any] = {"kind": "dataset", "source": TALKS, **said}
    if preset.window is not None:
        questions["window"] = preset.window
    sections = {
        "questions": questions,
        "teacher": {"kind": "recorded", "task": "causal", "source": TALKS, **said},
        "objectives": [{"kind": "trace"}],
    }
    return Drafted(sections, "causal", kept, rejected)


def _with_words(talks: Iterable[Talk]) -> tuple[list[Talk], list[Rejected]]:
    """Without those in which an answer has no text, such as a call of a tool: a student would learn to say nothing. Nor those
    whose own answer is not to be learned.
    """
    kept, rejected = [], []
    for talk in talks:
        said = [message["content"] for message in talk.messages if message["role"] == "assistant"]
        if talk.answer is not None and not all(words.strip() for words in (talk.answer, *said)):
            rejected.append(Rejected(talk, "an answer in it has no text: it is empty, or calls a tool"))
        elif talk.answer is not None and _is_weightless(talk.messages[-1]):
            rejected.append(Rejected(talk, "its answer has weight 0, so it is not to be learned"))
        else:
            kept.append(talk)
    return kept, rejected


def _with_an_end(talks: list[Talk]) -> tuple[list[Talk], list[Rejected]]:
    """Without answers that were broken off. Where all answers are classes, one that was is whole enough (of a label that is
    asked for with `max_tokens: 1` the end is always missing), but for one that only begins another's answer.
    """
    said = [(talk.answer or "").strip() for talk in talks]
    whole = {words for words, talk in zip(said, talks, strict=True) if not talk.cut}
    classes = are_classes(said)
    begun = {
        words for words in set(said) - whole if any(other != words and other.startswith(words) for other in set(said))
    }
    kept, rejected = [], []
    for words, talk in zip(said, talks, strict=True):
        if talk.cut and (not classes or words in begun):
            rejected.append(Rejected(talk, "the answer was broken off: its finish_reason is length"))
        else:
            kept.append(talk)
    return kept, rejected


def _is_weightless(message: Mapping[str, Any]) -> bool:
    """Who wrote the row says that this answer is not to be learned."""
    return message.get("weight") == 0


def _one_answer_each(talks: Iterable[Talk]) -> tuple[list[Talk], list[Rejected]]:
    """One row a question, with the answer that it was given most often, or first; the others are left out."""
    by_question: dict[str, list[Talk]] = defaultdict(list)
    for talk in talks:
        by_question[talk.question].append(talk)
    kept, rejected = [], []
    for question, same in by_question.items():
        if not question:
            rejected += [Rejected(talk, "the question is empty") for talk in same]
            continue
        counted = Counter(talk.answer for talk in same)
        # The first of the most, or the first that tells how sure it is.
        chosen = max(same, key=lambda talk: (counted[talk.answer], talk.tokens is not None))
        kept.append(chosen)
        for talk in same:
            if talk.answer != chosen.answer:
                rejected.append(Rejected(talk, "another answer to a question that is there already"))
            elif talk is not chosen:
                rejected.append(Rejected(talk, "the same question and answer are there already", chosen))
    return kept, rejected


def _with_their_like(used: list[Talk], rejected: Iterable[Rejected]) -> list[Talk]:
    """Rows in the data, and those left out since one of them says the same: what was deleted with one of these is still there."""
    there = {(talk.source, talk.line) for talk in used}
    same = ((one.talk, one.says_same) for one in rejected if one.says_same is not None)
    return [*used, *(talk for talk, like in same if (like.source, like.line) in there)]


def _of_enough(talks: list[Talk], rejected: list[Rejected]) -> tuple[list[Talk], list[Rejected]]:
    """Without the classes that are too rare to be learned and judged."""
    counted = Counter(talk.answer for talk in talks)
    rare = {answer for answer, count in counted.items() if count < LEAST_OF_A_CLASS}
    why = f"fewer than {LEAST_OF_A_CLASS} rows have this answer"
    kept = [talk for talk in talks if talk.answer not in rare]
    return kept, rejected + [Rejected(talk, why) for talk in talks if talk.answer in rare]


def _enough(kept: Sequence[Talk], rejected: Sequence[Rejected]) -> None:
    """Raise DataError where too little is left."""
    if len(kept) < LEAST_ROWS:
        why = f"; first of those left out: {rejected[0].why}" if rejected else ""
        raise DataError(
            f"{len(kept):,} rows are left to learn from{why}",
            where="training_file",
            cure=f"Give at least {LEAST_ROWS} rows, with different questions",
        )


def _split(talks: list[Talk], shares: Mapping[str, float] | None = None) -> dict[str, list[Talk]]:
    """Validation and test rows of every class, the others to train; by a digest of the question, so always the same."""
    shares = shares or {"validation": VALIDATION, "test": TEST}
    found: dict[str, list[Talk]] = {role: [] for role in ROLES}
    by_class: dict[str, list[Talk]] = defaultdict(list)
    for talk in talks:
        by_class[talk.answer or ""].append(talk)
    for answer in sorted(by_class):
        same = sorted(by_class[answer], key=lambda talk: hashlib.sha256(talk.question.encode()).digest())
        validation = max(1, round(shares["validation"] * len(same)))
        test = max(1, min(round(shares["test"] * len(same)), len(same) - validation))
        found["validation"] += same[:validation]
        found["test"] += same[validation : validation + test]
        found["train"] += same[validation + test :]
    return found


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_file(path, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
