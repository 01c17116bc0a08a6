"""One learning curve: a strategy asks its way through the budgets, and a student is trained from scratch at each.

Calls are counted as if each strategy and seed had asked alone; what the teacher said was heard once. The audit slice and
the first questions are the same for all strategies of a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.socratic_sizes import AUDIT, Sizes
from benchmarks.socratic_students import Design, accuracy, looked, trained
from benchmarks.socratic_tasks import Task
from benchmarks.socratic_teacher import UNANSWERED
from stillroom.kinds import Strategy, parse
from stillroom.questions.choosing import Looking
from stillroom.rows import Array, Pool

COMMITTEE = 3


@dataclass
class Curve:
    """What a strategy reached, budget by budget."""

    calls: list[int] = field(default_factory=list)
    learned: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    """Of the student on test rows, by their labels."""
    agreement: list[float] = field(default_factory=list)
    """With the teacher, on the same rows."""
    successor: float | None = None
    """Accuracy at the anchor's budget of a support vector machine that learned from the same answers."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def strategy_of(name: str) -> Strategy:
    """With the knobs of the benchmark; a committee is small, for it costs a training a member."""
    found: Strategy = parse("strategy", {"kind": name, **({"size": COMMITTEE} if name == "committee" else {})})
    return found


def curve(task: Task, said_N: Array, name: str, seed: int, sizes: Sizes, design: Design) -> Curve:
    """Go through all budgets that the pool allows."""
    strategy, found, classes = strategy_of(name), Curve(), len(task.classes)
    order = np.random.default_rng(seed).permutation(len(said_N))
    budgets = budgets_of(sizes, len(said_N))
    audit = int(AUDIT * budgets[-1])  # drawn at random, charged in every budget, learned from in none
    pool, asked, students = order[audit:], np.empty(0, np.int64), []
    members = strategy.students() if isinstance(strategy, Looking) else 1
    for place, budget in enumerate(budgets):
        wanted = budget - int(AUDIT * budget) - len(asked)
        if place:
            left = np.setdiff1d(pool, asked)
            learned = asked[said_N[asked] != UNANSWERED]
            seen = looked(students, task.pool_ND[left], task.pool_ND[learned]) if strategy.wants else Pool(len(left))
            asked = np.concatenate([asked, left[strategy.choose(seen, wanted, seed)]])
        else:
            asked = pool[:wanted]
        learned = asked[said_N[asked] != UNANSWERED]
        students = [
            trained(design, task.pool_ND[learned], said_N[learned], classes, seed * 100 + member)
            for member in range(members)
        ]
        found.calls.append(budget)
        found.learned.append(len(learned))
        found.accuracy.append(accuracy(students[0], task.test_MD, task.test_label_M))
        found.agreement.append(accuracy(students[0], task.test_MD, task.teacher_test_M))
        if budget == sizes.anchor:
            found.successor = successor(task.pool_ND[learned], said_N[learned], task.test_MD, task.test_label_M)
    return found


def successor(rows_ND: Array, said_N: Array, test_MD: Array, label_M: Array) -> float | None:
    """Accuracy of a model of another kind on the same answers (Lowell and others 2019); None where they are all alike."""
    from sklearn.svm import SVC

    if len(np.unique(said_N)) < 2:
        return None
    return float(SVC(C=10.0).fit(rows_ND, said_N).score(test_MD, label_M))


def budgets_of(sizes: Sizes, pool: int) -> Sequence[int]:
    """Those that a pool of this size allows, and where it ends them, all of it."""
    found = [budget for budget in sizes.budgets if budget <= pool]
    return found if len(found) == len(sizes.budgets) or found[-1] == pool else [*found, pool]
