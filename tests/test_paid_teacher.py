"""A teacher that is paid by the call, from recipe to report, over HTTP on this machine: what is refused, charged, told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillroom import distill
from stillroom.errors import BudgetReached, ModelError, RecipeError, RunError
from stillroom.flow import plan
from stillroom.loopback.serving import Loopback
from stillroom.progress import Done, Silent
from stillroom.recipe import Recipe
from stillroom.stages import pricing

pytest.importorskip("openai")
ROWS = 90


def write_rows(folder: Path) -> None:
    lines = [
        f"{'a fine one' if row % 3 else 'a bad one'} of number {row},{'good' if row % 3 else 'bad'}"
        for row in range(ROWS)
    ]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))


@pytest.fixture
def teacher(tmp_path: Path) -> Iterator[Loopback]:
    write_rows(tmp_path)
    mind = {"kind": "rule", "source": "rows.csv", "question": "Text: (.*)", "error_rate": 0.0, "refuse": 0.2}
    found = Loopback({"mind": mind, "price": {"input": 1.0, "output": 2.0}}, tmp_path)
    with found:
        yield found


def recipe(teacher: Loopback | str, **sections: Any) -> dict[str, Any]:
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
            "base_url": teacher if isinstance(teacher, str) else teacher.url,
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
    # It says classes alone: nobody knows how sure it is, and how probable it finds the others.
    assert "How unsure the soft targets are" not in page
    assert "the teacher hesitates" not in page
    assert "the student hesitates" in page
    assert "teacher" not in json.loads((tmp_path / "run" / "evaluation" / "details.json").read_text())["reliability"]

    distill(tree, tmp_path / "run", folder=tmp_path)
    assert teacher.bill()["calls"] == ROWS, "nothing is paid for twice"


class Counting(Silent):
    """How many answers each piece of asking was told of, and of how many before it began."""

    def __init__(self) -> None:
        self.told: list[list[int]] = []
        self.before = 0
        self.totals: list[int] = []

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[Done]:
        self.totals.append(total)
        self.told.append([])

        def done(more: int, before: bool = False) -> None:
            if before:
                self.before += more
            else:
                self.told[-1].append(more)

        yield done


@pytest.mark.parametrize("samples", [1, 3])
def test_progress_is_told_of_each_call_and_not_of_a_shard_of_thousands(
    samples: int, teacher: Loopback, tmp_path: Path
) -> None:
    tree = recipe(teacher)
    tree["teacher"] |= {"samples": samples, "temperature": 1.0}
    first, again = Counting(), Counting()
    distill(tree, tmp_path / "run", folder=tmp_path, until="ask", show=first)
    assert first.totals == [samples * ROWS]
    assert first.told == [[1] * samples * ROWS]
    shutil.rmtree(next((tmp_path / "run" / "transfer_set").glob("*/teacher.json")).parent)
    distill(tree, tmp_path / "run", folder=tmp_path, until="ask", show=again)
    assert sum(again.told[0]) == samples * ROWS
    assert len(again.told[0]) < 5, "what the ledger holds already is told of at once"


def test_terms_that_somebody_accepted_go_into_the_transfer_set(teacher: Loopback, tmp_path: Path) -> None:
    accepted = {"who": "My firm", "when": "2026-01-31", "url": "https://example.org/terms", "version": "7"}
    tree = recipe(teacher, accept_terms=accepted)
    tree["teacher"] |= {"licence": "CC-BY-NC-4.0"}
    distill(tree, tmp_path / "run", folder=tmp_path, until="ask")
    (header,) = (tmp_path / "run" / "transfer_set").glob("*/teacher.json")
    assert json.loads(header.read_text())["licences"] == {
        "teacher": "CC-BY-NC-4.0",
        "terms of the teacher": "a licence for non-commercial use, https://creativecommons.org/licenses/by-nc/4.0/",
        "terms accepted": "https://example.org/terms, version 7, by My firm on 2026-01-31",
    }


NO_TORCH = """
import json, sys
sys.modules["torch"] = None
from stillroom import distill
distill(json.load(sys.stdin), "run", until="ask")
print("pandas" in sys.modules)  # pyarrow would look for it, and take a third of a second
"""


def test_the_first_request_waits_for_neither_torch_nor_pandas(teacher: Loopback, tmp_path: Path) -> None:
    asking = subprocess.run(
        [sys.executable, "-c", NO_TORCH], input=json.dumps(recipe(teacher)), text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, timeout=60,
    )  # fmt: skip
    assert asking.returncode == 0, asking.stderr
    assert asking.stdout == "False\n"
    assert teacher.bill()["calls"] == ROWS


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
    for name, digits in (("tokens", 0), ("usd", 4)):
        low, middle, high = (round(value, digits) for value in guessed["teacher"][name])
        assert (low, middle, high) == pytest.approx(_ends(guessed["figures"][f"teacher {name}"]), abs=10**-digits)
        assert 0 < middle < high
    assert guessed["teacher"]["calls"] == [ROWS] * 3
    assert teacher.bill()["calls"] == 0
    piloted = plan(loaded, tmp_path, pilot=10)
    assert piloted["figures"]["teacher calls"] == ROWS - 10
    assert teacher.bill()["calls"] == 10
    before, (low, middle, high) = teacher.bill()["usd"], _ends(piloted["figures"]["teacher usd"])
    assert low <= middle <= high
    distill(recipe(teacher), tmp_path / "runs" / "paid", folder=tmp_path)
    assert teacher.bill()["calls"] == ROWS, "the pilot's answers were bought for good"
    assert 0.8 * low <= teacher.bill()["usd"] - before <= 1.2 * high


@pytest.mark.parametrize(
    ("error_rate", "epochs", "control", "no_better"),
    [
        (0.4, 30, 12, True),  # a poor teacher of what the labels alone teach well
        (0.0, 1, 7, False),  # after one epoch the control says the most frequent label
    ],
)
def test_a_pilot_compares_the_teacher_with_the_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_rate: float, epochs: int, control: int, no_better: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path)
    training = {"epochs": epochs, "batch_size": 8, "learning_rate": 0.01}
    mind = {"kind": "rule", "source": "rows.csv", "question": "Text: (.*)", "error_rate": error_rate}
    with Loopback({"mind": mind, "price": {"input": 1.0, "output": 2.0}}, tmp_path) as url:
        loaded = Recipe.from_tree(recipe(url, training=training))
        told = " ".join(plan(loaded, tmp_path, pilot=12)["notes"])
        assert f"trained on 55 labels alone, got {control} of 12 held-out ones right, the teacher " in told
        assert ("The teacher is no better than the control, which on so few rows may be chance" in told) == no_better
        monkeypatch.setattr(pricing, "CONTROL_S", 0.0)
        told = " ".join(plan(loaded, tmp_path, pilot=12)["notes"])
        assert "was not compared with the control" in told
        assert "trained on 55 labels" not in told


def _ends(told: str) -> tuple[float, float, float]:
    """`middle (low to high)` as low, middle, high."""
    middle, _, rest = told.replace(",", "").partition(" (")
    low, _, high = rest.rstrip(")").partition(" to ")
    return float(low), float(middle), float(high)


def test_an_error_after_calls_were_paid_for_does_not_say_that_nothing_was_spent(tmp_path: Path) -> None:
    write_rows(tmp_path)
    mind = {"kind": "rule", "source": "rows.csv", "question": "Text: (.*)", "error_rate": 0.0}
    for faults, kind, paid in (({"other_model": 1.0}, RunError, True), ({"redirect": 1.0}, ModelError, False)):
        with Loopback({"mind": mind, "faults": faults}, tmp_path) as url:
            with pytest.raises(kind) as caught:
                distill(recipe(url), tmp_path / kind.__name__, folder=tmp_path)
            assert caught.value.exit_status == (1 if paid else 2)
            assert caught.value.cure.startswith("Set teacher.")


def test_a_run_with_no_answer_says_for_what_reason(tmp_path: Path) -> None:
    lines = [f"a text of number {row},{'good' if row % 3 else 'bad'}" for row in range(15)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]))
    mind = {"kind": "rule", "source": "rows.csv", "question": "Text: (.*)", "error_rate": 0.0}
    with Loopback({"mind": mind, "context": 10}, tmp_path) as url:
        tree = recipe(url) | {"questions": {"kind": "dataset", "source": "rows.csv", "input": "text"}}
        with pytest.raises(ModelError, match=r"none of the \d+ training rows as asked: over the context 15 "):
            distill(tree, tmp_path / "run", folder=tmp_path)


@pytest.mark.parametrize(
    ("knobs", "sections", "where"),
    [
        ({"price": None}, {"budget": {"usd": 1}}, "teacher.1.price"),
        ({"prompt": "Words: {words}"}, {}, "teacher.1.prompt"),
        ({"labels": {"good": "", "poor": ""}}, {}, "teacher.1.labels"),
    ],
)
def test_what_is_wrong_with_an_ensembles_member_names_it(
    teacher: Loopback, tmp_path: Path, knobs: dict[str, Any], sections: dict[str, Any], where: str
) -> None:
    tree = recipe(teacher, **sections)
    members = [tree["teacher"], {**tree["teacher"], "model": "another", **knobs}]
    tree["teacher"] = {"kind": "ensemble", "members": members}
    with pytest.raises(RecipeError) as caught:
        distill(tree, tmp_path / "run", folder=tmp_path)
    assert caught.value.where == where
    assert teacher.bill()["calls"] == 0


def test_a_pilot_is_for_paid_teachers_alone(teacher: Loopback, tmp_path: Path) -> None:
    tree = recipe(teacher) | {"teacher": {"kind": "trained", "model": {"kind": "mlp", "hidden": [4]}}}
    with pytest.raises(RecipeError, match="paid by the call"):
        plan(Recipe.from_tree(tree), tmp_path, pilot=10)
