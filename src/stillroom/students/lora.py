"""A student that is a whole model, of which small matrices beside its linear layers are trained.

Hu and others 2021 (arXiv:2106.09685). In its finished folder the matrices are merged, so transformers loads it as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stillroom.kinds import Ground, Model, Student, parse

if TYPE_CHECKING:
    import torch

    from stillroom.inputs import Inputs


class Lora(Student):
    """The model behind a reference, trained through matrices of low rank."""

    kind: Literal["lora"] = "lora"
    source: str = Field(alias="from")
    """A folder, hf:ORG/NAME, or package:MODULE/FILE for weights inside a Python package."""
    task: Literal["classification", "causal", "masked"] = "causal"
    """What it is for: classes of texts, the next token, or hidden tokens."""
    rank: int = Field(default=8, ge=1)
    """Of the matrices."""
    alpha: float = Field(default=16.0, gt=0)
    """Their product is added times alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each layer's inputs dropped on the way through the matrices while training."""
    targets: tuple[str, ...] | None = None
    """Names of the linear layers beside which they stand; none: all but the output layer."""
    length: int | None = Field(default=None, ge=2)
    """Most tokens a text may have; none: what the model can look at."""

    def architecture(self) -> Model:
        found: Any = parse(
            "model", {"kind": "transformers", "task": self.task, "from": self.source, "length": self.length}
        )
        assert isinstance(found, Model)
        return found

    def describe(self) -> str:
        return f"{self.source} through matrices of rank {self.rank}"

    def network(self, inputs: Inputs, classes: int, ground: Ground) -> torch.nn.Module:
        from stillroom.models import text
        from stillroom.models.lora import wrap
        from stillroom.models.references import resolve

        model, tokenizer = text.loaded(resolve(self.source, ground.folders), self.task, classes)
        targets = None if self.targets is None else list(self.targets)
        return text.adapted(wrap(model, self.rank, self.alpha, self.dropout, targets), tokenizer, self.task)
