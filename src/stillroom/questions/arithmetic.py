"""Arithmetic that is there without a file: questions whose answers can be checked exactly, and the same in a longer form.

    sums        the sum of several numbers, such as 37+58+91+24
    products    the product of two numbers, such as 457*23
    chains      sums, differences and products from left to right under a small modulus, such as (7+5*3-8)%10

Which operands go to test follows from the operands alone (a hash of them, sorted where their order does not matter), so
that no test question, and no question that differs from one by the order of its numbers, is ever trained on. The longer form
has more terms or digits than any training question; the column `length` tells it from the others. Knows no model.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stillroom.errors import DataError, did_you_mean

TEST_SHARE = 0.2
"""Of all operands, that are kept for test and validation."""
SAME, LONGER = "same", "longer"
LEAST_TRIES = 1000


@dataclass(frozen=True)
class Task:
    """What a question is made of."""

    name: Literal["sums", "products", "chains"]
    terms: tuple[int, int]
    """Numbers in a question, least and most; of a product the digits of its first factor."""
    digits: tuple[int, int]
    """Digits of a number, least and most; of a product those of its second factor."""
    longer: tuple[int, int]
    """In place of `terms`, for the longer form."""
    longer_digits: tuple[int, int] | None = None
    """In place of `digits`, for the longer form; None: the same."""
    modulus: int = 10
    """Of chains."""


@dataclass(frozen=True)
class Problem:
    """A question and its answer; `operands` are what the answer is computed from, in their order."""

    question: str
    answer: str
    operands: tuple[int | str, ...]
    length: str = SAME


BUILTIN = {
    "sums": Task("sums", (2, 4), (2, 2), (5, 6)),
    "products": Task("products", (2, 3), (1, 2), (4, 4)),
    "chains": Task("chains", (3, 5), (1, 1), (7, 8)),
}
SIZES = {"train": 20_000, "test": 2_000, "longer": 1_000}
"""Questions of a builtin task; small tasks have fewer."""


def builtin(name: str, seed: int = 0) -> dict[str, list[Problem]]:
    """Train and test of a task; test ends with the longer form. Raises DataError for a task that is not there."""
    if name not in BUILTIN:
        raise DataError(
            f"there is no builtin data {name!r}", where="questions.source", cure=did_you_mean(name, BUILTIN)
        )
    task = BUILTIN[name]
    held = problems(task, SIZES["test"], seed, held_out=True)
    return {
        "train": problems(task, SIZES["train"], seed),
        "test": [*held, *problems(task, SIZES["longer"], seed, held_out=True, longer=True)],
    }


def problems(task: Task, count: int, seed: int, *, held_out: bool = False, longer: bool = False) -> list[Problem]:
    """So many different questions, drawn by seed; fewer where the task has no more.

    `held_out`: those whose operands are kept for test, else those that are not.
    """
    dice = random.Random(f"{task} {seed} {held_out} {longer}")
    found: dict[str, Problem] = {}
    for _ in range(20 * count + LEAST_TRIES):
        if len(found) == count:
            break
        made = draw(task, dice, longer)
        if _is_held_out(made) == held_out:
            found.setdefault(made.question, made)
    return list(found.values())


def draw(task: Task, dice: random.Random, longer: bool = False) -> Problem:
    """One question."""
    least, most = task.longer if longer else task.terms
    size = dice.randint(least, most)
    digits = task.longer_digits or task.digits if longer else task.digits
    length = LONGER if longer else SAME
    if task.name == "products":
        first, second = _number(dice, size, size), _number(dice, *digits)
        return Problem(f"{first}*{second}", str(first * second), (first, second), length)
    numbers = [_number(dice, *digits) for _ in range(size)]
    if task.name == "sums":
        return Problem("+".join(map(str, numbers)), str(sum(numbers)), tuple(numbers), length)
    signs = [dice.choice("+-*") for _ in numbers[1:]]
    value = list(running(numbers, signs, task.modulus))[-1]
    told = "".join(f"{sign}{number}" for sign, number in zip(["", *signs], numbers, strict=True))
    operands = tuple(one for pair in zip(["+", *signs], numbers, strict=True) for one in pair)
    return Problem(f"({told})%{task.modulus}", str(value), operands, length)


def running(numbers: list[int], signs: list[str], modulus: int) -> Iterator[int]:
    """What a chain comes to after each of its numbers, from left to right."""
    value = numbers[0] % modulus
    yield value
    for sign, number in zip(signs, numbers[1:], strict=True):
        value = {"+": value + number, "-": value - number, "*": value * number}[sign] % modulus
        yield value


def _number(dice: random.Random, least: int, most: int) -> int:
    """A whole number of so many digits, every number of digits as likely."""
    digits = dice.randint(least, most)
    return dice.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def _is_held_out(problem: Problem) -> bool:
    """By the operands alone; those of a sum or a product in any order."""
    chain = any(isinstance(one, str) for one in problem.operands)
    operands = list(problem.operands) if chain else sorted(problem.operands)
    digest = hashlib.sha256(repr(operands).encode()).digest()
    return int.from_bytes(digest[:4], "little") < TEST_SHARE * 2**32
