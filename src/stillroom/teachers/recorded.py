"""Answers you already have, from a file, read back by the content of the question they were given for.

A row of the file names its question either by the question's own input columns, or by `key`, the content key that
`stillroom export-answers` writes; an exported answer to an augmented view of a row is none to the row itself. Its answer
is one probability or log-probability column a class, the most probable labels with theirs, a label, or chat messages whose
last one is the label. Conversations that a causal student learns the words of are recorded_text.py's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import model_validator

from stillroom.columns import numbers_of, texts_of
from stillroom.errors import DataError, ModelError, WrongAnswer, did_you_mean
from stillroom.kinds import AskedTeacher, Task, Teacher
from stillroom.rows import KEY_BYTES, Answers, Array, Questions, content_keys
from stillroom.rundir import fingerprint, sha256_file
from stillroom.tables import SUFFIXES, read_columns
from stillroom.teachers.probabilities import LEAST_LOG_PROBABILITY, log_of_probabilities, log_of_top
from stillroom.teachers.recorded_text import RecordedText, talks_of

if TYPE_CHECKING:
    from stillroom.models.device import Device

KEY, VIEW = "key", "view"
TOP = "top_logprobs"


class Recorded(Teacher):
    """The answers in a .csv, .tsv, .jsonl, .json or .parquet file."""

    kind: Literal["recorded"] = "recorded"
    gives: ClassVar[frozenset[str]] = frozenset({"answers", "probabilities", "text"})
    source: str
    """The file."""
    task: Literal["classification", "causal", "reasoning"] = "classification"
    """What its answers are: classes, words that a causal student learns to say, or worked answers that are verified first."""
    probabilities: dict[str, str] | None = None
    """Class -> column of its probability; by default the columns p_CLASS."""
    log_probabilities: dict[str, str] | None = None
    """Class -> column of its log-probability; by default the columns logp_CLASS."""
    top_log_probabilities: str | None = None
    """The column of the most probable labels with their log-probabilities; by default `top_logprobs`."""
    answer: str | None = None
    """The column of the class the teacher chose, where it gave no probabilities, or of what it said; by default `answer`."""
    messages: str | None = None
    """A column of chat messages; the last one's content is the class, or what was said. By default `messages`."""
    question: str | None = None
    """Of a causal task: the column of what was asked, beside that of the answer; by default `question`."""

    @model_validator(mode="after")
    def _of_its_task(self) -> Recorded:
        """A knob that the task does not read would be a promise not kept."""
        for name in ("probabilities", "log_probabilities", "top_log_probabilities"):
            if self.task != "classification" and getattr(self, name) is not None:
                raise ValueError(f"{name} names columns of classes, and task: {self.task} learns words")
        if self.task == "classification" and self.question is not None:
            raise ValueError(
                "question names a column of a causal task; the questions of classes are the data's own rows"
            )
        return self

    def solves(self) -> Task:
        return self.task

    def describe(self) -> str:
        return f"recorded in {self.source}"

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Device | None = None) -> AskedTeacher:
        tried = [folder / self.source for folder in folders]
        path = next((path for path in tried if path.is_file()), None)
        if path is not None and path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"recorded answers cannot be read from a file that ends in {path.suffix or 'nothing'!r}",
                where=f"teacher.source, {path}",
                cure=f"Give one that ends in {' '.join(SUFFIXES)}",
            )
        if path is None:
            raise DataError(
                f"there are no recorded answers at {self.source!r}",
                where="teacher.source, looked in " + ", ".join(str(folder) for folder in folders),
                cure=f"Name a file that ends in {' '.join(SUFFIXES)}",
            )
        columns = read_columns(path)
        if self.task != "classification":
            talks = talks_of(columns, self.question, self.answer, self.messages, path.name)
            return RecordedText(talks, sha256_file(path), path.name)
        return RecordedTeacher(columns, *self._logs(columns, classes, path.name), classes, sha256_file(path), path.name)

    def _logs(self, columns: dict[str, Array], classes: list[Any], file: str) -> tuple[Array, bool]:
        """Log-probabilities [M, C] of every recorded row, and whether they are more than a chosen class."""
        for given, prefix, is_log in ((self.probabilities, "p_", False), (self.log_probabilities, "logp_", True)):
            named = given or {str(name): f"{prefix}{name}" for name in classes}
            wanted = [named.get(str(name), "") for name in classes]
            # Where most classes have their column, one that lacks it is misspelt, and the answer beside it no way out.
            there = sum(name in columns for name in wanted)
            if given is not None or 2 * there > len(wanted):
                return self._numbers(columns, wanted, is_log, file), True
        top = self.top_log_probabilities or (TOP if self.answer is None and TOP in columns else None)
        if top is not None:
            if top not in columns:
                raise DataError(f"there is no column {top!r}", where=file, cure=did_you_mean(top, columns))
            return log_of_top(columns[top].tolist(), classes, f"{file}, column {top}"), True
        chosen = self.answer or (self.messages is None and "answer" in columns and "answer") or None
        if chosen is not None:
            if chosen not in columns:
                raise DataError(f"there is no column {chosen!r}", where=file, cure=did_you_mean(chosen, columns))
            return _one_hot(columns[chosen].tolist(), classes, f"{file}, column {chosen}"), False
        messages = self.messages or "messages"
        if messages not in columns:
            raise DataError(
                "these recorded answers hold neither probabilities nor an answer",
                where=file,
                cure=f"Give columns p_CLASS for {', '.join(map(str, classes[:6]))}, or name one with teacher.answer",
            )
        return _one_hot([_last(value) for value in columns[messages]], classes, f"{file}, column {messages}"), False

    def _numbers(self, columns: dict[str, Array], wanted: list[str], is_log: bool, file: str) -> Array:
        missing = next((name for name in wanted if name not in columns), None)
        if missing is not None:
            raise DataError(f"there is no column {missing!r}", where=file, cure=did_you_mean(missing, columns))
        said = np.stack([numbers_of(columns[name], name, file) for name in wanted], 1)
        if not np.isfinite(said).all() and not is_log:
            row = int(np.flatnonzero(~np.isfinite(said).all(1))[0])
            raise DataError(
                "an answer is not finite", where=f"{file}, row {row + 1}", cure="Give a probability in each cell"
            )
        with np.errstate(over="ignore"):
            return log_of_probabilities(np.exp(said) if is_log else said, file)


