"""Before any stage: what a recipe would do and need. Looks at data and models, times a few steps, spends nothing.

The figures are estimates: minutes come from timing a few real steps of each network on this machine.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.kinds import Model, Student
from stillroom.progress import Silent
from stillroom.recipe import Recipe, Training
from stillroom.rows import joined
from stillroom.rundir import RunDir
from stillroom.stages.opening import TRAINING_BYTES, Run, check_data, clock_of, look_in, views_of
from stillroom.stages.train import TEMPERATURES, roles
from stillroom.teachers.trained import Trained

if TYPE_CHECKING:
    import torch

TIMED_STEPS = 6
BASE_BYTES = 350 * 2**20
"""What Python and torch take before any data."""


def plan(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """{"name", "figures", "notes"}: rows, teacher calls, tokens, USD, disk, peak memory, minutes. Raises StillroomError."""
    recipe.check()
    run = Run(recipe, RunDir(Path("runs") / recipe.name), look_in(folder), Silent(), clock_of(recipe, Path()))
    check_data(run)
    splits, learned = run.splits, run.inputs(recipe.student, run.splits.train.raw, run.ground(untaught=True))
    classes, members = len(splits.classes), recipe.teacher.each()
    known = int(joined(splits.train, splits.omitted).labelled_N.sum())
    asked = len(splits.train) * (0 if recipe.transfer_set.live else len(views_of(recipe)))
    asked += len(splits.validation) + len(splits.test)
    seconds, largest, tuned = 0.0, 0, 0
    for member in members:
        if isinstance(member, Trained):
            step_s, held = _cost_of(run, member.model, member.training())
            seconds += step_s * _steps(member.training(), known)
            largest = max(largest, held)
    found = roles(run)
    for role in found:
        arm = role.run.recipe
        step_s, held = _cost_of(role.run, arm.student, arm.training)
        tries = sum(one.heat() == "auto" for one in role.objectives) * len(TEMPERATURES)
        seconds += step_s * _steps(arm.training, len(splits.train)) * (recipe.seeds + tries)
        largest, tuned = max(largest, held), tuned + tries
    asked_bytes = asked * (2 * classes + 24) * (len(members) + (len(members) > 1))
    encoded = 4 * (len(splits.train) + len(splits.omitted)) * _size(tuple(learned.shape))
    price = recipe.evaluation.price
    figures = {
        "training rows": len(splits.train),
        "labelled rows": int(splits.train.labelled_N.sum()),
        "validation rows": len(splits.validation),
        "test rows": len(splits.test),
        "classes": classes,
        "teachers asked": len(members),
        "teacher calls": asked * len(members),
        "teacher tokens": 0,
        "models trained": sum(member.trains for member in members) + len(found) * recipe.seeds + tuned,
        "roles": ", ".join(role.name for role in found),
        "seeds": recipe.seeds,
        "disk_mib": round((asked_bytes + largest * len(found) * recipe.seeds / 4) / 2**20 + 1, 1),
        "peak_memory_mib": round((BASE_BYTES + encoded + largest) / 2**20),
        "minutes": round(seconds / 60 + 0.1, 1),
    }
    if price is not None:
        figures["usd"] = round((seconds / 3600) * price.usd_per_hour, 6)
    notes = [*splits.notes, *([f"inputs: {learned.describe()}"] if learned.describe() else [])]
    if price is None:
        notes.append("no price is given, so no USD; add evaluation: {price: {usd_per_hour: ..}}")
    notes += [f"the licence of {what} is unknown" for what, licence in _licences(recipe).items() if licence is None]
    return {"name": recipe.name, "figures": figures, "notes": notes}


def _licences(recipe: Recipe) -> dict[str, str | None]:
    return {"the data": recipe.questions.licence, "the teacher": recipe.teacher.licence}


def _steps(knobs: Training, rows: int) -> int:
    from stillroom.training.fit import steps_in

    return steps_in(knobs, max(1, rows))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _cost_of(run: Run, part: Student | Model, knobs: Training) -> tuple[float, int]:
    """Seconds of one optimiser step, and bytes of weights, gradients, optimiser and activations."""
    import torch

    from stillroom.models.classifier import to_device
    from stillroom.models.device import threads

    ground, train = run.ground(untaught=True), run.splits.train
    learned = run.inputs(part, train.raw, ground)
    network = part.network(learned, len(run.splits.classes), ground).to(run.device.name)
    parameters = sum(weights.numel() for weights in network.parameters())
    device = run.device.for_size(parameters, run.recipe.dtype)
    optimiser = torch.optim.AdamW(network.parameters(), knobs.learning_rate, fused=True)
    rows = min(knobs.batch_size, len(train))
    input_B = to_device(learned.encode(train.take(np.arange(rows)).raw), device)
    label_B = torch.zeros(rows, dtype=torch.int64, device=device.name)
    held = TRAINING_BYTES * parameters + 12 * rows * _size(tuple(learned.shape))
    with threads(device.threads):
        times = [_step_s(network, optimiser, input_B, label_B, device) for _ in range(TIMED_STEPS)]
    return sorted(times)[TIMED_STEPS // 2] * knobs.accumulate, held


def _step_s(
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    input_B: torch.Tensor,
    label_B: torch.Tensor,
    device: Any,
) -> float:
    from torch.nn import functional

    from stillroom.models.classifier import autocast

    started = time.perf_counter()
    optimiser.zero_grad()
    with autocast(device):
        logits_BC = network(input_B).logits_BC
    functional.cross_entropy(logits_BC.float(), label_B).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return time.perf_counter() - started
