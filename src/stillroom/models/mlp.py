"""A multilayer perceptron with ReLU units. Knows nothing of what its inputs mean."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stillroom.kinds import Model

if TYPE_CHECKING:
    import torch


class Mlp(Model):
    """Fully connected layers of these widths, then one linear layer to the classes."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(128,), min_length=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each hidden layer's units dropped while training."""
    input_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the inputs dropped while training."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
        from stillroom.models.networks import MlpNetwork

        widths = [math.prod(input_shape), *self.hidden]
        return MlpNetwork(widths, classes, self.dropout, self.input_dropout)

    def weights(self, input_shape: tuple[int, ...], classes: int) -> int:
        """How many weights the network would have; nothing is built."""
        widths = [math.prod(input_shape), *self.hidden, classes]
        return sum((before + 1) * after for before, after in pairwise(widths))
