"""The bias of soft targets from an API: its signs, and that the page says what the measurement says."""

from __future__ import annotations

import re

import pytest
from benchmarks.estimators import END, PAGE, START, Measured, markdown, table


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Measured]]:
    return table()


def test_the_renormalised_estimate_is_too_sure_and_the_more_so_the_more_is_cut_off(
    measured: dict[str, dict[str, Measured]],
) -> None:
    tails = [measured[name]["renormalised"].tail_bias for name in ("doubtful", "between", "sure")]
    assert tails[0] < tails[1] < tails[2] < 0
    assert all(measured[name]["renormalised"].confidence_bias > 0 for name in measured)


def test_one_bucket_keeps_the_tails_mass_and_rules_nothing_out(measured: dict[str, dict[str, Measured]]) -> None:
    for read in measured.values():
        assert 0 < read["bucket"].tail_bias < 0.05, "tokens that are no label are in the bucket too"
        assert read["bucket"].bias < read["renormalised"].bias
        assert read["bucket"].kl < read["renormalised"].kl


def test_samples_are_unbiased_and_coarse(measured: dict[str, dict[str, Measured]]) -> None:
    for read in measured.values():
        few, many = read["sampled, 5"], read["sampled, 20"]
        assert max(abs(few.confidence_bias), abs(few.tail_bias), abs(many.tail_bias)) < 0.002
        assert few.error > many.error > read["bucket"].error, "at twenty times the calls"
        assert many.bias < few.bias, "what is left is the noise of a mean of finitely many"


def test_the_page_holds_what_was_measured(measured: dict[str, dict[str, Measured]]) -> None:
    number = re.compile(r"[+-]?\d+\.\d+")
    on_page = PAGE.read_text().partition(START)[2].partition(END)[0].strip()
    told = markdown(measured)
    assert number.sub("", on_page) == number.sub("", told)
    figures = [[float(one) for one in number.findall(text)] for text in (on_page, told)]
    assert figures[0] == pytest.approx(figures[1], abs=2e-3), "another library may draw and add a little otherwise"
