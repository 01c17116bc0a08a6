"""A record of a few tens of bytes holds what it says, comes back as it was, and refuses what it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.transfer_set.sparse_teacher import VOCABULARY, exact, teacher

from stillroom.errors import CorruptFile, NotFinite, WrongAnswer
from stillroom.rows import Head
from stillroom.transfer_set.basis import fit_basis
from stillroom.transfer_set.fidelity import dense
from stillroom.transfer_set.sparse_logits import FLOOR, Layout, decode, encode, encode_log_p

BUCKET = Layout(vocabulary=VOCABULARY, head=8, tail="bucket")
SAMPLE = Layout(vocabulary=VOCABULARY, head=4, tail="sample", samples=12)


@pytest.mark.parametrize(("vocabulary", "bits"), [(2, 1), (49_152, 16), (65_536, 16), (65_537, 17), (151_936, 18)])
def test_ids_take_the_bits_they_need(vocabulary: int, bits: int) -> None:
    assert Layout.of(vocabulary, 1).id_bits == bits


def test_the_default_record_has_at_most_64_bytes() -> None:
    assert Layout.of(49_152).record_bytes == 62
    assert Layout.of(151_936).record_bytes == 64
    assert Layout.of(262_144).record_bytes == 64


def test_a_layout_goes_through_json_and_another_version_is_refused() -> None:
    for layout in (Layout.of(49_152), BUCKET, SAMPLE):
        assert Layout.from_json(layout.to_json()) == layout
        assert layout.to_json()["record_bytes"] == layout.record_bytes
    for broken in ({**SAMPLE.to_json(), "version": 2}, {**SAMPLE.to_json(), "tail": "wavelet"}, None, {"head": 3}):
        with pytest.raises(CorruptFile, match="layout"):
            Layout.from_json(broken)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tail": "hidden"},
        {"tail": "hidden", "tail_bytes": 3, "samples": 2},
        {"tail": "sample"},
        {"tail": "bucket", "tail_bytes": 1},
        {"tail": "bucket", "head": 0},
        {"tail": "bucket", "head": 501},
        {"tail": "bucket", "head_bits": 2},
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Layout.model_validate({"vocabulary": 500, **wrong})


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 4.0])
def test_the_facts_equal_a_float64_reference(bias: bool, soft_cap: float | None) -> None:
    hidden_PG, head, forced_P = teacher(300, bias=bias, soft_cap=soft_cap)
    log_p_PV = exact(hidden_PG, head)
    kept = decode(BUCKET, None, encode(BUCKET, None, hidden_PG, head, forced_P))
    top = log_p_PV.topk(8, 1)
    assert torch.equal(kept.ids_PK, top.indices)
    p_PK = top.values.exp()
    assert (kept.log_p_PK - top.values).abs().max() < 1 / 16
    assert (kept.log_p_PK.exp() - p_PK).abs().max() < 0.012
    tail_P = (1 - p_PK.sum(1)).log()
    torch.testing.assert_close(kept.tail_log_mass_P.double(), tail_P, rtol=1e-3, atol=1e-4)
    entropy_P = -(log_p_PV.exp() * log_p_PV).sum(1)
    torch.testing.assert_close(kept.entropy_P.double(), entropy_P, rtol=1e-3, atol=1e-4)
    said_P = log_p_PV.gather(1, forced_P[:, None])[:, 0]
    torch.testing.assert_close(kept.forced_log_p_P.double(), said_P, rtol=1e-3, atol=1e-4)
    whole_P = torch.cat([kept.log_p_PK, kept.tail_log_mass_P[:, None]], 1).double().exp().sum(1)
    torch.testing.assert_close(whole_P, torch.ones(300).double(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("head_bits", [4, 8, 12, 16])
def test_more_bits_keep_the_head_more_exactly(head_bits: int) -> None:
    layout = Layout(vocabulary=VOCABULARY, head=8, tail="bucket", head_bits=head_bits)
    hidden_PG, head, forced_P = teacher(300)
    kept = decode(layout, None, encode(layout, None, hidden_PG, head, forced_P))
    want_PK = exact(hidden_PG, head).topk(8, 1).values
    steps = 2**head_bits - 1
    assert (kept.log_p_PK - want_PK).abs().max() < 1.5 * FLOOR / steps * 1.2 + 1e-3


def test_one_token_in_the_head_is_exact_through_the_tail_mass() -> None:
    layout = Layout(vocabulary=VOCABULARY, head=1, tail="bucket")
    hidden_PG, head, forced_P = teacher(200)
    kept = decode(layout, None, encode(layout, None, hidden_PG, head, forced_P))
    want_P = exact(hidden_PG, head).amax(1)
    torch.testing.assert_close(kept.log_p_PK[:, 0].double(), want_P, rtol=2e-3, atol=1e-4)


def test_a_head_of_the_whole_vocabulary_leaves_no_tail() -> None:
    layout = Layout(vocabulary=6, head=6, tail="bucket")
    hidden_PG, head, forced_P = teacher(50, vocabulary=6, scale=1)
    kept = decode(layout, None, encode(layout, None, hidden_PG, head, forced_P))
    assert torch.isneginf(kept.tail_log_mass_P).all()
    assert (dense(kept, 6) - exact(hidden_PG, head)).abs().max() < 1 / 16


@pytest.mark.parametrize("tail", ["hidden", "sample", "bucket"])
def test_a_vocabulary_of_19_bits(tail: str) -> None:
    vocabulary = 300_000
    hidden_PG, head, forced_P = teacher(40, vocabulary=vocabulary, width=8)
    layout = Layout.of(vocabulary, 8, tail, 8)  # type: ignore[arg-type]
    assert layout.id_bits == 19
    fitted = fit_basis(hidden_PG, *head, tail_bytes=8) if tail == "hidden" else None
    kept = decode(layout, fitted, encode(layout, fitted, hidden_PG, head, forced_P, np.arange(40, dtype=np.uint64)))
    assert torch.equal(kept.ids_PK, exact(hidden_PG, head).topk(8, 1).indices)
    if kept.sample_ids_PS is not None:
        assert int(kept.sample_ids_PS.max()) > 1 << 18
    small = decode(
        layout, fitted, encode(layout, fitted, hidden_PG[:3], head, forced_P[:3], np.arange(3, dtype=np.uint64))
    )
    assert small.ids_PK.shape == (3, 8)


@pytest.mark.parametrize("layout", [BUCKET, SAMPLE, Layout.of(VOCABULARY, 8, "hidden", 8)])
def test_huge_logits_make_one_hot_answers(layout: Layout) -> None:
    hidden_PG, head, forced_P = teacher(20)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=8) if layout.tail == "hidden" else None
    seeds = np.arange(20, dtype=np.uint64)
    kept = decode(layout, fitted, encode(layout, fitted, hidden_PG * 1e6, head, forced_P, seeds))
    assert torch.equal(kept.ids_PK[:, 0], exact(hidden_PG, head).argmax(1))
    assert torch.isneginf(kept.tail_log_mass_P).all()
    assert kept.log_p_PK[:, 0].abs().max() < 1e-6
    assert kept.entropy_P.abs().max() < 1e-6
    assert torch.isfinite(kept.log_p_PK).all()
    assert torch.isfinite(kept.forced_log_p_P).all()
    log_q_PV = dense(kept, VOCABULARY)
    assert not log_q_PV.isnan().any()
    torch.testing.assert_close(log_q_PV.exp().sum(1), torch.ones(20))
    if kept.sample_log_weight_PS is not None:
        assert torch.isneginf(kept.sample_log_weight_PS).all()


def test_an_even_distribution_keeps_the_mass_of_its_tail() -> None:
    layout = Layout(vocabulary=200_000, head=1, tail="bucket")
    kept = decode(layout, None, encode(layout, None, torch.zeros(2, 1), Head(torch.ones(200_000, 1)), torch.zeros(2)))
    assert torch.isfinite(kept.log_p_PK).all()
    torch.testing.assert_close(kept.log_p_PK[:, 0], torch.full((2,), -np.log(200_000.0)), rtol=0, atol=0.06)
    torch.testing.assert_close(kept.entropy_P, torch.full((2,), np.log(200_000.0)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", [BUCKET, SAMPLE, Layout.of(VOCABULARY, 8, "hidden", 8)])
def test_a_teacher_that_says_nan_is_refused(layout: Layout, value: float) -> None:
    hidden_PG, head, forced_P = teacher(300)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=8) if layout.tail == "hidden" else None
    hidden_PG[277, 3] = value
    with pytest.raises(NotFinite, match="position 277"):
        encode(layout, fitted, hidden_PG, head, forced_P, np.arange(300, dtype=np.uint64))


@pytest.mark.parametrize("layout", [BUCKET, SAMPLE, Layout.of(VOCABULARY, 8, "hidden", 8)])
def test_padded_tokens_with_a_bias_of_minus_infinity(layout: Layout) -> None:
    hidden_PG, head, forced_P = teacher(60, bias=True)
    assert head.bias_V is not None
    head.bias_V[450:] = -torch.inf
    fitted = fit_basis(hidden_PG, *head, tail_bytes=8) if layout.tail == "hidden" else None
    records = encode(layout, fitted, hidden_PG, head, forced_P.clamp(max=449), np.arange(60, dtype=np.uint64))
    kept = decode(layout, fitted, records)
    assert int(kept.ids_PK.max()) < 450
    log_p_PV = exact(hidden_PG, head)
    entropy_P = -(log_p_PV.exp() * log_p_PV.clamp(min=-1e3)).sum(1)
    torch.testing.assert_close(kept.entropy_P.double(), entropy_P, rtol=1e-3, atol=1e-4)
    if layout.tail != "bucket":
        assert dense(kept, VOCABULARY)[:, 450:].exp().max() < 1e-30


def test_the_parts_of_a_batch_stand_alone() -> None:
    hidden_PG, head, forced_P = teacher(700)
    seeds = np.random.default_rng(0).integers(0, 2**63, 700).astype(np.uint64)
    order = np.random.default_rng(1).permutation(700)
    for layout in (BUCKET, SAMPLE):
        whole = encode(layout, None, hidden_PG, head, forced_P, seeds)
        mixed = encode(layout, None, hidden_PG[order], head, forced_P[order], seeds[order])
        # Products of other shapes may differ in their last bit, and so, very rarely, may a rounded number.
        assert (whole[order] != mixed).any(1).mean() < 0.01
        np.testing.assert_array_equal(encode(layout, None, hidden_PG, head, forced_P, seeds), whole)
    assert encode(BUCKET, None, hidden_PG[:0], head, forced_P[:0]).shape == (0, BUCKET.record_bytes)
    assert decode(BUCKET, None, np.zeros((0, BUCKET.record_bytes), np.uint8)).ids_PK.shape == (0, 8)


def test_a_sample_is_unbiased_and_weighs_what_the_tail_weighs() -> None:
    hidden_PG, head, forced_P = teacher(1)
    log_p_V = exact(hidden_PG, head)[0]
    draws = 4_000
    layout = Layout(vocabulary=VOCABULARY, head=2, tail="sample", samples=10)
    many = (hidden_PG.expand(draws, -1), head, forced_P.expand(draws))
    kept = decode(layout, None, encode(layout, None, *many, np.arange(draws, dtype=np.uint64)))
    assert kept.sample_log_weight_PS is not None
    assert kept.sample_ids_PS is not None
    weight_P = kept.sample_log_weight_PS.exp().sum(1)
    torch.testing.assert_close(weight_P, kept.tail_log_mass_P.exp(), rtol=1e-5, atol=0)
    head_ids = kept.ids_PK[0]
    mean_V = dense(kept, VOCABULARY).exp().mean(0).double()
    tail_V = log_p_V.exp().index_fill(0, head_ids, 0.0)
    got_V = mean_V.index_fill(0, head_ids, 0.0)
    mass = float(tail_V.sum())
    assert (got_V - tail_V).abs().max() < 4 * mass / 10 * 0.5 / draws**0.5
    # Each token is drawn the floor or the ceiling of its expected number of times.
    times_PV = dense(kept, VOCABULARY).exp().index_fill(1, head_ids, 0.0) * 10 / mass
    assert ((times_PV - tail_V * 10 / mass).abs() < 1.01).all()


def test_the_same_seed_draws_the_same_sample_and_another_another() -> None:
    hidden_PG, head, forced_P = teacher(100)
    seeds = np.arange(100, dtype=np.uint64)
    first, other = (encode(SAMPLE, None, hidden_PG, head, forced_P, seed) for seed in (seeds, seeds + np.uint64(500)))
    np.testing.assert_array_equal(encode(SAMPLE, None, hidden_PG, head, forced_P, seeds), first)
    assert (first != other).any(1).mean() > 0.95
    with pytest.raises(WrongAnswer, match="seed"):
        encode(SAMPLE, None, hidden_PG, head, forced_P)


def test_samples_alone_need_no_head() -> None:
    layout = Layout(vocabulary=VOCABULARY, head=0, tail="sample", samples=20)
    hidden_PG, head, forced_P = teacher(50)
    kept = decode(layout, None, encode(layout, None, hidden_PG, head, forced_P, np.arange(50, dtype=np.uint64)))
    assert kept.ids_PK.shape == (50, 0)
    assert kept.tail_log_mass_P.abs().max() == 0
    torch.testing.assert_close(dense(kept, VOCABULARY).exp().sum(1), torch.ones(50))


def test_what_is_certain_has_no_tail() -> None:
    layout = Layout(vocabulary=VOCABULARY, head=2, tail="bucket")
    log_p_CV = torch.full((1, VOCABULARY), -torch.inf)
    log_p_CV[0, 7] = 0.0
    kept = decode(layout, None, encode_log_p(layout, log_p_CV, torch.tensor([-torch.inf])))
    assert torch.isneginf(kept.tail_log_mass_P).all()
    assert torch.isfinite(kept.forced_log_p_P).all()
    assert kept.ids_PK[0, 0] == 7
    assert abs(kept.log_p_PK[0, 0]) < 1e-7


def test_what_does_not_belong_together_is_refused() -> None:
    hidden_PG, head, forced_P = teacher(40)
    layout = Layout.of(VOCABULARY, 8, "hidden", 8)
    fitted, larger = (fit_basis(hidden_PG, *head, tail_bytes=size) for size in (8, 12))
    records = encode(layout, fitted, hidden_PG, head, forced_P)
    for basis in (None, larger):
        with pytest.raises(WrongAnswer, match="basis"):
            encode(layout, basis, hidden_PG, head, forced_P)
        with pytest.raises(WrongAnswer, match="basis"):
            decode(layout, basis, records)
    with pytest.raises(WrongAnswer, match="records of"):
        decode(BUCKET, None, records)
    with pytest.raises(WrongAnswer, match="500 tokens"):
        encode(Layout.of(501, 8, "bucket"), None, hidden_PG, head, forced_P)
    with pytest.raises(WrongAnswer, match="without a hidden state"):
        encode_log_p(layout, exact(hidden_PG, head).float(), forced_P.float())


def test_the_bytes_of_a_record_are_fixed() -> None:
    """Answers are read for years: whoever changes these bytes gives the layout a new version."""
    layout = Layout(vocabulary=151_936, head=3, tail="bucket")
    ids, p = [151_935, 1, 70_000, 5, 9], torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]])
    log_p_CV = torch.full((1, 151_936), -torch.inf)
    log_p_CV[:, ids] = p.log()
    records = encode_log_p(layout, log_p_CV, torch.tensor([-1.0]))
    assert records.tobytes().hex() == "7f510600001751870b4f0af04c0f002f"
    kept = decode(layout, None, records)
    assert kept.ids_PK.tolist() == [ids[:3]]
    np.testing.assert_allclose(kept.log_p_PK.numpy(), p[:, :3].log(), atol=0.03)
    assert kept.tail_log_mass_P.item() == pytest.approx(np.log(0.125), abs=1e-3)
    assert kept.entropy_P.item() == pytest.approx(float(-(p * p.log()).sum()), abs=1e-3)
    assert kept.forced_log_p_P.item() == -1.0


def test_a_fixed_sample_of_fixed_weights() -> None:
    layout = Layout(vocabulary=300, head=1, tail="sample", samples=4)
    log_p_CV = torch.full((2, 300), -8.0)
    log_p_CV[:, 7], log_p_CV[:, 250] = 0.0, -1.0
    seeds = np.array([1, 2**64 - 1], np.uint64)
    records = encode_log_p(layout, log_p_CV, torch.zeros(2), seeds)
    assert [row.tobytes().hex() for row in records] == ["072826797179486c0176f4e9d307", "072826797179486c01f7f4e9d307"]
    kept = decode(layout, None, records)
    assert kept.sample_ids_PS is not None
    assert kept.sample_log_weight_PS is not None
    assert kept.sample_ids_PS.tolist() == [[118, 250, 250, 250], [247, 250, 250, 250]]
    share_PS = (kept.sample_log_weight_PS - kept.tail_log_mass_P[:, None]).exp()
    torch.testing.assert_close(share_PS, torch.tensor([[0.25, 0.75, 0, 0]] * 2))
