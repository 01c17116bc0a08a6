"""The bootstrap covers the truth, pairs what is shared and repeats itself; the gap is given only where it is real."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binomtest

from stillroom.evaluation.intervals import bootstrap, gap_recovered, interval, mcnemar
from stillroom.evaluation.metrics import Tally, Truth, at_temperature
from stillroom.rows import Array


def simulated(generator: np.random.Generator, rows: int, seeds: int, accuracy: float) -> tuple[Truth, list[Tally]]:
    label_N = generator.integers(0, 3, rows)
    truth, tallies = Truth.of(label_N, 3), []
    for _ in range(seeds):
        wrong_N = generator.random(rows) >= accuracy
        logits_NC = generator.normal(size=(rows, 3)) * 0.1
        logits_NC[np.arange(rows), (label_N + wrong_N) % 3] += 3
        tallies.append(Tally.of(at_temperature(logits_NC, 1.0), truth))
    return truth, tallies


@pytest.mark.parametrize("seeds", [1, 4])
def test_an_interval_covers_the_truth_about_as_often_as_it_says(seeds: int) -> None:
    covered = 0
    for case in range(200):
        truth, tallies = simulated(np.random.default_rng([case, seeds]), 150, seeds, 0.8)
        accuracy_B = bootstrap({"student": tallies}, truth, draws=300, seed=case)["student"]["accuracy"]
        ends = interval(accuracy_B)
        assert ends is not None
        covered += ends[0] <= 0.8 <= ends[1]
    # Errors of a row are independent between these seeds, which is where the two-way bootstrap is widest.
    assert (180 if seeds == 1 else 190) <= covered <= 200


def test_a_difference_of_models_that_share_hard_rows_is_narrow_and_covers() -> None:
    covered, widths = 0, []
    for case in range(100):
        generator = np.random.default_rng([7, case])
        label_N, hard_N = generator.integers(0, 3, 300), generator.random(300) < 0.3
        truth, tallies = Truth.of(label_N, 3), {}
        for name, extra in (("student", 0.0), ("control", 0.05)):
            wrong_N = hard_N | (generator.random(300) < extra)
            logits_NC = np.zeros((300, 3))
            logits_NC[np.arange(300), (label_N + wrong_N) % 3] = 2
            tallies[name] = [Tally.of(at_temperature(logits_NC, 1.0), truth)]
        drawn = bootstrap(tallies, truth, draws=300, seed=case)
        apart = interval(drawn["student"]["accuracy"] - drawn["control"]["accuracy"])
        alone = interval(drawn["student"]["accuracy"])
        assert apart is not None
        assert alone is not None
        covered += apart[0] <= 0.05 * 0.7 <= apart[1]
        widths.append((apart[1] - apart[0]) / (alone[1] - alone[0]))
    assert covered >= 85
    assert np.mean(widths) < 0.6


def test_draws_match_a_naive_resampling_of_rows_and_seeds() -> None:
    truth, tallies = simulated(np.random.default_rng(5), 120, 3, 0.7)
    accuracy_B = bootstrap({"student": tallies}, truth, draws=4000)["student"]["accuracy"]
    wrong_SN = np.zeros((3, 120))
    for seed, tally in enumerate(tallies):
        wrong_SN[seed, tally.missed.row_E] = 1
    generator = np.random.default_rng(6)
    naive = []
    for _ in range(4000):
        rows, seeds = generator.integers(0, 120, 120), generator.integers(0, 3, 3)
        naive.append(1 - wrong_SN[np.ix_(seeds, rows)].mean())
    assert accuracy_B.mean() == pytest.approx(np.mean(naive), abs=3e-3)
    assert accuracy_B.std() == pytest.approx(np.std(naive), rel=0.08)


def test_a_model_keeps_its_draws_whatever_stands_beside_it() -> None:
    truth, tallies = simulated(np.random.default_rng(8), 100, 3, 0.7)
    alone = bootstrap({"student": tallies}, truth, draws=200, seed=3)["student"]
    beside = bootstrap({"a": tallies[:1], "student": tallies, "z": tallies[:2]}, truth, draws=200, seed=3)["student"]
    again = bootstrap({"student": tallies}, truth, draws=200, seed=3)["student"]
    other = bootstrap({"student": tallies}, truth, draws=200, seed=4)["student"]
    for name in alone:
        assert np.array_equal(alone[name], beside[name])
        assert np.array_equal(alone[name], again[name])
    assert not np.array_equal(alone["accuracy"], other["accuracy"])


def test_draws_without_a_label_are_left_out() -> None:
    label_N = np.full(40, -1)
    label_N[3] = 1
    truth = Truth.of(label_N, 2)
    said_NC = np.log(np.tile([0.3, 0.7], (40, 1)))
    drawn = bootstrap({"student": [Tally.of(said_NC, truth, teacher_log_p_NC=said_NC)]}, truth, draws=200)["student"]
    assert 0 < np.isnan(drawn["accuracy"]).sum() < 200
    assert interval(drawn["accuracy"]) == [1.0, 1.0]
    assert interval(drawn["agreement"]) == [1.0, 1.0]
    assert interval(np.full(5, np.nan)) is None


def test_percentiles_are_those_of_the_sorted_draws() -> None:
    value_B = np.random.default_rng(0).normal(size=1001)
    assert interval(value_B) == [np.sort(value_B)[25], np.sort(value_B)[975]]


def draws_of(generator: np.random.Generator, mean: float, spread: float) -> Array:
    return generator.normal(mean, spread, 10_000)


def test_the_gap_is_the_ratio_of_the_two_differences() -> None:
    generator = np.random.default_rng(2)
    shared_B = draws_of(generator, 0.0, 0.01)
    accuracy_B = {"teacher": 0.95 + shared_B, "student": 0.94 + shared_B, "control": 0.90 + shared_B}
    means = {"teacher": 0.95, "student": 0.94, "control": 0.90}
    seeds = {"teacher": 1, "student": 5, "control": 5}
    found = gap_recovered(means, accuracy_B, seeds)
    assert found["mean"] == pytest.approx(0.8)
    assert found["ci95"] == pytest.approx([0.8, 0.8])
    worse = {name: -mean for name, mean in means.items()}
    worse_B = {name: -value_B for name, value_B in accuracy_B.items()}
    assert gap_recovered(worse, worse_B, seeds, words="nll", lower_is_better=True) == found
    assert "teacher - control is -0.05" in gap_recovered(worse, worse_B, seeds)["absent"]
    assert gap_recovered(means | {"arm": 0.91}, accuracy_B | {"arm": 0.91 + shared_B}, seeds, "arm")[
        "mean"
    ] == pytest.approx(0.2)


def test_the_gap_is_absent_with_its_reason() -> None:
    generator = np.random.default_rng(3)
    seeds = {"teacher": 1, "student": 5, "control": 5}

    def found(gap: float, error: float) -> str:
        accuracy_B = {"teacher": draws_of(generator, 0.9 + gap, error), "student": np.full(10_000, 0.9)}
        accuracy_B["control"] = np.full(10_000, 0.9)
        means = {"teacher": 0.9 + gap, "student": 0.9, "control": 0.9}
        return str(gap_recovered(means, accuracy_B, seeds).get("absent", ""))

    assert "lower end is not above 0" in found(-0.02, 0.001)
    assert "lower end is not above 0" in found(0.01, 0.01)
    assert "+0.0100" in found(0.01, 0.01)
    assert "only 3.0 standard errors" in found(0.03, 0.01)
    assert found(0.05, 0.01) == ""
    assert all("only 4.0" not in found(0.04, 0.01) for _ in range(20))
    one = {"teacher": 1, "student": 5, "control": 1}
    flat = {name: np.full(10, 0.5) for name in one}
    means = dict.fromkeys(one, 0.5)
    assert "one seed" in gap_recovered(means, flat, one)["absent"]
    assert "control was not measured" in gap_recovered({"teacher": 0.5, "student": 0.5}, flat, one)["absent"]
    assert "teacher was not measured" in gap_recovered({"control": 0.5}, flat, one)["absent"]
    assert "arm 'wide'" in gap_recovered(means, flat, one, "wide")["absent"]


@pytest.mark.parametrize("case", range(6))
def test_mcnemar_is_the_exact_binomial_test(case: int) -> None:
    generator = np.random.default_rng(case)
    rows = [5, 40, 300, 3000, 20_000, 1000][case]
    first_N, second_N = generator.random(rows) < 0.8, generator.random(rows) < 0.8 + 0.02 * (case % 2)
    found = mcnemar(first_N, second_N)
    b, c = int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())
    assert (found["only_first"], found["only_second"]) == (b, c)
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert found["p_value"] == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second_N, first_N)["p_value"] == found["p_value"]


def test_mcnemar_of_equal_models_finds_nothing() -> None:
    right_N = np.random.default_rng(0).random(100) < 0.5
    assert mcnemar(right_N, right_N) == {"only_first": 0, "only_second": 0, "p_value": 1.0}


def test_the_bootstrap_is_quick_at_the_size_of_digits() -> None:
    generator = np.random.default_rng(4)
    truth, tallies = simulated(generator, 450, 5, 0.97)
    began = time.process_time()
    bootstrap({"teacher": tallies[:1], "student": tallies, "control": tallies, "hard_teacher": tallies}, truth)
    assert time.process_time() - began < 2.0