class RecordedTeacher:
    """Answers by looking up the question; a question it was never asked is a WrongAnswer."""

    hidden_width: int | None = None
    by_key = True

    def __init__(
        self, columns: dict[str, Array], logs_MC: Array, soft: bool, classes: list[Any], sha256: str, file: str
    ) -> None:
        self._columns, self._logs_MC, self.classes, self._file = columns, logs_MC, classes, file
        self.gives = frozenset({"answers", "probabilities"}) if soft else frozenset({"answers"})
        # One file may hold several columns of answers, so its bytes alone do not say which were read.
        said = hashlib.sha256(logs_MC.tobytes()).hexdigest()
        self.fingerprint = fingerprint("recorded", sha256, said, soft)
        self._place: dict[bytes, int] = {}

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """The recorded log-probabilities of these questions. Raises WrongAnswer where one was not recorded."""
        if not self._place:
            self._place = self._places(self._keys(questions), self._plain_M(questions))
        rows = [self._place.get(key.tobytes(), -1) for key in questions.key_N]
        if -1 in rows or view != 0:
            first = rows.index(-1) if -1 in rows else 0
            raise WrongAnswer(
                f"{rows.count(-1):,} of {len(rows):,} questions have no recorded answer"
                + (" in an augmented view" if view else ""),
                where=f"{self._file}, first: row {int(questions.row_N[first]) + 1} of the data",
                cure="Record answers for all training rows, or take those rows out of the data",
            )
        return Answers(self._logs_MC[rows].astype(np.float32))

    def _plain_M(self, questions: Questions) -> Array:
        """True where a row of the file answers a question as it was given; export-answers says which view each is to."""
        inputs = questions.raw if isinstance(questions.raw, dict) else {}
        if KEY not in self._columns or VIEW not in self._columns or VIEW in inputs:
            return np.ones(len(self._logs_MC), bool)
        return np.array([str(value) in ("0", "0.0") for value in self._columns[VIEW].tolist()])

    def _places(self, key_M: Array, plain_M: Array) -> dict[bytes, int]:
        """The row of each question's answer; a question may be there twice, with one and the same answer."""
        found: dict[bytes, int] = {}
        for row in np.flatnonzero(plain_M).tolist():
            first = found.setdefault(key_M[row].tobytes(), row)
            if not np.array_equal(self._logs_MC[first], self._logs_MC[row]):
                raise DataError(
                    "one question has two different answers",
                    where=f"{self._file}, rows {first + 1} and {row + 1}",
                    cure="Keep one of them, or their mean",
                )
        return found

    def _keys(self, questions: Questions) -> Array:
        if KEY in self._columns:
            try:
                keys = b"".join(bytes.fromhex(str(value)) for value in self._columns[KEY])
                return np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES)
            except ValueError as error:
                raise DataError(
                    "a key is no content key", where=f"{self._file}, column {KEY}", cure="Use what export-answers wrote"
                ) from error
        if not isinstance(questions.raw, dict):
            raise ModelError(
                "recorded answers to questions that are no table are found by their key",
                where=self._file,
                cure="Add the column `key`, as stillroom export-answers writes it",
            )
        missing = next((name for name in questions.raw if name not in self._columns), None)
        if missing is not None:
            raise DataError(
                f"the recorded answers lack the question's column {missing!r}",
                where=self._file,
                cure="Keep the input columns beside the answers, or the column `key`",
            )
        like = {
            name: (numbers_of if column.dtype.kind == "f" else texts_of)(self._columns[name], name, self._file)
            for name, column in questions.raw.items()
        }
        return content_keys(like)


def _one_hot(said: list[Any], classes: list[Any], where: str) -> Array:
    place = {str(name): number for number, name in enumerate(classes)}
    logs_MC = np.full((len(said), len(classes)), LEAST_LOG_PROBABILITY)
    for row, label in enumerate(said):
        if str(label) not in place:
            raise DataError(
                f"the teacher's answer {label!r} is none of the classes", where=f"{where}, row {row + 1}",
                cure=did_you_mean(str(label), place),
            )  # fmt: skip
        logs_MC[row, place[str(label)]] = 0.0
    return logs_MC


def _last(messages: Any) -> Any:
    """The content of the last chat message."""
    told = json.loads(messages) if isinstance(messages, str) else messages
    return str(told[-1]["content"]).strip()
