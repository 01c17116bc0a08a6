"""The Hinton bench: its recipes are valid, its bars are all spoken for, its drawn rows do not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.hinton import EXPERIMENTS, Drawn, draw, merged, settings_of
from benchmarks.hinton_recipes import PRESETS
from benchmarks.hinton_words import REASONS, WORDS
from benchmarks.results import Found, Row, read_bars

from benchmarks import hinton, hinton_figures, hinton_recipes
from stillroom.recipe import Recipe

DIFFERENCE = {"mean": -5.0, "ci95": [-9.0, -1.0]}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_an_ordinary_recipe(name: str, preset: str) -> None:
    recipe = Recipe.from_tree(EXPERIMENTS[name].recipe(PRESETS[preset]))
    recipe.check()
    assert recipe.name == f"bench-hinton-{name}"
    assert "speed" not in recipe.evaluation.metrics


@pytest.mark.parametrize("path", sorted(hinton_recipes.RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    Recipe.load(path).check()


def test_presets_have_their_words_and_reasons_name_bars() -> None:
    bars = {bar.id for bar in read_bars("hinton")}
    assert set(WORDS) == set(PRESETS) == set(REASONS)
    assert all(set(reasons) <= bars for reasons in REASONS.values())


def test_settings_differ_by_preset_and_follow_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings_of("student", PRESETS["time"])
    assert before != settings_of("student", PRESETS["full"])
    other = hinton_recipes.teacher(PRESETS["full"])
    monkeypatch.setattr(hinton.recipes, "teacher", lambda sizes: other)
    assert before != settings_of("student", PRESETS["time"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    images = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2)
    labels = np.arange(40) % 10
    np.savez(tmp_path / "all.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])
    return tmp_path


def test_drawn_rows_are_apart_and_the_same_again(source: Path) -> None:
    wanted = Drawn("all.npz", 10, 5, test=3)
    parts = [dict(np.load(draw(source / name, "few", wanted, source))) for name in ("one", "two")]
    assert all(np.array_equal(parts[0][key], parts[1][key]) for key in parts[0])
    assert {key: len(value) for key, value in parts[0].items()} == {
        "x_train": 10, "y_train": 10, "x_validation": 5, "y_validation": 5, "x_test": 3, "y_test": 3,
    }  # fmt: skip
    train = {row.tobytes() for row in parts[0]["x_train"]}
    assert not train & {row.tobytes() for row in parts[0]["x_validation"]}


def test_a_bar_of_two_data_sets_takes_the_better_and_keeps_what_was_said() -> None:
    rows = {
        "few_labels": Row({"soft-over-hard": Found(0.0, n="10 seeds", why="3 (-1 to 7)")}),
        "photos": Row({"soft-over-hard": Found(1.0, n="10 seeds")}),
    }
    bars, _ = merged(rows)
    assert bars["soft-over-hard"].value == 1.0
    turned, _ = merged(dict(reversed(rows.items())))
    assert turned["soft-over-hard"].value == 1.0


@pytest.mark.parametrize(("ends", "value"), [([-9.0, -1.0], 1.0), ([-9.0, 0.0], 0.0), ([1.0, 9.0], 0.0)])
def test_soft_over_hard_asks_for_an_interval_below_0(ends: list[float], value: float) -> None:
    card: dict[str, Any] = {
        "seeds": list(range(10)), "differences": {"student-hard_teacher": {"errors": {"mean": 0.0, "ci95": ends}}}
    }  # fmt: skip
    found = hinton_figures.soft_over_hard(card)
    assert found.value == value
    assert bool(found.why) == (value == 0)


def test_a_difference_that_stands_the_other_way_round_is_turned() -> None:
    card = {"differences": {"permuted-student": {"errors": DIFFERENCE}}}
    assert hinton_figures._soft_minus(card, "permuted") == {"errors": {"mean": 5.0, "ci95": [1.0, 9.0]}}


def test_without_data_it_says_so_plainly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    with pytest.raises(SystemExit, match="STILLROOM_DATA names, and it is not set"):
        hinton._data_folder()
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"no mnist\.npz in it"):
        hinton._data_folder()
