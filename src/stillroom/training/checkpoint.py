"""All that a training needs to go on: weights, optimiser, random states, position, history, best weights so far.

One safetensors file, replaced in one step; what is no tensor stands as JSON in its header. No pickle.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from stillroom.errors import CorruptFile
from stillroom.rundir import write_pieces

NAME = "checkpoint.safetensors"
FORMATS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the safetensors format calls them."""


def write(folder: Path, tensors: dict[str, dict[str, torch.Tensor]], facts: dict[str, Any]) -> None:
    """Save groups of named tensors and JSON facts, together with torch's random state."""
    flat = {f"{group}/{name}": tensor.detach() for group, named in tensors.items() for name, tensor in named.items()}
    flat["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        flat["random/cuda"] = torch.cuda.get_rng_state()
    write_pieces(folder / NAME, _pieces(flat, {"facts": json.dumps(facts)}))


def _pieces(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Iterator[bytes | memoryview]:
    """The tensors in the safetensors format, one after another: a library's bytes of all would take three times as much."""
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    # Wide numbers first, so that each tensor begins at a multiple of its own.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in order:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": FORMATS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    yield struct.pack("<Q", len(head)) + head
    for name in order:
        yield tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


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
