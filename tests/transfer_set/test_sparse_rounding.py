"""Codes chosen for each position's own tail keep more of it than the nearest levels, from the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.transfer_set.sparse_teacher import VOCABULARY, exact, teacher

from stillroom.rows import Array, Head
from stillroom.transfer_set import rounding
from stillroom.transfer_set.basis import FittedBasis, fit_basis
from stillroom.transfer_set.bits import pack, unpack
from stillroom.transfer_set.fidelity import fidelity
from stillroom.transfer_set.rounding import rounded
from stillroom.transfer_set.sparse_logits import Layout, decode, encode

SIZE = 12
LAYOUT = Layout.of(VOCABULARY, 4, "hidden", SIZE)


def nearest(fitted: FittedBasis, hidden_PG: torch.Tensor) -> Array:
    """Each component to its nearest level, whatever it does to the logits."""
    place_PM = ((hidden_PG - fitted.mean_G) @ fitted.encode_GM / fitted.step_M).numpy()
    half_M = 2.0 ** np.array(fitted.bits_M) / 2
    codes_PM: Array = np.clip(np.floor(place_PM) + half_M, 0, 2 * half_M - 1).astype(np.uint8)
    return codes_PM


def kept_kl(fitted: FittedBasis, hidden_PG: torch.Tensor, head: Head, records: Array) -> float:
    return float(fidelity(hidden_PG, head, decode(LAYOUT, fitted, records))["kl"].mean())


@pytest.mark.parametrize("soft_cap", [None, 20.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_tail_comes_out_nearer_than_from_the_nearest_levels(soft_cap: float | None, bias: bool) -> None:
    hidden_PG, head, forced_P = teacher(1_200, width=64, scale=8, soft_cap=soft_cap, bias=bias)
    fitted = fit_basis(hidden_PG[:800], *head, tail_bytes=SIZE)
    hidden_PG, forced_P = hidden_PG[800:], forced_P[800:]
    records = encode(LAYOUT, fitted, hidden_PG, head, forced_P)
    plain = records.copy()
    plain[:, LAYOUT.facts_bytes :] = pack(nearest(fitted, hidden_PG), fitted.bits_M)
    assert kept_kl(fitted, hidden_PG, head, records) < 0.7 * kept_kl(fitted, hidden_PG, head, plain)


def test_without_tokens_to_look_at_the_nearest_levels_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "PRIOR", 1e6)
    hidden_PG, head, _ = teacher(300)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=SIZE)
    top = exact(hidden_PG, head).float().topk(20, 1)
    codes_PM = rounded(fitted, hidden_PG, top.indices, top.values, torch.zeros(300, 20))
    assert (codes_PM.numpy() != nearest(fitted, hidden_PG)).mean() < 1e-3


def test_a_position_is_rounded_by_itself() -> None:
    hidden_PG, head, forced_P = teacher(400)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=SIZE)
    whole = encode(LAYOUT, fitted, hidden_PG, head, forced_P)
    order = np.random.default_rng(0).permutation(400)
    mixed = encode(LAYOUT, fitted, hidden_PG[order], head, forced_P[order])
    # Products of other shapes may differ in their last bit, and so, rarely, may a rounded number.
    assert (whole[order] != mixed).any(1).mean() < 0.02
    np.testing.assert_array_equal(encode(LAYOUT, fitted, hidden_PG, head, forced_P), whole)


def test_codes_fit_their_bits_and_far_states_are_held_at_the_edge() -> None:
    hidden_PG, head, forced_P = teacher(200)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=SIZE)
    records = encode(LAYOUT, fitted, 20 * hidden_PG, head, forced_P)
    codes_PM = unpack(records[:, LAYOUT.facts_bytes :], fitted.bits_M)
    assert (codes_PM < 2 ** np.array(fitted.bits_M)).all()
    assert ((codes_PM == 0) | (codes_PM == 2 ** np.array(fitted.bits_M) - 1)).mean() > 0.3
    components_PM = decode(LAYOUT, fitted, records).components_PM
    assert components_PM is not None
    assert torch.isfinite(components_PM).all()


def test_a_vocabulary_smaller_than_the_tokens_looked_at() -> None:
    hidden_PG, head, forced_P = teacher(100, vocabulary=9)
    layout = Layout.of(9, 8, "hidden", SIZE)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=SIZE)
    kept = decode(layout, fitted, encode(layout, fitted, hidden_PG, head, forced_P))
    assert fidelity(hidden_PG, head, kept)["kl"].mean() < 2e-3
    assert kept.components_PM is not None
    assert torch.isfinite(kept.components_PM).all()


def test_a_half_precision_teacher_is_read_as_it_is() -> None:
    hidden_PG, head, forced_P = teacher(60)
    half = Head(head.weight_VH.bfloat16())
    fitted = fit_basis(hidden_PG.bfloat16(), half.weight_VH, tail_bytes=SIZE)
    records = encode(LAYOUT, fitted, hidden_PG.bfloat16(), half, forced_P)
    same = encode(LAYOUT, fitted, hidden_PG.bfloat16().float(), Head(half.weight_VH.float()), forced_P)
    np.testing.assert_array_equal(records, same)
