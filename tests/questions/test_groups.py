"""Rows that stay together in a split, slices of test rows, and fewer training rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import DataError
from stillroom.questions.dataset import Dataset
from stillroom.questions.grouping import contained, containers, containing_keys
from stillroom.questions.split_off import Split
from stillroom.rows import Questions, Splits


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def build(source: Any, folder: Path, **knobs: Any) -> Splits:
    return Dataset(source=source, **knobs).build([folder])


def column(questions: Questions, name: str) -> list[Any]:
    assert isinstance(questions.raw, dict)
    return list(questions.raw[name])


def sentences(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Sentences of words of their own, and phrases of each."""
    rows = []
    for n in range(count):
        words = [f"w{n}x{place}" for place in range(int(rng.integers(5, 12)))]
        label = int(rng.integers(2))
        rows.append({"text": " ".join(words), "label": label, "from": f"s{n}"})
        for _ in range(int(rng.integers(0, 6))):
            start, end = sorted(rng.choice(len(words) + 1, 2, replace=False))
            rows.append({"text": " ".join(words[start:end]), "label": label, "from": f"s{n}"})
    rng.shuffle(rows)
    return rows


def test_the_longest_container_is_found_as_a_search_would(rng: np.random.Generator) -> None:
    phrases = [" ".join(rng.choice(list("abcd"), int(rng.integers(0, 9))).tolist()) for _ in range(400)]
    found = containers(phrases)
    longest_first = sorted(set(phrases), key=lambda words: (-len(words), words))
    for phrase in set(phrases):
        inside = [other for other in longest_first if f" {phrase} " in f" {other} "]
        assert found[phrase] == (inside[0] if phrase else phrase)


def test_phrases_are_words_not_letters() -> None:
    texts = ["A good movie, all in all.", "good movie", "ood mov", "movie all", "GOOD", "an", "!"]
    keys = [key.tobytes() for key in containing_keys(texts)]
    assert keys[0] == keys[1] == keys[4]
    assert len(set(keys)) == 5
    assert contained(texts, ["it is a good movie !"]).tolist() == [False, True, False, False, True, False, True]
    assert containing_keys(["", " "]).shape == (2, 16)


