"""The bench of verifiers: what it calls wrong is wrong, what it calls right is right, and it counts both."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from random import Random

from benchmarks.reasoning_golds import FAMILIES, made_golds
from benchmarks.reasoning_verifiers import (
    SPOILED,
    TRUTHS,
    Case,
    judged,
    line_of,
    measure,
    of_gsm8k,
    spoiled_number,
    upper_bound,
    worn,
    written,
)

from stillroom.transfer_set.plain_numbers import read_number


def test_a_spoiled_number_is_another_number() -> None:
    dice = Random(0)
    for _ in range(2000):
        number = dice.choice([0, 1, -1, dice.randint(-(10**6), 10**6)])
        for how in SPOILED:
            assert spoiled_number(number, how, dice) != number


def test_a_worn_number_is_the_same_number() -> None:
    dice = Random(0)
    for _ in range(2000):
        number = dice.randint(-(10**6), 10**6)
        found = read_number(worn(number, dice))
        assert found is not None
        assert found.scaled == Fraction(number)


def test_gold_answers_of_a_file_give_two_wrong_ones_and_a_right_one_each(tmp_path: Path) -> None:
    lines = [{"question": "?", "answer": f"so\n#### {gold}"} for gold in ("18", "1,234", "-7", "0")]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    cases = of_gsm8k(tmp_path, 10)
    assert [case.truth for case in cases].count("rejected") >= 7
    assert {case.gold for case in cases} == {"18", "1,234", "-7", "0"}
    for case in cases:
        said, gold = read_number(case.answer), read_number(case.gold)
        assert said is not None
        assert gold is not None
        assert (said.scaled == gold.scaled) == (case.truth == "accepted"), case


def test_made_golds_are_many_kinds_and_no_wrong_answer_is_the_gold_or_the_right_one() -> None:
    golds = list(made_golds(300, seed=3))
    assert len({gold.family for gold in golds}) == len(FAMILIES)
    for gold in golds:
        assert gold.wrong
        assert gold.text not in gold.wrong.values()
        assert gold.right not in gold.wrong.values()
    assert golds == list(made_golds(300, seed=3))


def test_the_figure_and_its_table() -> None:
    found = judged(
        [Case("s", "rejected", "5", "6", ""), Case("s", "accepted", "5", "five", ""), Case("s", "unsure", "5", "", "")]
    )
    assert [outcome for _, outcome, _ in found] == list(("rejected", "accepted", "unsure"))
    assert line_of("ours", "s", found)[:4] == ["ours", "s", 1, 0]
    row = measure(None, made=20, every=20)
    bar = row.bars["verifier-false-accepts"]
    assert bar.value == 0
    assert {case.truth for case in written()} == set(TRUTHS)
    assert [line[0] for line in row.tables["verifiers"].rows] == ["ours", "math-verify alone"] * 2


def test_the_bound_of_a_rate() -> None:
    assert upper_bound(0, 1000) < 0.003
    assert upper_bound(3, 1000) > 0.003
    assert upper_bound(5, 5) == 1
