"""A model of the transformers library: from weights that stand somewhere, or new from a configuration.

A classifier of texts takes rows of tokens like any other network takes its inputs; language models (task causal or
masked) stand in language.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from stillroom.kinds import Ground, Model, NetworkTask

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from stillroom.inputs import Inputs
    from stillroom.rows import Raw


class Transformers(Model):
    """Weights of the transformers library, by reference, or a new network from a configuration."""

    kind: Literal["transformers"] = "transformers"
    task: Literal["classification", "causal", "masked"] = "classification"
    """What it is for: classes of texts, the next token, or hidden tokens."""
    source: str | None = Field(default=None, alias="from")
    """A folder, hf:ORG/NAME, or package:MODULE/FILE for weights inside a Python package."""
    config: dict[str, Any] | None = None
    """A new network: model_type and whatever that type's configuration takes."""
    tokenizer: str | None = None
    """Of a new network: a reference to its tokenizer, or `characters`, one token a byte. Weights come with their own."""
    length: int | None = Field(default=None, ge=2)
    """Most tokens a text may have; none: what the model can look at."""

    @model_validator(mode="after")
    def _one_origin(self) -> Transformers:
        if (self.source is None) == (self.config is None):
            raise ValueError("wants either from: (weights) or config: (a new network)")
        if self.source is not None and self.tokenizer is not None:
            raise ValueError("weights come with their own tokenizer; tokenizer: is for a new network")
        if self.config is not None and (self.tokenizer is None or "model_type" not in self.config):
            raise ValueError("a new network wants config.model_type and a tokenizer")
        return self

    def solves(self) -> NetworkTask:
        return self.task

    def kept(self) -> Model:
        return Transformers.model_validate({"task": self.task, "from": ".", "length": self.length})

    def describe(self) -> str:
        if self.source is not None:
            return self.source
        known = self.config or {}
        told = [f"{name} {value}" for name, value in known.items() if name != "model_type"]
        return ", ".join([str(known.get("model_type")), *told])

    def inputs(self, raw: Raw, ground: Ground) -> Inputs | None:
        from stillroom.models.text import inputs_for

        rows = raw if self.task == "classification" else None
        return inputs_for(rows, self.reads(ground), self.length, self.context(ground))

    def network(self, inputs: Inputs, classes: int, ground: Ground) -> torch.nn.Module:
        from stillroom.models.text import network_of

        return network_of(*self.model_and_tokenizer(classes, ground), self.task)

    def model_and_tokenizer(self, classes: int, ground: Ground) -> tuple[Any, Any]:
        """What the transformers library calls the model, and its tokenizer."""
        from stillroom.models import text

        if self.source is not None:
            return text.loaded(self._path(self.source, ground), self.task, classes)
        tokenizer = self.reads(ground)
        return text.fresh(self.config or {}, tokenizer, self.task, classes), tokenizer

    def reads(self, ground: Ground) -> Any:
        """Its tokenizer."""
        from stillroom.models import characters
        from stillroom.models.text import tokenizer_at

        if self.tokenizer == characters.NAME:
            return characters.characters()
        return tokenizer_at(self._path(self.tokenizer or self.source, ground))

    def context(self, ground: Ground) -> int:
        """Most tokens it can look at."""
        from stillroom.models.text import context_of, context_of_config

        return context_of_config(self.config) if self.config else context_of(self._path(self.source, ground))

    def _path(self, reference: str | None, ground: Ground) -> Path:
        from stillroom.models.references import resolve

        assert reference is not None, "a new network has a tokenizer, any other one weights"
        return resolve(reference, ground.folders)
