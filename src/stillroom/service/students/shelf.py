"""Students that are being served: loaded when they are first asked, kept while they are used, let go of when others are.

    shelf.labels(row, rows)             what a classifier says of rows as `predict` takes them
    shelf.say(row, messages, wish)      a whole answer to messages, by either kind of student
    shelf.pieces(row, messages, wish)   the same as it comes

`row` is a row of the table `models`. Several threads may ask: those that come together are answered together. Torch and
NumPy are imported with the first student; Torch computes in one thread: a server has many callers, and a trainer beside it.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.errors import DataError, ModelError
from stillroom.service.door import bodies
from stillroom.service.door.lists import Row
from stillroom.service.settings import Settings
from stillroom.service.students.batching import Batches
from stillroom.service.students.model_rows import folder_of

if TYPE_CHECKING:
    from stillroom.rows import Array, Raw
    from stillroom.service.students.speaking import Piece, Speaker, Wish, Written

MOST_STUDENTS, MOST_BYTES = 8, 2 << 30
"""Of weights, all together."""
MOST_TOGETHER = 64
WEIGHT_BYTES = 4


@dataclass(frozen=True)
class Labelled:
    """What a classifier says of N rows: log-probabilities [N, C], and the classes."""

    log_probabilities_NC: Array
    classes: list[Any]

    def names(self) -> list[Any]:
        """The likeliest class of each row."""
        return [self.classes[place] for place in self.log_probabilities_NC.argmax(1).tolist()]


class _Labeller:
    """A classifier that several callers ask at once."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._together: Batches[Raw, Array] = Batches(self._answer, MOST_TOGETHER, _alike)

    def ask(self, rows: Any) -> Labelled:
        """Of rows as `predict` takes them. Raises DataError."""
        raw = self.model.inputs.as_raw(rows)
        return Labelled(self._together.ask(raw), self.model.classes)

    def _answer(self, asked: list[Raw]) -> list[Array]:
        if len(asked) == 1:
            return [self.model.log_probabilities(asked[0])]
        import numpy as np

        logs_NC = self.model.log_probabilities(_joined(asked))
        return np.split(logs_NC, np.cumsum([_count(raw) for raw in asked])[:-1])


@dataclass
class _Held:
    """A student, and the weight it has here."""

    student: _Labeller | Speaker
    size_bytes: int


