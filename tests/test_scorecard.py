"""A real run's scorecard holds every figure that the contract names for classifiers, and the page says whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command_line import recipe, rows_of, write_csv
from stillroom import flow

QUALITY = ["accuracy", "errors", "macro_f1", "worst_class_recall", "mistake_severity", "nll", "ece", "ece_scaled"]
SPEED = ["latency_ms_p50", "latency_ms_p95", "latency_ms_p50_batch32", "rows_per_s", "usd_per_million_rows"]
ALIKE = ["agreement", "kl_to_teacher", "error_agreement"]
PLAIN = ["parameters", "size_bytes"]
SPENT = [
    "teacher_usd", "teacher_calls", "teacher_tokens", "asking_s", "training_s", "training_usd", "saved_usd_per_million_rows",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> flow.Finished:
    """Two seeds, all metrics, a price, groups, and two arms, one of them with a teacher of its own."""
    home = tmp_path_factory.mktemp("whole")
    data = write_csv(home / "data.csv", rows_of(150, classes=("cat", "dog", "car")))
    other = {"kind": "trained", "model": {"kind": "mlp", "hidden": [3]}, "epochs": 1}
    tree = recipe(
        seeds=2,
        questions={"kind": "dataset", "source": str(data)},
        evaluation={"price": {"usd_per_hour": 0.1}, "groups": {"animals": ["cat", "dog"]}},
        arms={"hot": {"objectives": [{"kind": "soft_target", "temperature": 8}]}, "elsewhere": {"teacher": other}},
    )
    return flow.distill(tree, home / "run")


def test_every_figure_of_the_contract_is_there(finished: flow.Finished) -> None:
    card = finished.scorecard
    assert {"schema", "name", "task", "rows", "seeds", "models", "gap_recovered", "differences", "cost"} <= set(card)
    assert (card["schema"], card["task"], card["seeds"]) == (1, "classification", [0, 1])
    assert set(card["rows"]) >= {"train", "labelled", "validation", "test"}
    assert set(card["models"]) == {"teacher", "student", "control", "hard_teacher", "hot", "elsewhere"}
    for name, figures in card["models"].items():
        alike = [] if name == "teacher" else ALIKE
        missing = {*QUALITY, *SPEED, *PLAIN, *alike} - set(figures)
        assert not missing, f"{name} lacks {missing}"
        for key in (*QUALITY, *SPEED, *alike):
            assert {"mean", "per_seed"} <= set(figures[key]), (name, key)
            # One teacher answered once; speed was measured in rounds.
            assert ("ci95" in figures[key]) or (name == "teacher" and key not in SPEED), (name, key)
        assert all(isinstance(figures[key], int) for key in PLAIN)
    pairs = {"student-control", "student-hard_teacher", "student-teacher", "hot-control", "elsewhere-control"}
    assert pairs <= set(card["differences"])
    assert {"mean", "ci95"} <= set(card["differences"]["student-control"]["accuracy"])
    assert set(SPENT) <= set(card["cost"])
    assert {"rows", "bytes", "shared_bytes"} <= set(card["transfer_set"])
    assert {"python", "stillroom", "torch"} <= set(card["versions"])
    assert set(card["gap_recovered"]) in ({"mean", "ci95"}, {"absent"})


def test_nothing_that_was_not_measured_is_0_or_null(finished: flow.Finished) -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict | list):
            return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
        return [value]

    assert None not in leaves(finished.scorecard)


def test_the_page_says_whom_an_arms_agreement_is_with(finished: flow.Finished) -> None:
    page = (finished.path / "report.html").read_text()
    assert "Agreement is with the teacher in this table, for elsewhere too, which has a teacher of its own." in page


def test_where_no_arm_has_a_teacher_of_its_own_nothing_is_said(tmp_path: Path) -> None:
    write_csv(tmp_path / "data.csv", rows_of())
    tree = recipe(
        questions={"kind": "dataset", "source": str(tmp_path / "data.csv")},
        arms={"hot": {"objectives": [{"kind": "soft_target", "temperature": 8}]}},
    )
    assert "Agreement is with" not in (flow.distill(tree, tmp_path / "run").path / "report.html").read_text()
