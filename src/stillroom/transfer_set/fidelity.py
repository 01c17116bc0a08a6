"""How close kept distributions are to the teacher's: per position, and by rank of the teacher's probability.

KL and total variation tell how far one position is off. The bias tells whether the errors of many positions cancel: the
difference of each rank's probability is averaged over positions before its absolute value is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from stillroom.rows import Array, Basis, Head, MixedHead, SparseTargets
from stillroom.transfer_set.output_layer import largest, logit_chunks, refuse_broken

RANKS = 1024
"""Told apart by the bias; all further ones count as one."""


def fidelity(hidden_PG: torch.Tensor, head: Head | MixedHead, kept: SparseTargets) -> dict[str, Array]:
    """KL(teacher, kept) in nats [P], total variation [P], and the mean difference kept - teacher at each rank [RANKS + 1].

    The teacher is given by its last hidden states and its output layer. See `compare`.
    """
    return joined(
        compare(logits_CV.log_softmax(1), part(kept, rows), rows.start)
        for rows, logits_CV in logit_chunks(hidden_PG, head)
    )


def compare(log_p_CV: torch.Tensor, kept: SparseTargets, first: int = 0) -> dict[str, Array]:
    """The same for a few positions whose whole distributions [C, V] are at hand; the first is position `first` of all.

    The KL is infinite where a token that the teacher may say was not kept at all, as with a sampled tail.
    """
    vocabulary = log_p_CV.shape[1]
    top_CJ, ids_CJ = largest(log_p_CV, min(RANKS, vocabulary))
    refuse_broken(top_CJ[:, 0], first)
    log_q_CV = dense(kept, vocabulary).to(log_p_CV.device)
    p_CV = log_p_CV.exp()
    off_CV = log_q_CV.exp() - p_CV
    total_C = off_CV.abs().sum(1) / 2
    rank_R = torch.zeros(RANKS + 1, dtype=torch.float64)
    rank_R[: ids_CJ.shape[1]] = off_CV.gather(1, ids_CJ).double().mean(0).cpu()
    rank_R[-1] = off_CV.double().sum(1).mean().cpu() - rank_R[:-1].sum()
    kl_CV = torch.where(p_CV > 0, (log_p_CV - log_q_CV) * p_CV, 0.0)
    found = {"kl": kl_CV.sum(1), "total_variation": total_C, "bias": rank_R}
    return {name: value.cpu().double().numpy() for name, value in found.items()}


def joined(parts: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """Several parts' positions as one; the bias is their mean, each weighed by its positions."""
    every = list(parts)
    count_N = np.array([len(each["kl"]) for each in every])
    bias_R = np.average([each["bias"] for each in every], axis=0, weights=count_N)
    names = ("kl", "total_variation")
    return {name: np.concatenate([each[name] for each in every]) for name in names} | {"bias": bias_R}


def summary(found: dict[str, Array]) -> dict[str, float]:
    """Means over positions; the bias as half the sum of its absolute values, which is comparable to a total variation."""
    bias = float(np.abs(found["bias"]).sum() / 2)
    return {"kl": float(found["kl"].mean()), "total_variation": float(found["total_variation"].mean()), "bias": bias}


def dense(kept: SparseTargets, vocabulary: int) -> torch.Tensor:
    """The kept distribution as log q [P, V], float32: for a few positions only, as it is large."""
    if kept.tail == "hidden":
        assert kept.components_PM is not None
        assert kept.basis is not None
        tail_PV = _tail_logits(kept.components_PM, kept.basis)
    elif kept.tail == "sample":
        assert kept.sample_ids_PS is not None
        assert kept.sample_log_weight_PS is not None
        # A token counts where it stood first, further draws of it weigh nothing: adding up leaves one weight each.
        weight_PS = kept.sample_log_weight_PS.exp()
        none_PV = torch.zeros(len(weight_PS), vocabulary, device=weight_PS.device)
        tail_PV = none_PV.scatter_add_(1, kept.sample_ids_PS, weight_PS).log_()
    else:
        tail_PV = kept.log_p_PK.new_zeros(len(kept.log_p_PK), vocabulary)
    tail_PV.scatter_(1, kept.ids_PK, -torch.inf)
    # Where the head is everything the tail has no shape, and no mass.
    log_sum_P1 = tail_PV.logsumexp(1, keepdim=True).nan_to_num_(neginf=0.0)
    tail_PV += kept.tail_log_mass_P[:, None] - log_sum_P1
    return tail_PV.scatter_(1, kept.ids_PK, kept.log_p_PK)


def _tail_logits(components_PM: torch.Tensor, basis: Basis) -> torch.Tensor:
    logits_PV = torch.addmm(basis.bias_V, components_PM, basis.matrix_VM.float().T)
    return logits_PV if basis.soft_cap is None else logits_PV.div_(basis.soft_cap).tanh_().mul_(basis.soft_cap)


def part(kept: SparseTargets, rows: slice) -> SparseTargets:
    """Some of the positions."""
    named = {name: getattr(kept, name) for name in SparseTargets.__slots__}
    taken: dict[str, Any] = {name: each[rows] for name, each in named.items() if torch.is_tensor(each)}
    return replace(kept, **taken)
