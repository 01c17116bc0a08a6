"""Arithmetic for the reasoning bench: questions with exact answers, the scratchpads that its teacher is trained on, files.

Tasks are those of stillroom.questions.arithmetic, train and test disjoint by their operands, and word problems of two to
four steps. A scratchpad works an answer out, in one of two styles:

    short    372+820 -> 02 09 11        the sum of each column from the right, the carry in it, as two digits
    long     2+0=02 7+2+0=09 3+8+0=11   each column written out; then the result, and all of it once more as a check

The student never sees these: it learns from what the teacher, a network trained on them, writes by itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from stillroom.questions.arithmetic import Problem, Task, problems, running
from stillroom.transfer_set.lessons import answer_alone

Style = Literal["short", "long"]
SEED = 2
"""Of all questions but the teacher's own. What the sizes were chosen by was seen with other seeds, so on other questions."""
TASKS = {
    "sums": Task("sums", (2, 2), (3, 3), (2, 2), longer_digits=(4, 4)),
    "products": Task("products", (3, 3), (1, 1), (4, 4)),
    "long products": Task("products", (3, 3), (2, 2), (4, 4)),
    "chains": Task("chains", (3, 5), (1, 1), (7, 8)),
}
"""The first is the one with bars: there answers alone reach 40 %."""
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}


def named(task: Task) -> str:
    """Sums or products of one size in words, for the title of a table."""
    (size, _), (digits, _) = task.terms, task.digits
    if task.name == "products":
        return f"products of a number of {_digits(size)} and one of {NUMBERS[digits]}"
    return f"{task.name} of {NUMBERS[size]} numbers of {_digits(digits)}"


def _digits(count: int) -> str:
    return f"{NUMBERS[count]} digit{'' if count == 1 else 's'}"


def files(task: Task, train: int, test: int, longer: int, folder: Path, backwards: bool = False) -> dict[str, str]:
    """train.jsonl and test.jsonl with question, answer and length, as a recipe reads them; with `backwards` the digits of the
    answers stand from the last to the first."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "train": problems(task, train, SEED),
        "test": [
            *problems(task, test, SEED, held_out=True),
            *problems(task, longer, SEED, held_out=True, longer=True),
        ],
    }
    if backwards:
        parts = {name: [replace(one, answer=one.answer[::-1]) for one in rows] for name, rows in parts.items()}
    return {name: write_rows(rows, folder / f"{name}.jsonl", backwards) for name, rows in parts.items()}


def write_rows(rows: Sequence[Problem], path: Path, said: bool = False) -> str:
    """The rows as JSON lines, with `said` also the answer as a teacher would say it alone; the path as a recipe names it."""
    made = [{"question": one.question, "answer": one.answer, "length": one.length} for one in rows]
    if said:
        made = [{**one, "said": answer_alone(one["answer"])} for one in made]
    path.write_text("\n".join(map(json.dumps, made)) + "\n")
    return str(path.resolve())


def scratchpad(problem: Problem, style: Style = "short") -> str:
    """A thought that leads to the answer."""
    if isinstance(problem.operands[0], str):
        return " ".join(_chain(problem))
    columns = _columns(problem)
    if style == "short":
        return " ".join(result for _, result in columns)
    once = " ".join(f"{sum_}={result}" for sum_, result in columns)
    return f"{once}\n={problem.answer}\n{once}\n={problem.answer}"


def _chain(problem: Problem) -> list[str]:
    values, signs = [int(one) for one in problem.operands[1::2]], [str(one) for one in problem.operands[2::2]]
    modulus = int(problem.question.rpartition("%")[2])
    return [str(one) for one in running(values, signs, modulus)]


def _columns(problem: Problem) -> list[tuple[str, str]]:
    """What each column adds or multiplies, and what that comes to as two digits, the last the carry that is left."""
    first, second = (int(one) for one in problem.operands)
    found, carry = [], 0
    if "*" in problem.question:
        if second >= 10:
            return _rows(first, second)
        for digit in reversed(str(first)):
            value = int(digit) * second + carry
            found.append((f"{digit}*{second}+{carry}", f"{value:02d}"))
            carry = value // 10
        return found
    width = max(len(str(first)), len(str(second)))
    for one, other in zip(reversed(f"{first:0{width}d}"), reversed(f"{second:0{width}d}"), strict=True):
        value = int(one) + int(other) + carry
        found.append((f"{one}+{other}+{carry}", f"{value:02d}"))
        carry = value // 10
    return found


def _rows(first: int, second: int) -> list[tuple[str, str]]:
    """A product by the digits of its second factor, from the right: the columns of each part and of the sum as it grows,
    and what they come to."""
    total, found = 0, []
    for place, digit in enumerate(reversed(str(second))):
        part = first * int(digit) * 10**place
        found += [*_columns(_problem(first, "*", int(digit))), (f"{first}*{digit}{'0' * place}", str(part))]
        if place:
            found += [*_columns(_problem(total, "+", part)), (f"{total}+{part}", str(total + part))]
        total += part
    return found


def _problem(first: int, sign: str, second: int) -> Problem:
    value = first * second if sign == "*" else first + second
    return Problem(f"{first}{sign}{second}", str(value), (first, second))


def lesson(problem: Problem, dice: random.Random, long_share: float) -> tuple[str, str]:
    """A question and a gold scratchpad with its answer, for the teacher: so many of them in the long style."""
    style: Style = "long" if dice.random() < long_share else "short"
    return problem.question, written(problem, style)


def written(problem: Problem, style: Style) -> str:
    """A whole answer, as the teacher is to write it."""
    return f"<think>{scratchpad(problem, style)}</think>\n#### {problem.answer}"


THINGS = ("apples", "pens", "coins", "cards", "books", "shells", "stamps", "eggs")
PEOPLE = ("Ana", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gul", "Hugo")


def word_problem(dice: random.Random, steps: int) -> tuple[str, str, str]:
    """A story of so many steps: the question, a rationale that ends in #### and the answer."""
    who, thing = dice.choice(PEOPLE), dice.choice(THINGS)
    value = dice.randint(3, 30)
    story, told = [f"{who} has {value} {thing}."], []
    for _ in range(steps):
        how = dice.choice(("buys", "gives away", "doubles") if value > 2 else ("buys", "doubles"))
        if how == "doubles":
            story.append("Then there are twice as many.")
            told.append(f"{value} * 2 = {value * 2}.")
            value *= 2
        elif how == "buys":
            more = dice.randint(2, 20)
            story.append(f"{who} buys {more} more.")
            told.append(f"{value} + {more} = {value + more}.")
            value += more
        else:
            less = dice.randint(1, value - 1)
            story.append(f"{who} gives {less} away.")
            told.append(f"{value} - {less} = {value - less}.")
            value -= less
    question = " ".join([*story, f"How many {thing} does {who} have now?"])
    return question, " ".join(told) + f"\n#### {value}", str(value)


def word_files(train: int, test: int, folder: Path) -> dict[str, str]:
    """Word problems of two to four steps; each question once, test questions in no other part."""
    folder.mkdir(parents=True, exist_ok=True)
    dice, found = random.Random(SEED), dict[str, dict[str, str]]()
    while len(found) < train + test:
        question, rationale, answer = word_problem(dice, dice.randint(2, 4))
        found.setdefault(question, {"question": question, "rationale": rationale, "answer": answer})
    rows = [json.dumps(row) for row in found.values()]
    paths = {}
    for name, part in (("test", rows[:test]), ("train", rows[test:])):
        (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n")
        paths[name] = str((folder / f"{name}.jsonl").resolve())
    return paths
