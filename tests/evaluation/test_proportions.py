"""Intervals for one share, against scipy and against counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from stillroom.evaluation.proportions import at_most, clopper_pearson, wilson

PAIRS = [(0, 10), (1, 10), (3, 40), (10, 10), (17, 1000), (500, 1000)]


@pytest.mark.parametrize(("right", "rows"), PAIRS)
def test_wilson_is_scipys(right: int, rows: int) -> None:
    expected = binomtest(right, rows).proportion_ci(method="wilson")
    assert wilson(right, rows) == pytest.approx([expected.low, expected.high], abs=1e-9)


@pytest.mark.parametrize("doubt", [0.05, 0.2])
@pytest.mark.parametrize(("wrong", "rows"), PAIRS)
def test_clopper_pearson_is_scipys(wrong: int, rows: int, doubt: float) -> None:
    expected = 1.0 if wrong == rows else beta.ppf(1 - doubt, wrong + 1, rows - wrong)
    assert clopper_pearson(wrong, rows, doubt) == pytest.approx(expected, abs=1e-9)


def test_the_chance_of_a_count() -> None:
    assert at_most(3, 20, 0.2) == pytest.approx(sum(math.comb(20, k) * 0.2**k * 0.8 ** (20 - k) for k in range(4)))
    assert (at_most(3, 20, 0.0), at_most(3, 20, 1.0), at_most(20, 20, 1.0)) == (1, 0, 1)
    assert at_most(40, 5000, 0.01) == pytest.approx(binom.cdf(40, 5000, 0.01), rel=1e-9)


def test_clopper_pearson_holds_as_often_as_it_says() -> None:
    wrong_D = np.random.default_rng(0).binomial(200, 0.04, 2000)
    held = np.mean([clopper_pearson(int(wrong), 200, 0.1) >= 0.04 for wrong in wrong_D])
    assert held >= 0.9 - 0.02
