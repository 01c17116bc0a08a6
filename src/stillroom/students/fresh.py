"""A student that starts from random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stillroom.kinds import AnyModel, Model, Student

if TYPE_CHECKING:
    import torch


class Fresh(Student):
    """A new network of this architecture."""

    kind: Literal["fresh"] = "fresh"
    model: AnyModel
    """The architecture."""

    def architecture(self) -> Model:
        return self.model

    def build(self, input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
        return self.model.build(input_shape, classes)
