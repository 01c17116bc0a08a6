"""What is written of each scored position, against whole distributions in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from language_double import Double, double, log_p, windows
from stillroom.errors import DataError, NotFinite, WrongAnswer
from stillroom.evaluation import language_predictions
from stillroom.evaluation.language_predictions import Windows, Writer, read
from stillroom.models.device import Device
from stillroom.rows import Array, Questions


def nobody(done: int) -> None:
    pass


def writer(folder: Path, teacher: Double, causal: bool = True, **given: Any) -> tuple[Writer, dict[str, Questions]]:
    rows = {name: windows(seed, 9, causal=causal) for seed, name in enumerate(("validation", "test"))}
    parts = {name: Windows.of(questions, name) for name, questions in rows.items()}
    return Writer(folder, parts, Device(), teacher, given.get("done", nobody)), rows


def target(questions: Questions) -> Array:
    assert isinstance(questions.raw, dict)
    return questions.raw["target"][questions.raw["target"] >= 0]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("cells", [1 << 24, 45])
def test_every_position_is_as_the_whole_distribution_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, causal: bool, cells: int
) -> None:
    monkeypatch.setattr(language_predictions, "CHUNK_CELLS", cells)
    monkeypatch.setattr(language_predictions, "FORWARD_TOKENS", 40)
    # A teacher and a student of one tokenizer, whose layers are wider than it by different amounts.
    teacher, student = double(1, wide=5, causal=causal, soft_cap=2.0), double(2, wide=3, width=6, causal=causal)
    work, rows = writer(tmp_path, teacher, causal)
    work.sample_Q = work.splits["test"].sample(60)
    work.write("teacher", 0, "teacher", lambda: teacher)
    work.write("student", 0, "student", lambda: student)
    work.finish({"teacher": 1, "student": 1})
    for split, questions in rows.items():
        label_P = target(questions)
        for name, model in (("teacher", teacher), ("student", student)):
            log_p_PV = log_p(model.network, questions, 20)
            said = read(tmp_path, name, 1, split)
            assert said.nll_SP[0] == pytest.approx(-log_p_PV[np.arange(len(label_P)), label_P], abs=2e-5)
            assert (said.top_SP[0] == log_p_PV.argmax(1)).all()
    whole = {name: log_p(model.network, rows["test"], 20) for name, model in (("t", teacher), ("s", student))}
    kl_P = (np.exp(whole["t"]) * (whole["t"] - whole["s"])).sum(1)
    sample_Q = np.fromfile(tmp_path / "test.sample.i32", np.int32)
    assert 0 < len(sample_Q) <= 60
    found = read(tmp_path, "student", 1).kl_SQ
    assert found is not None
    assert found[0] == pytest.approx(kl_P[sample_Q], abs=2e-5)
    entropy_Q = np.fromfile(tmp_path / "teacher.0.test.entropy.f32", np.float32)
    assert entropy_Q == pytest.approx(-(np.exp(whole["t"]) * whole["t"]).sum(1)[sample_Q], abs=2e-5)
    assert read(tmp_path, "teacher", 1).kl_SQ is None


def test_equal_models_are_no_way_apart(tmp_path: Path) -> None:
    teacher = double(1)
    work, _ = writer(tmp_path, teacher)
    work.write("student", 0, "student", lambda: teacher)
    found = read(tmp_path, "student", 1).kl_SQ
    assert found is not None
    assert np.abs(found).max() < 1e-6


def test_the_sample_is_whole_windows_and_the_same_each_time() -> None:
    part = Windows.of(windows(1, 40), "test")
    sample = part.sample(100)
    assert (sample == part.sample(100)).all()
    assert sample.tolist() != part.sample(100, seed=1).tolist()
    assert part.count_N[sample].sum() <= 100 < part.count_N[sample].sum() + part.count_N.max()
    assert (part.sample() == np.flatnonzero(part.count_N)).all()


def test_where_no_window_fits_the_sample_is_the_longest() -> None:
    rows = windows(1, 40)
    assert isinstance(rows.raw, dict)
    part = Windows.of(rows.take(np.flatnonzero((rows.raw["target"] >= 0).sum(1) >= 2)), "test")
    assert part.count_N.min() >= 2
    assert part.sample(1).tolist() == [int(part.count_N.argmax())]


def test_batches_hold_every_scored_window_once_and_no_more_tokens_than_they_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language_predictions, "FORWARD_TOKENS", 30)
    part = Windows.of(windows(3, 20), "test")
    batches = list(part.batches(np.arange(len(part.count_N))))
    assert sorted(np.concatenate(batches).tolist()) == np.flatnonzero(part.count_N).tolist()
    assert all(len(one) * part.length_N[one].max() <= 30 or len(one) == 1 for one in batches)
    assert len(batches) < len(part.count_N)


def test_a_finished_model_is_not_asked_again(tmp_path: Path) -> None:
    teacher, told = double(1), []
    work, rows = writer(tmp_path, teacher, done=told.append)
    work.write("student", 0, "student", lambda: double(2))
    assert sum(told) == sum(len(questions) for questions in rows.values())

    def never() -> Double:
        raise AssertionError("asked again")

    work.write("student", 0, "student", never)
    (tmp_path / "student.0.test.kl.f32").unlink()
    with pytest.raises(AssertionError, match="asked again"):
        work.write("student", 0, "student", never)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_names_the_model(tmp_path: Path, value: float) -> None:
    broken = double(2)
    with torch.no_grad():
        broken.network.bias_V[3] = value
    work, _ = writer(tmp_path, double(1))
    with pytest.raises(NotFinite, match="runs/student"):
        work.write("student", 0, "runs/student", lambda: broken)


def test_tokens_that_a_model_lacks_are_refused(tmp_path: Path) -> None:
    work, _ = writer(tmp_path, double(1))
    with pytest.raises(WrongAnswer, match="tokenizer has 10"):
        work.write("student", 0, "runs/student", lambda: double(2, ids=10))


def test_rows_that_are_no_windows_are_refused() -> None:
    with pytest.raises(DataError, match="no windows"):
        Windows.of(Questions.of(np.zeros((3, 2))), "test")
    blank = {"ids": np.full((1, 4), -1, np.int32), "target": np.full((1, 4), -1, np.int32)}
    with pytest.raises(DataError, match="no scored token"):
        Windows.of(Questions.of(blank), "test")
    blank["target"][0, 2] = 1
    with pytest.raises(WrongAnswer, match="holds no token"):
        Windows.of(Questions.of(blank), "test")
