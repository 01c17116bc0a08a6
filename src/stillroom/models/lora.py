"""Low-rank adapters on a frozen model (Hu and others 2021, arXiv:2106.09685), by the peft library."""

from __future__ import annotations

from typing import Any

import peft
from torch import nn
from transformers.pytorch_utils import Conv1D

from stillroom.errors import ModelError
from stillroom.models.pretrained import quiet


def wrap(model: Any, rank: int, alpha: float, dropout: float = 0.0, targets: list[str] | None = None) -> Any:
    """The model with its weights frozen and adapters of this rank beside them, scaled by alpha / rank.

    Targets are names or name endings of linear layers; none: all of the body. A classifier's head, which is often new, is
    trained whole. The given model is changed in place. Raises ModelError for a target that does not exist.
    """
    inside = _linear_layers(model)
    chosen = sorted(inside) if targets is None else targets
    absent = [name for name in chosen if not any(layer == name or layer.endswith(f".{name}") for layer in inside)]
    if absent or not chosen:
        endings = sorted({layer.rpartition(".")[2] for layer in inside})
        raise ModelError(
            f"there is no linear layer {absent[0]!r} in this model" if absent else "there is no layer to adapt",
            where="targets",
            cure="Choose among " + ", ".join(endings),
        )
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=chosen,
        modules_to_save=_heads(model) or None,
    )
    with quiet():
        return peft.get_peft_model(model, config)


def merged(model: Any) -> Any:
    """The plain model again, the adapters added to its weights; a model without adapters comes back as it is."""
    if not isinstance(model, peft.PeftModel):
        return model
    with quiet():
        plain: Any = model.merge_and_unload()
    for weights in plain.parameters():
        weights.requires_grad_(True)
    return plain


def _linear_layers(model: Any) -> set[str]:
    """Full names of the body's linear layers."""
    body = model.base_model
    prefix = "" if body is model else f"{model.base_model_prefix}."
    return {
        prefix + name
        for name, part in body.named_modules()
        if isinstance(part, nn.Linear | Conv1D) and not name.startswith("pooler")
    }


def _heads(model: Any) -> list[str]:
    """A classifier's parts above its body. A language model's head stays frozen with the embeddings it is tied to."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return []
    parts = [(name, part) for name, part in model.named_children() if part is not model.base_model]
    return [name for name, part in parts if next(part.parameters(), None) is not None]
