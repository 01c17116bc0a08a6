"""Verifiers against answers whose truth is known: the field's failures, and what the readers must and must not read."""

from __future__ import annotations

import csv
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from stillroom.kinds import Verifier, find, parse
from stillroom.rows import Verdict
from stillroom.transfer_set.answer_text import balanced, is_words, plain, same_text
from stillroom.transfer_set.plain_numbers import read_number
from stillroom.transfer_set.verify import Exact, Numeric, bad_golds

CASES = Path(__file__).resolve().parents[1] / "fixtures" / "verifier_cases.tsv"
Line = dict[str, str]


def lines(*kinds: str) -> list[Line]:
    with open(CASES, newline="") as file:
        return [line for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if line["kind"] in kinds]


def verdicts(verifier: Verifier, cases: list[Line]) -> list[tuple[Line, Verdict]]:
    return [(line, verifier.verify(line["answer"], line["gold"])) for line in cases]


def check(found: list[tuple[Line, Verdict]]) -> None:
    """No wrong answer and no open question is accepted, no right one is called wrong, and 97 % of those are accepted."""
    bad = [
        f"{line['expect']} is {verdict.outcome}: gold {line['gold']!r}, answer {line['answer']!r}: {verdict.reason}"
        for line, verdict in found
        if (verdict.accepted and line["expect"] != "accepted")
        or (verdict.outcome == "rejected" and line["expect"] == "accepted")
    ]
    assert not bad, "\n" + "\n".join(bad)
    counts = Counter((line["expect"], verdict.outcome) for line, verdict in found)
    right = sum(count for (truth, _), count in counts.items() if truth == "accepted")
    wrong = sum(count for (truth, _), count in counts.items() if truth == "rejected")
    assert counts["accepted", "accepted"] >= 0.97 * right
    assert counts["rejected", "rejected"] >= 0.9 * wrong
    assert all(verdict.reason for _, verdict in found)


def test_there_are_cases_enough_and_each_is_there_once() -> None:
    every = lines("exact", "numeric", "math")
    assert len(every) >= 300
    assert len({(line["kind"], line["gold"], line["answer"]) for line in every}) == len(every)
    assert {line["expect"] for line in every} == {"accepted", "rejected", "unsure"}


def test_numbers() -> None:
    check(verdicts(Numeric(), lines("numeric")))


def test_texts() -> None:
    check(verdicts(Exact(), lines("exact")))


def test_mathematics_and_numbers_by_it() -> None:
    check(verdicts(parse("verifier", {"kind": "math", "cpu_s": 1}), lines("numeric", "math")))


def test_without_a_gold_answer_nothing_is_judged() -> None:
    for kind in ("exact", "numeric", "math"):
        verifier = parse("verifier", {"kind": kind})
        assert verifier.needs_gold
        assert verifier.verify("5", None) == Verdict("unsure", "there is no gold answer")
        assert verifier.verify("", "5").outcome == "unsure"
        assert [one.outcome for one in verifier.judge(["5", None, "6"], "5")] == ["accepted", "unsure", "rejected"]


def test_exact_minds_capitals_where_asked() -> None:
    assert Exact().verify("PARIS", "Paris").accepted
    assert Exact(case=True).verify("PARIS", "Paris").outcome == "rejected"


def test_the_tolerance_is_a_share_of_the_gold_answer() -> None:
    assert Numeric().verify("99.6", "100").outcome == "rejected"
    assert Numeric(tolerance=0.01).verify("99.6", "100").accepted
    assert Numeric(tolerance=0.01).verify("98", "100").outcome == "rejected"
    assert Numeric(tolerance=0.01).verify("0.001", "0").outcome == "rejected", "nothing is within a share of 0"


