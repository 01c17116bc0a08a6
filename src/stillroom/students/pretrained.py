"""A student that starts from weights that stand somewhere."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stillroom.kinds import Model, Student, parse


class Pretrained(Student):
    """The model behind a reference, whole."""

    kind: Literal["pretrained"] = "pretrained"
    source: str = Field(alias="from")
    """A folder, hf:ORG/NAME, or package:MODULE/FILE for weights inside a Python package."""
    task: Literal["classification", "causal", "masked"] = "classification"
    """What it is for: classes of texts, the next token, or hidden tokens."""
    length: int | None = Field(default=None, ge=2)
    """Most tokens a text may have; none: what the model can look at."""

    def architecture(self) -> Model:
        found: Any = parse(
            "model", {"kind": "transformers", "task": self.task, "from": self.source, "length": self.length}
        )
        assert isinstance(found, Model)
        return found
