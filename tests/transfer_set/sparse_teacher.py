"""A small teacher at hand: hidden states with a few strong directions, and an output layer that makes peaked predictions."""

from __future__ import annotations

import torch

from stillroom.rows import Head

VOCABULARY, WIDTH = 500, 32


def teacher(
    positions: int = 600,
    vocabulary: int = VOCABULARY,
    width: int = WIDTH,
    *,
    bias: bool = False,
    soft_cap: float | None = None,
    scale: float = 3.0,
    seed: int = 0,
) -> tuple[torch.Tensor, Head, torch.Tensor]:
    """Hidden states [P, G], the output layer, and the token that stands at each position [P]."""
    roll = torch.Generator().manual_seed(seed)
    strength_G = torch.linspace(1, 0, width).square() + 0.02
    hidden_PG = torch.randn(positions, width, generator=roll) * strength_G + 0.3
    weight_VG = torch.randn(vocabulary, width, generator=roll) * scale / width**0.5
    bias_V = torch.randn(vocabulary, generator=roll) if bias else None
    forced_P = torch.randint(0, vocabulary, (positions,), generator=roll)
    return hidden_PG, Head(weight_VG, bias_V, soft_cap), forced_P


def exact(hidden_PG: torch.Tensor, head: Head) -> torch.Tensor:
    """log p [P, V] in float64."""
    logits_PV = hidden_PG.double() @ head.weight_VH.double().T
    if head.bias_V is not None:
        logits_PV = logits_PV + head.bias_V.double()
    if head.soft_cap is not None:
        logits_PV = head.soft_cap * torch.tanh(logits_PV / head.soft_cap)
    return logits_PV.log_softmax(1)