@pytest.mark.parametrize("group", ["from", "containing", {"containing": "text"}])
def test_groups_go_to_one_split(group: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    rows = sentences(rng, 200)
    lines(tmp_path / "d.jsonl", rows)
    knobs = {"input": "text", "split": {"validation": 0.1, "test": 100, "group": group}}
    splits = build("d.jsonl", tmp_path, **knobs)
    parts = [splits.train, splits.validation, splits.test]
    by_part = [{rows[row]["from"] for row in part.row_N} for part in parts]
    assert not by_part[0] & by_part[1] | by_part[0] & by_part[2] | by_part[1] & by_part[2]
    assert sum(map(len, parts)) == len(rows)
    assert abs(len(splits.validation) - 0.1 * len(rows)) <= 3
    assert abs(len(splits.test) - 100) <= 3
    assert f"whole groups by {'from' if group == 'from' else 'the text that contains them'}" in splits.notes[0]
    order = rng.permutation(len(rows))
    lines(tmp_path / "d.jsonl", [rows[place] for place in order])
    again = build("d.jsonl", tmp_path, **knobs)
    assert sorted(column(again.test, "text")) == sorted(column(splits.test, "text"))


def test_a_phrase_of_two_sentences_goes_with_the_longer_and_is_told(tmp_path: Path) -> None:
    rows = [{"text": f"the movie {n} was so {'very ' * (n % 3)}fine {n}", "label": n % 2} for n in range(60)]
    lines(tmp_path / "d.jsonl", [*rows, {"text": "the movie", "label": 0}, {"text": "the movie", "label": 1}])
    splits = build("d.jsonl", tmp_path, split={"group": "containing"})
    where = [role for role in ("train", "validation", "test") if "the movie" in column(getattr(splits, role), "text")]
    assert len(where) == 1
    assert column(getattr(splits, where[0]), "text").count("the movie") == 2
    if where == ["train"]:
        assert any(note.startswith("2 training rows are words of a test row too") for note in splits.notes)


def test_rows_without_a_group_are_their_own_and_unlabelled_ones_go_along(tmp_path: Path) -> None:
    rows = [{"x": n, "y": n % 7, "g": f"g{n // 5}" if n < 150 else None, "label": n % 2} for n in range(200)]
    for n in range(0, 150, 5):
        rows[n]["label"] = None
    lines(tmp_path / "d.jsonl", rows)
    splits = build("d.jsonl", tmp_path, split={"group": "g"})
    assert list(splits.train.raw) == ["x", "y"]
    assert splits.validation.labelled_N.all()
    groups = [
        {rows[row]["g"] for row in part.row_N} - {None} for part in (splits.train, splits.validation, splits.test)
    ]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert {rows[row]["g"] for row in splits.test.row_N} >= {None}
    assert len(splits.test) == pytest.approx(34, abs=2)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"split": {"group": "form"}}, r"no column 'form' \(questions\.split\.group, d\.jsonl\)\. Did you mean 'from'"),
        ({"split": {"group": {"containing": "txt"}}}, r"no input column of text 'txt'.*Did you mean 'text'"),
        ({"split": {"group": "containing"}, "input": ["text", "from"]}, "the inputs hold text and from"),
        ({"split": {"group": "containing"}, "input": ["n"]}, "the inputs hold none"),
        ({"split": {"group": "label"}}, "of the classes would have no training row|just"),
        ({"slice": "form"}, r"no column 'form' \(questions\.slice, d\.jsonl\)\. Did you mean 'from'"),
        ({"rows": 1}, r"each of 2 classes needs one \(questions\.rows\)"),
    ],
)
def test_what_is_not_there_is_refused(
    knobs: dict[str, Any], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    lines(tmp_path / "d.jsonl", [{**row, "n": n} for n, row in enumerate(sentences(rng, 60))])
    with pytest.raises(DataError, match=message):
        build("d.jsonl", tmp_path, **{"input": "text", **knobs})


def test_a_group_is_no_use_where_nothing_is_split_off(tmp_path: Path, rng: np.random.Generator) -> None:
    lines(tmp_path / "d.jsonl", sentences(rng, 40))
    source = dict.fromkeys(("train", "validation", "test"), "d.jsonl")
    with pytest.raises(DataError, match=r"files give all splits \(questions\.split\.group\)"):
        build(source, tmp_path, input="text", split={"group": "from"})
    for wrong in (3, {"contains": "text"}, {"containing": 3}):
        with pytest.raises(ValueError, match=r"should be a column, or \{containing: COLUMN\}"):
            Split(group=wrong)  # type: ignore[arg-type]


def test_a_slice_names_each_test_row_and_is_no_input(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = sentences(rng, 100)
    rows[3]["from"] = None
    lines(tmp_path / "d.jsonl", rows)
    splits = build("d.jsonl", tmp_path, slice="from")
    assert list(splits.test.raw) == ["text"]
    assert splits.slice_N is not None
    assert splits.slice_N.tolist() == [rows[row]["from"] for row in splits.test.row_N]
    lines(tmp_path / "t.jsonl", [{**row, "label": None if n % 3 else row["label"]} for n, row in enumerate(rows)])
    lines(tmp_path / "d.jsonl", [{"text": row["text"], "label": row["label"]} for row in rows])
    splits = build({"train": "d.jsonl", "test": "t.jsonl"}, tmp_path, slice="from")
    assert splits.slice_N is not None
    assert splits.slice_N.tolist() == [rows[row]["from"] for row in range(0, len(rows), 3)]
    assert build("d.jsonl", tmp_path).slice_N is None
    with pytest.raises(DataError, match=r"no columns, so none called 'a'"):
        build("builtin:digits", tmp_path, slice="a")


def test_fewer_training_rows_are_stratified_and_nested_in_the_seed(tmp_path: Path, rng: np.random.Generator) -> None:
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(400, 2)), y=np.arange(400) % 4 // 3)
    whole, few = build("d.npz", tmp_path), build("d.npz", tmp_path, rows=40)
    assert np.bincount(few.train.label_N).tolist() == [30, 10]
    assert {key.tobytes() for key in few.train.key_N} < {key.tobytes() for key in whole.train.key_N}
    for role in ("validation", "test"):
        assert getattr(few, role).fingerprint() == getattr(whole, role).fingerprint()
    assert "train: 40 of 280 rows used, stratified, seed 0" in few.notes
    assert build("d.npz", tmp_path, rows=280).train.fingerprint() == whole.train.fingerprint()
    both = build("d.npz", tmp_path, rows=40, labelled=8)
    assert (len(both.train), both.train.labelled_N.sum()) == (40, 8)


def test_no_group_of_sst2_is_in_train_and_validation(stillroom_data: Path) -> None:
    source = {"train": "sst2/train.jsonl", "test": "sst2/test.jsonl"}
    knobs = {"validation": 0.1, "group": {"containing": "sentence"}}
    splits = build(source, stillroom_data, split=knobs)
    total = len(splits.train) + len(splits.validation)
    assert total == 60_614
    assert abs(len(splits.validation) - 6061) < 30
    train, validation = column(splits.train, "sentence"), column(splits.validation, "sentence")
    groups = [key.tobytes() for key in containing_keys([*train, *validation])]
    assert not set(groups[: len(train)]) & set(groups[len(train) :])
    share = splits.validation.label_N.mean()
    assert abs(share - splits.train.label_N.mean()) < 0.05
