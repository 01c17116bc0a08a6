"""What holds of arms with teachers of their own, of answers that are there in part, and of a budget in time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stillroom
from command_line import METRICS, events, recipe, rows_of, write_csv
from stillroom.errors import BudgetReached, ModelError, RecipeError
from stillroom.finished import Beside, answers_for
from stillroom.recipe import Recipe
from stillroom.rundir import verify
from stillroom.teachers.probabilities import log_of_probabilities
from stillroom.transfer_set.ask import SHARD_ROWS

TRAINED = {"kind": "trained", "model": {"kind": "mlp", "hidden": [8]}, "epochs": 2}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a small table in it."""
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "data.csv", rows_of())
    return tmp_path


def test_an_arms_own_teacher_stays_when_the_arm_is_trained(here: Path) -> None:
    """It stands within the arm's folder, and is a stage of its own."""
    arms = {"other": {"teacher": {**TRAINED, "seed": 5}}}
    run = stillroom.distill(recipe(arms=arms), here / "run")
    weights = run.path / "arms" / "other" / "teacher" / "model.safetensors"
    before, taught = weights.read_bytes(), len(events(run.path, "taught"))
    again = stillroom.distill(recipe(arms=arms, training={"epochs": 3, "batch_size": 32}), here / "run")
    assert weights.read_bytes() == before
    assert len(events(again.path, "taught")) == taught
    verify(run.path / "arms" / "other")


def test_an_arm_of_other_classes_is_refused_before_anything_is_spent(here: Path) -> None:
    test = [{"one": 0.1 * place, "label": "ab"[place % 2]} for place in range(20)]
    write_csv(here / "test.csv", test)
    write_csv(here / "two.csv", test * 3)
    write_csv(here / "three.csv", [*test * 3, {"one": 9.0, "label": "c"}, {"one": 9.1, "label": "c"}])

    def questions(train: str) -> dict[str, Any]:
        return {"kind": "dataset", "source": {"train": train, "test": "test.csv"}}

    tree = recipe(questions=questions("two.csv"), arms={"more": {"questions": questions("three.csv")}})
    with pytest.raises(RecipeError, match="with other classes than the student"):
        stillroom.distill(tree, here / "run")
    assert not (here / "run" / "teacher").exists()


def test_a_paid_teacher_is_no_independent_one(here: Path) -> None:
    paid = {
        "kind": "openai_api",
        "model": "m",
        "base_url": "http://127.0.0.1:9/v1",
        "prompt": "{one}",
        "labels": ["a", "b"],
    }
    with pytest.raises(RecipeError, match="cannot be the independent one"):
        stillroom.distill(recipe(evaluation={"metrics": METRICS, "independent_teacher": paid}), here / "run")
    assert not (here / "run" / "teacher").exists()


def test_answers_of_some_rows_alone_are_exported(here: Path) -> None:
    """Rounds leave questions unasked; what was asked goes out."""
    rounds = {"strategy": "margin", "start": 18, "budgets": [30]}
    run = stillroom.distill(recipe(rounds=rounds), here / "run")
    told = answers_for(run.path, "jsonl", here / "answers.jsonl")
    rows = [json.loads(line) for line in (here / "answers.jsonl").read_text().split("\n") if line]
    assert told == len(rows)
    train = [row for row in rows if row["split"] == "train"]
    assert 20 <= len(train) < run.scorecard["rows"]["train"] + 40
    kept = {row["key"] for row in train}
    assert len(kept) == len(train)


def test_a_budget_in_minutes_stops_between_two_shards(here: Path) -> None:
    write_csv(here / "data.csv", rows_of(3 * SHARD_ROWS))
    tree = recipe(teacher=None, budget={"minutes": 1e-4})
    with pytest.raises(BudgetReached, match="minutes"):
        stillroom.distill(tree, here / "run", teacher=lambda rows: np.full((len(rows), 2), 0.5))
    assert sum(event["calls"] for event in events(here / "run", "asked")) == SHARD_ROWS
    assert not (here / "run" / "student").exists()


def test_a_section_that_is_named_and_left_empty_takes_an_override(here: Path) -> None:
    tree = {key: value for key, value in recipe().items() if key != "evaluation"}
    (here / "r.yaml").write_text(json.dumps(tree)[:-1] + ', "evaluation": null}')
    loaded = Recipe.load(here / "r.yaml", ("evaluation.price.usd_per_hour=1",))
    assert loaded.evaluation.price is not None
    assert loaded.evaluation.price.usd_per_hour == 1


def test_a_row_that_is_typed_is_taken_as_it_was_typed(here: Path) -> None:
    """007 is a category here, and no 7."""
    words = ["A1", "007", "B2"]
    write_csv(here / "data.csv", [{"code": words[n % 3], "size": n % 5, "label": "xyz"[n % 3]} for n in range(90)])
    run = stillroom.distill(recipe(questions={"kind": "dataset", "source": "data.csv"}), here / "run")
    typed = {"code": "007", "size": "4"}
    raw = Beside(run.path).from_hand(lambda name: typed[name])
    assert isinstance(raw, dict)
    assert raw["code"].tolist() == ["007"]
    assert raw["size"].tolist() == [4.0]


def test_a_row_without_numbers_hides_no_other_that_adds_up_to_more_than_1() -> None:
    with pytest.raises(ModelError, match="no probability distribution"):
        log_of_probabilities(np.array([[0.5, 0.5], [np.nan, 1.0], [2.0, 6.0]]))
    found_NC = log_of_probabilities(np.array([[0.25, 0.75], [np.nan, 1.0]]))
    assert np.isnan(found_NC[1]).any()
    np.testing.assert_allclose(np.exp(found_NC[0]), [0.25, 0.75])
