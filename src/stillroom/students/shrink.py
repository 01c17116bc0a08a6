"""A student cut out of a larger model: some of its layers, and the part of its vocabulary that the data uses.

Sanh and others 2019 (arXiv:1910.01108): DistilBERT starts from every second layer of BERT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from stillroom.kinds import Ground, Model, Student, parse

if TYPE_CHECKING:
    import torch

    from stillroom.inputs import Inputs
    from stillroom.rows import Raw

TEACHER = "teacher"


class Shrink(Student):
    """Layers and vocabulary of a larger model; in its own architecture, so transformers loads it as it is."""

    kind: Literal["shrink"] = "shrink"
    source: str = Field(default=TEACHER, alias="from")
    """teacher, or a reference. A control starts from the teacher's weights before this run trained it."""
    layers: tuple[int, ...] | int | None = None
    """Which layers stay, counted from 0, or how many, evenly spaced; none: all."""
    vocabulary: Literal["whole", "cut"] = "whole"
    """cut: the tokens that the training texts use, and what the tokenizer cannot do without."""
    length: int | None = Field(default=None, ge=2)
    """Most tokens a text may have; none: what the model can look at."""
    weights: Literal["kept", "random"] = "kept"
    """random: the architecture alone is cut out, and its weights are new; to see what the larger one's are worth."""

    @model_serializer(mode="wrap")
    def _told(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a knob that came later, where it is not used: what was trained before it came stays trained."""
        told: dict[str, Any] = handler(self)
        return {name: value for name, value in told.items() if (name, value) != ("weights", "kept")}

    @model_validator(mode="after")
    def _cuts(self) -> Shrink:
        if self.layers is None and self.vocabulary == "whole" and self.weights == "kept":
            raise ValueError("cuts nothing: give layers, or vocabulary: cut")
        if isinstance(self.layers, tuple) and (not self.layers or list(self.layers) != sorted(set(self.layers))):
            raise ValueError("layers should be different numbers, rising")
        return self

    def architecture(self) -> Model:
        found: Any = parse("model", {"kind": "transformers", "from": ".", "length": self.length})
        assert isinstance(found, Model)
        return found

    def describe(self) -> str:
        layers = "all" if self.layers is None else self.layers
        kept = "-".join(map(str, layers)) if isinstance(layers, tuple) else str(layers)
        cut = ", vocabulary cut to the data" if self.vocabulary == "cut" else ""
        anew = ", from random weights" if self.weights == "random" else ""
        return f"{'the teacher' if self.source == TEACHER else self.source} shrunk to layers {kept}{cut}{anew}"

    def inputs(self, raw: Raw, ground: Ground) -> Inputs | None:
        from stillroom.models.text import inputs_for
        from stillroom.students.cutting import larger, reads

        model = larger(self, ground)
        tokenizer = model.reads(ground) if self.vocabulary == "whole" else reads(self, ground)
        rows = raw if ground.task == "classification" else None
        return inputs_for(rows, tokenizer, self.length, model.context(ground))

    def network(self, inputs: Inputs, classes: int, ground: Ground) -> torch.nn.Module:
        from stillroom.models.text import network_of, plain
        from stillroom.students.cutting import model_and_tokenizer

        model, tokenizer = model_and_tokenizer(self, classes, ground)
        if self.vocabulary == "cut":
            assert getattr(inputs, "tokenizer", None) == plain(tokenizer), "rows and network have one vocabulary"
        return network_of(model, tokenizer, ground.task)
