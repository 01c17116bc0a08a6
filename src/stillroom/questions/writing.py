"""Questions that a teacher writes: what such strategies share, how an answer is read, and what is too like a known text.

A round spends a share of its calls on writing and on the answers to what was written; the rest of it is chosen among the
questions there are. What is written is never learned from as it stands: it is asked, and paid for, like any other. These
strategies write prompts and read answers; the asking is done where every call passes the ledger. For texts alone.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from stillroom.columns import objects
from stillroom.kinds import AnyStrategy
from stillroom.questions.choosing import Looking, Margin
from stillroom.rows import UNLABELLED, Array, Pool, Questions, Raw, content_keys

Message = dict[str, str]
LETTERS = 5
"""Likeness is counted in runs of so many letters."""
MARK = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s*")
FENCE = re.compile(r"^\s*```\w*\s*$")


@dataclass(frozen=True)
class Example:
    """A question that new ones are written after: its text, what the students took it for, and what the teacher said."""

    text: str
    guessed: Any = None
    answered: Any = None

    @property
    def is_mistake(self) -> bool:
        """The students took it for something else."""
        return self.guessed is not None and self.answered is not None and self.guessed != self.answered


class Writes(Looking):
    """A strategy that has questions written; `after` says after which, and `prompt` how the teacher is asked to."""

    wants: ClassVar[frozenset[str]] = frozenset({"probabilities", "features"})
    variants: int = Field(default=4, ge=1, le=50)
    """Questions asked for in one call."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Of a round's calls: for writing, and for the answers to what was written."""
    others: AnyStrategy = Margin()
    """How the rest of a round is chosen."""
    likeness: float = Field(default=0.7, gt=0, le=1)
    """A text is left out that shares so much with a known one: of the runs of five letters in either, the part in both."""
    max_tokens: int = Field(default=400, ge=1)
    """The most that one call may write."""

    def students(self) -> int:
        return self.others.students() if isinstance(self.others, Looking) else 1

    def doubt(self, pool: Pool) -> Array:
        return self.others.doubt(pool) if isinstance(self.others, Looking) else np.zeros(pool.count)

    def choose(self, pool: Pool, count: int, seed: int) -> Array:
        return self.others.choose(pool, count, seed)

    def plan(self, calls: int) -> tuple[int, int]:
        """Of a round's calls, how many write, and how many of what is written can be asked then."""
        spent = int(self.share * calls)
        writing = spent // (1 + self.variants)
        return writing, spent - writing if writing else 0

    def after(self, before: Sequence[Example], chosen: Sequence[Example]) -> list[Example]:
        """What to write after: of what was asked in the round before, and of what was just chosen."""
        raise NotImplementedError

    def prompt(self, example: Example) -> str:
        """What the teacher is asked."""
        raise NotImplementedError

    def conversations(self, examples: Sequence[Example], calls: int) -> list[list[Message]]:
        """So many requests; an example comes again where there are fewer."""
        wanted = [examples[place % len(examples)] for place in range(calls)] if examples else []
        return [[{"role": "user", "content": self.prompt(one)}] for one in wanted]


def read_texts(answer: str) -> list[str]:
    """The texts in an answer: a list as JSON, in a fence or not, or a text a line, numbered or not."""
    # Not splitlines(): a text in JSON may hold U+2028 and its like.
    lines = [line for line in answer.split("\n") if not FENCE.match(line)]
    body = "\n".join(lines).strip()
    try:
        listed = json.loads(body)
    except ValueError:
        listed = [MARK.sub("", line).strip() for line in lines]
        listed = [line[1:-1] if len(line) > 1 and line[0] == line[-1] == '"' else line for line in listed]
    if isinstance(listed, dict) and len(listed) == 1:
        listed = next(iter(listed.values()))
    if not isinstance(listed, list):
        return []
    texts = [" ".join(one.split()) for one in listed if isinstance(one, str)]
    return [text for text in texts if text]


class Known:
    """Texts, found again by the runs of letters in them (Broder 1997)."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._holding: dict[str, list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """One more."""
        runs = runs_of(text)
        for run in sorted(runs):
            self._holding[run].append(len(self._sizes))
        self._sizes.append(len(runs))

    def likest(self, text: str) -> float:
        """The largest Jaccard index of this text's runs with those of a known one; 0 where none shares any."""
        runs, shared = runs_of(text), defaultdict[int, int](int)
        for run in runs:
            for place in self._holding.get(run, ()):
                shared[place] += 1
        return max((both / (len(runs) + self._sizes[place] - both) for place, both in shared.items()), default=0.0)

    def take_new(self, texts: Sequence[str], likeness: float, most: int) -> tuple[list[str], int]:
        """Of these, the first `most` that are not too like a known one or each other, and how many were; they are known now."""
        found: list[str] = []
        duplicates = 0
        for text in texts:
            if len(found) == most:
                break
            if self.likest(text) >= likeness:
                duplicates += 1
            else:
                found.append(text)
                self.add(text)
        return found, duplicates


def runs_of(text: str) -> set[str]:
    """The runs of letters in a text; of a text shorter than one, itself."""
    plain = " ".join(text.casefold().split())
    return {plain[start : start + LETTERS] for start in range(max(1, len(plain) - LETTERS + 1))}


def text_column(raw: Raw) -> str | None:
    """The name of the only column, where it holds texts; empty where rows are texts by themselves; None for other rows."""
    columns = raw if isinstance(raw, dict) else {"": raw}
    if len(columns) != 1:
        return None
    name, column = next(iter(columns.items()))
    is_text = column.dtype.kind in "OU" and all(isinstance(value, str) for value in column[:100].tolist())
    return name if is_text else None


def texts_in(questions: Questions) -> list[str]:
    """The texts of questions that are nothing else."""
    raw = questions.raw
    column = next(iter(raw.values())) if isinstance(raw, dict) else raw
    return [str(text) for text in column.tolist()]


def written_questions(like: Questions, texts: Sequence[str]) -> Questions:
    """Written texts as questions without a label, made like these; their rows are counted on from the last of them."""
    name = text_column(like.raw)
    assert name is not None, "only texts are written"
    raw: Raw = {name: objects(texts)} if name else objects(texts)
    count, last = len(texts), int(like.row_N.max(initial=-1))
    return Questions(
        raw,
        content_keys(raw),
        np.full(count, UNLABELLED, np.int64),
        np.ones(count, np.float32),
        last + 1 + np.arange(count),
    )
