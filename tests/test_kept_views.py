"""Answers to augmented rows are kept by what the augmentation was: another one is another question, and asked anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import done, events, recipe, rows_of, stillroom, write_csv, write_recipe
from killing import came_to_its_end
from stillroom import flow
from stillroom.questions.views import view_id, view_number
from stillroom.recipe import Recipe
from stillroom.rows import Questions
from stillroom.stages.ask import answers_of
from stillroom.stages.opening import views_of

TRAINED = {"kind": "trained", "model": {"kind": "mlp", "hidden": [8]}, "epochs": 2}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with images in d.npz: 42 to learn from, 6 for validation, 12 for the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    drawn = np.random.default_rng(0).integers(0, 256, (60, 9, 9)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=drawn, y=np.arange(60) % 2)
    return tmp_path


def shifted(pixels: int, views: int = 1, **sections: Any) -> dict[str, Any]:
    """A recipe over the images, moved by up to so many pixels."""
    moved = {"kind": "dataset", "source": "d.npz", "augment": [{"kind": "shift", "pixels": pixels}], "views": views}
    return recipe(questions=moved, teacher=TRAINED, **sections)


def calls(run: Path) -> int:
    """Questions asked so far; a run that asked none has nothing to tell."""
    return sum(event["calls"] for event in events(run, "asked")) if (run / "events.jsonl").is_file() else 0


def test_another_augmentation_is_asked_anew_and_the_first_is_still_kept(here: Path) -> None:
    said = []
    for pixels, expected in ((2, 42 + 18), (4, 42), (2, 0), (4, 0)):
        before = calls(here / "run")
        flow.distill(shifted(pixels), here / "run", until="train")
        assert calls(here / "run") - before == expected, f"{pixels} pixels"
        said.append((here / "run" / "student" / "model.safetensors").read_bytes())
    assert said[0] == said[2] != said[1] == said[3]


def test_a_store_that_runs_share_keeps_their_augmentations_apart(here: Path) -> None:
    """Of a teacher that stands still, since a trained one is trained anew for each run."""
    flow.distill(shifted(2), here / "first", until="train")
    teacher = {"kind": "saved", "model": str(here / "first" / "teacher")}
    for name, pixels, expected in (("a", 2, 60), ("b", 4, 42), ("c", 2, 0)):
        tree = {**shifted(pixels), "name": name, "teacher": teacher, "transfer_set": {"store": "store"}}
        flow.distill(tree, here / name, until="ask")
        assert calls(here / name) == expected, f"{name}: {pixels} pixels"


def test_an_arm_of_another_augmentation_learns_from_answers_to_its_own_rows(here: Path) -> None:
    """What is kept for each is what the teacher says of just the rows that each is shown."""
    from stillroom.stages.opening import load, look_in

    other = {"questions": {"augment": [{"kind": "shift", "pixels": 4}]}}
    flow.distill(shifted(2, views=2, arms={"far": other}), here / "run", until="train")
    whole, folder = load(here / "run" / "recipe.yaml")
    splits = whole.questions.build(look_in(folder))
    kept = answers_of(here / "run")
    teacher = whole.teacher.build(here / "run" / "teacher", [], splits.classes)
    from stillroom.questions.views import apply_views

    train, found = splits.train, []
    for one in (whole, whole.arm("far")):
        assert len(views_of(one)) == 2
        for number, view in enumerate(views_of(one), 1):
            shown = apply_views(one.questions.augment, train.raw, train.key_N, number)
            expected = teacher.answer(Questions.of(shown)).log_probabilities_NC
            found.append(kept.reader(train.key_N, view).all())
            np.testing.assert_allclose(found[-1], expected, rtol=2e-3, atol=2e-3)
    assert min(np.abs(found[a] - found[b]).max() for a in range(4) for b in range(a)) > 0.05


@pytest.mark.kill
def test_killed_at_any_commit_point_of_a_changed_augmentation(here: Path) -> None:
    def files(run: Path) -> dict[str, bytes]:
        found = [*run.rglob("model.safetensors"), *run.rglob("*.f16")]
        return {str(path.relative_to(run)): path.read_bytes() for path in found}

    def both(run: Path) -> None:
        for pixels in (2, 4):
            flow.distill(shifted(pixels, views=2), run, until="train")

    both(here / "whole")
    expected = files(here / "whole")
    for point in range(40, 400, 30):
        run = here / str(point)
        if came_to_its_end(lambda run=run: both(run), point):
            break
        flow.distill(shifted(4, views=2), run, until="train")
        now = files(run)
        assert {name: now.get(name) for name in expected if "transfer_set" not in name} == {
            name: data for name, data in expected.items() if "transfer_set" not in name
        }, f"killed at commit point {point}"
    assert point > 100


# what a view is called


def chain(tree: list[dict[str, Any]]) -> Recipe:
    questions = {"kind": "dataset", "source": "d.npz", "augment": tree, "views": 3}
    return Recipe.from_tree(recipe(questions=questions, teacher=TRAINED))


def test_an_id_says_what_the_views_are_and_their_number() -> None:
    trees: list[list[dict[str, Any]]] = [
        [{"kind": "shift", "pixels": 2}],
        [{"kind": "shift", "pixels": 4}],
        [{"kind": "flip"}],
        [{"kind": "shift", "pixels": 2}, {"kind": "flip"}],
        [{"kind": "flip"}, {"kind": "shift", "pixels": 2}],
        [{"kind": "noise", "std": 2}],
    ]
    ids = [views_of(chain(tree)) for tree in trees]
    assert len({one for each in ids for one in each}) == 3 * len(trees)
    assert all(0 < one < 2**63 for each in ids for one in each), "signed 64 bits hold them"
    assert all([view_number(one) for one in each] == [1, 2, 3] for each in ids)
    # An id is the same in any process and version, or kept answers would be asked anew.
    assert views_of(chain(trees[0]))[0] == 7306890921230991361
    assert view_id(chain([{"kind": "noise", "std": 2.0}]).questions.augment, 1) == ids[5][0]


def test_rows_as_they_are_keep_their_view() -> None:
    assert views_of(chain([])) == [0]
    assert view_id([], 3) == 0
    assert view_id(chain([{"kind": "flip"}]).questions.augment, 0) == 0
    assert view_number(0) == 0


def test_a_language_models_views_are_plain_numbers(here: Path) -> None:
    """Its answers are kept apart by their augmentation already; those of earlier runs must be found again."""
    questions = {"kind": "dataset", "source": "text.txt", "augment": {"kind": "mask"}, "views": 2}
    teacher = {"kind": "transformers", "model": "folder", "task": "masked"}
    student = {"kind": "shrink", "layers": 1}
    masked = Recipe.from_tree(recipe(questions=questions, teacher=teacher, student=student))
    assert views_of(masked) == [1, 2]


def test_more_views_than_an_id_has_room_for(here: Path) -> None:
    write_recipe(here / "tiny.yaml", shifted(2, views=100_001))
    told = stillroom("check", "tiny.yaml")
    assert told.status == 2
    assert "(questions.views, line" in told.error
    assert "at most 100000, not 100001" in told.error


# exported


def test_exported_answers_say_which_view_they_are_to(here: Path) -> None:
    write_recipe(here / "tiny.yaml", shifted(2, views=3))
    done("distill", "tiny.yaml")
    done("export-answers", "runs/tiny", "--out", "said.jsonl")
    rows = [json.loads(line) for line in (here / "said.jsonl").read_text().splitlines()]
    counted = {(split, view): 0 for split, view in {(row["split"], row["view"]) for row in rows}}
    for row in rows:
        counted[row["split"], row["view"]] += 1
    assert counted == {("train", 1): 42, ("train", 2): 42, ("train", 3): 42, ("validation", 0): 6, ("test", 0): 12}
    first, second = ([row["p_0"] for row in rows if row["view"] == view] for view in (1, 2))
    assert first != second


def test_exported_answers_to_moved_rows_are_none_to_the_rows_themselves(here: Path) -> None:
    """They would teach a student of plain rows what the teacher said of other ones."""
    write_recipe(here / "tiny.yaml", shifted(2, views=2))
    done("distill", "tiny.yaml")
    done("export-answers", "runs/tiny", "--out", "said.jsonl")
    plain = {"kind": "dataset", "source": "d.npz"}
    recorded = {"kind": "recorded", "source": "said.jsonl"}
    write_recipe(here / "again.yaml", recipe(name="again", questions=plain, teacher=recorded))
    told = stillroom("distill", "again.yaml")
    assert told.status == 2
    assert "42 of 42 questions have no recorded answer" in told.error
    assert not (here / "runs" / "again").exists()


def test_a_column_called_view_is_a_column(here: Path) -> None:
    """Of a table of one's own, where it is an input."""
    rows = [{"view": row.pop("length"), **row} for row in rows_of()]
    write_csv(here / "data.csv", rows)
    write_recipe(here / "tiny.yaml", recipe())
    done("distill", "tiny.yaml")
    said = [{**row, "p_ham": 0.7, "p_spam": 0.3} for row in rows]
    write_csv(here / "said.csv", said)
    write_recipe(here / "again.yaml", recipe(name="again", teacher={"kind": "recorded", "source": "said.csv"}))
    done("distill", "again.yaml")
