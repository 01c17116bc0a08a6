"""Exact match with intervals: means, paired differences, slices, the gap; against a bootstrap written out."""

from __future__ import annotations

import numpy as np
import pytest

from stillroom.errors import WrongAnswer
from stillroom.evaluation.reasoning_scores import Marks, by_slice, score_reasoning


def marks(share: float, seeds: int, rows: int = 400, seed: int = 0) -> Marks:
    rng = np.random.default_rng(seed)
    right_SN = rng.random((seeds, rows)) < share
    return Marks(right_SN, rng.integers(5, 30, (seeds, rows)), ~right_SN & (rng.random((seeds, rows)) < 0.1))


def test_figures_are_means_over_seeds_and_rows() -> None:
    student = marks(0.7, 3)
    figures = score_reasoning({"student": student}).models["student"]
    assert figures["exact_match"]["mean"] == pytest.approx(student.right_SN.mean())
    assert student.tokens_SN is not None
    assert figures["answer_tokens"]["per_seed"] == pytest.approx(student.tokens_SN.mean(1).tolist())
    low, high = figures["exact_match"]["ci95"]
    assert low < figures["exact_match"]["mean"] < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 1200 * 1.7), rel=0.5)


def test_a_difference_is_paired() -> None:
    student = marks(0.7, 3)
    control = Marks(student.right_SN & (np.arange(400) % 10 > 0))
    found = score_reasoning({"student": student, "control": control}).differences["student-control"]["exact_match"]
    low, high = found["ci95"]
    assert low > 0  # the same rows and seeds: what both share cancels
    assert found["mean"] == pytest.approx(student.right_SN.mean() - control.right_SN.mean())
    assert high - low < 0.07


def test_one_seed_has_no_interval_and_no_gap() -> None:
    scores = score_reasoning({"teacher": marks(0.9, 1), "student": marks(0.8, 1), "control": marks(0.3, 1)})
    assert "ci95" not in scores.models["student"]["exact_match"]
    assert "one seed" in scores.gap_recovered["absent"]


def test_the_gap_between_control_and_teacher() -> None:
    scores = score_reasoning(
        {"teacher": marks(0.9, 1, seed=1), "student": marks(0.8, 3, seed=2), "control": marks(0.3, 3, seed=3)}
    )
    assert scores.gap_recovered["mean"] == pytest.approx(5 / 6, abs=0.08)
    assert {"student-control", "student-teacher", "teacher-control"} <= set(scores.differences)


def test_slices_are_those_rows_alone() -> None:
    student = marks(0.7, 2)
    slice_N = np.array(["near", "far"] * 200, dtype=object)
    found = by_slice({"student": student}, slice_N)["student"]
    assert found["far"]["rows"] == 200
    assert found["far"]["exact_match"]["mean"] == pytest.approx(student.right_SN[:, 1::2].mean())


def test_models_must_have_answered_the_same_questions() -> None:
    with pytest.raises(WrongAnswer, match="different questions"):
        score_reasoning({"student": marks(0.7, 2), "control": marks(0.7, 2, rows=399)})
