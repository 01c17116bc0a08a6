"""A few real training steps of a network on the run's own rows, thrown away: what a step takes, and how much is held.

Peak memory is what this process has held at most while it rehearsed, which a training with the very same network and batch
holds too. Nothing is written.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stillroom.kinds import Model, Student, Teacher
from stillroom.recipe import Training
from stillroom.stages.opening import Run

if TYPE_CHECKING:
    import torch

    from stillroom.inputs import Inputs
    from stillroom.models.device import Device
    from stillroom.rows import Questions

TIMED_STEPS = 6
LANGUAGE_STEPS = 3
ANSWERED_ROWS = 8
STATUS = Path("/proc/self/status")


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
    loss = (_loss_of_windows if run.recipe.is_language else _loss_of_rows)(network, learned, rows, device)
    steps = LANGUAGE_STEPS if run.recipe.is_language else TIMED_STEPS
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


def answering_s(run: Run, teacher: Teacher) -> float:
    """Seconds in which a teacher that stands ready answers a row."""
    from stillroom.teachers.language import AskedLanguageModel

    built = teacher.build(run.dir.path / run.teacher_home, run.folders, run.splits.classes, run.device)
    rows = run.splits.train.take(np.arange(min(ANSWERED_ROWS, len(run.splits.train))))
    if built.by_key:
        return 0.0
    started = time.perf_counter()
    if isinstance(built, AskedLanguageModel):
        for _ in built.outputs(rows):
            pass
    else:
        built.answer(rows)
    return (time.perf_counter() - started) / len(rows)


def held_bytes() -> int:
    """The most memory this process has held."""
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
