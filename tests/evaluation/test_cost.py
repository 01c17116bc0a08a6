"""The arithmetic of cost, worked by hand, and what is absent where something is unknown."""

from __future__ import annotations

import json

import pytest

from stillroom.evaluation.cost import Spent, cost, usd, usd_per_million_rows


def test_a_million_rows_cost_their_hours() -> None:
    assert usd(1800, 0.1) == pytest.approx(0.05)
    speed = {"mean": 1000.0, "ci95": [500.0, 2000.0], "per_seed": [900.0, 1100.0]}
    figure = usd_per_million_rows(speed, 3.6)
    # 1,000 rows a second are 1,000 seconds for a million, at 0.001 USD each.
    assert figure["mean"] == pytest.approx(1.0)
    assert figure["ci95"] == pytest.approx([0.5, 2.0])
    assert figure["per_seed"] == pytest.approx([1 / 0.9, 1 / 1.1])
    assert list(usd_per_million_rows({"mean": 10.0, "per_seed": [10.0]}, 1.0)) == ["mean", "per_seed"]


def test_a_student_has_paid_when_its_savings_reach_what_it_took() -> None:
    spent = Spent(asking_s=3600, training_s=7200, needed_training_s=1800, teacher_calls=500, teacher_tokens=9)
    found = cost(spent, usd_per_hour=2.0, teacher_usd_per_million_rows=5.0, student_usd_per_million_rows=1.0)
    assert found == {
        "teacher_usd": pytest.approx(2.0),
        "teacher_calls": 500,
        "teacher_tokens": 9,
        "asking_s": 3600,
        "training_s": 7200,
        "training_usd": pytest.approx(4.0),
        "saved_usd_per_million_rows": pytest.approx(4.0),
        "break_even_rows": 750_000,
    }
    saved = found["saved_usd_per_million_rows"] * found["break_even_rows"] / 1e6
    assert saved == pytest.approx(found["teacher_usd"] + 1.0)
    json.dumps(found, allow_nan=False)
    whole = cost(
        Spent(asking_s=3600, training_s=7200),
        usd_per_hour=2.0,
        teacher_usd_per_million_rows=5.0,
        student_usd_per_million_rows=1.0,
    )
    assert whole["break_even_rows"] == 1_500_000


def test_a_bill_counts_instead_of_the_time_of_asking() -> None:
    assert cost(Spent(asking_s=3600, teacher_bill_usd=7.5), usd_per_hour=2.0)["teacher_usd"] == 7.5
    assert cost(Spent(teacher_bill_usd=0.0))["teacher_usd"] == 0.0


def test_nothing_saved_never_breaks_even() -> None:
    spent = Spent(asking_s=1, training_s=1)
    for teacher, student in ((1.0, 1.0), (1.0, 2.0)):
        found = cost(
            spent, usd_per_hour=1.0, teacher_usd_per_million_rows=teacher, student_usd_per_million_rows=student
        )
        assert found["saved_usd_per_million_rows"] == teacher - student
        assert "break_even_rows" not in found


def test_what_is_unknown_is_absent() -> None:
    assert cost(Spent()) == {}
    assert cost(Spent(asking_s=2.0, training_s=3.0)) == {"asking_s": 2.0, "training_s": 3.0}
    found = cost(Spent(asking_s=2.0), usd_per_hour=1.0, teacher_usd_per_million_rows=1.0)
    assert set(found) == {"asking_s", "teacher_usd"}
