"""Weights of an ONNX graph in eight bits, by onnxruntime's dynamic quantisation: no calibration rows are needed.

Products and convolutions take integer weights, scaled for each output channel, and activations quantised as they come,
with one scale for a whole batch: a row's answer depends a little on the rows it is asked with. Embedding tables hold
bytes with one scale. What it all costs in accuracy is measured in check.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from stillroom.rundir import write_file

PRODUCTS, TABLES, CONVOLUTIONS = ("MatMul", "Gemm"), ("Gather",), ("Conv",)
SMALL_TABLE_BYTES = 65_536
"""A smaller embedding table stays as it is: there is nothing to gain."""
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Tells onnxruntime that shapes are known and constants folded, which the exporter did."""


def quantise(float32: Path, int8: Path) -> dict[str, Any]:
    """Write the graph at `float32` with eight-bit weights to `int8`. Returns {"weights_share"}: how many of them."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(float32)
    onnx.helper.set_model_props(graph, PREPARED)
    # onnxruntime multiplies signed weights faster (a sixth here), but has no fast convolution by them (10 times slower).
    convolves = any(node.op_type in CONVOLUTIONS for node in graph.graph.node)
    weight_type = QuantType.QUInt8 if convolves else QuantType.QInt8
    staged = int8.with_name(int8.name + ".staged")
    try:
        quantize_dynamic(
            graph,
            staged,
            op_types_to_quantize=[*PRODUCTS, *TABLES, *CONVOLUTIONS],
            per_channel=True,
            weight_type=weight_type,
            nodes_to_exclude=_small_tables(graph),
        )
        small = onnx.load(staged)
    finally:
        staged.unlink(missing_ok=True)
    del small.metadata_props[:]
    write_file(int8, small.SerializeToString())
    return {"weights_share": _eight_bit_share(small)}


def _small_tables(graph: Any) -> list[str]:
    """Names of the lookups in tables that are not worth it."""
    sizes = {one.name: len(one.raw_data) for one in graph.graph.initializer}
    return [
        node.name
        for node in graph.graph.node
        if node.op_type in TABLES and sizes.get(node.input[0], 0) < SMALL_TABLE_BYTES
    ]


def _eight_bit_share(graph: Any) -> float:
    """Of all weights, the share that is kept in eight bits."""
    import onnx

    eight, all_of_them = 0, 0
    for one in graph.graph.initializer:
        count = math.prod(one.dims)
        if one.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
            eight, all_of_them = eight + count, all_of_them + count
        elif one.data_type == onnx.TensorProto.FLOAT:
            all_of_them += count
    return eight / max(all_of_them, 1)
