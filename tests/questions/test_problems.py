"""A data set as problems: gold answers stay text, questions count once, and what is for classes is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import DataError, RecipeError, StillroomError
from stillroom.questions.dataset import Dataset
from stillroom.questions.problems import gold_of, problems

ROWS: list[dict[str, Any]] = [
    {"question": f"What is {n}+1?", "answer": f"One more is\n#### {n + 1}"} for n in range(30)
]


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    return name


def read(folder: Path, given_rows: list[dict[str, Any]], **knobs: Any) -> Any:
    given = {"input": "question", "label": "answer", **knobs}
    return problems(Dataset(source=written(folder, given_rows), **given), [folder])


def test_gold_answers_are_text_and_no_classes(tmp_path: Path) -> None:
    found = read(tmp_path, ROWS, split={"test": 6})
    assert found.classes == []
    assert (len(found.train), len(found.validation), len(found.test)) == (24, 0, 6)
    assert len(found.gold) == 30
    for part in (found.train, found.test):
        for text, key in zip(part.raw["question"], part.key_N, strict=True):
            assert found.gold[key.tobytes()] == str(int(text.split()[2].split("+")[0]) + 1)
    assert set(found.train.raw) == {"question"}  # the answer is nothing that a prompt could show


@pytest.mark.parametrize(
    ("value", "told"),
    [(3.0, "3"), (2.5, "2.5"), ("x\n#### 1,000", "1,000"), (" yes ", "yes"), (None, None), (True, "True")],
)
def test_gold_of_any_type(value: Any, told: str | None) -> None:
    assert gold_of(value) == told


def test_a_question_twice_counts_once(tmp_path: Path) -> None:
    found = read(tmp_path, [*ROWS, ROWS[0]], split={"test": 6})
    assert len(found.train) + len(found.test) == 30
    assert any("stood there twice" in note for note in found.notes)


def test_the_split_depends_on_the_rows_alone(tmp_path: Path) -> None:
    first, second = read(tmp_path, ROWS, split={"test": 6}), read(tmp_path, ROWS[::-1], split={"test": 6})
    assert {bytes(key) for key in first.test.key_N} == {bytes(key) for key in second.test.key_N}


def test_slices_and_rows(tmp_path: Path) -> None:
    rows = [{**row, "kind": "odd" if place % 2 else "even"} for place, row in enumerate(ROWS)]
    found = read(tmp_path, rows, split={"test": 10}, rows={"train": 5}, slice="kind")
    assert len(found.train) == 5
    assert set(np.unique(found.slice_N.astype(str))) == {"odd", "even"}


@pytest.mark.parametrize(
    ("rows", "knobs", "error", "told"),
    [
        ([*ROWS, {"question": "What is 1+1?", "answer": "3"}], {}, DataError, "two gold answers"),
        ([*ROWS, {"question": " ", "answer": "3"}], {}, DataError, "this question is empty"),
        (ROWS, {"labelled": 3}, RecipeError, "these are problems"),
        (ROWS, {"input": ["question", "other"]}, DataError, "other"),
        ([{**row, "answer": None} for row in ROWS], {}, DataError, "no gold answer to be judged by"),
    ],
)
def test_bad_input(tmp_path: Path, rows: Any, knobs: Any, error: type[StillroomError], told: str) -> None:
    with pytest.raises(error, match=told):
        read(tmp_path, rows, split={"test": 6}, **knobs)


def test_arithmetic_is_there_without_a_file(tmp_path: Path) -> None:
    found = problems(Dataset(source="builtin:sums", rows={"train": 50, "test": 30}, slice="length"), [tmp_path])
    assert len(found.train) == 50
    assert found.slice_N is not None
    assert set(found.slice_N.tolist()) == {"same", "longer"}
