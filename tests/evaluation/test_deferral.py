"""Thresholds: what conformal risk control promises, counted; ties, small samples, and the figures of a cascade."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stillroom.evaluation.deferral import Deferral, figures, sureness


def said(rows: int, seed: int, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of a student that is right the more often the surer it is, and the teacher's choices."""
    rng = np.random.default_rng(seed)
    teacher_N = rng.integers(0, 4, rows)
    logits_NC = rng.normal(size=(rows, 4))
    logits_NC[np.arange(rows), teacher_N] += skill
    return logits_NC - np.log(np.exp(logits_NC).sum(1, keepdims=True)), teacher_N


def test_sureness_is_the_lead_in_nats_and_no_temperature_changes_its_order() -> None:
    logs_NC, _ = said(50, 0)
    naive = [sorted(row)[-1] - sorted(row)[-2] for row in logs_NC.tolist()]
    np.testing.assert_allclose(sureness(logs_NC), naive)
    cold = logs_NC / 3 - np.log(np.exp(logs_NC / 3).sum(1, keepdims=True))
    np.testing.assert_array_equal(np.argsort(sureness(cold)), np.argsort(sureness(logs_NC)))
    assert np.isinf(sureness(np.zeros((2, 1)))).all()


def naive_threshold(logs_NC: np.ndarray, teacher_N: np.ndarray, risk: float) -> float | None:
    sure, wrong = sureness(logs_NC), logs_NC.argmax(1) != teacher_N
    for threshold in sorted([0.0, *sure.tolist()]):
        if (int((wrong & (sure > threshold)).sum()) + 1) / (len(sure) + 1) <= risk + 1e-12:
            return threshold
    return None


@pytest.mark.parametrize("rows", [5, 40, 150, 400])
@pytest.mark.parametrize("risk", [0.002, 0.01, 0.05, 0.5])
def test_the_threshold_is_the_smallest_that_is_allowed(rows: int, risk: float) -> None:
    logs_NC, teacher_N = said(rows, rows)
    found, naive = Deferral.settle(logs_NC, teacher_N, risk), naive_threshold(logs_NC, teacher_N, risk)
    if naive is None:
        assert found.threshold_nats is None
        assert not found.sure(logs_NC).any()
        return
    sure_N = sureness(logs_NC) > naive
    np.testing.assert_array_equal(found.sure(logs_NC), sure_N)
    assert found.coverage == sure_N.mean()
    assert found.differs == (sure_N & (logs_NC.argmax(1) != teacher_N)).mean() <= risk
    assert found.below > found.differs


def test_rows_of_equal_sureness_are_left_to_the_teacher_together() -> None:
    logs_NC = np.log(np.array([[0.7, 0.3]] * 150 + [[0.9, 0.1]] * 50))
    teacher_N = np.array([1] * 40 + [0] * 160)
    found = Deferral.settle(logs_NC, teacher_N, 0.05)
    assert found.sure(logs_NC).tolist() == [False] * 150 + [True] * 50


@pytest.mark.parametrize("risk", [0.02, 0.1])
def test_the_risk_holds_on_rows_that_come_later(risk: float) -> None:
    """The promise is of the mean over held-out and later rows: 600 draws of 99 rows each, and its standard error."""
    risks = []
    for seed in range(600):
        found = Deferral.settle(*said(99, seed), risk)
        logs_NC, teacher_N = said(2000, 10_000 + seed)
        risks.append(float((found.sure(logs_NC) & (logs_NC.argmax(1) != teacher_N)).mean()))
    assert np.mean(risks) <= risk + 3 * np.std(risks) / np.sqrt(len(risks))
    assert np.mean(risks) > 0.4 * risk, "a threshold that asks everything keeps any promise"


def test_it_is_kept_as_json() -> None:
    for rows in (3, 200):
        found = Deferral.settle(*said(rows, 1), 0.05)
        assert Deferral.of(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_figures_of_a_cascade() -> None:
    sure_SN = np.array([[True, True, False, False], [True, False, False, False]])
    student_SN = np.array([[0, 1, 1, 0], [1, 1, 1, 1]])
    found = figures(sure_SN, student_SN, np.array([0, 0, 0, 0]), np.array([0, 1, 1, -1]))
    assert found["coverage"]["per_seed"] == [0.5, 0.25]
    assert found["risk"]["per_seed"] == [0.25, 0.25]
    assert found["accuracy"]["per_seed"] == pytest.approx([2 / 3, 0])
    assert found["accuracy_lost"]["per_seed"] == pytest.approx([-1 / 3, 1 / 3])
    assert found["coverage"]["ci95"][0] <= found["coverage"]["mean"] <= found["coverage"]["ci95"][1]
    assert "accuracy" not in figures(sure_SN, student_SN, np.zeros(4, int), np.full(4, -1))
