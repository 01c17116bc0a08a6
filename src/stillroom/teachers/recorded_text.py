"""Conversations that a teacher was recorded in: what it said is learned token by token, and no question is put to it.

A conversation is found by what was asked: all its messages before the last answer, a system's message left aside. One
question may have several answers. Knows no token and no window.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.errors import DataError, WrongAnswer, did_you_mean
from stillroom.rows import Answers, Array, Questions
from stillroom.rundir import fingerprint

MESSAGES, QUESTION, ANSWER = "messages", "question", "answer"
ROLES = ("system", "user", "assistant", "tool")

Talk = list[dict[str, Any]]


@dataclass(frozen=True)
class RecordedSample:
    """One recorded answer, as a sampled one would be; what it once cost is not known."""

    text: str
    finish_reason: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    thought: str = ""


class RecordedText:
    """Gives text alone: no probabilities, and nothing about a question that it was not recorded with."""

    hidden_width: int | None = None
    by_key = True
    gives = frozenset({"text"})
    classes: list[Any] = []  # noqa: RUF012 - text has none

    def __init__(self, talks: Sequence[Talk], sha256: str, file: str) -> None:
        self.talks, self.file = list(talks), file
        self.fingerprint = fingerprint("recorded text", sha256, [asked(talk) for talk in talks], talks)
        self.places: dict[str, list[int]] = {}
        for place, talk in enumerate(self.talks):
            known = self.places.setdefault(asked(talk), [])
            if all(self.talks[other][-1]["content"] != talk[-1]["content"] for other in known):
                known.append(place)

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """Log-probabilities [N, 0] of no class at all."""
        return Answers(np.empty((len(questions), 0), np.float32))

    def samples(
        self, questions: Questions, n: int, purpose: str | None = None, first: int = 0
    ) -> list[list[RecordedSample]]:
        """The recorded answers `first` to `first + n` to each question, a column of text; fewer where there are no more."""
        assert isinstance(questions.raw, dict), "problems are a named column"
        (texts,) = questions.raw.values()
        found = self.answers_to([as_question(str(text)) for text in texts])
        return [[RecordedSample(talk[-1]["content"]) for talk in talks[first : first + n]] for talks in found]

    def answers_to(self, questions: Sequence[Talk]) -> list[list[Talk]]:
        """Of each question, itself a conversation that may hold another answer, every recorded conversation with it."""
        return [[self.talks[place] for place in self.places.get(asked(question), ())] for question in questions]


def asked(talk: Talk) -> str:
    """What a conversation asks: its messages before the last answer, a system's left aside; as text that can be compared."""
    last = len(talk) - (talk[-1]["role"] == "assistant")
    before = [[message["role"], message["content"].strip()] for message in talk[:last] if message["role"] != "system"]
    return json.dumps(before, ensure_ascii=False)


def as_question(text: str) -> Talk:
    """A text as what a user asks."""
    return [{"role": "user", "content": text}]


def refuse_unanswered(found: Sequence[list[Talk]], row_N: Array, teacher: RecordedText, role: str) -> None:
    """Raise WrongAnswer where a question of this split has no recorded answer."""
    without = [place for place, talks in enumerate(found) if not talks]
    if without:
        raise WrongAnswer(
            f"{len(without):,} of {len(found):,} questions of {role} have no recorded answer",
            where=f"{teacher.file}, first: row {int(row_N[without[0]]) + 1} of the data",
            cure="Record answers for them, or take those rows out of the data",
        )


def talks_of(
    columns: dict[str, Array], question: str | None, answer: str | None, messages: str | None, file: str
) -> list[Talk]:
    """The conversations of a file: a column of messages, or one of questions and one of answers. Raises DataError."""
    spoken = messages or (MESSAGES if question is None and answer is None and MESSAGES in columns else None)
    if spoken is not None:
        _there(spoken, columns, file)
        return [_talk(value, f"{file}, row {row}") for row, value in enumerate(columns[spoken].tolist(), 1)]
    pair = (question or QUESTION, answer or ANSWER)
    for name in pair:
        _there(name, columns, file)
    rows = zip(*(columns[name].tolist() for name in pair), strict=True)
    return [
        _talk([{"role": "user", "content": said[0]}, {"role": "assistant", "content": said[1]}], f"{file}, row {row}")
        for row, said in enumerate(rows, 1)
    ]


def _there(name: str, columns: dict[str, Array], file: str) -> None:
    if name not in columns:
        raise DataError(
            f"there is no column {name!r}",
            where=file,
            cure=f"{did_you_mean(name, columns)}. Give messages, or a question and an answer; teacher.messages, "
            "teacher.question and teacher.answer name them",
        )


def _talk(value: Any, where: str) -> Talk:
    """Messages whose last one is the teacher's, as they are kept."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError("these messages are no JSON", where=where, cure="Write a list of messages") from error
    told = list(read) if isinstance(read, list | tuple | np.ndarray) else []
    plain = [
        {name: said for name, said in message.items() if said is not None} if isinstance(message, dict) else {}
        for message in told
    ]
    for number, message in enumerate(plain, 1):
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise DataError(
                "a message wants a role (system, user, assistant or tool) and a text as content",
                where=f"{where}, message {number}",
                cure='Write {"role": "user", "content": ".."}',
            )
    if not plain or plain[-1]["role"] != "assistant" or not plain[-1]["content"].strip():
        raise DataError(
            "this recorded conversation does not end with what the assistant said",
            where=where,
            cure="Add the assistant's message, or take out the row",
        )
    return plain
