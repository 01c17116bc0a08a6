"""Figures of language models against plain loops over documents, and the rule of the gap."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stillroom.errors import WrongAnswer
from stillroom.evaluation.language_scores import Spoken, Text, score_language
from stillroom.rows import Array

WINDOW_P = np.repeat(np.arange(40), 6)
DOCUMENT_N = np.sort(np.random.default_rng(0).integers(0, 12, 40)) * 5
BYTES_N = np.random.default_rng(1).integers(10, 40, 40)
TARGET_P = np.random.default_rng(2).integers(0, 9, len(WINDOW_P))
SAMPLE_Q = np.flatnonzero(np.isin(WINDOW_P, [1, 5, 6, 17, 30, 39]))


def text(bytes_N: Array | None = BYTES_N, document_N: Array = DOCUMENT_N) -> Text:
    return Text.of(TARGET_P, WINDOW_P, document_N, SAMPLE_Q, bytes_N)


def said(seed: int, seeds: int, mean_nats: float, right: float, compared: bool = True) -> Spoken:
    generator = np.random.default_rng(seed)
    shape = (seeds, len(TARGET_P))
    hard_N = np.random.default_rng(9).gamma(2.0, 0.5, 40)[WINDOW_P]
    nll_SP = mean_nats * hard_N * generator.gamma(20.0, 1 / 20, shape)
    top_SP = np.where(generator.random(shape) < right, TARGET_P, 8 - TARGET_P)
    kl_SQ = generator.gamma(1.0, 0.3, (seeds, len(SAMPLE_Q))) if compared else None
    return Spoken(nll_SP.astype(np.float32), top_SP.astype(np.int32), kl_SQ)


def everyone() -> dict[str, Spoken]:
    return {
        "teacher": said(1, 1, 2.0, 0.6, False),
        "student": said(2, 3, 2.4, 0.5),
        "control": said(3, 3, 3.0, 0.3),
        "half": said(4, 2, 2.6, 0.4),
    }


def naive(
    model: Spoken, seed: int, teacher: Spoken, positions: Array, bytes_n: float, sampled: Array
) -> dict[str, float]:
    """One seed on these positions, of which some may stand twice; `sampled` are places among the sample."""
    nll = [float(model.nll_SP[seed, place]) for place in positions]
    top = model.top_SP[seed]
    found = {
        "nll": sum(nll) / len(nll),
        "perplexity": np.exp(sum(nll) / len(nll)),
        "bits_per_byte": sum(nll) / np.log(2) / bytes_n,
    }
    found["accuracy"] = np.mean([top[place] == TARGET_P[place] for place in positions])
    if model.kl_SQ is not None:
        found["agreement"] = np.mean([top[place] == teacher.top_SP[0, place] for place in positions])
        found["kl_to_teacher"] = np.mean([model.kl_SQ[seed, place] for place in sampled]) if len(sampled) else np.nan
    return found


def test_each_seed_is_measured_as_plain_sums_say() -> None:
    models = everyone()
    scores = score_language(models, text(), draws=3)
    for name, model in models.items():
        for seed in range(model.seeds):
            whole = np.arange(len(TARGET_P))
            expected = naive(model, seed, models["teacher"], whole, BYTES_N.sum(), np.arange(len(SAMPLE_Q)))
            found = {figure: value["per_seed"][seed] for figure, value in scores.models[name].items()}
            assert found == pytest.approx(expected)
        assert all(value["mean"] == pytest.approx(np.mean(value["per_seed"])) for value in scores.models[name].values())
        assert all(("ci95" in value) == (model.seeds > 1) for value in scores.models[name].values())


def test_the_intervals_are_of_documents_and_seeds_drawn_together() -> None:
    draws, models = 40, everyone()
    scores = score_language(models, text(), draws=draws)
    documents = np.unique(DOCUMENT_N)
    drawn_BU = np.random.default_rng([0, 0]).integers(0, len(documents), (draws, len(documents)), dtype=np.int32)
    values: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for name, model in models.items():
        count = model.seeds
        picked_BS = np.random.default_rng([0, 1, count]).multinomial(count, np.full(count, 1 / count), size=draws)
        for drawn_U, picked_S in zip(drawn_BU, picked_BS, strict=True):
            windows = np.concatenate([np.flatnonzero(documents[unit] == DOCUMENT_N) for unit in drawn_U])
            positions = np.concatenate([np.flatnonzero(window == WINDOW_P) for window in windows])
            sampled = np.concatenate([np.flatnonzero(WINDOW_P[SAMPLE_Q] == window) for window in windows])
            seeds = np.repeat(np.arange(count), picked_S)
            each = [naive(model, seed, models["teacher"], positions, BYTES_N[windows].sum(), sampled) for seed in seeds]
            values[name].append({figure: np.mean([one[figure] for one in each]) for figure in each[0]})
    for name, model in models.items():
        for figure, value in scores.models[name].items():
            if model.seeds > 1:
                value_B = np.array([one[figure] for one in values[name]])
                expected = np.percentile(value_B[np.isfinite(value_B)], [2.5, 97.5])
                assert value["ci95"] == pytest.approx(expected, rel=1e-5), (name, figure)
    for figure, value in scores.differences["student-control"].items():
        apart_B = [a[figure] - b[figure] for a, b in zip(values["student"], values["control"], strict=True)]
        assert value["ci95"] == pytest.approx(np.percentile(apart_B, [2.5, 97.5]), rel=1e-4)
    bits = {name: np.array([one["bits_per_byte"] for one in values[name]]) for name in models}
    ratio_B = (bits["control"] - bits["student"]) / (bits["control"] - bits["teacher"])
    assert scores.gap_recovered["ci95"] == pytest.approx(np.percentile(ratio_B, [2.5, 97.5]), rel=1e-4)


def test_the_shape_is_the_contracts() -> None:
    scores = score_language(everyone(), text(), draws=200)
    json.dumps([scores.models, scores.differences, scores.gap_recovered, scores.gaps], allow_nan=False)
    figures = ["nll", "perplexity", "bits_per_byte", "accuracy"]
    assert list(scores.models["teacher"]) == figures
    assert list(scores.models["student"]) == [*figures, "agreement", "kl_to_teacher"]
    names = ["student-control", "student-teacher", "teacher-control", "half-control", "half-student", "half-teacher"]
    assert list(scores.differences) == names
    assert all(list(one) == figures for one in scores.differences.values())
    mean = {name: scores.models[name]["bits_per_byte"]["mean"] for name in scores.models}
    expected = (mean["control"] - mean["student"]) / (mean["control"] - mean["teacher"])
    assert scores.gap_recovered["mean"] == pytest.approx(expected)
    assert set(scores.gaps) == {"student", "half"}


def test_without_bytes_the_gap_is_of_nats() -> None:
    scores = score_language(everyone(), text(None), draws=200)
    assert "bits_per_byte" not in scores.models["student"]
    mean = {name: scores.models[name]["nll"]["mean"] for name in scores.models}
    expected = (mean["control"] - mean["student"]) / (mean["control"] - mean["teacher"])
    assert scores.gap_recovered["mean"] == pytest.approx(expected)


def test_no_gap_is_claimed_without_one() -> None:
    models = everyone()

    def absent(nats_of_control: float) -> str:
        scores = score_language(models | {"control": said(3, 3, nats_of_control, 0.3)}, text(), draws=200)
        return str(scores.gap_recovered["absent"])

    assert absent(1.5).endswith("the lower end is not above 0")
    assert absent(2.01).endswith("the lower end is not above 0")
    assert absent(2.08).endswith("only 2.8 standard errors, 4 are asked for")
    assert absent(2.08).startswith("control - teacher is +0.0369 in bits per byte, 95 % interval +0.0098 to ")
    single = {name: Spoken(one.nll_SP[:1], one.top_SP[:1]) for name, one in models.items()}
    scores = score_language(single, text())
    assert "one seed" in scores.gap_recovered["absent"]
    assert list(scores.differences["student-control"]["nll"]) == ["mean"]
    del models["teacher"]
    scores = score_language(models, text(), draws=20)
    assert scores.gap_recovered == {"absent": "bits per byte of the teacher was not measured"}
    assert {"agreement", "kl_to_teacher"}.isdisjoint(scores.models["student"])


def test_a_single_document_has_its_windows_drawn() -> None:
    one = text(document_N=np.zeros(40, int))
    assert (one.drawn, one.units) == ("windows", 40)
    assert (text().drawn, text().units) == ("documents", len(np.unique(DOCUMENT_N)))
    low, high = score_language(everyone(), one, draws=200).models["student"]["nll"]["ci95"]
    assert low < high


def test_a_loss_beyond_all_bounds_has_no_perplexity() -> None:
    models = everyone()
    models["student"] = Spoken(models["student"].nll_SP * 1000, models["student"].top_SP)
    scores = score_language(models, text(), draws=20)
    assert "perplexity" not in scores.models["student"]
    assert "perplexity" not in scores.differences["student-control"]
    json.dumps(scores.models, allow_nan=False)


def test_predictions_of_other_positions_are_refused() -> None:
    models = everyone()
    models["student"] = Spoken(models["student"].nll_SP[:, 1:], models["student"].top_SP[:, 1:])
    with pytest.raises(WrongAnswer, match="239 predictions for 240"):
        score_language(models, text())
