"""A student that starts from random weights."""

from __future__ import annotations

from typing import Literal

from stillroom.kinds import AnyModel, Model, Student


class Fresh(Student):
    """A new network of this architecture."""

    kind: Literal["fresh"] = "fresh"
    model: AnyModel
    """The architecture."""

    def architecture(self) -> Model:
        return self.model
