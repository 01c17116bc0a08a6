"""A student's folder -> model.onnx, and model_int8.onnx where asked, with all that another tool needs beside them.

The graph comes from PyTorch's exporter (torch.export, then onnxscript). No time and no path stands in the files, and the
same student gives the same bytes with the same versions.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillroom import inputs as inputs_
from stillroom.errors import ModelError
from stillroom.export.graphs import CONFIG, OUTPUT, Graph, opened
from stillroom.export.quantise import quantise
from stillroom.export.runner import FACTS, FLOAT32, INT8, PACKAGES, need
from stillroom.rundir import write_file, write_json

README = "README.md"
INLINE_BYTES = 1_800_000_000
"""Larger weights stand in a file of their own, model.onnx.data: one protobuf message holds 2 GiB at most."""
KNOWN_WARNINGS = (
    # Inside torch.export, about its own tree of arguments.
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    # Two inputs share the axis batch, which is what is meant.
    (UserWarning, r"# The axis name: \w+ will not be used, since it shares the same shape constraints"),
)


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, its files, and the facts that stand in export.json."""

    folder: Path
    float32: Path
    int8: Path | None
    facts: dict[str, Any]


def export_onnx(folder: Path, out: Path, *, int8: bool = False, inline_bytes: int = INLINE_BYTES) -> Exported:
    """Export the student in `folder` to `out`. Raises ModelError where it is none, or cannot be traced.

    A classifier's graph ends in logits [batch, classes] with its class biases; a language model's in logits [batch,
    sequence, vocabulary], without a cache. Nothing is checked against PyTorch here: see check.py.
    """
    need(*PACKAGES)
    graph = opened(folder)
    out.mkdir(parents=True, exist_ok=True)
    remove_graphs(out)
    opset = export_module(graph.module, graph.example, graph.axes, out / FLOAT32, inline_bytes=inline_bytes)
    facts: dict[str, Any] = {
        "format": 1,
        "task": graph.task,
        "classes": graph.classes,
        "pad_id": graph.encoding.pad_id,
        "inputs": {name: _described(one, graph.axes[name]) for name, one in graph.example.items()},
        "output": OUTPUT,
        "opset": opset,
        "parameters": graph.parameters,
        "float32": {"file": FLOAT32, "bytes": size_bytes(out / FLOAT32)},
    }
    if int8:
        held = quantise(out / FLOAT32, out / INT8)
        facts["int8"] = {"file": INT8, "bytes": size_bytes(out / INT8), **held}
    _write_beside(graph, folder, out, facts)
    return Exported(out, out / FLOAT32, out / INT8 if int8 else None, facts)


def export_module(
    module: nn.Module, example: Mapping[str, torch.Tensor], axes: Mapping[str, Mapping[int, str]], path: Path,
    *, inline_bytes: int = INLINE_BYTES,
) -> int:  # fmt: skip
    """Write one module as ONNX: its arguments in order with an example each, and their free axes by name.

    Equal names mean equal lengths. Its result becomes the output `logits`. Returns the opset. Raises ModelError.
    """
    need(*PACKAGES)
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    free = {name: torch.export.Dim(name) for one in axes.values() for name in one.values()}
    shapes = tuple({place: free[name] for place, name in axes.get(one, {}).items()} for one in example)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module.eval(), tuple(example.values()), dynamo=True, verbose=False, dynamic_shapes=shapes,
                input_names=list(example), output_names=[OUTPUT],
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            told = str(error.__cause__ or error).strip().splitlines()[0][:200]
            raise ModelError(
                f"PyTorch's exporter cannot write this model as ONNX: {told}",
                where=type(module).__name__,
                cure="Use an architecture that torch.export can trace with free batch and sequence axes",
            ) from error
    assert program is not None, "with dynamo the exporter gives the program"
    graph = program.model
    # Each node remembers the source line it came from: paths of this machine, and two thirds of a small file.
    ClearMetadataAndDocStringPass()(graph)
    weights_bytes = sum(
        one.const_value.nbytes for one in graph.graph.initializers.values() if one.const_value is not None
    )
    if weights_bytes <= inline_bytes:
        write_file(path, onnx_ir.to_proto(graph).SerializeToString())
    else:
        onnx_ir.save(graph, path, external_data=path.name + ".data")
    return int(graph.opset_imports[""])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's known warnings, and its lines about torchvision's operators, which no student has."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category, message in KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        registry.setLevel(before)


def remove_graphs(out: Path) -> None:
    """Remove an export's graphs, and what says that they are there."""
    for name in (FACTS, FLOAT32, FLOAT32 + ".data", INT8):
        (out / name).unlink(missing_ok=True)


def size_bytes(path: Path) -> int:
    """Bytes of an exported graph, with its weights where they stand in a file of their own."""
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _described(example: torch.Tensor, axes: Mapping[int, str]) -> dict[str, Any]:
    shape = [axes.get(place, length) for place, length in enumerate(example.shape)]
    return {"dtype": str(example.dtype).removeprefix("torch."), "shape": shape}


def _write_beside(graph: Graph, folder: Path, out: Path, facts: dict[str, Any]) -> None:
    """What turns raw rows into the graph's inputs, the facts, and how to use them."""
    if graph.encoding.inputs is not None:
        inputs_.write(graph.encoding.inputs, out)
    if graph.tokenizer is not None:
        from stillroom.models import pretrained

        pretrained.save_tokenizer(graph.tokenizer, out)
        shutil.copyfile(folder / CONFIG, out / CONFIG)  # other tools look there for labels and special tokens
    write_json(out / FACTS, facts)
    write_file(out / README, _readme(facts).encode())


def _readme(facts: Mapping[str, Any]) -> str:
    """What stands where, what goes in and out, and four lines of Python."""
    files = [f"- `{FLOAT32}`: float32, {facts['float32']['bytes']:,} bytes"]
    if "int8" in facts:
        held = facts["int8"]
        files.append(f"- `{INT8}`: {held['weights_share']:.1%} of the weights in 8 bits, {held['bytes']:,} bytes")
    takes = "".join(f"- `{name}`: {one['dtype']} {one['shape']}\n" for name, one in facts["inputs"].items())
    classes = "" if facts["classes"] is None else f" of the classes {facts['classes']}, in this order"
    file = INT8 if "int8" in facts else FLOAT32
    use = "student.predict(rows)" if facts["classes"] else "student.run({name: array, ...})"
    return f"""# An exported student

{chr(10).join(files)}
- `{FACTS}`: what it takes and gives

It takes

{takes}
and gives `{OUTPUT}`{classes}; their softmax is the probabilities.

```python
from pathlib import Path
from stillroom.export.runner import OnnxModel

student = OnnxModel(Path("."), "{file}")
{use}
```
"""
