"""A mind that does sums and products step by step, as often wrong as it is told to be.

    <think>
    23 x 457
    23 x 400 = 9200
    23 x 50 = 1150
    9200 + 1150 = 10350
    23 x 7 = 161
    10350 + 161 = 10511
    </think>

    23 x 457 = 10511

    Answer: 10511

A step that goes wrong has one digit changed, and what follows goes on from there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from stillroom.loopback.minds import Asked, Mind, Said, dice, in_pieces

EXPRESSION = re.compile(r"\(\s*(\d+(?:\s*[-+*x×]\s*\d+)*)\s*\)\s*%\s*(\d+)|(\d+(?:\s*[-+*x×]\s*\d+)+)")
"""A chain under a modulus, or a sum of products."""
PART = re.compile(r"\d+|[-+*x×]")
AT_A_LOSS = "I see no sum or product in that."


class Arithmetic(Mind):
    """Sums, differences and products of whole numbers, worked out in steps."""

    kind: Literal["arithmetic"] = "arithmetic"
    error_rate: float = Field(default=0.1, ge=0, le=1)
    """Chance that something goes wrong, and the answer with it."""
    per: Literal["answer", "step"] = "answer"
    """What the error rate is of; by the step, long questions are the harder ones."""
    style: Literal["short", "long", "mixed"] = "mixed"
    """long: the thought goes over the work a second time; mixed: half of the answers do."""
    no_answer: float = Field(default=0.0, ge=0, le=1)
    """Share of answers that end without their last line."""

    def build(self, folders: list[Path]) -> Worker:
        """See Mind."""
        return Worker(self)


class Worker:
    """The arithmetic mind at work."""

    rows = 1

    def __init__(self, knobs: Arithmetic) -> None:
        self.knobs = knobs

    def say(self, asked: Sequence[Asked]) -> list[Said]:
        """A thought, a solution and an answer to each."""
        return [Said(in_pieces(self._text(one))) for one in asked]

    def _text(self, asked: Asked) -> str:
        found = EXPRESSION.findall(asked.question)
        if not found:
            return AT_A_LOSS
        knobs = self.knobs
        chance = dice(knobs.seed, asked.question, asked.draw)
        chain, modulus, plain = found[-1]
        parts = PART.findall((chain or plain).replace("*", "x").replace("×", "x"))
        right = Steps(parts, int(modulus or 0), frozenset(), chance)
        done = Steps(parts, int(modulus or 0), self._slips(len(right.lines), chance), chance)
        shown = " ".join(parts) if plain else f"({' '.join(parts)}) % {modulus}"
        thought = [shown, *done.lines]
        if knobs.style == "long" or (knobs.style == "mixed" and chance.random() < 0.5):
            thought += [f"So it is {done.result}. Let me go over that again.", *done.lines, f"Again {done.result}."]
        last = "" if chance.random() < knobs.no_answer else f"\n\nAnswer: {done.result}"
        return "<think>\n" + "\n".join(thought) + f"\n</think>\n\n{shown} = {done.result}{last}"

    def _slips(self, steps: int, chance: random.Random) -> frozenset[int]:
        """Which steps go wrong."""
        rate = self.knobs.error_rate
        if self.knobs.per == "answer":
            return frozenset([chance.randrange(steps)] if chance.random() < rate else [])
        return frozenset(step for step in range(steps) if chance.random() < rate)


class Steps:
    """An expression worked out: products first, each digit of the second factor by itself, then sums from the left.

    Under a modulus above 0 all goes from the left, and each step is brought below the modulus.
    """

    def __init__(self, parts: list[str], modulus: int, slips: frozenset[int], chance: random.Random) -> None:
        self.lines: list[str] = []
        self._modulus, self._slips, self._chance = modulus, slips, chance
        terms: list[tuple[str, int]] = []
        sign = "+"
        for part in parts:
            if not part.isdigit():
                sign = part
            elif sign == "x" and not modulus:
                before, value = terms.pop()
                terms.append((before, self._product(value, int(part))))
            else:
                terms.append((sign, int(part)))
        self.result = terms[0][1]
        for operation, value in terms[1:]:
            self.result = self._step(self.result, operation, value)
        if modulus and len(terms) == 1:
            self.result %= modulus

    def _product(self, first: int, second: int) -> int:
        digits = str(second)
        parts = [int(digit) * 10 ** (len(digits) - place - 1) for place, digit in enumerate(digits)]
        total: int | None = None
        for part in [part for part in parts if part] or [0]:
            value = self._step(first, "x", part)
            total = value if total is None else self._step(total, "+", value)
        assert total is not None
        return total

    def _step(self, first: int, operation: str, second: int) -> int:
        whole = {"+": first + second, "-": first - second, "x": first * second}[operation]
        value = whole % self._modulus if self._modulus else whole
        if len(self.lines) in self._slips:
            value = _misread(value, self._chance)
        over = self._modulus and not 0 <= whole < self._modulus
        told = f"{whole} = {value} (mod {self._modulus})" if over else str(value)
        self.lines.append(f"{first} {operation} {second} = {told}")
        return value


def _misread(value: int, chance: random.Random) -> int:
    """The number with one of its digits another."""
    sign, digits = ("-" if value < 0 else ""), list(str(abs(value)))
    place = chance.randrange(len(digits))
    lowest = "1" if place == 0 and len(digits) > 1 else "0"
    digits[place] = chance.choice([digit for digit in "0123456789" if digit >= lowest and digit != digits[place]])
    return int(sign + "".join(digits))
