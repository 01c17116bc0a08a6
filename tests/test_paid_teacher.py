"""A teacher that is paid by the call, from recipe to report, over HTTP on this machine: what is refused, charged, told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom import distill
from stillroom.errors import BudgetReached, RecipeError
from stillroom.flow import plan
from stillroom.loopback.serving import Loopback
from stillroom.recipe import Recipe

pytest.importorskip("openai")
ROWS = 90


@pytest.fixture
def teacher(tmp_path: Path) -> Iterator[Loopback]:
    lines = [
        f"{'a fine one' if row % 3 else 'a bad one'} of number {row},{'good' if row % 3 else 'bad'}"
        for row in range(ROWS)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]))
    mind = {"kind": "rule", "source": "rows.csv", "question": "Text: (.*)", "error_rate": 0.0, "refuse": 0.2}
    found = Loopback({"mind": mind, "price": {"input": 1.0, "output": 2.0}}, tmp_path)
    with found:
        yield found


def recipe(teacher: Loopback, **sections: Any) -> dict[str, Any]:
    return {
        "name": "paid",
        "seeds": 1,
        "questions": {
            "kind": "dataset",
            "source": "rows.csv",
            "input": "text",
            "split": {"test": 20, "validation": 15},
        },
        "teacher": {
            "kind": "openai_api",
            "base_url": teacher.url,
            "model": "loopback",
            "prompt": "Text: {text}",
            "price": {"input": 1.0, "output": 2.0},
        },
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4]}},
        "objectives": [{"kind": "hard_label", "from": "teacher"}],
        "training": {"epochs": 2, "batch_size": 16},
        "evaluation": {"metrics": ["accuracy", "agreement", "size", "cost"]},
        **sections,
    }


def test_refused_rows_are_left_out_of_every_model_and_told(teacher: Loopback, tmp_path: Path) -> None:
    # An arm shares the run's rows, so what the teacher refused must be gone from it too.
    tree = recipe(teacher, arms={"wide": {"student": {"model": {"kind": "mlp", "hidden": [8]}}}})
    done = distill(tree, tmp_path / "run", folder=tmp_path)
    card = done.scorecard
    refused = sum(card["asking"]["refused"].values())
    assert refused > 0
    assert sum(card["rows"][part] for part in ("train", "validation", "test")) == ROWS - refused
    assert set(card["models"]) == {"teacher", "student", "control", "wide"}
    assert card["asking"]["calls"] == ROWS == teacher.bill()["calls"]
    assert card["asking"]["usd"] == pytest.approx(teacher.bill()["usd"])
    assert card["cost"]["teacher_usd"] == card["asking"]["usd"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What the teacher was asked, and what that cost" in page
    assert "temperature is too low" not in page

    distill(tree, tmp_path / "run", folder=tmp_path)
    assert teacher.bill()["calls"] == ROWS, "nothing is paid for twice"


def test_a_budget_stops_and_what_was_bought_is_kept(teacher: Loopback, tmp_path: Path) -> None:
    with pytest.raises(BudgetReached, match="40 calls"):
        distill(recipe(teacher, budget={"calls": 40}), tmp_path / "run", folder=tmp_path)
    assert teacher.bill()["calls"] == 40
    distill(recipe(teacher, budget={"calls": ROWS}), tmp_path / "run", folder=tmp_path)
    assert teacher.bill()["calls"] == ROWS


def test_check_guesses_for_nothing_and_a_pilot_measures(
    teacher: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = Recipe.from_tree(recipe(teacher))
    guessed = plan(loaded, tmp_path)
    assert guessed["figures"]["teacher calls"] == ROWS
    assert teacher.bill()["calls"] == 0
    piloted = plan(loaded, tmp_path, pilot=10)
    assert piloted["figures"]["teacher calls"] == ROWS - 10
    assert teacher.bill()["calls"] == 10
    before, (low, middle, high) = teacher.bill()["usd"], _ends(piloted["figures"]["teacher usd"])
    assert low <= middle <= high
    distill(recipe(teacher), tmp_path / "runs" / "paid", folder=tmp_path)
    assert teacher.bill()["calls"] == ROWS, "the pilot's answers were bought for good"
    assert 0.8 * low <= teacher.bill()["usd"] - before <= 1.2 * high


def _ends(told: str) -> tuple[float, float, float]:
    """`middle (low to high)` as low, middle, high."""
    middle, _, rest = told.partition(" (")
    low, _, high = rest.rstrip(")").partition(" to ")
    return float(low), float(middle), float(high)


def test_a_pilot_is_for_paid_teachers_alone(teacher: Loopback, tmp_path: Path) -> None:
    tree = recipe(teacher) | {"teacher": {"kind": "trained", "model": {"kind": "mlp", "hidden": [4]}}}
    with pytest.raises(RecipeError, match="paid by the call"):
        plan(Recipe.from_tree(tree), tmp_path, pilot=10)
