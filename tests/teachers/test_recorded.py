"""Recorded log-probabilities of classes: a column each, or the few most probable labels of a row."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stillroom
from command_line import recipe, rows_of, write_csv
from stillroom.errors import DataError, StillroomError
from stillroom.teachers.probabilities import LEAST_LOG_PROBABILITY, log_of_top

CLASSES = ["good", "bad", "so-so"]


def shares(said: Any, classes: list[Any] | None = None) -> list[float]:
    found: list[float] = np.exp(log_of_top([said], classes or CLASSES, "said"))[0].tolist()
    return found


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"good": math.log(0.7), "bad": math.log(0.2), "so-so": math.log(0.1)}, [0.7, 0.2, 0.1]),
        # What is missing is shared by the classes that are not listed.
        ({"good": math.log(0.7)}, [0.7, 0.15, 0.15]),
        ({"good": math.log(0.7), "bad": math.log(0.2)}, [0.7, 0.2, 0.1]),
        # Where every class is listed there is nobody to share it.
        ({"good": math.log(0.6), "bad": math.log(0.15), "so-so": math.log(0.15)}, [2 / 3, 1 / 6, 1 / 6]),
        # Spellings of one class add up; what names no class is left out.
        ({" good": math.log(0.4), "good": math.log(0.3), "the": math.log(0.2)}, [0.7 / 0.8, 0.05 / 0.8, 0.05 / 0.8]),
        # As the API gives it, as JSON in a cell, as pairs, and with gaps.
        ([{"token": "bad", "logprob": math.log(0.5), "bytes": None}], [0.25, 0.5, 0.25]),
        (json.dumps({"bad": math.log(0.5)}), [0.25, 0.5, 0.25]),
        ([("bad", math.log(0.5))], [0.25, 0.5, 0.25]),
        ({"good": None, "bad": math.log(0.5)}, [0.25, 0.5, 0.25]),
        ({"bad": 0.0}, [0.0, 1.0, 0.0]),
    ],
)
def test_the_most_probable_labels(said: Any, wanted: list[float]) -> None:
    assert shares(said) == pytest.approx(wanted, abs=1e-9)


def test_classes_that_are_numbers() -> None:
    assert shares({"1": math.log(0.75)}, [0, 1]) == pytest.approx([0.25, 0.75])
    assert log_of_top([{"1": 0.0}], [0, 1], "said")[0, 0] == LEAST_LOG_PROBABILITY


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"good": 0.7}, "0.7 is no log-probability"),
        ({"good": -0.1, "bad": -0.1}, "these probabilities add up to 1.81"),
        ({"the": -0.1}, "none of 'the' is one of the classes"),
        ({}, "is one of the classes"),
        ("good", "these are no labels with log-probabilities"),
        (None, "these are no labels with log-probabilities"),
        ({"good": float("nan")}, "nan is no log-probability"),
        ([{"token": "good"}], "these are no labels with log-probabilities"),
    ],
)
def test_what_is_no_list_of_labels(said: Any, told: str) -> None:
    with pytest.raises(DataError) as error:
        log_of_top([said], CLASSES, "a.jsonl, column said")
    assert told in str(error.value)
    assert "a.jsonl, column said, row 1" in str(error.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_run_on_top_log_probabilities(form: str, here: Path) -> None:
    rows = rows_of(90)
    write_csv(here / "data.csv", rows)
    said = [
        {**{name: row[name] for name in ("length", "weight", "colour")}, "top_logprobs": {row["label"]: math.log(0.9)}}
        for row in rows
    ]
    if form == "jsonl":
        (here / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(said), here / "said.parquet")
    run = stillroom.distill(recipe(teacher={"kind": "recorded", "source": f"said.{form}"}), here / "run")
    teacher = run.scorecard["models"]["teacher"]
    assert teacher["accuracy"]["mean"] == 1
    assert teacher["nll"]["mean"] == pytest.approx(-math.log(0.9), abs=1e-3)
    assert "kl_to_teacher" in run.scorecard["models"]["student"]


def test_log_probability_columns(here: Path) -> None:
    rows = rows_of(90)
    write_csv(here / "data.csv", rows)
    logs = {"ham": math.log(0.8), "spam": math.log(0.2)}
    said = [
        {**{name: row[name] for name in ("length", "weight", "colour")}, "h": logs["ham"], "s": logs["spam"]}
        for row in rows
    ]
    write_csv(here / "said.csv", said)
    teacher = {"kind": "recorded", "source": "said.csv", "log_probabilities": {"ham": "h", "spam": "s"}}
    run = stillroom.distill(recipe(teacher=teacher), here / "run")
    share = rows_share(rows)
    expected = -(share * logs["ham"] + (1 - share) * logs["spam"])
    # The test rows are stratified, as all of them are.
    assert run.scorecard["models"]["teacher"]["nll"]["mean"] == pytest.approx(expected, abs=0.02)
    assert run.scorecard["models"]["teacher"]["ece"]["mean"] == pytest.approx(abs(0.8 - share), abs=0.02)


def rows_share(rows: list[dict[str, Any]]) -> float:
    """Of ham."""
    return sum(row["label"] == "ham" for row in rows) / len(rows)


def test_a_column_that_is_not_there(here: Path) -> None:
    write_csv(here / "data.csv", rows_of(90))
    teacher = {"kind": "recorded", "source": "data.csv", "top_log_probabilities": "top"}
    with pytest.raises(StillroomError, match="there is no column 'top'"):
        stillroom.distill(recipe(teacher=teacher), here / "run")


def test_one_misspelt_class_column_is_named_and_not_passed_over(tmp_path: Path) -> None:
    write_csv(tmp_path / "data.csv", rows_of(classes=("ham", "spam", "egg")))
    rows = [
        {**row, "p_ham": 0.2, "p_spam": 0.3, "p_eggs": 0.5, "answer": "egg"}
        for row in rows_of(classes=("ham", "spam", "egg"))
    ]
    write_csv(tmp_path / "said.csv", [{key: row[key] for key in row if key != "label"} for row in rows])
    tree = recipe(teacher={"kind": "recorded", "source": "said.csv"})
    with pytest.raises(DataError, match=r"there is no column 'p_egg'.*Did you mean 'p_eggs'"):
        stillroom.distill(tree, tmp_path / "run", folder=tmp_path)
