"""A smaller model out of a larger one: some of its layers, all else as it was. In its own architecture, so that plain
`from_pretrained` reads it. Sanh and others 2019 (arXiv:1910.01108) start DistilBERT so.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights

from stillroom.errors import ModelError
from stillroom.models.pretrained import quiet


def evenly_spaced(layers: int, keep: int) -> list[int]:
    """Which `keep` of so many layers: the first, the last, and the rest at even distances, rounded to the nearest.

    Of 12 to 6 that is 0, 2, 4, 7, 9, 11, what DistilBERT keeps; half way between two goes down. Raises ModelError.
    """
    if not 1 <= keep <= layers:
        raise ModelError(
            f"{keep} of {layers} layers cannot be kept", where="layers", cure=f"Choose a number from 1 to {layers}"
        )
    gaps = max(keep - 1, 1)
    return [(2 * place * (layers - 1) + gaps - 1) // (2 * gaps) for place in range(keep)]


def layer_count(model: Any) -> int:
    """How many layers a model has. Raises ModelError where it is no stack of layers."""
    return len(_stack(model)[1])


def keep_layers(model: Any, layers: Sequence[int]) -> Any:
    """A new model with these layers (counted from 0, rising) and copies of all other weights; the given one stays as it is.

    Raises ModelError for a layer that does not exist, and for an architecture that is no stack of like layers.
    """
    name, blocks = _stack(model)
    chosen = list(layers)
    absent = [layer for layer in chosen if not 0 <= layer < len(blocks)]
    if absent:
        raise ModelError(
            f"there is no layer {absent[0]}: the model has {len(blocks)}, 0 to {len(blocks) - 1}",
            where="layers",
            cure="Choose among these",
        )
    if not chosen or chosen != sorted(set(chosen)):
        raise ModelError(f"layers {chosen} are not rising", where="layers", cure="Name each layer once, in order")
    config = copy.deepcopy(model.config)
    _cut_config(config.get_text_config(), len(blocks), chosen)
    place = {old: new for new, old in enumerate(chosen)}
    numbered = re.compile(re.escape(name) + r"\.(\d+)\.")

    def renamed(weight: str) -> str | None:
        found = numbered.match(weight)
        if found is None:
            return weight
        old = int(found[1])
        return f"{name}.{place[old]}.{weight[found.end() :]}" if old in place else None

    state = {renamed(weight): tensor for weight, tensor in model.state_dict().items()}
    state.pop(None, None)
    device = next(model.parameters()).device
    with quiet(), no_init_weights(), torch.device(device):
        shrunk = type(model)(config)
    try:
        shrunk.tie_weights()  # building without first weights leaves out what is shared, too
        shrunk.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the layers of a {type(model).__name__} are not alike, and cannot take each other's places: {told}",
            where="layers",
            cure="Keep all layers of this architecture",
        ) from error
    if getattr(model, "generation_config", None) is not None:
        shrunk.generation_config = copy.deepcopy(model.generation_config)
    return shrunk.to(next(model.parameters()).dtype).train(model.training)


def begun_anew(model: Any) -> Any:
    """A new model of the same configuration with its architecture's own first weights; the caller has seeded torch."""
    config = copy.deepcopy(model.config)
    with quiet(), torch.device(next(model.parameters()).device):
        made = type(model)(config)
    if getattr(model, "generation_config", None) is not None:
        made.generation_config = copy.deepcopy(model.generation_config)
    return made.to(next(model.parameters()).dtype).train(model.training)


def _stack(model: Any) -> tuple[str, nn.ModuleList]:
    """Name and list of the blocks: the list of modules as long as the configuration says, with the most weights."""
    expected = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    fitting = [(name, part) for name, part in lists if len(part) == expected]
    if not fitting:
        raise ModelError(
            f"a {type(model).__name__} is not built as a stack of layers",
            where="layers",
            cure="Use an architecture such as BERT, DistilBERT, RoBERTa, GPT-2, Llama, Qwen or Gemma",
        )
    return max(fitting, key=lambda found: sum(weights.numel() for weights in found[1].parameters()))


def _cut_config(config: Any, total: int, chosen: list[int]) -> None:
    """The number of layers, and every list that says something of each layer."""
    for name, value in list(vars(config).items()):
        of_layers = isinstance(value, list | tuple) and len(value) == total
        if of_layers and name != "architectures" and not name.endswith("_token_id"):
            setattr(config, name, type(value)(value[layer] for layer in chosen))
    config.num_hidden_layers = len(chosen)
