"""Rounds of asking as the report tells them: what they cost, and why each question was asked."""

from __future__ import annotations

from typing import Any

import pytest

from stillroom.report.asking import cascade, rounds, spent

CALLS = (20, 40, 80)


def details(kind: str, priced: bool = True, others: str = "", **asked: Any) -> dict[str, Any]:
    records = [
        {
            "calls": calls, "learned": calls - 2, "audit_answered": calls // 10,
            "audit_accuracy": 0.5 + calls / 200, "ci95": [0.4, 0.9],
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
    assert {row["cells"][1] for row in shown["rows"][3:]} == {"shared"}
    assert shown["shared"]


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


def test_a_rounds_accuracy_says_on_how_many_rows() -> None:
    shown = rounds(details("margin"), "x")
    assert shown is not None
    assert [row["cells"][-1] for row in shown["rows"][:3]] == [
        "60.0% of 2 (40.0% to 90.0%)", "70.0% of 4 (40.0% to 90.0%)", "90.0% of 8 (40.0% to 90.0%)",
    ]  # fmt: skip


def test_what_calls_were_for_stands_in_the_order_of_asking() -> None:
    names = ["audit", "round 1", "round 10", "round 2", "round 2, random", "score", "start"]
    purposes = {name: {"calls": 1, "tokens": 9, "usd": 0.1} for name in names}
    shown = spent({"asking": {"calls": 7, "tokens": 63, "usd": 0.7, "purposes": purposes}})
    assert shown is not None
    assert [row["name"] for row in shown["rows"]] == [
        "the audit slice: random questions that judge the rounds", "the first questions, drawn at random", "round 1",
        "round 2", "round 2, chosen by random for comparison", "round 10", "held-out rows, to see how good it is", "in all",
    ]  # fmt: skip


def test_a_cascade_says_what_the_student_answers_and_how_often_it_differs() -> None:
    figures = {name: {"mean": mean, "ci95": [mean - 0.01, mean + 0.01]} for name, mean in
               (("coverage", 0.94), ("risk", 0.057), ("accuracy", 0.975), ("accuracy_lost", -0.02))}  # fmt: skip
    shown = cascade({"cascade": {"risk_allowed": 0.05, "held_out_rows": 402, **figures}})
    assert shown is not None
    assert (shown["allowed"], shown["risk"], shown["held_out"]) == ("5.0%", "5.7%", "402")
    assert [row["cells"][0] for row in shown["rows"]] == [
        "94.0% (93.0 to 95.0%)", "5.7% (4.7 to 6.7%)", "97.5% (96.5 to 98.5%)", "−2.0 (−3.0 to −1.0)",
    ]  # fmt: skip
    assert cascade({}) is None
