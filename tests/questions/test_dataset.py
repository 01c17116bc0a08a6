"""The data set as a whole: how rows are split, labelled, omitted and weighted, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import DataError, NotYet, RecipeError
from stillroom.kinds import parse
from stillroom.questions.dataset import Dataset
from stillroom.questions.splitting import quotas
from stillroom.recipe import Recipe
from stillroom.rows import Questions, Splits


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def save(folder: Path, labels: Any, rng: np.random.Generator, name: str = "d.npz", **more: Any) -> Path:
    """An .npz of random rows with these labels."""
    x = rng.normal(size=(len(labels), 3))
    np.savez(folder / name, x=x, y=np.array(labels), **more)
    return folder


def build(folder: Path, **knobs: Any) -> Splits:
    return Dataset(**{"source": "d.npz", **knobs}).build([folder])


def rows_of(*parts: Questions) -> set[bytes]:
    return {key.tobytes() for part in parts for key in part.key_N}


def counts(part: Questions) -> list[int]:
    return np.bincount(part.label_N[part.label_N >= 0]).tolist()


def test_every_row_goes_to_one_split_in_the_default_shares(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, ["b"] * 60 + ["a"] * 100 + ["c"] * 40, rng)
    splits = build(tmp_path)
    assert splits.classes == ["a", "b", "c"]
    assert [counts(part) for part in (splits.test, splits.validation, splits.train)] == [
        [20, 12, 8],
        [10, 6, 4],
        [70, 42, 28],
    ]
    assert len(rows_of(splits.train, splits.validation, splits.test)) == 200
    assert sorted(np.concatenate([splits.train.row_N, splits.validation.row_N, splits.test.row_N])) == list(range(200))
    assert len(splits.omitted) == 0
    assert (splits.train.weight_N == 1).all()


def test_a_split_is_a_share_below_1_and_a_count_above(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, rng.permutation(np.arange(300) % 3), rng)
    splits = build(tmp_path, split={"validation": 30, "test": 0.5})
    assert (len(splits.validation), len(splits.test), len(splits.train)) == (30, 150, 120)
    assert any("validation: 30 rows" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        (["apple;ripe", "apple", "pear;ripe", "pear"], True),
        (["apple,ripe", "apple", "pear,ripe", "pear"], True),
        (["['apple', 'ripe']", "['apple']", "['pear']", "['pear', 'ripe']"], True),
        (["yes, surely", "no, surely not", "no, never", "perhaps"], False),
        (["a|b", "b | c", "a|c", "c"], True),
        (["animal|dog", "animal|cat", "plant|oak", "plant|elm"], False),  # names of single classes
        (["red", "red; or so", "green", "blue", "grey", "pink"], False),  # a mark by chance
    ],
)
def test_several_labels_in_a_cell_are_no_class(labels: list[str], refused: bool, tmp_path: Path) -> None:
    rows = [f'{place},"{label}"' for place, label in enumerate(labels * 20)]
    (tmp_path / "d.csv").write_text("\n".join(["x,label", *rows]))
    if refused:
        with pytest.raises(NotYet, match=r"(several labels at once|a list of labels), such as"):
            build(tmp_path, source="d.csv")
    else:
        assert len(build(tmp_path, source="d.csv").classes) == len(labels)


@pytest.mark.parametrize("role", ["validation", "test"])
def test_all_rows_are_no_share_and_one_row_is_a_count(role: str, tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, ["a", "b"] * 10, rng)
    with pytest.raises(ValueError, match="a share should be below 1"):
        build(tmp_path, split={role: 1.0})
    kept = Dataset(source="d.npz", split={role: 1}).model_dump(mode="json")
    again = Dataset(**kept).build([tmp_path])
    assert len(getattr(again, role)) == 1


def test_the_split_hangs_on_its_seed_and_the_content_only(tmp_path: Path, rng: np.random.Generator) -> None:
    y = np.arange(200) % 4
    x = rng.normal(size=(200, 3))
    order = rng.permutation(200)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.savez(tmp_path / "shuffled.npz", x=x[order], y=y[order])
    one, again, other = build(tmp_path), build(tmp_path), build(tmp_path, seed=1)
    shuffled = build(tmp_path, source="shuffled.npz")
    assert one.fingerprint() == again.fingerprint()
    for role in ("train", "validation", "test"):
        rows = rows_of(getattr(one, role))
        assert rows == rows_of(getattr(shuffled, role))
        assert rows != rows_of(getattr(other, role))


def test_copies_of_a_row_are_spread_and_told(tmp_path: Path) -> None:
    x = np.repeat(np.eye(2), 500, axis=0)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(1000) % 2)
    splits = build(tmp_path)
    assert 60 < (splits.test.raw[:, 0] == 1).sum() < 140  # type: ignore[call-overload]
    assert "200 of 200 test rows stand in train as well, with the same content" in splits.notes


def test_rows_that_stand_in_train_and_test_are_counted(tmp_path: Path, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(100, 3)), np.arange(100) % 2
    np.savez(tmp_path / "d.npz", x_train=x[:60], y_train=y[:60], x_test=x[40:], y_test=y[40:])
    splits = build(tmp_path)
    copies = len(rows_of(splits.train) & rows_of(splits.test))
    assert copies > 0
    assert f"{copies} of 60 test rows stand in train as well, with the same content" in splits.notes


def test_every_class_keeps_a_row_in_each_split_where_it_can(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, ["a"] * 200 + ["three"] * 3 + ["two"] * 2 + ["one"], rng)
    splits = build(tmp_path)
    by_class = {name: [0, 0, 0] for name in splits.classes}
    for place, part in enumerate((splits.train, splits.validation, splits.test)):
        for code, count in Counter(part.label_N.tolist()).items():
            by_class[splits.classes[code]][place] = count
    assert by_class["three"] == [1, 1, 1]
    assert by_class["two"] == [1, 0, 1]
    assert by_class["one"] == [1, 0, 0]


def test_quotas_add_up_and_stay_near_their_share(rng: np.random.Generator) -> None:
    for _ in range(300):
        count = rng.integers(1, 400, rng.integers(2, 30))
        most = np.maximum(count - rng.integers(0, 3), 0)
        wanted = int(rng.integers(1, max(2, most.sum() + 1)))
        if wanted > most.sum():
            continue
        take = quotas(count, most, wanted)
        assert take.sum() == wanted
        assert (take <= most).all()
        assert (take >= 0).all()
        if wanted >= len(count):
            assert (take[most > 0] > 0).all()
            share = wanted * count / count.sum()
            assert (take >= np.minimum(np.floor(share), most) - 1 - (share < 1).sum()).all()


def test_labelled_keeps_so_many_stratified_and_the_rest_as_questions(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, np.array([5] * 300 + [2] * 100), rng)
    whole, few = build(tmp_path), build(tmp_path, labelled=40)
    assert counts(few.train) == [10, 30]
    assert rows_of(few.train) == rows_of(whole.train)
    assert few.train.labelled_N.sum() == 40
    for role in ("validation", "test"):
        assert getattr(few, role).fingerprint() == getattr(whole, role).fingerprint()
    assert any("40 of 280 training labels kept" in note and "validation (40 rows)" in note for note in few.notes)
    assert build(tmp_path, labelled=40).fingerprint() == few.fingerprint()
    assert counts(build(tmp_path, labelled=2).train) == [1, 1]
    assert build(tmp_path, labelled=280).train.fingerprint() == whole.train.fingerprint()


def test_an_omitted_class_leaves_train_and_validation_and_stays_in_test(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    save(tmp_path, np.arange(300) % 3 + 7, rng)
    whole, splits = build(tmp_path), build(tmp_path, omit=8)
    assert splits.classes == [7, 8, 9]
    assert counts(splits.train) == [70, 0, 70]
    assert counts(splits.validation) == [10, 0, 10]
    assert splits.test.fingerprint() == whole.test.fingerprint()
    assert len(splits.omitted) == 70
    assert (splits.omitted.label_N == 1).all()
    assert rows_of(splits.train, splits.omitted) == rows_of(whole.train)
    assert "omitted 8: 70 rows of train and 10 rows of validation; they stay in test" in splits.notes
    both = build(tmp_path, omit=["8"], labelled=20)
    assert counts(both.train) == [10, 0, 10]
    assert counts(both.omitted) == [0, 10], "with all its labels the omitted class would be over-represented"


def test_class_weights(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, ["a"] * 100 + ["b"] * 300, rng)
    train = build(tmp_path, class_weights="balanced", labelled=80).train
    by_class = [train.weight_N[train.label_N == code] for code in (0, 1)]
    assert by_class[0].sum() == pytest.approx(40)
    assert by_class[1].sum() == pytest.approx(40)
    assert (train.weight_N[~train.labelled_N] == 1).all()
    given = build(tmp_path, class_weights={"b": 2.5}).train
    assert set(given.weight_N[given.label_N == 1].tolist()) == {2.5}
    assert set(given.weight_N[given.label_N == 0].tolist()) == {1.0}
    assert given.weight_N.dtype == np.float32
    with pytest.raises(DataError, match=r"no class 'bb'.*class_weights.*Did you mean 'b'"):
        build(tmp_path, class_weights={"bb": 2})


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 9, 2], [2, 9, 10]),
        ([0.5, -1.0, 10.0], [-1.0, 0.5, 10.0]),
        (["10", "9", "b"], ["10", "9", "b"]),
        ([True, False, True], [False, True]),
    ],
)
def test_classes_are_sorted_and_come_back_as_given(
    labels: list[Any], classes: list[Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    save(tmp_path, labels * 20, rng)
    found = build(tmp_path).classes
    assert found == classes
    assert [type(name) for name in found] == [type(name) for name in classes]


def test_builtin_digits_have_450_test_and_150_validation_rows() -> None:
    splits = Dataset(source="builtin:digits").build([])
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1197, 150, 450)
    assert splits.classes == list(range(10))
    raw = splits.train.raw
    assert isinstance(raw, np.ndarray)
    assert (raw.dtype, raw.shape[1:], raw.max()) == (np.uint8, (8, 8), 255)
    assert min(counts(splits.validation)) >= 14
    assert len(Dataset(source="builtin:digits", split={"test": 90}).build([]).test) == 90


def test_rows_without_a_label_go_to_train_only(tmp_path: Path, rng: np.random.Generator) -> None:
    y = np.where(np.arange(200) < 150, np.nan, np.arange(200) % 2)
    save(tmp_path, y, rng)
    splits = build(tmp_path)
    assert (len(splits.test), len(splits.validation), len(splits.train)) == (10, 5, 185)
    assert splits.train.labelled_N.sum() == 35
    assert splits.classes == [0.0, 1.0]
    assert splits.test.labelled_N.all()
    assert splits.validation.labelled_N.all()
    x = rng.normal(size=(60, 2))
    odd = np.where(np.arange(60) < 9, np.nan, np.arange(60) % 2)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=np.arange(60) % 2, x_test=x + 1, y_test=odd)
    splits = build(tmp_path)
    assert len(splits.test) == 51
    assert "test: 9 rows without a label were left out" in splits.notes


def test_a_view_that_does_not_fit_the_rows_is_told_at_once(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, np.arange(60) % 2, rng)
    with pytest.raises(RecipeError, match=r"'shift' is for images.*questions\.augment"):
        build(tmp_path, augment={"kind": "shift", "pixels": 1})
    assert len(build(tmp_path, augment={"kind": "noise", "std": 1}).train) == 42


def test_knobs_survive_a_recipe(tmp_path: Path) -> None:
    given = {
        "source": {"train": "a.csv", "test": "b.csv"},
        "split": {"validation": 20},
        "input": "text",
        "omit": [3],
        "class_weights": {3: 0.5},
        "augment": [{"kind": "shift", "pixels": 2}, {"kind": "flip"}],
        "views": 4,
    }
    whole = Dataset(**given)
    again = parse("questions", {**whole.model_dump(mode="json")})
    assert again == whole
    assert whole.input == ("text",)
    assert [view.kind for view in Dataset(source="x", augment={"kind": "flip"}).augment] == ["flip"]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"source": {"trian": "a.csv"}}, r"'trian' is no split\. Did you mean 'train'"),
        ({"source": {"test": "a.csv"}}, "should name a file for train"),
        ({"source": 3}, "should be a path"),
        ({"split": {"test": 0}}, "share of the rows between 0 and 1"),
        ({"split": {"test": 2.5}}, "whole number of rows"),
        ({"class_weights": "equal"}, "none, balanced"),
        ({"class_weights": {"a": -1}}, "weight of a"),
        ({"views": 0}, "views"),
        ({"augment": [{"kind": "flop"}]}, "Did you mean 'flip'"),
    ],
)
def test_a_wrong_knob_is_a_recipe_error(knobs: dict[str, Any], message: str) -> None:
    tree = {
        "name": "x",
        "questions": {"kind": "dataset", "source": "d.npz", **knobs},
        "teacher": {"kind": "trained", "model": {"kind": "mlp", "hidden": [4]}, "epochs": 1},
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4]}},
    }
    with pytest.raises(RecipeError, match=message):
        Recipe.from_tree(tree)


@pytest.mark.parametrize(
    ("labels", "knobs", "message"),
    [
        (["a"] * 9, {}, "only one class, 'a'"),
        ([np.nan] * 9, {}, "there is no label"),
        ([0, 1] * 50, {"labelled": 71}, r"train has 70 \(questions\.labelled\)\. Choose a number from 2 to 70"),
        ([0, 1, 2, 3] * 50, {"labelled": 3}, "4 classes, each needs one"),
        ([0, 1, 2] * 50, {"omit": [4]}, r"no class 4 \(questions\.omit\)"),
        ([0, 1, 2] * 50, {"omit": [1, 2]}, "fewer than two classes"),
        ([0, 1] * 50, {"split": {"test": 99}}, r"asks for 99 labelled rows, and 96 of 100.*questions\.split\.test"),
        ([0, 1], {}, r"asks for 1 labelled row, and 0 of 2"),
        (list(range(100)), {}, "name rows, not classes"),
    ],
)
def test_what_cannot_be_split_is_refused(
    labels: list[Any], knobs: dict[str, Any], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    save(tmp_path, labels, rng)
    with pytest.raises(DataError, match=message):
        build(tmp_path, **knobs)


def test_an_empty_split_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(40, 2)), np.arange(40) % 2
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=np.full(40, np.nan))
    with pytest.raises(DataError, match="test holds no labelled row"):
        build(tmp_path)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
    with pytest.raises(DataError, match=r"no rows \(d\.npz, x_test\)"):
        build(tmp_path)


def test_a_test_label_that_train_lacks_is_named_but_may_be_omitted(tmp_path: Path, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(40, 2)), np.arange(40) % 2
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y * 2)
    with pytest.raises(DataError, match=r"label 2 does not occur in the training rows.*x_test, row 2"):
        build(tmp_path)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=np.arange(40) % 3, x_test=x, y_test=y * 2)
    assert set(build(tmp_path, omit=2).test.label_N.tolist()) == {0, 2}
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y * 2)
    splits = build(tmp_path, omit=[2])
    assert splits.classes == [0, 1, 2]
    assert len(splits.omitted) == 0


def test_rows_that_can_hardly_teach_or_test_are_noted(tmp_path: Path, rng: np.random.Generator) -> None:
    save(tmp_path, ["a"] * 100 + ["b"] * 99 + ["odd"], rng)
    assert [note for note in build(tmp_path).notes if "split off" not in note] == [
        "no test row is of class odd (1 row): no figure tells of it"
    ]
    x = rng.normal(size=(6, 3))
    x[:, 1] = 7
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(6) % 2)
    notes = build(tmp_path).notes
    assert "6 rows: 1 of them to test on, so no figure of this run means anything" in notes
    assert "one value in every training row, which says nothing: column 2" in notes
    lines = ["word,number,label", *(f"same,{row},{row % 2}" for row in range(200))]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    assert build(tmp_path, source="d.csv").notes[2:] == [
        "one value in every training row, which says nothing: column word"
    ]
