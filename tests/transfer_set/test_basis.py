"""A basis measures hidden states by the logits they make, spends its bits where they count, and is the same each time."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.transfer_set.sparse_teacher import VOCABULARY, WIDTH, exact, teacher

from stillroom.errors import CorruptFile, NotFinite, WrongAnswer
from stillroom.transfer_set.basis import DISTORTION, FLATTENED, STEP, FittedBasis, fit_basis, water_filling
from stillroom.transfer_set.fidelity import dense, fidelity
from stillroom.transfer_set.sparse_logits import Layout, Tail, decode, encode


def kept_kl(tail_bytes: int, soft_cap: float | None = None, bias: bool = False, components: int | None = None) -> float:
    hidden_PG, head, forced_P = teacher(1_000, soft_cap=soft_cap, bias=bias)
    fitted = fit_basis(hidden_PG[:800], *head, tail_bytes=tail_bytes, components=components)
    layout = Layout.of(VOCABULARY, 4, "hidden", tail_bytes)
    kept = decode(layout, fitted, encode(layout, fitted, hidden_PG[800:], head, forced_P[800:]))
    return float(fidelity(hidden_PG[800:], head, kept)["kl"].mean())


def test_the_tables_are_those_of_the_best_uniform_quantiser() -> None:
    value_N = np.random.default_rng(0).standard_normal(1_000_000)

    def error(step: float, bits: int) -> float:
        level_N = np.clip(np.floor(value_N / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5
        return float(((value_N - level_N * step) ** 2).mean())

    for bits in range(1, 9):
        assert error(STEP[bits], bits) == pytest.approx(DISTORTION[bits], rel=0.03)
        assert error(STEP[bits], bits) <= 1.005 * min(error(STEP[bits] * by, bits) for by in (0.9, 0.95, 1.05, 1.1))


@pytest.mark.parametrize("total", [0, 1, 2, 3, 5, 7])
def test_bits_go_where_no_other_choice_is_better(total: int) -> None:
    variances = [9.0, 4.0, 1.0, 0.3]
    worth: list[float] = [variance**FLATTENED for variance in variances]
    choices = [bits for bits in itertools.product(range(8), repeat=4) if sum(bits) == total]

    def left(bits: tuple[int, ...]) -> float:
        return sum(value * DISTORTION[bit] for value, bit in zip(worth, bits, strict=True))

    best = min(choices, key=left)
    assert water_filling(variances, total) == tuple(bit for bit in best if bit)


@pytest.mark.parametrize("tail", ["hidden", "sample", "bucket"])
def test_all_that_is_made_stands_where_the_teacher_does(tail: Tail) -> None:
    """Wherever that is: a tensor made without saying where would be of another device here, as it would on a GPU."""
    hidden_PG, head, forced_P = teacher(600, soft_cap=4.0, bias=True)
    layout = Layout.of(VOCABULARY, 4, tail, 16)
    with torch.device("meta"):
        fitted = fit_basis(hidden_PG, *head, tail_bytes=16) if tail == "hidden" else None
        records_PR = encode(layout, fitted, hidden_PG, head, forced_P, np.arange(600, dtype=np.uint64))
        kept = decode(layout, fitted, records_PR)
        log_q_PV = dense(kept, VOCABULARY)
    assert log_q_PV.device == hidden_PG.device
    assert not log_q_PV.isnan().any()


def test_bits_have_a_ceiling_and_none_are_given_to_nothing() -> None:
    assert water_filling([1.0, 0.5, 0.0, 1e-30], 100) == (8, 8)
    assert water_filling([], 8) == ()
    bits = water_filling([2.0 ** (-place / 8) for place in range(200)], 256)
    assert sum(bits) == 256
    assert list(bits) == sorted(bits, reverse=True)


def test_components_are_uncorrelated_and_a_unit_of_each_moves_the_logits_as_far() -> None:
    hidden_NG, head, _ = teacher(4_000)
    fitted = fit_basis(hidden_NG, *head, tail_bytes=32)
    assert fitted.bits_M == (8,) * WIDTH
    place_NM = ((hidden_NG - fitted.mean_G) @ fitted.encode_GM).double()
    covariance_MM = place_NM.T @ place_NM / 4_000
    spread_M = covariance_MM.diagonal().sqrt()
    correlation_MM = covariance_MM / spread_M / spread_M[:, None]
    assert (correlation_MM - torch.eye(WIDTH)).abs().max() < 1e-3
    assert (spread_M[1:] <= spread_M[:-1] * 1.001).all()
    np.testing.assert_allclose(fitted.step_M, STEP[8] * spread_M, rtol=1e-3)
    # The metric: square root of the mean distribution, renormalised.
    p_V = exact(hidden_NG, head).exp().mean(0).sqrt()
    p_V /= p_V.sum()
    matrix_VM = fitted.matrix_VM.double() - p_V @ fitted.matrix_VM.double()
    np.testing.assert_allclose((matrix_VM * p_V[:, None]).T @ matrix_VM, np.eye(WIDTH), atol=0.02)
    np.testing.assert_allclose(fitted.centre_M, p_V @ fitted.matrix_VM.double(), atol=1e-2)


def test_all_components_in_full_make_the_logits() -> None:
    hidden_NG, head, _ = teacher(500, bias=True)
    fitted = fit_basis(hidden_NG, *head, tail_bytes=32)
    place_NM = (hidden_NG - fitted.mean_G) @ fitted.encode_GM
    made_NV = place_NM @ fitted.matrix_VM.float().T + fitted.bias_V
    assert head.bias_V is not None
    want_NV = hidden_NG @ head.weight_VH.T + head.bias_V
    assert (made_NV - want_NV).abs().max() < 0.01 * want_NV.abs().max()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 5.0])
def test_more_bytes_keep_more_and_enough_keep_nearly_all(bias: bool, soft_cap: float | None) -> None:
    kls = [kept_kl(size, soft_cap, bias) for size in (1, 2, 4, 8, 32)]
    assert kls == sorted(kls, reverse=True)
    assert kls[2] < kls[0] / 2
    assert kls[-1] < 2e-3, "what is left is the rounding of the head"


def test_fewer_components_cost_less_and_keep_less() -> None:
    assert kept_kl(8, components=4) > kept_kl(8)


def test_a_fit_is_a_pure_function_of_what_it_is_given(tmp_path: Path) -> None:
    hidden_NG, head, _ = teacher(900)
    one, two = (fit_basis(hidden_NG.numpy(), *head, tail_bytes=6, seed=3) for _ in range(2))
    one.save(tmp_path / "one.safetensors")
    two.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    one.wide_VM.add_(0)  # what is derived is not saved
    one.save(tmp_path / "three.safetensors")
    assert (tmp_path / "three.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()


@pytest.mark.parametrize("soft_cap", [None, 7.5])
def test_a_basis_comes_back_from_its_file(tmp_path: Path, soft_cap: float | None) -> None:
    hidden_NG, head, _ = teacher(900, soft_cap=soft_cap)
    fitted = fit_basis(hidden_NG, *head, tail_bytes=6)
    fitted.save(tmp_path / "basis.safetensors")
    again = FittedBasis.load(tmp_path / "basis.safetensors")
    for field in fields(FittedBasis):
        left, right = getattr(fitted, field.name), getattr(again, field.name)
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    assert again.matrix_VM.dtype == torch.bfloat16
    assert again.basis.soft_cap == soft_cap
    assert again.tail_bytes == 6
    assert str(tmp_path) not in (tmp_path / "basis.safetensors").read_bytes().decode("latin1")


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    hidden_NG, head, _ = teacher(100)
    path = tmp_path / "basis.safetensors"
    fit_basis(hidden_NG, *head, tail_bytes=6).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    with pytest.raises(CorruptFile, match="damaged"):
        FittedBasis.load(path)
    facts = b'format\\": 1'
    assert whole.count(facts) == 1
    path.write_bytes(whole.replace(facts, b'format\\": 2'))
    with pytest.raises(CorruptFile, match="format"):
        FittedBasis.load(path)


def test_what_cannot_be_fitted_is_refused() -> None:
    hidden_NG, head, _ = teacher(50)
    hidden_NG[7, 3] = torch.nan
    with pytest.raises(NotFinite):
        fit_basis(hidden_NG, *head, tail_bytes=6)
    hidden_NG[7, 3] = 3e38
    with pytest.raises(NotFinite, match="position 7"):
        fit_basis(hidden_NG, *head, tail_bytes=6)
    with pytest.raises(WrongAnswer, match="cannot be fitted"):
        fit_basis(hidden_NG[:1], *head, tail_bytes=6)
    with pytest.raises(WrongAnswer, match="cannot be fitted"):
        fit_basis(hidden_NG[:, :5], *head, tail_bytes=6)


def test_hidden_states_that_are_all_the_same_need_no_bits() -> None:
    hidden_NG, head, forced_N = teacher(30)
    hidden_NG = hidden_NG[:1].expand(30, -1)
    fitted = fit_basis(hidden_NG, *head, tail_bytes=6)
    layout = Layout.of(VOCABULARY, 2, "hidden", 6)
    kept = decode(layout, fitted, encode(layout, fitted, hidden_NG, head, forced_N))
    assert (dense(kept, VOCABULARY).exp() - exact(hidden_NG, head).exp()).abs().max() < 0.02
