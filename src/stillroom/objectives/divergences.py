"""The divergences between two distributions given as log-probabilities [B, C]; each gives one value a row, in nats."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch.nn import functional

Divergence: TypeAlias = Literal["forward", "reverse", "jensen_shannon"]


def kl(left_BC: torch.Tensor, right_BC: torch.Tensor) -> torch.Tensor:
    """KL(left || right) = sum of p_left (log p_left - log p_right), a row."""
    return functional.kl_div(right_BC, left_BC, reduction="none", log_target=True).sum(1)


def jensen_shannon(left_BC: torch.Tensor, right_BC: torch.Tensor) -> torch.Tensor:
    """Mean KL of both to their mixture (Lin 1991), between 0 and log 2 nats, a row."""
    middle_BC = torch.logaddexp(left_BC, right_BC) - math.log(2)
    return (kl(left_BC, middle_BC) + kl(right_BC, middle_BC)) / 2


def divergence(teacher_BC: torch.Tensor, student_BC: torch.Tensor, form: Divergence) -> torch.Tensor:
    """Forward is KL(teacher || student), which covers all the teacher says; reverse seeks its mode."""
    if form == "forward":
        return kl(teacher_BC, student_BC)
    if form == "reverse":
        return kl(student_BC, teacher_BC)
    return jensen_shannon(teacher_BC, student_BC)


def standardise(logits_BC: torch.Tensor) -> torch.Tensor:
    """Each row with mean 0 and standard deviation 1 (Sun and others 2024, arXiv:2403.01265)."""
    centred = logits_BC - logits_BC.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-7).sqrt()
