"""A callable is known by its code, by the arrays it computes with, and by its answers to what it was asked before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.rows import Array, Questions
from stillroom.teachers.python import CallableTeacher, looks_of
from stillroom.transfer_set.ask import ask
from stillroom.transfer_set.recognise import recognise
from stillroom.transfer_set.store import Kept, Store

Callable_ = Callable[[Any], Array]
CLASSES = ["low", "high"]
ROWS = np.random.default_rng(4).normal(size=(900, 3))


def shares(score_N: Array) -> Array:
    high_N = 1 / (1 + np.exp(-score_N))
    return np.stack([1 - high_N, high_N], 1)


def weighed(weight_D: Array) -> Callable_:
    """A function over weights that it closes over."""
    return lambda rows: shares(rows @ weight_D)


class Remote:
    """A model behind an address: nothing of it can be seen. Counts what it is asked."""

    def __init__(self, wrong_above: float = 99.0, scale: float = 1.0) -> None:
        self.wrong_above, self.scale, self.asked, self.heard = wrong_above, scale, 0, list[Any]()

    def __call__(self, rows: Array) -> Array:
        self.asked += len(rows)
        self.heard.append(rows)
        score_N = self.scale * rows[:, 0]
        return shares(np.where(rows[:, 1] > self.wrong_above, -score_N, score_N))


def plain(questions: Questions, view: int) -> Questions:
    return questions


def asked_of(root: Path, given: Any, rows: Array) -> tuple[Kept, int]:
    """What is kept after asking, and how many rows were asked for it."""
    questions, teacher, new = Questions.of(rows), CallableTeacher(given, CLASSES), list[int]()
    recognise(Store(root), teacher, [(questions, (0,))], plain)
    kept = ask(
        Store(root), teacher, questions, kind="python", licences={}, views=(0,), seen=plain, progress=new.append,
        shard_rows=100,
    )  # fmt: skip
    expected = np.log(given(rows))
    np.testing.assert_allclose(kept.reader(questions.key_N).all(), expected, rtol=3e-3, atol=3e-4)
    return kept, sum(new)


# what can be seen


def test_equal_code_over_equal_arrays_looks_the_same() -> None:
    assert looks_of(weighed(np.ones(3))) == looks_of(weighed(np.ones(3)))
    assert looks_of(weighed(np.ones(3))) != looks_of(weighed(np.array([1, 1, 1.01])))
    assert looks_of(lambda rows: shares(rows[:, 0])) != looks_of(lambda rows: shares(rows[:, 1]))
    assert looks_of(lambda rows: shares(rows[:, 0])) != looks_of(lambda rows: shares(2 * rows[:, 0]))
    power = lambda rows, by: shares(rows[:, 0] * by)  # noqa: E731
    assert looks_of(partial(power, by=np.ones(1))) != looks_of(partial(power, by=np.zeros(1)))


def test_estimators_are_seen_whole() -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    label_N = (ROWS[:, 0] > 0).astype(int)
    for kind in (partial(RandomForestClassifier, 5, random_state=0), KNeighborsClassifier):
        one, same = (kind().fit(ROWS, label_N).predict_proba for _ in range(2))
        other = kind().fit(ROWS[:-1], label_N[:-1]).predict_proba
        before = looks_of(one)
        one(ROWS[:50])
        assert looks_of(one) == before == looks_of(same), "asking changes nothing"
        assert looks_of(other) != before


def test_counting_and_taking_notes_changes_no_looks() -> None:
    teacher = Remote()
    before = looks_of(teacher)
    teacher(ROWS)
    assert (teacher.asked, len(teacher.heard)) == (900, 1)
    assert looks_of(teacher) == before


def test_another_process_sees_the_same() -> None:
    program = """
import numpy as np
from stillroom.teachers.python import looks_of
def teacher(rows, w=np.arange(3.0), kinds=frozenset(("red", "green", "blue"))):
    return [w[0] if row in {"red", "green", "blue"} else w[1] for row in rows]
print(looks_of(teacher))
"""
    said = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(said) == 1


# whose answers they are


def test_who_answers_as_before_is_asked_only_what_is_new(tmp_path: Path) -> None:
    """Even though the added rows stand in front: a fingerprint made of answers to the first rows would be another."""
    _, first = asked_of(tmp_path, Remote(), ROWS[100:700])
    _, more = asked_of(tmp_path, Remote(), ROWS[:700])
    _, again = asked_of(tmp_path, Remote(), ROWS[np.random.default_rng().permutation(700)])
    assert (first, more, again) == (600, 100, 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Remote(), Remote(scale=1.01)),
        (weighed(np.ones(3)), weighed(np.array([1, 1, 1.01]))),
        (Remote(), weighed(np.array([1.0, 0, 0]))),
    ],
    ids=["another scale", "other weights", "other code"],
)
def test_two_callables_never_share_answers(tmp_path: Path, one: Any, other: Any) -> None:
    kept, count = asked_of(tmp_path, one, ROWS)
    theirs, others = asked_of(tmp_path, other, ROWS)
    assert (count, others) == (900, 900)
    assert kept.folder != theirs.folder
    # Each finds its own again, whoever asked last.
    assert asked_of(tmp_path, one, ROWS)[1] == asked_of(tmp_path, other, ROWS)[1] == 0


def test_one_that_differs_beyond_the_first_rows_is_found_out(tmp_path: Path) -> None:
    order = np.argsort(ROWS[:, 1])  # those on which they differ stand last
    assert (Remote(1.0)(ROWS[order][:700]) == Remote()(ROWS[order][:700])).all()
    first, _ = asked_of(tmp_path, Remote(), ROWS[order])
    second, count = asked_of(tmp_path, Remote(1.0), ROWS[order])
    assert count == 900
    assert first.folder != second.folder


def test_answers_to_other_questions_alone_prove_nothing(tmp_path: Path) -> None:
    """Those of an equal one are asked for again rather than mixed with those of who knows whom."""
    first, _ = asked_of(tmp_path, Remote(), ROWS[:400])
    second, count = asked_of(tmp_path, Remote(scale=-1.0), ROWS[400:])
    assert count == 500
    assert first.folder != second.folder
    assert asked_of(tmp_path, Remote(), ROWS[:500])[1] == 100


def test_a_few_are_asked_again_not_all(tmp_path: Path) -> None:
    asked_of(tmp_path, Remote(), ROWS)
    teacher = Remote()
    recognise(Store(tmp_path), CallableTeacher(teacher, CLASSES), [(Questions.of(ROWS), (0,))], plain)
    assert 0 < teacher.asked <= 256


def test_what_a_killed_run_began_is_gone_on_with(tmp_path: Path) -> None:
    teacher = CallableTeacher(Remote(), CLASSES)
    with pytest.raises(KeyboardInterrupt):
        ask(
            Store(tmp_path), teacher, Questions.of(ROWS), kind="python", licences={}, views=(0,), seen=_interrupted,
            shard_rows=100,
        )  # fmt: skip
    assert asked_of(tmp_path, Remote(), ROWS)[1] == 900
    assert len(list(tmp_path.glob("*/teacher.json"))) == 1


def _interrupted(questions: Questions, view: int) -> Questions:
    raise KeyboardInterrupt
