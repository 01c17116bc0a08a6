"""What the scorecard says of predictions: its shape, its pairing, and what is absent where something is missing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stillroom.errors import DataError, NotFinite, RunError, WrongAnswer
from stillroom.evaluation.metrics import at_temperature, fit_temperature, measure
from stillroom.evaluation.scores import Said, Scores, score
from stillroom.rows import Array

CLASSES = ["ant", "bee", "cat", "dog"]
FEW = 400


def said(seed: int, seeds: int, label_N: Array, label_M: Array, skill: float) -> Said:
    generator = np.random.default_rng(seed)

    def one(label: Array) -> Array:
        logits = generator.normal(size=(seeds, len(label), len(CLASSES)))
        logits[:, np.arange(len(label)), label] += skill
        return np.stack([at_temperature(logits_NC, 1.0) for logits_NC in logits]).astype(np.float32)

    return Said(one(label_N), one(label_M))


@pytest.fixture
def labels() -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 4, 250), generator.integers(0, 4, 90)


@pytest.fixture
def everyone(labels: tuple[Array, Array]) -> dict[str, Said]:
    sizes = {"teacher": (1, 3.0), "student": (3, 2.6), "control": (3, 1.0), "hard_teacher": (3, 2.3), "wide": (2, 2.8)}
    return {name: said(seed, size, *labels, skill) for seed, (name, (size, skill)) in enumerate(sizes.items())}


def all_numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in all_numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in all_numbers(inner)]
    return [] if isinstance(value, str) else [value]


def test_the_shape_is_the_contracts(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    scores = score(everyone, *labels, CLASSES, similarity_CC=np.eye(4), draws=FEW)
    plain = json.loads(json.dumps([scores.models, scores.differences, scores.gap_recovered, scores.gaps]))
    assert all(isinstance(number, float) and np.isfinite(number) for number in all_numbers(plain))
    label_figures = {"accuracy", "errors", "macro_f1", "worst_class_recall", "mistake_severity", "nll", "ece"}
    label_figures |= {"ece_scaled"}
    fidelity = {"agreement", "kl_to_teacher", "error_agreement"}
    assert set(scores.models) == set(everyone)
    for name, figures in scores.models.items():
        assert set(figures) == (label_figures if name == "teacher" else label_figures | fidelity)
        for figure in figures.values():
            seeds = everyone[name].seeds
            assert list(figure) == (["mean", "ci95", "per_seed"] if seeds > 1 else ["mean", "per_seed"])
            assert len(figure["per_seed"]) == seeds
            assert figure["mean"] == pytest.approx(np.mean(figure["per_seed"]))
    names = ["student-control", "student-hard_teacher", "student-teacher", "teacher-control", "hard_teacher-control"]
    names += ["wide-control", "wide-student", "wide-hard_teacher", "wide-teacher"]
    assert list(scores.differences) == names
    for name, figures in scores.differences.items():
        first, second = name.split("-")
        assert list(figures) == ["accuracy", "errors", "nll", "mistake_severity"]
        for figure, value in figures.items():
            expected = scores.models[first][figure]["mean"] - scores.models[second][figure]["mean"]
            assert value["mean"] == pytest.approx(expected)
            assert value["ci95"][0] <= value["mean"] <= value["ci95"][1]
    assert set(scores.gaps) == {"student", "hard_teacher", "wide"}
    assert scores.gaps["student"] == scores.gap_recovered
    low, high = scores.gap_recovered["ci95"]
    assert low < scores.gap_recovered["mean"] < high


def test_each_seed_is_measured_as_metrics_say(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    scores = score(everyone, *labels, CLASSES, draws=2)
    for name in ("student", "wide"):
        for seed in range(everyone[name].seeds):
            validation = everyone[name].validation_SNC
            assert validation is not None
            temperature = fit_temperature(validation[seed], labels[1])
            assert scores.temperatures[name][seed] == pytest.approx(temperature)
            expected = measure(
                everyone[name].test_SNC[seed],
                labels[0],
                teacher_NC=everyone["teacher"].test_SNC[0],
                temperature=scores.temperatures[name][seed],
            )
            found = {figure: value["per_seed"][seed] for figure, value in scores.models[name].items()}
            assert found == pytest.approx(expected)


def test_identical_models_differ_by_exactly_nothing(labels: tuple[Array, Array]) -> None:
    twin = said(1, 3, *labels, 1.5)
    scores = score({"student": twin, "control": twin, "teacher": twin}, *labels, CLASSES, draws=FEW)
    for name in ("student-control", "student-teacher"):
        for figure in ("accuracy", "errors"):
            assert scores.differences[name][figure] == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert scores.differences["student-control"]["nll"] == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert "not above 0" in scores.gap_recovered["absent"]


def plain(scores: Scores) -> Any:
    return json.loads(json.dumps([scores.models, scores.differences, scores.gap_recovered, scores.temperatures]))


def test_the_order_of_models_and_what_stands_beside_them_change_nothing(
    everyone: dict[str, Said], labels: tuple[Array, Array]
) -> None:
    scores = score(everyone, *labels, CLASSES, draws=FEW)
    turned = score(dict(reversed(everyone.items())), *labels, CLASSES, draws=FEW)
    assert plain(turned) == plain(scores)
    fewer = {name: everyone[name] for name in ("teacher", "student", "control")}
    alone = score(fewer, *labels, CLASSES, draws=FEW)
    assert alone.models["student"] == scores.models["student"]
    assert alone.differences["student-control"] == scores.differences["student-control"]
    assert alone.gap_recovered == scores.gap_recovered
    assert plain(score(everyone, *labels, CLASSES, draws=FEW)) == plain(scores)
    assert plain(score(everyone, *labels, CLASSES, draws=FEW, seed=1)) != plain(scores)


def test_renaming_classes_changes_no_figure(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    order_C = np.array([2, 0, 3, 1])
    place_C = np.argsort(order_C)
    renamed = {}
    for name, model in everyone.items():
        assert model.validation_SNC is not None
        renamed[name] = Said(model.test_SNC[:, :, order_C], model.validation_SNC[:, :, order_C])
    names = [CLASSES[place] for place in order_C]
    scores = score(everyone, *labels, CLASSES, draws=FEW)
    again = score(renamed, place_C[labels[0]], place_C[labels[1]], names, draws=FEW)
    for name, figures in scores.models.items():
        for figure, value in figures.items():
            assert again.models[name][figure]["per_seed"] == pytest.approx(value["per_seed"], rel=1e-6)


def test_one_seed_has_no_interval(labels: tuple[Array, Array]) -> None:
    single = {name: said(seed, 1, *labels, 1.0 + seed) for seed, name in enumerate(("control", "student", "teacher"))}
    scores = score(single, *labels, CLASSES)
    assert all("ci95" not in figure for figures in scores.models.values() for figure in figures.values())
    assert list(scores.differences["student-control"]["accuracy"]) == ["mean"]
    assert "one seed" in scores.gap_recovered["absent"]


def test_missing_models_take_what_depends_on_them(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    without = {name: model for name, model in everyone.items() if name not in ("teacher", "control")}
    scores = score(without, *labels, CLASSES, draws=FEW)
    assert {"agreement", "kl_to_teacher", "error_agreement"}.isdisjoint(scores.models["student"])
    assert list(scores.differences) == ["student-hard_teacher", "wide-student", "wide-hard_teacher"]
    assert scores.gap_recovered == {"absent": "accuracy of the teacher was not measured"}
    assert "control" in score({"teacher": everyone["teacher"]}, *labels, CLASSES).gap_recovered["absent"]


def test_rows_without_a_label_count_for_fidelity_alone(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    label_N = labels[0].copy()
    label_N[::3] = -1
    known_N = label_N != -1
    scores = score(everyone, label_N, labels[1], CLASSES, draws=FEW)
    cut = {name: Said(model.test_SNC[:, known_N], model.validation_SNC) for name, model in everyone.items()}
    known = score(cut, label_N[known_N], labels[1], CLASSES, draws=2)
    whole = score(everyone, *labels, CLASSES, draws=2)
    for figure, value in scores.models["student"].items():
        other = whole if figure in ("agreement", "kl_to_teacher") else known
        assert value["per_seed"] == pytest.approx(other.models["student"][figure]["per_seed"])


def test_without_any_label_only_fidelity_is_left(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    scores = score(everyone, np.full(250, -1), np.full(90, -1), CLASSES, draws=FEW)
    assert scores.models["teacher"] == {}
    assert set(scores.models["student"]) == {"agreement", "kl_to_teacher"}
    assert scores.differences == {}
    assert scores.temperatures == {}
    assert "not measured" in scores.gap_recovered["absent"]


def test_no_validation_means_no_scaled_calibration(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    none = {name: Said(model.test_SNC) for name, model in everyone.items()}
    scores = score(none, labels[0], np.empty(0, np.int64), CLASSES, draws=FEW)
    assert "ece" in scores.models["student"]
    assert "ece_scaled" not in scores.models["student"]


def test_a_figure_that_one_seed_lacks_is_absent(labels: tuple[Array, Array]) -> None:
    model = said(1, 2, *labels, 1.5)
    perfect_NC = np.full((250, 4), np.log(0.1 / 3))
    perfect_NC[np.arange(250), labels[0]] = np.log(0.9)
    mixed = Said(np.stack([model.test_SNC[0], perfect_NC]))
    scores = score({"student": mixed}, *labels, CLASSES, similarity_CC=np.eye(4), draws=FEW)
    assert "mistake_severity" not in scores.models["student"]
    assert scores.models["student"]["errors"]["per_seed"][1] == 0.0


def test_seeds_are_held_against_the_teacher_of_their_place(labels: tuple[Array, Array]) -> None:
    model = said(1, 3, *labels, 1.5)
    scores = score({"teacher": model, "student": model}, *labels, CLASSES, draws=FEW)
    assert scores.models["student"]["agreement"] == {"mean": 1.0, "ci95": [1.0, 1.0], "per_seed": [1.0, 1.0, 1.0]}
    with pytest.raises(WrongAnswer, match="3 seeds"):
        score({"teacher": Said(model.test_SNC[:2]), "student": model}, *labels, CLASSES)


def test_more_pairs_are_compared_on_demand(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    pairs = [("hard_teacher", "wide"), ("student", "control"), ("student", "nobody")]
    scores = score(everyone, *labels, CLASSES, draws=FEW, more_pairs=pairs)
    assert list(scores.differences)[-1] == "hard_teacher-wide"
    assert len(scores.differences) == 10


def test_what_does_not_fit_is_refused(everyone: dict[str, Said], labels: tuple[Array, Array]) -> None:
    student = everyone["student"]
    with pytest.raises(WrongAnswer, match="249 rows"):
        score({"student": student}, labels[0][1:], labels[1], CLASSES)
    with pytest.raises(WrongAnswer, match="89 rows"):
        score({"student": student}, labels[0], labels[1][1:], CLASSES)
    with pytest.raises(WrongAnswer, match="5 classes"):
        score({"student": student}, *labels, [*CLASSES, "eel"])
    with pytest.raises(WrongAnswer, match="none of the 4"):
        score({"student": student}, labels[0] + 2, labels[1], CLASSES)
    with pytest.raises(WrongAnswer, match="similarity"):
        score({"student": student}, *labels, CLASSES, similarity_CC=np.eye(3))
    with pytest.raises(WrongAnswer, match="without a seed"):
        score({"student": Said(student.test_SNC[:0])}, *labels, CLASSES)
    with pytest.raises(DataError, match="no test rows"):
        score({}, labels[0][:0], labels[1], CLASSES)
    with pytest.raises(RunError, match="student, seed 0, test"):
        score({"student": Said(np.exp(student.test_SNC))}, *labels, CLASSES)
    broken = student.test_SNC.copy()
    broken[1, 7, 2] = np.nan
    with pytest.raises(NotFinite, match="student, seed 1, test"):
        score({"student": Said(broken)}, *labels, CLASSES)
