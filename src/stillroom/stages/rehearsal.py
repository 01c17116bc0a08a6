"""A few real training steps of a network on rows, thrown away: what a step takes. Nothing is written.

For students of a teacher that reasons, whose lessons are not there before it was asked; any other run is rehearsed as a
whole (dress_rehearsal.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stillroom.kinds import Model, Student
from stillroom.recipe import Training
from stillroom.stages.opening import Run

if TYPE_CHECKING:
    import torch

    from stillroom.inputs import Inputs
    from stillroom.models.device import Device
    from stillroom.rows import Questions

TIMED_STEPS = 6
LANGUAGE_STEPS = 3


class Cost(NamedTuple):
    """Of one network: seconds of an optimiser step, seconds to answer a row, and its weights."""

    step_s: float
    row_s: float
    parameters: int


def rehearse(run: Run, part: Student | Model, knobs: Training) -> Cost:
    """Train a fresh network for a few steps on the first rows, and answer them."""
    import torch

    from stillroom.models.device import threads

    ground, train = run.ground(untaught=True), run.splits.train
    learned = run.inputs(part, train.raw, ground)
    network = part.network(learned, len(run.splits.classes), ground).to(run.device.name)
    parameters = sum(weights.numel() for weights in network.parameters())
    device = run.device.for_size(parameters, run.recipe.dtype)
    optimiser = torch.optim.AdamW(network.parameters(), knobs.learning_rate, fused=True)
    rows = train.take(np.arange(min(knobs.batch_size, len(train))))
    of_windows = run.recipe.is_language or run.recipe.is_reasoning
    loss = (_loss_of_windows if of_windows else _loss_of_rows)(network, learned, rows, device)
    steps = LANGUAGE_STEPS if of_windows else TIMED_STEPS
    with threads(device.threads):
        times = [_step_s(loss, optimiser) for _ in range(steps)]
        network.eval()
        started = time.perf_counter()
        with torch.inference_mode():
            loss()
        row_s = (time.perf_counter() - started) / len(rows)
    return Cost(sorted(times)[steps // 2] * knobs.accumulate, row_s, parameters)


def _loss_of_rows(
    network: torch.nn.Module, learned: Inputs, rows: Questions, device: Device
) -> Callable[[], torch.Tensor]:
    import torch
    from torch.nn import functional

    from stillroom.models.classifier import autocast, to_device

    input_B = to_device(learned.encode(rows.raw), device)
    label_B = torch.zeros(len(rows), dtype=torch.int64, device=device.name)

    def loss() -> torch.Tensor:
        with autocast(device):
            logits_BC = network(input_B).logits_BC
        return functional.cross_entropy(logits_BC.float(), label_B)

    return loss


def _loss_of_windows(
    network: torch.nn.Module, learned: Inputs, rows: Questions, device: Device
) -> Callable[[], torch.Tensor]:
    from stillroom.models.classifier import autocast
    from stillroom.objectives.fused import fused_cross_entropy
    from stillroom.training.language_batches import tokens_of

    tokens, target_P = tokens_of(rows, device)

    def loss() -> torch.Tensor:
        with autocast(device):
            output = network(tokens)
        return fused_cross_entropy(output.hidden_BH, output.head, target_P) / len(target_P)

    return loss


def _step_s(loss: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer) -> float:
    started = time.perf_counter()
    optimiser.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return time.perf_counter() - started
