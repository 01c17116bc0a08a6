"""Soft confusion, ranks, entropy and divergences against naive loops; plain data all through."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from stillroom.errors import RecipeError
from stillroom.evaluation.dark_knowledge import (
    class_of_rows,
    dark_knowledge,
    ensemble_similarity,
    entropy,
    entropy_histogram,
    group_similarity,
    jensen_shannon,
    most_different,
    reliability,
    soft_confusion,
    spearman,
    wrong_mass,
)
from stillroom.evaluation.metrics import at_temperature, measure
from stillroom.rows import Array


def random_said(case: int, rows: int = 60, classes: int = 5) -> tuple[Array, Array]:
    generator = np.random.default_rng(case)
    label_N = generator.integers(0, classes, rows)
    logits_NC = generator.normal(size=(rows, classes)) * 2
    logits_NC[np.arange(rows), label_N] += 2
    label_N[generator.random(rows) < 0.2] = -1
    return at_temperature(logits_NC, 1.0), label_N


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_confusion_equals_a_naive_loop(temperature: float) -> None:
    said_NC, label_N = random_said(1)
    found = soft_confusion(said_NC, label_N, temperature=temperature)
    expected = np.zeros((5, 5))
    for i in range(5):
        rows = [n for n in range(60) if (label_N[n] if label_N[n] >= 0 else int(np.argmax(said_NC[n]))) == i]
        for j in range(5):
            if i != j:
                for n in rows:
                    weights = [math.exp(value / temperature) for value in said_NC[n]]
                    expected[i, j] += weights[j] / sum(weights) / len(rows)
        expected[i] /= expected[i].sum()
    assert found == pytest.approx(expected)
    assert found.sum(axis=1) == pytest.approx(np.ones(5))
    assert soft_confusion(said_NC, label_N, temperature=temperature, symmetric=True) == pytest.approx(
        (expected + expected.T) / 2
    )


def test_a_class_without_rows_is_unmeasured() -> None:
    said_NC = np.log([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])
    found = soft_confusion(said_NC, np.array([0, 1]))
    assert np.isnan(found[2]).all()
    both = soft_confusion(said_NC, np.array([0, 1]), symmetric=True)
    assert both[2, :2] == pytest.approx(found[:2, 2])
    alike = ensemble_similarity(said_NC, np.array([0, 1]))
    assert alike == pytest.approx(np.array([[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]]))


def test_a_teacher_of_hard_answers_says_nothing_of_wrong_classes() -> None:
    with np.errstate(divide="ignore"):
        hard_NC = np.log(np.eye(3))
    assert np.isnan(soft_confusion(hard_NC, np.arange(3))).all()
    assert ensemble_similarity(hard_NC, np.arange(3)).tolist() == np.eye(3).tolist()
    assert entropy(hard_NC).tolist() == [0, 0, 0]
    assert wrong_mass(hard_NC, np.arange(3)) == 0
    shown = dark_knowledge({"teacher": hard_NC}, np.arange(3), ["a", "b", "c"], temperature=4)
    assert "similarity" not in shown["models"]["teacher"]


def test_similarity_is_a_similarity() -> None:
    said_NC, label_N = random_said(2)
    alike_CC = ensemble_similarity(said_NC, label_N)
    assert np.array_equal(alike_CC, alike_CC.T)
    assert alike_CC.min() >= 0
    assert np.diag(alike_CC).tolist() == [1] * 5
    assert alike_CC[~np.eye(5, dtype=bool)].max() == pytest.approx(1)


def test_groups_are_half_as_far_apart() -> None:
    found = group_similarity({"animals": ("cat", "dog"), "odd": [3, "cat"]}, ["cat", "dog", 3, "car"])
    assert found.tolist() == [[1, 0.5, 0.5, 0], [0.5, 1, 0, 0], [0.5, 0, 1, 0], [0, 0, 0, 1]]
    assert group_similarity({"all": ("0", "1")}, [0, 1])[0, 1] == 0.5
    with pytest.raises(RecipeError, match=r"no class 'caat' \(evaluation.groups.animals\).*'cat'"):
        group_similarity({"animals": ("caat",)}, ["cat", "dog"])


@pytest.mark.parametrize("case", range(4))
def test_spearman_equals_the_known_implementation(case: int) -> None:
    generator = np.random.default_rng(case)
    first = generator.integers(0, 6, (6, 6)).astype(float)  # many ties
    second = first + generator.normal(size=(6, 6)) * case
    off = ~np.eye(6, dtype=bool)
    assert spearman(first, second) == pytest.approx(spearmanr(first[off], second[off]).statistic)
    second[2] = np.nan
    off[2] = False
    assert spearman(first, second) == pytest.approx(spearmanr(first[off], second[off]).statistic)


def test_spearman_is_none_where_it_means_nothing() -> None:
    assert spearman(np.ones((4, 4)), np.random.default_rng(0).random((4, 4))) is None
    assert spearman(np.eye(2), np.eye(2)) is None


def test_entropy_is_between_nothing_and_the_log_of_the_classes() -> None:
    said_NC, label_N = random_said(3)
    expected = [-sum(math.exp(v) * v for v in row) for row in said_NC]
    assert entropy(said_NC) == pytest.approx(expected)
    assert entropy(np.zeros((2, 8)), 3.0) == pytest.approx([math.log(8)] * 2)
    assert np.all(entropy(said_NC, 20.0) > entropy(said_NC))
    found = entropy_histogram(said_NC, 20.0, bins=7)
    assert sum(found["counts"]) == 60
    assert len(found["edges"]) == 8
    assert found["edges"][-1] == pytest.approx(math.log(5))
    assert sum(entropy_histogram(np.full((9, 3), -math.log(3)))["counts"]) == 9
    mass = [1 - math.exp(row[c]) for row, c in zip(said_NC, class_of_rows(said_NC, label_N), strict=True)]
    assert wrong_mass(said_NC, label_N) == pytest.approx(np.mean(mass))
    assert wrong_mass(said_NC, label_N, 1e6) == pytest.approx(0.8, abs=1e-4)


def test_jensen_shannon_equals_its_definition_and_is_bounded() -> None:
    first, second = np.exp(random_said(4)[0]), np.exp(random_said(5)[0])
    middle = (first + second) / 2
    expected = ((first * np.log(first / middle)).sum(1) + (second * np.log(second / middle)).sum(1)) / 2
    assert jensen_shannon(np.log(first), np.log(second)) == pytest.approx(expected)
    assert jensen_shannon(np.log(first), np.log(first)).max() < 1e-15
    with np.errstate(divide="ignore"):
        assert jensen_shannon(np.log([[1.0, 0.0]]), np.log([[0.0, 1.0]]))[0] == pytest.approx(math.log(2))


def test_the_most_different_rows_come_first() -> None:
    (first, label_N), (second, _) = random_said(6), random_said(7)
    second[:50] = first[:50]
    found = most_different(first, second, label_N, list("abcde"), count=20)
    apart = jensen_shannon(first, second)
    assert {example["row"] for example in found} >= set(range(50, 60))
    assert [example["divergence"] for example in found] == sorted(apart[apart > 0].tolist(), reverse=True)[:20]
    one = found[0]
    assert one["first"][0] == ["abcde"[int(first[one["row"]].argmax())], pytest.approx(np.exp(first[one["row"]].max()))]
    assert ("label" in one) == (label_N[one["row"]] >= 0)


def test_reliability_adds_up_to_the_calibration_error() -> None:
    said_NC, label_N = random_said(8, rows=300)
    for temperature in (1.0, 2.5):
        points = reliability(said_NC, label_N, temperature=temperature)
        count = sum(point["count"] for point in points)
        assert count == (label_N >= 0).sum()
        assert all(point["low"] < point["confidence"] <= point["high"] for point in points)
        ece = sum(abs(point["accuracy"] - point["confidence"]) * point["count"] / count for point in points)
        assert measure(said_NC, label_N, temperature=temperature)["ece_scaled"] == pytest.approx(ece)
    assert reliability(said_NC, np.full(300, -1)) == []


def test_all_of_it_is_plain_data() -> None:
    said_NC, label_N = random_said(9)
    said = {"teacher": said_NC, "student": random_said(10)[0], "control": random_said(11)[0]}
    classes = list(np.arange(5))  # NumPy integers, as a data file gives them
    found = dark_knowledge(said, label_N, classes, temperature=4, temperatures={"student": 2.0}, examples=3)
    json.dumps(found, allow_nan=False)
    assert found["temperature"] == 4.0
    assert len(found["most_different"]) == 3
    student = found["models"]["student"]
    assert set(student) == {
        "entropy",
        "wrong_mass",
        "similarity",
        "reliability",
        "reliability_scaled",
        "spearman_to_teacher",
    }
    assert student["similarity"]["classes"] == [0, 1, 2, 3, 4]
    assert "spearman_to_teacher" not in found["models"]["teacher"]
    few = dark_knowledge({"student": said_NC[:3]}, np.array([0, 1, 1]), classes, temperature=1)
    assert few["models"]["student"]["similarity"]["classes"] == [0, 1]
    assert "most_different" not in few