class Shelf:
    """Loads a student once."""

    def __init__(self, settings: Settings, most: int = MOST_STUDENTS) -> None:
        self._settings, self._most = settings, most
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Ids of the students that are loaded, the one that was used last at the end."""
        with self._lock:
            return list(self._held)

    def close(self) -> None:
        """Let go of them."""
        with self._lock:
            self._held.clear()

    def forget(self, model_id: str) -> None:
        """Let go of one."""
        with self._lock:
            self._held.pop(model_id, None)

    def labels(self, row: Row, rows: Any) -> Labelled:
        """What a classifier says of rows as `predict` takes them. Raises DataError, ModelError or ApiError."""
        student = self._student(row)
        if not isinstance(student, _Labeller):
            raise ModelError(
                "this student writes, and gives no labels", where=row["id"], cure="Ask it by /v1/chat/completions"
            )
        return student.ask(rows)

    def label(self, row: Row, messages: Sequence[dict[str, str]]) -> Labelled:
        """What a classifier says of what the user asked last."""
        student = self._student(row)
        if not isinstance(student, _Labeller):
            raise ModelError("this student writes, and gives no labels", where=row["id"], cure="Ask it for an answer")
        return student.ask([_as_row(question_of(messages).strip(), student.model.inputs.column_names)])

    def say(self, row: Row, messages: Sequence[dict[str, str]], wish: Wish) -> Written:
        """A whole answer of a language student. Raises DataError, ModelError or ApiError."""
        return self._speaker(row).whole(messages, wish)

    def pieces(self, row: Row, messages: Sequence[dict[str, str]], wish: Wish) -> tuple[int, Iterator[Piece]]:
        """How many tokens the messages have, and a language student's answer as it comes."""
        speaker = self._speaker(row)
        ids = speaker.ids_of(messages)
        speaker.room(ids, wish)
        return len(ids), speaker.pieces(messages, wish)

    def takes(self, row: Row) -> dict[str, Any]:
        """What a student is asked with: {"kind", "columns", "classes"} of a classifier, {"kind"} of a language student."""
        student = self._student(row)
        if not isinstance(student, _Labeller):
            return {"kind": "language"}
        inputs = student.model.inputs
        columns = inputs.column_names
        return {
            "kind": inputs.kind, "columns": None if columns is None else list(columns),
            "shape": list(getattr(inputs, "size", inputs.shape)), "classes": student.model.classes,
        }  # fmt: skip

    def _speaker(self, row: Row) -> Speaker:
        from stillroom.service.students.speaking import Speaker

        student = self._student(row)
        if not isinstance(student, Speaker):
            raise ModelError("this student gives labels, and does not write", where=row["id"], cure="Ask for a label")
        return student

    def _student(self, row: Row) -> _Labeller | Speaker:
        """The student of a row, loaded by the first who asks."""
        name = str(row["id"])
        with self._lock:
            found = self._held.get(name)
            if found is not None:
                self._held.move_to_end(name)
                return found.student
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            with self._lock:
                found = self._held.get(name)
            if found is None:
                found = self._load(row)
                self._keep(name, found)
            return found.student

    def _load(self, row: Row) -> _Held:
        folder = folder_of(self._settings, row)
        import torch

        from stillroom.models.classifier import Classifier
        from stillroom.models.loading import load_model

        torch.set_num_threads(1)
        model = load_model(folder)
        if isinstance(model, Classifier):
            return _Held(_Labeller(model), WEIGHT_BYTES * model.parameters)
        from stillroom.service.students.speaking import Speaker

        return _Held(Speaker(model), WEIGHT_BYTES * model.parameters)

    def _keep(self, name: str, found: _Held) -> None:
        """Put it on the shelf; those not used for longest make room."""
        with self._lock:
            self._held[name] = found
            self._held.move_to_end(name)
            self._loading.pop(name, None)
            while len(self._held) > 1 and (
                len(self._held) > self._most or sum(one.size_bytes for one in self._held.values()) > MOST_BYTES
            ):
                self._held.popitem(last=False)


def question_of(messages: Sequence[dict[str, str]]) -> str:
    """What a classifier is asked: the user's last message."""
    return next((one["content"] for one in reversed(messages) if one["role"] == "user"), messages[-1]["content"])


def _as_row(question: str, columns: Sequence[str] | None) -> Any:
    """A question as a row: the text itself, or for several columns the JSON it is written as."""
    if columns is not None and len(columns) == 1:
        return {columns[0]: question}
    import numpy as np

    cure = f"Write a message like {json.dumps(dict.fromkeys(columns or ['...'], '...'))}" if columns else (
        "Write rows of pixels as JSON, or use /api/predict"
    )  # fmt: skip
    try:
        found = bodies.read(question.encode())
        row = np.asarray(found) if columns is None and isinstance(found, list) else found
    except ValueError as error:
        raise DataError("this student looks at more than one text", where="messages", cure=cure) from error
    if columns is not None and not isinstance(found, dict):
        raise DataError("this is no row that the student could look at", where="messages", cure=cure)
    return row


def _count(raw: Raw) -> int:
    return len(next(iter(raw.values()))) if isinstance(raw, dict) else len(raw)


def _joined(asked: list[Raw]) -> Raw:
    """Rows of several callers, one after the other."""
    import numpy as np

    first = asked[0]
    if isinstance(first, dict):
        return {name: np.concatenate([raw[name] for raw in asked]) for name in first}
    return np.concatenate(asked)  # type: ignore[arg-type]


def _alike(chosen: list[Raw], one: Raw) -> bool:
    """Few rows each: many are better answered by themselves. Images and numbers have their model's shape."""
    return _count(one) <= MOST_TOGETHER and _count(chosen[0]) <= MOST_TOGETHER
