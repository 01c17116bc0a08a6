"""All that a training needs to go on: weights, optimiser, random states, position, history, best weights so far.

One safetensors file, replaced in one step; what is no tensor stands as JSON in its header. No pickle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stillroom.errors import CorruptFile
from stillroom.rundir import write_file

NAME = "checkpoint.safetensors"


def write(folder: Path, tensors: dict[str, dict[str, torch.Tensor]], facts: dict[str, Any]) -> None:
    """Save groups of named tensors and JSON facts, together with torch's random state."""
    flat = {f"{group}/{name}": tensor.detach() for group, named in tensors.items() for name, tensor in named.items()}
    flat["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        flat["random/cuda"] = torch.cuda.get_rng_state()
    copies = {name: tensor.cpu().contiguous().clone() for name, tensor in flat.items()}
    write_file(folder / NAME, save(copies, {"facts": json.dumps(facts)}))


def read(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]] | None:
    """What `write` saved, with the random state restored; None where there is no checkpoint."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise CorruptFile(
            "this checkpoint is damaged", where=str(path), cure="Remove it; the stage starts anew"
        ) from error
    torch.set_rng_state(flat.pop("random/cpu"))
    if "random/cuda" in flat:
        torch.cuda.set_rng_state(flat.pop("random/cuda"))
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in flat.items():
        group, _, inner = name.partition("/")
        tensors.setdefault(group, {})[inner] = tensor
    return tensors, facts


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as named tensors."""
    return {
        f"{place}/{name}": value
        for place, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for path, tensor in tensors.items():
        place, _, name = path.partition("/")
        state.setdefault(int(place), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
