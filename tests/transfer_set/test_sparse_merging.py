"""An ensemble's kept answers become one record of their mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.transfer_set.sparse_teacher import VOCABULARY, exact, teacher

from stillroom.errors import RecipeError, WrongAnswer
from stillroom.rows import Array, SparseTargets
from stillroom.transfer_set.basis import fit_basis
from stillroom.transfer_set.fidelity import dense
from stillroom.transfer_set.merging import merge, merged_layout
from stillroom.transfer_set.sparse_logits import Layout, decode, encode

POSITIONS = 200
MEMBER = Layout.of(VOCABULARY, 8, "hidden", 16)
SEEDS = np.arange(POSITIONS, dtype=np.uint64)


def member(seed: int, layout: Layout = MEMBER) -> tuple[SparseTargets, torch.Tensor, torch.Tensor]:
    """What one teacher kept, its exact distributions, and the tokens that stand there; teachers' widths differ."""
    hidden_PG, head, forced_P = teacher(POSITIONS, width=16 + 8 * seed, seed=seed)
    fitted = fit_basis(hidden_PG, *head, tail_bytes=layout.tail_bytes) if layout.tail == "hidden" else None
    forced_P = torch.arange(POSITIONS) % VOCABULARY
    return (
        decode(layout, fitted, encode(layout, fitted, hidden_PG, head, forced_P, SEEDS)),
        exact(hidden_PG, head),
        forced_P,
    )


def mean_of(log_ps: list[torch.Tensor], shares: list[float], mean: str) -> torch.Tensor:
    if mean == "geometric":
        return sum(share * log_p for share, log_p in zip(shares, log_ps, strict=True)).log_softmax(1)  # type: ignore[union-attr]
    return sum(share * log_p.exp() for share, log_p in zip(shares, log_ps, strict=True)).log()  # type: ignore[union-attr]


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
@pytest.mark.parametrize("tail", ["bucket", "sample"])
def test_the_record_is_of_the_mean_of_the_members(mean: str, weights: list[float] | None, tail: str) -> None:
    (one, log_p, forced_P), (two, log_r, _) = member(0), member(1)
    layout = Layout.of(VOCABULARY, 16, tail, 16)  # type: ignore[arg-type]
    records = merge(layout, [one, two], weights, mean, SEEDS)  # type: ignore[arg-type]
    kept = decode(layout, None, records)
    shares = [0.5, 0.5] if weights is None else [0.25, 0.75]
    rebuilt_PV = mean_of([dense(each, VOCABULARY).double() for each in (one, two)], shares, mean)
    top = rebuilt_PV.topk(16, 1)
    assert (kept.ids_PK == top.indices).double().mean() > 0.999  # numbers rounded alike may be tied
    assert (kept.log_p_PK.exp() - top.values.exp()).abs().max() < 0.012
    tail_P = (1 - top.values.exp().sum(1)).log()
    torch.testing.assert_close(kept.tail_log_mass_P.double(), tail_P, rtol=2e-3, atol=2e-3)
    # Against the teachers themselves, the forced token's is exact, and the rest is near.
    exact_PV = mean_of([log_p, log_r], shares, mean)
    said_P = exact_PV.gather(1, forced_P[:, None])[:, 0]
    assert (kept.forced_log_p_P - said_P).abs().mean() < (0.003 if mean == "arithmetic" else 0.05)
    entropy_P = -(exact_PV.exp() * exact_PV).sum(1)
    assert (kept.entropy_P - entropy_P).abs().mean() < 0.1


def test_a_mean_of_equal_teachers_is_the_teacher() -> None:
    one, _, _ = member(0)
    layout = Layout.of(VOCABULARY, 8, "bucket")
    for mean in ("arithmetic", "geometric"):
        kept = decode(layout, None, merge(layout, [one, one, one], None, mean))
        assert (kept.log_p_PK - one.log_p_PK).abs().max() < 1 / 16
        torch.testing.assert_close(kept.forced_log_p_P, one.forced_log_p_P, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(kept.tail_log_mass_P, one.tail_log_mass_P, rtol=2e-3, atol=2e-3)


def test_samples_are_merged_by_their_arithmetic_mean_alone() -> None:
    layout = Layout.of(VOCABULARY, 8, "sample", 16)
    members = [member(seed, layout)[0] for seed in (0, 1)]
    kept = decode(layout, None, merge(layout, members, seed_P=SEEDS))
    rebuilt_PV = mean_of([dense(each, VOCABULARY).double() for each in members], [0.5, 0.5], "arithmetic")
    assert kept.sample_ids_PS is not None
    assert kept.sample_log_weight_PS is not None
    drawn_PS = torch.isfinite(kept.sample_log_weight_PS)
    assert torch.isfinite(rebuilt_PV.gather(1, kept.sample_ids_PS)[drawn_PS]).all()
    with pytest.raises(RecipeError, match="geometric"):
        merge(layout, members, mean="geometric", seed_P=SEEDS)


def test_the_merged_layout_has_a_longer_head_and_a_sample() -> None:
    layout = merged_layout(Layout.of(49_152))
    assert (layout.head, layout.tail, layout.samples) == (16, "sample", 16)
    bucket = merged_layout(Layout.of(49_152, 8, "bucket"))
    assert (bucket.head, bucket.tail, bucket.samples) == (16, "bucket", 0)


@pytest.mark.parametrize(("count", "weights"), [(2, [1.0]), (2, [1.0, 0.0]), (2, [1.0, float("nan")]), (0, None)])
def test_weights_that_make_no_sense_are_refused(count: int, weights: list[float] | None) -> None:
    layout = Layout.of(VOCABULARY, 8, "bucket")
    with pytest.raises(WrongAnswer, match="merged"):
        merge(layout, [member(0)[0]] * count, weights)


def test_members_of_other_positions_are_refused() -> None:
    layout = Layout.of(VOCABULARY, 8, "bucket")
    records: Array = np.zeros((3, layout.record_bytes), np.uint8)
    with pytest.raises(WrongAnswer, match="positions"):
        merge(layout, [member(0)[0], decode(layout, None, records)])
