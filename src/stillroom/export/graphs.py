"""A student's folder as a torch module over named tensors: what the exporter traces, and what ONNX is checked against."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from stillroom import inputs as inputs_
from stillroom.columns import TEXT_COLUMN
from stillroom.errors import ModelError
from stillroom.export.encoding import IDS, MASK, ROWS, Encoding
from stillroom.inputs import Inputs, Texts
from stillroom.models.classifier import Classifier
from stillroom.rows import Array
from stillroom.rundir import MANIFEST, read_json, verify

CONFIG, BESIDE = "config.json", "stillroom.json"
BATCH, SEQUENCE, OUTPUT = "batch", "sequence", "logits"
TASKS = {"ForSequenceClassification": "classification", "ForCausalLM": "causal", "LMHeadModel": "causal"} | {
    "ForMaskedLM": "masked"
}
EXAMPLE_ROWS, EXAMPLE_TOKENS = 2, 8


class Rows(nn.Module):
    """A network of ours: forward(input [B, ...]) -> logits [B, C], class bias included."""

    def __init__(self, network: nn.Module, bias_C: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.bias_C: torch.Tensor
        self.register_buffer("bias_C", bias_C)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        logits_BC: torch.Tensor = self.network(input).logits_BC + self.bias_C
        return logits_BC


class Tokens(nn.Module):
    """A transformers model: forward(input_ids, attention_mask [B, T]) -> logits [B, C] or [B, T, V]."""

    def __init__(self, model: nn.Module, bias_C: torch.Tensor | None, more: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.more = model, more
        self.bias_C: torch.Tensor | None
        self.register_buffer("bias_C", bias_C)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **self.more).logits
        return logits if self.bias_C is None else logits + self.bias_C


class Graph(NamedTuple):
    """A module with what the exporter must know of it."""

    module: nn.Module
    example: dict[str, torch.Tensor]
    axes: dict[str, dict[int, str]]
    """Of each input, and of the output `logits`: which axes are free, with their names."""
    encoding: Encoding
    task: str
    """rows, classification (of texts), causal or masked."""
    classes: list[Any] | None
    parameters: int
    weights_bytes: int
    tokenizer: Any = None

    def run(self, encoded: dict[str, Array]) -> Array:
        """Logits of encoded inputs, from PyTorch."""
        with torch.inference_mode():
            given = [torch.from_numpy(np.ascontiguousarray(encoded[name])) for name in self.example]
            logits: Array = self.module(*given).numpy()
        return logits


def opened(folder: Path) -> Graph:
    """A student's folder, on the CPU in float32. Raises ModelError for a folder that holds none."""
    if not (folder / CONFIG).is_file():
        raise ModelError(
            "this is no folder of a student: it has no config.json",
            where=str(folder),
            cure="Name the folder that holds config.json and model.safetensors, such as runs/NAME/student",
        )
    config = read_json(folder / CONFIG)
    beside: dict[str, Any] = read_json(folder / BESIDE) if (folder / BESIDE).is_file() else {}
    task = _task(folder, config, beside)
    weights_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if task == "rows":
        student = Classifier.load(folder)
        rows = Rows(student.network, student.class_bias_C).eval()
        axes = {name: {0: BATCH} for name in (ROWS, OUTPUT)}
        example = {ROWS: torch.zeros(EXAMPLE_ROWS, *student.inputs.shape)}
        encoding = Encoding(student.inputs)
        return Graph(rows, example, axes, encoding, task, student.classes, student.parameters, weights_bytes)
    # transformers is imported here, so that rows need none of it.
    from stillroom.models import pretrained

    if (folder / MANIFEST).is_file():
        verify(folder)
    model, tokenizer = pretrained.load(folder, task)  # type: ignore[arg-type]
    inputs = _texts(folder, tokenizer) if task == "classification" else None
    classes = _classes(model, beside) if task == "classification" else None
    bias_C = torch.tensor(beside["class_bias"]) if any(beside.get("class_bias") or ()) else None
    # A cache of keys and values would be a second output; what is exported scores whole rows.
    module = Tokens(model, bias_C, {"use_cache": False} if task == "causal" else {}).eval()
    ids_BT = torch.ones(EXAMPLE_ROWS, EXAMPLE_TOKENS, dtype=torch.int64)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, EXAMPLE_TOKENS // 2 :] = 0
    both = {0: BATCH, 1: SEQUENCE}
    axes = {IDS: both, MASK: both, OUTPUT: {0: BATCH} if task == "classification" else both}
    encoding = Encoding(inputs, int(model.config.pad_token_id or 0))
    count = pretrained.count_parameters(model)
    return Graph(module, {IDS: ids_BT, MASK: mask_BT}, axes, encoding, task, classes, count, weights_bytes, tokenizer)


def _classes(model: Any, beside: dict[str, Any]) -> list[Any]:
    """In the order of the logits; without Stillroom's own file they are called what the configuration calls them."""
    named: list[Any] = [model.config.id2label[place] for place in range(model.config.num_labels)]
    return list(beside.get("classes") or named)


def _texts(folder: Path, tokenizer: Any) -> Inputs:
    """How texts become tokens, as the student's folder says, or any folder of transformers."""
    if (folder / inputs_.INPUTS).is_file():
        return inputs_.read(folder)
    from stillroom.models.text import context_of, plain

    return Texts(column=TEXT_COLUMN, length=context_of(folder), tokenizer=plain(tokenizer))


def _task(folder: Path, config: dict[str, Any], beside: dict[str, Any]) -> str:
    """What the model in a folder is for: as Stillroom wrote it, or by its architecture's name."""
    told = beside.get("model", {}).get("task")
    if told is not None:
        return str(told)
    if "architectures" not in config and "model" in config:
        return "rows"
    names = [str(name) for name in config.get("architectures") or []]
    found = next((task for name in names for ending, task in TASKS.items() if name.endswith(ending)), None)
    if found is None:
        raise ModelError(
            f"a model of architecture {', '.join(names) or 'unknown'} cannot be exported",
            where=str(folder / CONFIG),
            cure="Classifiers of rows or texts and causal or masked language models can",
        )
    return found
