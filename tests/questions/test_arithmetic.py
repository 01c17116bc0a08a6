"""Problems of arithmetic: the answers are right, train and test share no operands, the longer form is longer."""

from __future__ import annotations

import re

import pytest

from stillroom.errors import DataError
from stillroom.questions.arithmetic import BUILTIN, LONGER, SAME, Task, builtin, problems


@pytest.mark.parametrize("name", BUILTIN)
def test_answers_are_right(name: str) -> None:
    for longer in (False, True):
        for one in problems(BUILTIN[name], 50, 0, longer=longer):
            assert int(one.answer) == _worked(one.question)
            assert one.length == (LONGER if longer else SAME)


def _worked(question: str) -> int:
    """By Python, but chains from left to right."""
    inner, _, modulus = question.removeprefix("(").partition(")%")
    parts = re.findall(r"\d+|[-+*]", inner)
    value = int(parts[0])
    for sign, number in zip(parts[1::2], parts[2::2], strict=True):
        value = {"+": value + int(number), "-": value - int(number), "*": value * int(number)}[sign]
        value = value % int(modulus) if modulus else value
    return value


@pytest.mark.parametrize("name", ["sums", "products"])
def test_no_order_of_training_operands_is_in_test(name: str) -> None:
    train, test = (problems(BUILTIN[name], 400, 0, held_out=held) for held in (False, True))
    known = {tuple(sorted(map(str, one.operands))) for one in train}
    assert not known & {tuple(sorted(map(str, one.operands))) for one in test}


def test_the_same_seed_gives_the_same_questions_and_each_once() -> None:
    first, second = (problems(BUILTIN["sums"], 300, 7) for _ in range(2))
    assert first == second
    assert len({one.question for one in first}) == 300
    assert first != problems(BUILTIN["sums"], 300, 8)


def test_a_small_task_has_fewer() -> None:
    assert 0 < len(problems(Task("sums", (2, 2), (1, 1), (3, 3)), 1000, 0)) <= 100


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(DataError, match="sums"):
        builtin("sum")
