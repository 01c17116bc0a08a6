"""A teacher that reasons, without a model or a network: it works chains out step by step, and slips as often as it is told."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from stillroom.kinds import Task, Teacher
from stillroom.questions.arithmetic import running
from stillroom.rows import Answers, Questions
from stillroom.rundir import fingerprint

PART = re.compile(r"\d+|[-+*]")


@dataclass(frozen=True)
class Said:
    """One sample."""

    text: str
    finish_reason: str = "stop"
    tokens_in: int = 10
    tokens_out: int = 20
    usd: float = 0.001
    thought: str = ""


class Reasoner(Teacher):
    """Answers (7+5*3-8)%10 as <think>7 2 6 8</think> and #### 8."""

    kind: Literal["reasoner"] = "reasoner"
    gives: ClassVar[frozenset[str]] = frozenset({"text"})
    slips: float = 0.2
    """Chance that an answer is wrong."""
    cut: float = 0.0
    """Chance that an answer is cut off."""
    fails: float = 0.0
    """Chance that there is no answer."""

    def solves(self) -> Task:
        return "reasoning"

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Any = None) -> Any:
        return AskedReasoner(self)


class AskedReasoner:
    """At work; counts what it was asked."""

    by_key = False
    hidden_width: int | None = None
    gives = frozenset({"text"})
    asked: ClassVar[list[tuple[str, int]]] = []
    """Purpose and number of samples of each call, of all of them."""

    def __init__(self, knobs: Reasoner) -> None:
        self.knobs = knobs
        self.classes: list[Any] = []
        self.fingerprint = fingerprint("reasoner", knobs.model_dump(mode="json"))

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """It gives text alone."""
        raise AssertionError("a teacher that reasons is sampled")

    def samples(
        self, questions: Questions, n: int, purpose: str | None = None, first: int = 0
    ) -> Sequence[Sequence[Said]]:
        """The same question and place, the same sample."""
        assert isinstance(questions.raw, dict)
        (asked,) = questions.raw.values()
        self.asked.append((str(purpose), n * len(questions)))
        rows = [[self._said(str(text), place) for place in range(first, first + n)] for text in asked]
        return [[one for one in row if one is not None] for row in rows]

    def _said(self, question: str, place: int) -> Said | None:
        dice = random.Random(fingerprint(question, place))
        if dice.random() < self.knobs.fails:
            return None
        inner, _, modulus = question.partition(")%")
        parts = PART.findall(inner)
        values = list(running([int(one) for one in parts[::2]], parts[1::2], int(modulus)))
        if dice.random() < self.knobs.slips:
            values[-1] = (values[-1] + 1 + dice.randrange(8)) % int(modulus)
        thought = " ".join(map(str, values))
        if dice.random() < self.knobs.cut:
            return Said(f"<think>{thought}", "length")
        return Said(f"<think>{thought}</think>\n#### {values[-1]}")
