"""Rounds of asking as the report tells them: what they cost, and why each question was asked."""

from __future__ import annotations

from typing import Any

import pytest

from stillroom.report.asking import rounds

CALLS = (20, 40, 80)


def details(kind: str, priced: bool = True, others: str = "", **asked: Any) -> dict[str, Any]:
    records = [
        {
            "calls": calls, "learned": calls - 2, "audit_accuracy": 0.5 + calls / 200, "ci95": [0.4, 0.9],
            **({"usd": calls / 1000} if priced else {}),
        }
        for calls in CALLS
    ]  # fmt: skip
    beside = [{key: value for key, value in one.items() if key != "usd"} for one in records]
    strategy = {"kind": kind, **({"others": {"kind": others}} if others else {})}
    found = {
        "strategy": strategy, "rounds": records, "compare": {"random": beside}, "pool": 100, "stopped": "all spent",
        "audit": {"rows": [1, 2]},
    }  # fmt: skip
    return {"rounds": found, "asked_last": [{"question": "q", "said": "a", "guessed": "b", **asked}]}


def test_dollars_stand_on_the_axis_and_in_the_table() -> None:
    shown = rounds(details("margin"), "x")
    assert shown is not None
    assert "and what so many cost" in shown["chart"]
    for calls in (20, 40, 60, 80):  # the labels of the axis
        assert f">${calls / 1000:.3f}<" in shown["chart"]
    assert shown["columns"][1] == "US dollars"
    assert [row["cells"][1] for row in shown["rows"][:3]] == ["$0.020", "$0.040", "$0.080"]
    assert {row["cells"][1] for row in shown["rows"][3:]} == {"not measured"}


def test_without_a_price_nothing_is_said_of_dollars() -> None:
    shown = rounds(details("margin", priced=False), "x")
    assert shown is not None
    assert "$" not in shown["chart"]
    assert "cost" not in shown["chart"]
    assert "US dollars" not in shown["columns"]


@pytest.mark.parametrize(
    ("kind", "others", "doubt", "said"),
    [
        ("margin", "", 0.9, "lay 10.0% apart"),
        ("margin_diverse", "", 0.9, "unlike the others"),
        ("entropy", "", 0.6931, "0.69 nats"),
        ("committee", "", 0.25, "disagreed by 0.25 nats"),
        ("diverse", "", 3.5, "3.5 away"),
        ("teacher_written", "margin", 0.9, "lay 10.0% apart"),
        ("teacher_written", "entropy", 0.9, "0.90 nats"),
        ("reword", "random", 0.0, ""),
        ("reword", "margin", None, "wrote it"),
        ("random", "", None, ""),
    ],
)
def test_every_strategy_says_why_it_asked(kind: str, others: str, doubt: float | None, said: str) -> None:
    shown = rounds(details(kind, others=others, **({} if doubt is None else {"doubt": doubt})), "x")
    assert shown is not None
    (one,) = shown["asked"]
    assert said in one["why"]
    assert bool(said) == bool(one["why"])
