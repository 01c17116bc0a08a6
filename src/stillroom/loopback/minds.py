"""What every mind of a loopback teacher shares: what it is asked, what it says, and how words are counted.

A mind says tokens, each with the distribution it was drawn from where that is known. What is random in it is drawn by
content, so that the same request always gets the same answer, whatever was asked before.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import field_validator

from stillroom.kinds import Knobs

TOKEN = re.compile(r"\s*(?:\w{1,6}|[^\w\s])|\s+")
MESSAGE_TOKENS, REPLY_TOKENS = 3, 3
"""What a message, and the start of an answer, count for beside their words."""
CODE = re.compile(r"^\W*(\w{1,3}) = ([^:\n]+?)\s*(?::|$)", re.MULTILINE)
"""A line of an instruction that says what a label is to be called: `- A = spam: unwanted mail`."""
NO_LABELS = ("The", "It", "I", "This", "Well")
"""Tokens that are no label: what an answer that does not come to the point begins with."""


class Piece(NamedTuple):
    """A token of an answer, and the probabilities of the tokens that could have stood there."""

    text: str
    distribution: Mapping[str, float] | None = None


class Said(NamedTuple):
    """An answer."""

    pieces: list[Piece]
    finished: bool = True
    """It came to its end; else it was cut."""


@dataclass(frozen=True)
class Asked:
    """One answer to be given: a request with n answers is n of them."""

    messages: Sequence[Mapping[str, Any]]
    question: str
    """What the mind's `question` finds in the last message of the user."""
    draw: str
    """What the answer is drawn by beside the question; the same for all at temperature 0."""
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    top: int = 0
    """How many log-probabilities are asked for."""


class Thinker(Protocol):
    """A mind at work."""

    rows: int
    """How many it answers at once."""

    def say(self, asked: Sequence[Asked]) -> list[Said]:
        """An answer to each, in order. Raises DataError where a question is too long for it."""
        ...


class Mind(Knobs):
    """Where answers come from."""

    kind: str
    question: str | None = None
    """A regular expression: where the question stands in the last message of the user, its first group or all of it; the
    last match that is not empty counts. None: the whole message."""
    seed: int = 0
    """Of all that is drawn."""

    @field_validator("question")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"should be a regular expression ({error})") from None
        return value

    def build(self, folders: list[Path]) -> Thinker:
        """The mind at work; a relative path is looked for in `folders`, in order."""
        raise NotImplementedError

    def found(self, message: str) -> str:
        """The question in a message."""
        if self.question is None:
            return message.strip()
        matches = re.finditer(self.question, message, re.DOTALL)
        found = [((match[1] if match.re.groups else match[0]) or "").strip() for match in matches]
        # `.*` matches once more, nothing, behind the end.
        return next(filter(None, reversed(found)), message.strip())


def tokens(text: str) -> list[str]:
    """A text in tokens; together they are the text."""
    return TOKEN.findall(text)


def in_pieces(text: str) -> list[Piece]:
    """A text in tokens of no known distribution."""
    return [Piece(token) for token in tokens(text)]


def count_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of a request; never more than the bytes of its contents and a few a message."""
    return REPLY_TOKENS + sum(MESSAGE_TOKENS + len(tokens(text_of(message.get("content")))) for message in messages)


def text_of(content: Any) -> str:
    """A message's content as text; parts of it that are no text are left out."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return "" if content is None else str(content)


def codes(messages: Sequence[Mapping[str, Any]], words: Collection[str]) -> dict[str, str]:
    """Label -> what the instruction says to write for it; the labels themselves where it says nothing."""
    told = {
        label: code
        for message in messages
        if message.get("role") in ("system", "developer", "user")
        for code, label in CODE.findall(text_of(message.get("content")))
    }
    return {word: told.get(word, word) for word in words}


def dice(*parts: Any) -> random.Random:
    """A source of chance that depends on these values and nothing else."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))


def heated(distribution: Mapping[str, float], temperature: float) -> dict[str, float]:
    """A distribution at a temperature above 0."""
    if temperature == 1:
        return dict(distribution)
    top = max(distribution.values())
    raised = {word: (p / top) ** (1 / temperature) for word, p in distribution.items()}
    total = sum(raised.values())
    return {word: value / total for word, value in raised.items()}


def drawn(distribution: Mapping[str, float], asked: Asked, chance: random.Random) -> str:
    """A word of the distribution: the likeliest at temperature 0."""
    if asked.temperature <= 0:
        return max(distribution, key=lambda word: distribution[word])
    hot = heated(distribution, asked.temperature)
    words = sorted(hot, key=lambda word: -hot[word])
    if asked.top_p < 1:
        kept, mass = [], 0.0
        for word in words:
            kept.append(word)
            mass += hot[word]
            if mass >= asked.top_p:
                break
        words = kept
    return chance.choices(words, [hot[word] for word in words])[0]


def with_other_words(distribution: Mapping[str, float], share: float) -> dict[str, float]:
    """The distribution over labels, with a share given to tokens that are none, each rarer than the one before."""
    if not share:
        return dict(distribution)
    weights = [2.0**-place for place in range(len(NO_LABELS))]
    others = {word: share * weight / sum(weights) for word, weight in zip(NO_LABELS, weights, strict=True)}
    return {**{word: p * (1 - share) for word, p in distribution.items()}, **others}
