"""An optimiser without PyTorch's compiler takes the very steps that PyTorch's own takes, and keeps and restores its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stillroom.recipe import Training
from stillroom.training.checkpoint import optimiser_tensors, restore_optimiser
from stillroom.training.optimisers import optimiser_of

OWN = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
STEPS = 6


def weights() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(3))]


def stepped(optimiser: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for one in parameters:
            one.grad = torch.randn(one.shape, generator=generator)
        optimiser.step()


@pytest.mark.parametrize("name", OWN)
def test_steps_are_those_of_pytorch_and_go_on_where_they_were(name: str) -> None:
    knobs = Training(optimiser=name, learning_rate=0.1, weight_decay=0.01)  # type: ignore[arg-type]
    more: dict[str, Any] = {"momentum": knobs.momentum} if name == "sgd" else {}
    first, own = weights(), weights()
    theirs = OWN[name](own, knobs.learning_rate, weight_decay=knobs.weight_decay, fused=True, **more)
    ours = optimiser_of(knobs, first)
    assert isinstance(ours, OWN[name])
    stepped(theirs, own, range(STEPS))
    stepped(ours, first, range(STEPS // 2))
    again = optimiser_of(knobs, first)
    restore_optimiser(again, {name: tensor.clone() for name, tensor in optimiser_tensors(ours).items()})
    stepped(again, first, range(STEPS // 2, STEPS))
    assert all(torch.equal(one, other) for one, other in zip(first, own, strict=True))
    assert not torch.equal(first[0], weights()[0])
    told = [optimiser_tensors(one) for one in (again, theirs)]
    assert told[0].keys() == told[1].keys() != set()
    assert all(torch.equal(told[0][name], told[1][name]) for name in told[0])
