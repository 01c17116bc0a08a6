"""A mind that looks the right label up in a file, and errs as often as it is told to.

Its distribution over the labels is one that keeps its word: of the questions to which it gives its first label p, it is
right in a share of p. What is left goes to the other labels, to those more that it is said to mistake for the right one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from stillroom.errors import DataError
from stillroom.loopback.minds import Asked, Mind, Piece, Said, codes, dice, drawn, in_pieces, with_other_words
from stillroom.loopback.nearest import Nearest
from stillroom.loopback.writing import Writer
from stillroom.questions.intents import ROWS, intents

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot answer that.",
    "As an assistant I have no opinion on this.",
)
INVENTED = ("unsure", "mixed", "other")
INTENTS = "builtin:intents"
SPREAD = 0.5
"""Shape of the doubt's distribution: many questions with next to none, some with much."""
MOST = 0.5
"""The most doubt of one question: its first label is then as likely as all others together."""


class Rule(Mind):
    """Labels of a file, with a dialled share of errors."""

    kind: Literal["rule"] = "rule"
    source: Annotated[tuple[str, ...], BeforeValidator(lambda it: (it,) if isinstance(it, str) else it)]
    """A file of rows (.csv .tsv .jsonl .json .parquet) or builtin:intents, or several of them."""
    text: str = "text"
    """The column of the questions."""
    label: str = "label"
    """The column of the right answers."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What a label is called in answers, where that differs from what stands in the file."""
    error_rate: float = Field(default=0.05, ge=0, le=0.4)
    """Share of questions whose likeliest answer is wrong."""
    confusion: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Which labels take which errors: right label -> wrong label -> weight; what is not named weighs 1, if no row is
    given for the label, else 0."""
    other: float = Field(default=0.0, ge=0, lt=1)
    """Probability of first tokens that are no label."""
    refuse: float = Field(default=0.0, ge=0, le=1)
    """Share of questions that are refused."""
    invent: float = Field(default=0.0, ge=0, le=1)
    """Share of questions answered with a label there is none of."""
    chatter: float = Field(default=0.0, ge=0, le=1)
    """Share of answers with a sentence around the label."""
    unknown: Literal["refuse", "nearest"] = "refuse"
    """A text that is not in the file is refused, or answered as the one that is most alike."""
    writes: str | None = None
    """A regular expression: a last message of the user that it finds is no question but asks for new texts; what it gets
    are variants of the known texts in it."""

    def build(self, folders: list[Path]) -> Looker:
        """See Mind. Raises DataError where a file or a column is missing."""
        known: dict[str, str] = {}
        for name in self.source:
            known |= self._read(name, folders)
        return Looker(self, known)

    def _read(self, name: str, folders: list[Path]) -> dict[str, str]:
        from stillroom.tables import SUFFIXES, read_columns

        if name == INTENTS:
            return {plain(text): self.labels.get(label, label) for text, label in zip(*intents(ROWS, 0), strict=True)}
        path = next((path for folder in folders if (path := folder / name).is_file()), None)
        if path is None or path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"there is no file of rows {name!r}",
                where="looked in " + ", ".join(str(folder) for folder in folders),
                cure=f"Check mind.source ({' '.join(SUFFIXES)}), or set STILLROOM_DATA to the folder of your data",
            )
        columns = read_columns(path)
        missing = next((column for column in (self.text, self.label) if column not in columns), None)
        if missing is not None:
            raise DataError(
                f"this file has no column {missing!r}", where=str(path), cure=f"It has {', '.join(columns)}"
            )
        pairs = zip(columns[self.text].tolist(), columns[self.label].tolist(), strict=True)
        return {
            plain(text): self.labels.get(str(label), str(label)) for text, label in pairs if label not in (None, "")
        }


def plain(text: Any) -> str:
    """A text as it is looked up: without what an editor or a template may have done to its spaces."""
    return " ".join(str(text).split())


class Looker:
    """The rule at work."""

    rows = 1

    def __init__(self, knobs: Rule, known: Mapping[str, str]) -> None:
        self.knobs, self.known = knobs, known
        self.words = sorted(set(known.values()))
        self.nearest = Nearest(known) if knobs.unknown == "nearest" else None
        self.writer = Writer(known, knobs.writes) if knobs.writes else None

    def say(self, asked: Sequence[Asked]) -> list[Said]:
        """A label for each, or a refusal."""
        return [self._one(one) for one in asked]

    def right(self, question: str) -> str | None:
        """The right label of a question; None where it is not known."""
        text = plain(question)
        if text not in self.known and self.nearest is not None:
            return self.nearest.label(text)
        return self.known.get(text)

    def distribution(self, question: str) -> dict[str, float] | None:
        """The probabilities of all first tokens; None where the question is not known."""
        right = self.right(question)
        if right is None:
            return None
        chance = dice(self.knobs.seed, "doubt", plain(question))
        return with_other_words(self._over_labels(right, chance), self.knobs.other)

    def _over_labels(self, right: str, chance: random.Random) -> dict[str, float]:
        others = [word for word in self.words if word != right]
        rate = self.knobs.error_rate
        if not others:
            return {right: 1.0}
        doubt = MOST * chance.betavariate(SPREAD, SPREAD * (MOST / rate - 1)) if rate else 0.0
        row = self.knobs.confusion.get(right)
        weights = {word: 1.0 if row is None else row.get(word, 0.0) for word in others}
        if not any(weights.values()):
            weights = dict.fromkeys(others, 1.0)
        first = right
        if chance.random() < doubt:
            first = chance.choices(others, list(weights.values()))[0]
        rivals = {right if word == first else word: weight for word, weight in weights.items()}
        shares = {word: weight * chance.expovariate(1.0) for word, weight in rivals.items()}
        if first != right:  # a right label that is no first one is each of the others as often as its share says
            place = chance.choices(list(shares), list(shares.values()))[0]
            shares[right], shares[place] = shares[place], shares[right]
        total = sum(shares.values())
        return {first: 1 - doubt, **{word: doubt * share / total for word, share in shares.items()}}

    def _one(self, asked: Asked) -> Said:
        knobs, text = self.knobs, plain(asked.question)
        if self.writer is not None and self.writer.is_asked(asked):
            return Said(in_pieces(self.writer.write(asked, dice(knobs.seed, "write", text, asked.draw))))
        chance = dice(knobs.seed, "answer", text, asked.draw)
        manner = dice(knobs.seed, "manner", text).random()
        distribution = self.distribution(text)
        if distribution is None or manner < knobs.refuse:
            return Said(in_pieces(chance.choice(REFUSALS)))
        if manner < knobs.refuse + knobs.invent:
            return Said(in_pieces(chance.choice([word for word in INVENTED if word not in self.words])))
        named = codes(asked.messages, distribution)
        told = {named[word]: p for word, p in distribution.items()}
        word = Piece(drawn(told, asked, chance), told)
        if chance.random() < knobs.chatter:
            return Said([*in_pieces("The answer is "), word, *in_pieces(". Let me know if you need more.")])
        return Said([word])
