"""PyTorch's optimisers without its compiler, which they import at their first step: a second of every process that trains.

Nothing here is compiled. What is left out by name only tells the compiler what to pass over; the arithmetic is PyTorch's.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, cast

import torch

from stillroom.recipe import Training

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)
FOR_THE_COMPILER = ("step", "add_param_group", "state_dict", "load_state_dict")
"""Methods that import torch._dynamo before they do their work."""


def optimiser_of(knobs: Training, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that these knobs ask for, of these weights."""
    if knobs.optimiser == "sgd":
        return SGD(parameters, knobs.learning_rate, knobs.momentum, weight_decay=knobs.weight_decay, fused=True)
    return ADAMW(parameters, knobs.learning_rate, weight_decay=knobs.weight_decay, fused=True)


def uncompiled(kind: type[Kind]) -> type[Kind]:
    """The same optimiser, whose methods go to their work at once."""
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in FOR_THE_COMPILER}
    return cast("type[Kind]", type(kind.__name__, (kind,), {**bare, "step": torch.no_grad()(bare["step"])}))


ADAMW, SGD = uncompiled(torch.optim.AdamW), uncompiled(torch.optim.SGD)
