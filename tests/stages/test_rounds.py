"""Rounds: what is asked, in which order, when it ends, and that a killed run chooses what it would have chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from killing import came_to_its_end, commit_points
from stillroom import flow
from stillroom.errors import BudgetReached, RecipeError, RunError
from stillroom.kinds import AskedTeacher, Teacher
from stillroom.rows import Answers, Questions
from stillroom.rundir import read_json

CLASSES = 3
Tree = dict[str, Any]


def rule(raw: Any) -> np.ndarray:
    """The class that the rule has for each row, from its first two columns."""
    return np.where(raw[:, 0] > 0.3, 0, np.where(raw[:, 1] > 0, 1, 2))


class AskedRule:
    """Says what the rule says, and refuses rows far out; a limit is kept as a ledger keeps it: what was paid for is free."""

    hidden_width, by_key, gives = None, False, frozenset({"answers"})
    fingerprint = "a rule"

    def __init__(self, classes: list[Any], limit: int | None, refuse: float) -> None:
        self.classes, self.limit, self.refuse = classes, limit, refuse
        self.paid: set[bytes] = set()

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        raw = questions.raw
        assert not isinstance(raw, dict)
        for key in questions.key_N:
            if self.limit is not None and key.tobytes() not in self.paid and len(self.paid) >= self.limit:
                raise BudgetReached("the budget of calls is used up", where="budget.calls")
            self.paid.add(key.tobytes())
        logs_NC = np.full((len(raw), CLASSES), -20.0, np.float32)
        logs_NC[np.arange(len(raw)), rule(raw)] = 0
        answered_N = raw[:, 2] < self.refuse
        return Answers(logs_NC, answered_N=None if answered_N.all() else answered_N)


class Ruled(Teacher):
    """A teacher that follows a rule."""

    kind: Literal["ruled"] = "ruled"
    gives: ClassVar[frozenset[str]] = frozenset({"answers"})
    limit: int | None = None
    refuse: float = 100.0

    def build(self, home: Path, folders: list[Path], classes: list[Any], device: Any = None) -> AskedTeacher:
        return AskedRule(classes, self.limit, self.refuse)


def data(folder: Path, rows: int = 260, copies: int = 0) -> Path:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows + 60, 4)).astype(np.float32)
    y = rule(x)
    x_train, y_train = (np.concatenate([part[:rows], part[:copies]]) for part in (x, y))
    path = folder / "rows.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x[rows:], y_test=y[rows:])
    return path


def recipe(folder: Path, rounds: Tree, rows: int = 260, copies: int = 0, **sections: Any) -> Tree:
    tree: Tree = {
        "name": "rounds",
        "seeds": 1,
        "questions": {"kind": "dataset", "source": str(data(folder, rows, copies)), "split": {"validation": 30}},
        "teacher": {"kind": "python"},
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [8]}},
        "objectives": [{"kind": "hard_label", "from": "teacher"}],
        "training": {"epochs": 10, "batch_size": 16, "learning_rate": 0.03},
        "rounds": {"strategy": "margin", "start": 18, "budgets": [40, 80], **rounds},
        "evaluation": {"metrics": ["accuracy"]},
    }
    return {**tree, **sections}


def drawn(folder: Path, rounds: Tree, teacher: Teacher | None = None, until: str = "ask", **knobs: Any) -> Tree:
    """The rounds.json of a run."""
    tree = recipe(folder, rounds, **knobs)
    flow.distill(tree, folder / "run", teacher=teacher or Ruled(), until=until)
    found: Tree = read_json(folder / "run" / "rounds" / "rounds.json")
    return found


def test_every_budget_is_spent_on_different_questions(tmp_path: Path) -> None:
    found = drawn(tmp_path, {"compare": ["random", {"kind": "committee", "size": 2}]})
    assert found["stopped"] == "all budgets are spent"
    audit = set(found["audit"]["rows"])
    assert len(audit) == 8
    for records in (found["rounds"], *found["compare"].values()):
        assert [one["calls"] for one in records] == [20, 40, 80]
        assert [one["audit_rows"] for one in records] == [2, 4, 8]
        chosen = [row for one in records for row in one["chosen"]]
        assert len(chosen) == len(set(chosen)) == 72
        assert not audit & set(chosen)
        assert records[0]["chosen"] == found["rounds"][0]["chosen"]
        assert [one["learned"] for one in records] == [18, 36, 72]
        assert len(records[1]["guessed"]) == len(records[1]["answered"]) == 18
    assert len(found["rounds"][1]["why"]) == 18
    assert "why" not in found["compare"]["random"][1]
    assert found["rounds"][1]["why"] == sorted(found["rounds"][1]["why"], reverse=True)
    assert found["rounds"][1]["chosen"] != found["compare"]["random"][1]["chosen"]


def test_the_students_of_the_run_learn_from_what_was_chosen(tmp_path: Path) -> None:
    found = drawn(tmp_path, {}, until="report")
    run = tmp_path / "run"
    scorecard = read_json(run / "scorecard.json")
    assert scorecard["rows"]["train"] == found["rounds"][-1]["learned"] == 72
    assert scorecard["models"]["student"]["accuracy"]["mean"] > 0.55  # the most frequent class alone: 0.38
    assert not (run / ".work").exists()
    told = read_json(run / "evaluation" / "details.json")
    assert any("chosen by margin in 3 rounds" in note for note in told["about"]["notes"])
    assert [one["doubt"] for one in told["asked_last"]] == found["rounds"][-1]["why"][: len(told["asked_last"])]
    assert "apart)" in (run / "report.html").read_text()


def test_students_of_small_rounds_take_as_many_steps_as_those_of_the_last(tmp_path: Path) -> None:
    drawn(tmp_path, {})
    steps = {read_json(path)["steps"] for path in (tmp_path / "run" / ".work" / "rounds").rglob("history.json")}
    assert max(steps) - min(steps) <= 3  # the last epoch of each is whole


def test_a_question_that_is_there_twice_is_asked_once(tmp_path: Path) -> None:
    found = drawn(tmp_path, {"budgets": [40, 1000]}, rows=90, copies=50)
    assert found["pool"] < 90 + 50 - 30
    chosen = [row for one in found["rounds"] for row in one["chosen"]]
    assert len(chosen) + len(found["audit"]["rows"]) == found["pool"]


def test_a_pool_smaller_than_the_budget_ends_early_and_says_so(tmp_path: Path) -> None:
    found = drawn(tmp_path, {"budgets": [40, 1000, 2000]}, rows=130)
    assert found["pool"] == 100
    assert [one["calls"] for one in found["rounds"]] == [20, 40, 100]
    assert found["stopped"] == "there are 100 questions, and 2,000 calls were allowed"


def test_no_audit_slice_is_no_audit(tmp_path: Path) -> None:
    found = drawn(tmp_path, {"audit": 0})
    assert [one["calls"] for one in found["rounds"]] == [18, 40, 80]
    assert all("audit_accuracy" not in one for one in found["rounds"])


def test_a_target_on_the_audit_slice_ends_the_rounds(tmp_path: Path) -> None:
    found = drawn(tmp_path, {"audit": 0.5, "budgets": [60, 120, 180, 220], "stop": {"target": 0.5}})
    assert "the target of 0.5 was reached on 30 audit rows" in found["stopped"]
    assert found["rounds"][-1]["calls"] == 60


def test_a_plateau_on_the_audit_slice_ends_the_rounds(tmp_path: Path) -> None:
    found = drawn(tmp_path, {"audit": 0.5, "budgets": [60, 120, 180, 220], "stop": {"plateau": 1.0}})
    assert "a round gained" in found["stopped"]
    last = found["rounds"][-1]
    assert last["calls"] == 60
    assert last["audit_accuracy"] - last["audit_accuracy_before"] < 1


def test_few_audit_rows_end_nothing(tmp_path: Path) -> None:
    found = drawn(tmp_path, {"stop": {"target": 0.01, "plateau": 1.0}})
    assert found["stopped"] == "all budgets are spent"


def test_what_was_refused_is_paid_for_and_not_learned(tmp_path: Path) -> None:
    found = drawn(tmp_path, {}, Ruled(refuse=0.5))
    records = found["rounds"]
    assert [one["calls"] for one in records] == [20, 40, 80]
    refused = [row for one in records for row in one["refused"]]
    assert refused
    assert records[-1]["learned"] == 72 - len(refused)
    said = dict(zip(records[0]["chosen"], records[0]["answered"], strict=True))
    assert {row for row, answer in said.items() if answer is None} == set(records[0]["refused"])


def test_a_teacher_that_refuses_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="answered none of the first 18 questions"):
        drawn(tmp_path, {}, Ruled(refuse=-100))


@pytest.mark.parametrize("limit", [20, 33, 57])
def test_a_budget_that_is_reached_ends_the_rounds_with_all_that_was_bought(tmp_path: Path, limit: int) -> None:
    with pytest.raises(BudgetReached):  # then nothing is left for the held-out rows
        drawn(tmp_path, {}, Ruled(limit=limit))
    found = read_json(tmp_path / "run" / "rounds" / "rounds.json")
    assert found["stopped"] == "the budget of calls is used up"
    assert found["rounds"][-1]["calls"] == limit


def test_a_budget_below_the_first_round_is_told(tmp_path: Path) -> None:
    with pytest.raises(BudgetReached, match="used up"):
        drawn(tmp_path, {}, Ruled(limit=1))
    assert not (tmp_path / "run" / "rounds" / "rounds.json").exists()


def test_recorded_answers_are_asked_in_rounds_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    lines = ["a,b,c,label", *(f"{a},{b},{c},{'xy'[int(a > 0)]}" for a, b, c in x)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "said.csv").write_text("\n".join(lines).replace("label", "answer"))
    tree = recipe(
        tmp_path, {}, questions={"kind": "dataset", "source": "rows.csv", "label": "label"},
        teacher={"kind": "recorded", "source": "said.csv"},
    )  # fmt: skip
    flow.distill(tree, tmp_path / "run", folder=tmp_path, until="evaluate")
    assert read_json(tmp_path / "run" / "scorecard.json")["rows"]["train"] == 72


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"transfer_set": {"live": True}}, "transfer_set.live"),
        ({"objectives": [{"kind": "soft_target", "temperature": "auto"}]}, "objectives"),
        ({"arms": {"other": {"teacher": {"kind": "trained", "model": {"kind": "mlp"}, "epochs": 3}}}}, "arms.other"),
    ],
)
def test_what_rounds_cannot_do_is_refused_before_anything_is_spent(tmp_path: Path, sections: Tree, where: str) -> None:
    tree = recipe(tmp_path, {}, **{"teacher": {"kind": "trained", "model": {"kind": "mlp"}}, **sections})
    with pytest.raises(RecipeError) as caught:
        flow.distill(tree, tmp_path / "run")
    assert where in caught.value.where
    assert not (tmp_path / "run").exists()


@pytest.mark.kill
def test_killed_anywhere_the_same_is_chosen(tmp_path: Path) -> None:
    rounds = {"strategy": {"kind": "committee", "size": 2}, "compare": ["random"], "budgets": [40]}
    for name in ("whole", "counted", "again"):
        (tmp_path / name).mkdir()
    expected = drawn(tmp_path / "whole", rounds, Ruled(refuse=1.0))

    def work(folder: Path) -> Callable[[], object]:
        return lambda: drawn(folder, rounds, Ruled(refuse=1.0))

    points = commit_points(work(tmp_path / "counted"), tmp_path / "points.txt")
    run, kills = tmp_path / "again", 0
    while not came_to_its_end(work(run), points // 5):
        kills += 1
        assert kills < 60, "a run that is killed must still get on"
    assert kills > 2
    assert read_json(run / "run" / "rounds" / "rounds.json") == expected
    for point in range(9, points, points // 6):
        place = tmp_path / str(point)
        place.mkdir()
        assert not came_to_its_end(work(place), point)
        assert drawn(place, rounds, Ruled(refuse=1.0)) == expected, f"killed at commit point {point} of {points}"
