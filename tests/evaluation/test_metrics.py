"""Each figure against a naive float64 loop on fresh random input, and what must hold of it whatever the input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from stillroom.errors import NotFinite, RunError, WrongAnswer
from stillroom.evaluation.metrics import Tally, Truth, at_temperature, checked, fit_temperature, kl_divergence, measure
from stillroom.rows import Array


def random_log_p(generator: np.random.Generator, rows: int, classes: int, label_N: Array | None = None) -> Array:
    logits_NC = generator.normal(size=(rows, classes)) * generator.uniform(0.5, 3)
    if label_N is not None:
        logits_NC[np.arange(rows), np.maximum(label_N, 0)] += generator.uniform(0.5, 3)
    return at_temperature(logits_NC, 1.0)


def best(row: Array) -> int:
    place = 0
    for j in range(len(row)):
        if row[j] > row[place]:
            place = j
    return place


def naive_ece(log_p_NC: Array, label_N: Array, temperature: float = 1.0) -> float:
    bins: list[list[tuple[float, float]]] = [[] for _ in range(15)]
    for row, label in zip(log_p_NC, label_N, strict=True):
        if label == -1:
            continue
        weights = [math.exp(value / temperature) for value in row]
        confidence = max(weights) / sum(weights)
        place = next(i for i in range(15) if i / 15 < confidence <= (i + 1) / 15 or i == 14)
        bins[place].append((confidence, float(best(row) == label)))
    count = sum(map(len, bins))
    total = 0.0
    for inside in bins:
        if inside:
            gap = sum(c for c, _ in inside) / len(inside) - sum(right for _, right in inside) / len(inside)
            total += len(inside) / count * abs(gap)
    return total


def naive(
    log_p_NC: Array, label_N: Array, teacher_NC: Array, similarity_CC: Array, temperature: float
) -> dict[str, float]:
    classes = log_p_NC.shape[1]
    known = [i for i in range(len(label_N)) if label_N[i] != -1]
    said = [best(row) for row in log_p_NC]
    teacher_said = [best(row) for row in teacher_NC]
    wrong = [i for i in known if said[i] != label_N[i]]
    recalls, f1s = [], []
    for c in range(classes):
        true = sum(label_N[i] == c for i in known)
        if not true:
            continue
        right = sum(label_N[i] == c == said[i] for i in known)
        answered = sum(said[i] == c for i in known)
        recalls.append(right / true)
        precision = right / answered if answered else 0.0
        recall = right / true
        f1s.append(2 * precision * recall / (precision + recall) if right else 0.0)
    teacher_wrong = [i for i in known if teacher_said[i] != label_N[i]]
    kl = 0.0
    for t, s in zip(teacher_NC, log_p_NC, strict=True):
        kl += sum(math.exp(t[j]) * (t[j] - s[j]) for j in range(classes))
    return {
        "accuracy": 1 - len(wrong) / len(known),
        "errors": float(len(wrong)),
        "macro_f1": sum(f1s) / len(f1s),
        "worst_class_recall": min(recalls),
        "nll": -sum(log_p_NC[i][label_N[i]] for i in known) / len(known),
        "ece": naive_ece(log_p_NC, label_N),
        "ece_scaled": naive_ece(log_p_NC, label_N, temperature),
        "mistake_severity": sum(1 - similarity_CC[label_N[i]][said[i]] for i in wrong) / len(wrong),
        "agreement": sum(a == b for a, b in zip(said, teacher_said, strict=True)) / len(said),
        "kl_to_teacher": kl / len(said),
        "error_agreement": sum(said[i] == teacher_said[i] for i in teacher_wrong) / len(teacher_wrong),
    }


@pytest.mark.parametrize("case", range(8))
def test_every_figure_equals_a_naive_loop(case: int) -> None:
    generator = np.random.default_rng(case)
    rows, classes = int(generator.integers(60, 200)), int(generator.integers(2, 13))
    label_N = generator.integers(0, classes, rows)
    if case % 2:
        label_N[generator.random(rows) < 0.3] = -1
        label_N[label_N == classes - 1] = 0  # a class that is answered but has no row
    log_p_NC = random_log_p(generator, rows, classes, label_N)
    teacher_NC = random_log_p(generator, rows, classes, label_N)
    similarity_CC = generator.random((classes, classes))
    temperature = float(generator.uniform(0.3, 4))
    found = measure(log_p_NC, label_N, teacher_NC=teacher_NC, temperature=temperature, similarity_CC=similarity_CC)
    assert found == pytest.approx(naive(log_p_NC, label_N, teacher_NC, similarity_CC, temperature), rel=1e-9, abs=1e-12)


def test_a_draw_equals_the_figures_of_the_drawn_rows() -> None:
    generator = np.random.default_rng(50)
    label_N = generator.integers(-1, 6, 80)
    log_p_NC, teacher_NC = random_log_p(generator, 80, 6, label_N), random_log_p(generator, 80, 6, label_N)
    similarity_CC = generator.random((6, 6))
    truth = Truth.of(label_N, 6, similarity_CC)
    tally = Tally.of(log_p_NC, truth, teacher_log_p_NC=teacher_NC, temperature=1.7)
    picked_BN = generator.integers(0, 80, (5, 80))
    weight_BN = np.stack([np.bincount(picked_N, minlength=80) for picked_N in picked_BN]).astype(np.float64)
    figures = tally.figures(weight_BN, weight_BN @ tally.columns(), truth.by_class.sums(weight_BN))
    for draw, picked_N in enumerate(picked_BN):
        again = measure(
            log_p_NC[picked_N],
            label_N[picked_N],
            teacher_NC=teacher_NC[picked_N],
            temperature=1.7,
            similarity_CC=similarity_CC,
        )
        # `errors` is for as many labelled rows as there are, however many a draw holds.
        again["errors"] = (1 - again["accuracy"]) * truth.labelled
        assert {name: value_B[draw] for name, value_B in figures.items()} == pytest.approx(again, rel=1e-9)


def test_a_shift_of_logits_changes_nothing_and_equal_models_have_no_kl() -> None:
    generator = np.random.default_rng(1)
    label_N = generator.integers(0, 5, 50)
    logits_NC = generator.normal(size=(50, 5))
    one = at_temperature(logits_NC, 1.0)
    other = at_temperature(logits_NC + generator.normal(size=(50, 1)) * 100, 1.0)
    assert measure(one, label_N, teacher_NC=one) == pytest.approx(measure(other, label_N, teacher_NC=one), abs=1e-11)
    same = measure(one, label_N, teacher_NC=one)
    assert same["kl_to_teacher"] == 0
    assert same["agreement"] == 1
    assert same["error_agreement"] == 1


def test_kl_is_teacher_first_and_does_not_depend_on_padding_classes() -> None:
    teacher_NC, model_NC = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert kl_divergence(teacher_NC, model_NC)[0] == pytest.approx(expected)
    padding = np.full((1, 3), -np.inf)
    padded = kl_divergence(np.hstack([teacher_NC, padding]), np.hstack([model_NC, padding]))
    assert padded[0] == pytest.approx(expected)


def test_what_is_undefined_is_absent() -> None:
    sure_NC = np.log([[0.9, 0.1], [0.1, 0.9]])
    perfect = measure(sure_NC, np.array([0, 1]), teacher_NC=sure_NC, similarity_CC=np.eye(2))
    assert perfect["errors"] == 0
    assert {"mistake_severity", "error_agreement", "ece_scaled"}.isdisjoint(perfect)
    unlabelled = measure(sure_NC, np.array([-1, -1]), teacher_NC=sure_NC)
    assert set(unlabelled) == {"agreement", "kl_to_teacher"}
    with np.errstate(divide="ignore"):
        hard_NC = np.log([[1.0, 0.0], [1.0, 0.0]])
    hard = measure(hard_NC, np.array([0, 1]), teacher_NC=sure_NC)
    assert {"nll", "kl_to_teacher"}.isdisjoint(hard)
    assert hard["accuracy"] == 0.5
    assert hard["ece"] == 0.5
    assert measure(sure_NC, np.array([0, 1]), teacher_NC=hard_NC)["kl_to_teacher"] > 0


@pytest.mark.parametrize("truth", [0.25, 1.0, 3.0])
def test_temperature_is_where_a_fine_grid_has_its_smallest_nll(truth: float) -> None:
    generator = np.random.default_rng(int(truth * 8))
    honest_NC = at_temperature(generator.normal(size=(3000, 6)) * 2, 1.0)
    label_N = np.array([generator.choice(6, p=row) for row in np.exp(honest_NC)])
    said_NC = at_temperature(honest_NC * truth, 1.0)
    found = fit_temperature(said_NC, label_N)
    assert found is not None

    def nll(temperature: float) -> float:
        return float(-at_temperature(said_NC, temperature)[np.arange(3000), label_N].mean())

    grid = [nll(float(t)) for t in np.geomspace(0.05, 20, 500)]
    assert nll(found) <= min(grid)
    assert found == pytest.approx(truth, rel=0.15)
    before, after = (measure(said_NC, label_N, temperature=t) for t in (1.0, found))
    assert before["ece_scaled"] == pytest.approx(before["ece"])
    assert after["accuracy"] == before["accuracy"]


def test_temperature_at_the_ends_and_where_there_is_none() -> None:
    right_NC = np.log([[0.6, 0.4], [0.4, 0.6]])
    assert fit_temperature(right_NC, np.array([0, 1])) == 0.05
    assert fit_temperature(right_NC, np.array([1, 0])) == 20.0
    assert fit_temperature(right_NC, np.array([-1, -1])) is None
    with np.errstate(divide="ignore"):
        hard_NC = np.log([[1.0, 0.0], [0.3, 0.7]])
    assert fit_temperature(hard_NC, np.array([1, 0])) is None
    assert fit_temperature(hard_NC, np.array([0, 0])) == pytest.approx(20.0)
    huge_NC = at_temperature(np.random.default_rng(0).normal(size=(200, 4)) * 1e4, 1.0)
    assert fit_temperature(huge_NC, np.arange(200) % 4) == 20.0


def test_at_temperature_softens_as_the_definition_says() -> None:
    logits_NC = np.random.default_rng(3).normal(size=(20, 4)) * 5
    for temperature in (0.05, 1.0, 20.0):
        weight_NC = np.exp(logits_NC / temperature)
        expected = weight_NC / weight_NC.sum(axis=1, keepdims=True)
        assert np.exp(at_temperature(at_temperature(logits_NC, 1.0), temperature)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "error", "word"),
    [
        (np.full((3, 2), np.nan), NotFinite, "NaN"),
        (np.full((3, 2), np.inf), NotFinite, "infinite"),
        (np.zeros((3, 3)), WrongAnswer, "2 classes"),
        (np.zeros((2, 2)), WrongAnswer, "3 rows"),
        (np.ones((3, 2)), RunError, "log-probabilities"),
        (np.full((3, 2), 0.5), RunError, "log-probabilities"),
        (np.full((3, 2), -np.inf), RunError, "log-probabilities"),
        (np.full((3, 2), 1e30), RunError, "log-probabilities"),
    ],
)
def test_what_is_no_log_probability_is_refused(said: Array, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        checked(said, 3, 2, "student, seed 0, test")


def test_rounded_answers_are_made_whole() -> None:
    rounded: Any = np.log(np.array([[0.7, 0.2, 0.1]])).astype(np.float16)
    assert np.exp(checked(rounded, 1, 3, "teacher")).sum() == pytest.approx(1.0, abs=1e-14)
