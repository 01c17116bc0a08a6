"""Fidelity equals its definition in float64, whatever the form of the tail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.transfer_set.sparse_teacher import VOCABULARY, exact, teacher

from stillroom.errors import NotFinite
from stillroom.rows import Head, SparseTargets
from stillroom.transfer_set.basis import fit_basis
from stillroom.transfer_set.fidelity import (
    RANKS,
    compare,
    dense,
    fidelity,
    joined,
    part,
    summary,
)
from stillroom.transfer_set.output_layer import largest, logit_chunks
from stillroom.transfer_set.sparse_logits import Layout, decode, encode

POSITIONS = 300


def kept_as(tail: str, soft_cap: float | None = None) -> tuple[torch.Tensor, Head, SparseTargets]:
    hidden_PG, head, forced_P = teacher(POSITIONS, soft_cap=soft_cap)
    layout = Layout.of(VOCABULARY, 4, tail, 6)  # type: ignore[arg-type]
    fitted = fit_basis(hidden_PG, *head, tail_bytes=6) if tail == "hidden" else None
    records = encode(layout, fitted, hidden_PG, head, forced_P, np.arange(POSITIONS, dtype=np.uint64))
    return hidden_PG, head, decode(layout, fitted, records)


def naive(kept: SparseTargets, row: int) -> np.ndarray:
    """q of one position, token by token, in float64."""
    mass = float(kept.tail_log_mass_P[row].double().exp())
    inside = set(kept.ids_PK[row].tolist())
    outside = [token for token in range(VOCABULARY) if token not in inside]
    q_V = np.zeros(VOCABULARY)
    q_V[kept.ids_PK[row].numpy()] = kept.log_p_PK[row].double().exp()
    if kept.tail == "hidden":
        assert kept.components_PM is not None
        assert kept.basis is not None
        matrix_VM, bias_V, cap = kept.basis
        logits_V = (matrix_VM.double() @ kept.components_PM[row].double() + bias_V.double()).numpy()
        logits_V = logits_V if cap is None else cap * np.tanh(logits_V / cap)
        weight_V = np.exp(logits_V[outside] - logits_V[outside].max())
        q_V[outside] = mass * weight_V / weight_V.sum()
    elif kept.tail == "sample":
        assert kept.sample_ids_PS is not None
        assert kept.sample_log_weight_PS is not None
        for token, log_weight in zip(kept.sample_ids_PS[row], kept.sample_log_weight_PS[row], strict=True):
            q_V[token] += np.exp(float(log_weight))
    else:
        q_V[outside] = mass / len(outside)
    return q_V


@pytest.mark.parametrize("soft_cap", [None, 5.0])
@pytest.mark.parametrize("tail", ["hidden", "sample", "bucket"])
def test_the_rebuilt_distribution_and_its_distance_equal_a_reference(tail: str, soft_cap: float | None) -> None:
    hidden_PG, head, kept = kept_as(tail, soft_cap)
    p_PV = exact(hidden_PG, head).exp().numpy()
    q_PV = np.stack([naive(kept, row) for row in range(POSITIONS)])
    np.testing.assert_allclose(q_PV.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(dense(kept, VOCABULARY).double().exp(), q_PV, rtol=2e-4, atol=1e-9)
    found = fidelity(hidden_PG, head, kept)
    np.testing.assert_allclose(found["total_variation"], np.abs(p_PV - q_PV).sum(1) / 2, atol=1e-5)
    with np.errstate(divide="ignore"):
        kl_P = (p_PV * (np.log(p_PV) - np.log(q_PV))).sum(1)
    assert np.isinf(found["kl"]).all() if tail == "sample" else True
    np.testing.assert_allclose(found["kl"], kl_P, rtol=1e-3, atol=2e-5)
    order_PV = np.argsort(-p_PV, axis=1)
    bias_V = np.take_along_axis(q_PV - p_PV, order_PV, 1).mean(0)
    np.testing.assert_allclose(found["bias"][:VOCABULARY], bias_V, atol=1e-5)
    assert found["bias"].shape == (RANKS + 1,)
    assert summary(found)["bias"] == pytest.approx(np.abs(bias_V).sum() / 2, abs=1e-5)


def test_a_teacher_kept_whole_is_as_good_as_the_teacher() -> None:
    hidden_PG, head, forced_P = teacher(50)
    layout = Layout(vocabulary=VOCABULARY, head=VOCABULARY, tail="bucket", head_bits=16)
    kept = decode(layout, None, encode(layout, None, hidden_PG, head, forced_P))
    found = summary(fidelity(hidden_PG, head, kept))
    assert found["kl"] < 1e-5
    assert found["total_variation"] < 1e-3
    assert found["bias"] < 1e-3


def test_ranks_beyond_those_told_apart_count_as_one() -> None:
    vocabulary = 3 * RANKS
    log_p_PV = torch.randn(5, vocabulary).log_softmax(1)
    top = log_p_PV.topk(2, 1)
    kept = SparseTargets(
        top.indices, top.values, (1 - top.values.exp().sum(1)).log(), torch.zeros(5), torch.zeros(5), "bucket"
    )
    found = compare(log_p_PV, kept)
    assert found["bias"].sum() == pytest.approx(0, abs=1e-6)
    p_PR = log_p_PV.exp().sort(1, descending=True).values
    each = kept.tail_log_mass_P.exp() / (vocabulary - 2)
    rest = (each * (vocabulary - RANKS) - p_PR[:, RANKS:].sum(1)).mean()
    assert found["bias"][-1] == pytest.approx(float(rest), abs=1e-6)


def test_a_sample_is_far_off_at_each_position_and_hardly_on_the_whole() -> None:
    by_tail = {tail: summary(fidelity(*kept_as(tail))) for tail in ("sample", "bucket")}
    assert by_tail["sample"]["total_variation"] > 4 * by_tail["sample"]["bias"]
    assert by_tail["sample"]["bias"] < by_tail["bucket"]["bias"] / 2


def test_a_hidden_tail_is_nearer_than_a_bucket() -> None:
    kls = [fidelity(*kept_as(tail))["kl"].mean() for tail in ("hidden", "bucket")]
    assert kls == sorted(kls)


def test_parts_join_to_the_whole() -> None:
    hidden_PG, head, kept = kept_as("hidden")
    whole = fidelity(hidden_PG, head, kept)
    parts = joined(fidelity(hidden_PG[rows], head, part(kept, rows)) for rows in (slice(0, 80), slice(80, POSITIONS)))
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, atol=1e-6)


def test_a_teacher_that_says_nan_is_refused() -> None:
    hidden_PG, head, kept = kept_as("bucket")
    hidden_PG[270] = torch.nan
    with pytest.raises(NotFinite, match="position 270"):
        fidelity(hidden_PG, head, kept)


@pytest.mark.parametrize("vocabulary", [5, 31, 640, 1_000, 4_097])
@pytest.mark.parametrize("count", [1, 5, 30])
def test_the_largest_logits_are_found_as_topk_finds_them(vocabulary: int, count: int) -> None:
    logits_CV = torch.randn(20, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    count = min(count, vocabulary)
    values_CJ, ids_CJ = largest(logits_CV, count)
    want = logits_CV.topk(count, 1)
    assert torch.equal(values_CJ, want.values)
    assert torch.equal(ids_CJ, want.indices)
    tied_CV = (logits_CV * 2).round()
    values_CJ, ids_CJ = largest(tied_CV, count)
    assert torch.equal(values_CJ, tied_CV.topk(count, 1).values)
    assert torch.equal(tied_CV.gather(1, ids_CJ), values_CJ)
    assert all(len(set(row)) == count for row in ids_CJ.tolist())


def test_logits_come_in_chunks_of_one_buffer() -> None:
    hidden_PG, head, _ = teacher(600, bias=True, soft_cap=3.0)
    seen = [(rows, logits_CV.clone(), logits_CV.data_ptr()) for rows, logits_CV in logit_chunks(hidden_PG, head)]
    assert len(seen) > 1
    assert len({pointer for *_, pointer in seen}) == 1
    found_PV = torch.cat([logits_CV for _, logits_CV, _ in seen])
    torch.testing.assert_close(found_PV.log_softmax(1).double(), exact(hidden_PG, head), rtol=1e-5, atol=1e-5)
