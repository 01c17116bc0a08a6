"""A plain convolutional network for small images. Knows nothing of what its inputs mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stillroom.errors import ModelError
from stillroom.kinds import Model

if TYPE_CHECKING:
    import torch


class Convnet(Model):
    """Blocks of 3x3 convolutions with batch normalisation, each followed by 2x2 pooling; then the mean over places."""

    kind: Literal["convnet"] = "convnet"
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(16, 32, 64), min_length=1)
    depth: int = Field(default=1, ge=1)
    """Convolutions in each block."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last layer's inputs dropped while training."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
        from stillroom.models.networks import ConvNetwork

        if len(input_shape) != 3 or min(input_shape[1:]) < 2 ** len(self.channels):
            raise ModelError(
                f"a convnet of {len(self.channels)} blocks cannot look at inputs of shape {list(input_shape)}",
                where="model",
                cure="It needs images at least 2 ** blocks wide and high; use fewer channels entries, or kind: mlp",
            )
        return ConvNetwork(input_shape[0], self.channels, self.depth, classes, self.dropout)