def test_so_many_digits_make_a_rounded_number_the_number() -> None:
    assert Numeric().verify("0.667", "2/3") == Verdict("unsure", "the same number only to 3 digits")
    assert Numeric(digits=3).verify("0.667", "2/3").accepted
    assert Numeric(digits=3).verify("0.666", "2/3").outcome == "rejected"
    assert Numeric(digits=0).verify("0.6666667", "2/3").outcome == "unsure"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.50", Fraction(2469, 2)),
        ("1.234,5", Fraction(2469, 2)),
        ("-1½", Fraction(-3, 2)),
        ("2.5 \\times 10^{-3}", Fraction(1, 400)),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("two hundred and five", Fraction(205)),
        ("$10 - $3 = $7", Fraction(7)),
    ],
)
def test_reading_a_number(text: str, value: Fraction) -> None:
    found = read_number(text)
    assert found is not None
    assert found.scaled == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "x",
        "5x",
        "5!",
        "5^2",
        "2^{10}",
        "5^5^5^5^5",
        "5 squared",
        "2 thirds",
        "5:30",
        "1/0",
        "1,5",
        "3, 4",
        "5 or 6",
    ]
    + ["x = 5 or x = 6", "2x + 3y = 0", "7 = 8", "1e99999", "9" * 5000, "\\sqrt{2}", "at least 5", "not 5", "(5, 6)"],
)
def test_what_is_no_number(text: str) -> None:
    assert read_number(text) is None


def test_a_very_long_number_costs_no_time() -> None:
    assert Numeric().verify("9" * 100_000, "9").outcome == "unsure"
    assert Numeric().verify("9" * 300, "9" * 300).accepted
    assert Numeric().verify("1e300", "1e301").outcome == "rejected"


def test_typography_goes_and_meaning_stays() -> None:
    assert plain("**Answer − 5**.") == "Answer - 5"
    assert plain("x² ≤ π") == "x^{2} \\le \\pi"
    assert plain("a**3+4*a**2") == "a**3+4*a**2"
    assert plain("\\begin{pmatrix}1 \\\\ 2\\end{pmatrix}") == "\\begin{pmatrix}1 \\\\ 2\\end{pmatrix}"
    assert same_text("( B )", "b")
    assert not same_text("n!", "n")
    assert not same_text("f'", "f")
    assert not same_text("", "")


def test_braces_and_words() -> None:
    assert balanced("\\frac{1}{2} \\{1, 2\\} [1, 2)")
    assert not balanced("\\frac{1}{")
    assert not balanced("}{")
    assert is_words("no solution")
    assert not any(is_words(text) for text in ("x", "x + y", "ab", "5 apples", "infinity", ""))


def test_bad_golds_are_told_with_their_rows() -> None:
    found = bad_golds(Numeric(), ["5", "", "1/2", "a few", "3 or 4"])
    assert [one.row for one in found] == [1, 3, 4]
    assert all(one.reason for one in found)
    assert [one.row for one in bad_golds(Numeric(), ["a few", None, "5", "a few"])] == [0, 1, 3]
    assert [one.row for one in bad_golds(parse("verifier", {"kind": "majority"}), ["a few", None, "5"])] == [0]
    maths = parse("verifier", {"kind": "math"})
    golds = ["5", "\\frac{1}{", "x+1", "0/0", "Monday", "", "(1,2)", "x" * 5000, "1, 2, \\ldots"]
    assert [one.row for one in bad_golds(maths, golds)] == [1, 3, 5, 7, 8]


def test_majority_without_gold_answers() -> None:
    majority = parse("verifier", {"kind": "majority"})
    assert not find("verifier", "majority").needs_gold
    told = majority.judge(["5", "5.0", "6", None, "five"], None)
    assert [one.outcome for one in told] == ["accepted", "accepted", "rejected", "unsure", "accepted"]
    assert told[0].reason == "3 of 5 say '5'"
    assert {one.outcome for one in majority.judge(["5", "5", "6", "6"], None)} == {"unsure"}, "a tie is no majority"
    assert {one.outcome for one in majority.judge(["5", None, "gibberish", "5"], None)} == {"unsure"}, (
        "half is no majority"
    )
    assert {one.outcome for one in majority.judge(["5"], None)} == {"unsure"}
    assert majority.judge([], None) == []
    assert majority.verify("5", None).outcome == "unsure"
    assert [one.outcome for one in majority.judge(["5", "6", "6"], "5")] == ["accepted", "rejected", "rejected"]
    lower = parse("verifier", {"kind": "majority", "share": 0.3, "same": {"kind": "exact"}})
    assert [one.outcome for one in lower.judge(["a", "A", "b", "c", "d"], None)] == ["accepted"] * 2 + ["rejected"] * 3
