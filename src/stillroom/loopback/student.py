"""A mind that is a classifier of ours: it answers with a label, and knows its whole distribution."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stillroom.errors import DataError, ModelError
from stillroom.loopback.minds import Asked, Mind, Piece, Said, codes, dice, drawn, in_pieces, with_other_words

if TYPE_CHECKING:
    from stillroom.models.classifier import Classifier

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
AT_A_LOSS = "I cannot tell."


class Student(Mind):
    """A folder of a Stillroom classifier, such as runs/NAME/student."""

    kind: Literal["student"] = "student"
    model: str
    """The folder; a relative path is taken from the file's folder."""
    read: Literal["text", "numbers", "json"] = "text"
    """How a row stands in the question: a text, all numbers in it in their order, or an object of columns as JSON."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What a class is called in answers, where that differs."""
    other: float = Field(default=0.0, ge=0, lt=1)
    """Probability of first tokens that are no label."""

    def build(self, folders: list[Path]) -> Answerer:
        """See Mind. Raises ModelError for a folder that holds no classifier."""
        from stillroom.models.classifier import Classifier
        from stillroom.models.loading import load_model
        from stillroom.models.references import resolve

        model = load_model(resolve(self.model, folders))
        if not isinstance(model, Classifier):
            raise ModelError("this folder holds no classifier", where=self.model, cure="Use a mind of kind language")
        return Answerer(self, model)


class Answerer:
    """The classifier at work."""

    rows = 64

    def __init__(self, knobs: Student, model: Classifier) -> None:
        self.knobs, self.model = knobs, model
        self.words = [knobs.labels.get(str(name), str(name)) for name in model.classes]

    def say(self, asked: Sequence[Asked]) -> list[Said]:
        """A label for each; a question that holds no row of the classifier's gets a refusal."""
        questions = list(dict.fromkeys(one.question for one in asked))
        known = dict(zip(questions, self._distributions(questions), strict=True))
        return [self._one(one, known[one.question]) for one in asked]

    def distribution(self, question: str) -> dict[str, float] | None:
        """The probabilities of all first tokens; None for a question that holds no row."""
        return self._distributions([question])[0]

    def _one(self, asked: Asked, distribution: dict[str, float] | None) -> Said:
        if distribution is None:
            return Said(in_pieces(AT_A_LOSS))
        named = codes(asked.messages, distribution)
        told = {named[word]: p for word, p in distribution.items()}
        return Said([Piece(drawn(told, asked, dice(self.knobs.seed, asked.question, asked.draw)), told)])

    def _distributions(self, questions: list[str]) -> list[dict[str, float] | None]:
        """All at once; one by one where a row among them cannot be read."""
        import numpy as np

        try:
            given = self.model.inputs.as_raw(self._rows(questions))
            probabilities_NC = np.exp(self.model.log_probabilities(given).astype(np.float64))
        except (DataError, ValueError):
            if len(questions) == 1:
                return [None]
            return [found for question in questions for found in self._distributions([question])]
        return [
            with_other_words(dict(zip(self.words, (row_C / row_C.sum()).tolist(), strict=True)), self.knobs.other)
            for row_C in probabilities_NC
        ]

    def _rows(self, questions: list[str]) -> Any:
        """The rows in the questions, as the classifier takes them. Raises ValueError where there is none in one."""
        import numpy as np

        if self.knobs.read == "text":
            return questions
        if self.knobs.read == "json":
            return [json.loads(question) for question in questions]
        rows_ND = np.array([[float(number) for number in NUMBER.findall(question)] for question in questions])
        size = getattr(self.model.inputs, "size", None)
        return rows_ND if size is None else rows_ND.reshape(-1, *size)
