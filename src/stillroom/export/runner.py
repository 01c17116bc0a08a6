"""An exported student at work: onnxruntime and numpy, no torch.

A folder of an exported student: model.onnx · model_int8.onnx · export.json (what it takes and gives) · inputs.json and,
where it reads texts, tokenizer.json (how rows become its inputs) · README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stillroom import inputs as inputs_
from stillroom.errors import ModelError
from stillroom.export.encoding import Encoding
from stillroom.rows import Array, Prediction, Raw
from stillroom.rundir import read_json

FLOAT32, INT8, FACTS = "model.onnx", "model_int8.onnx", "export.json"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def need(*packages: str) -> None:
    """Raise ModelError where a package of the extra `onnx` is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise ModelError(
                f"exported models need the package {package}, and it is not installed",
                where="export",
                cure="pip install stillroom[onnx]",
            )


class OnnxModel:
    """An exported student, from raw rows to logits, with as many threads as it is given."""

    def __init__(self, folder: Path, file: str = FLOAT32, *, threads: int = 1) -> None:
        """Open `folder`/`file`. Raises ModelError where it is none, or the packages are absent."""
        need("onnxruntime")
        import onnxruntime

        absent = [name for name in (FACTS, file) if not (folder / name).is_file()]
        if absent:
            raise ModelError(
                f"this is no folder of an exported student: it has no {absent[0]}",
                where=str(folder),
                cure="Make it with stillroom export RUN --onnx" + (" --int8" if file == INT8 else ""),
            )
        self.facts: dict[str, Any] = read_json(folder / FACTS)
        self.classes: list[Any] | None = self.facts["classes"]
        learned = inputs_.read(folder) if (folder / inputs_.INPUTS).is_file() else None
        self.encoding = Encoding(learned, self.facts["pad_id"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors; a graph's warnings are for who optimises onnxruntime
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own errors share no base class but this
            raise ModelError(
                f"onnxruntime cannot read this file: {str(error).strip().splitlines()[0][:200]}",
                where=str(folder / file),
                cure="Export it again",
            ) from error

    def run(self, encoded: Mapping[str, Array]) -> Array:
        """Logits of encoded inputs (see `Encoding.encode`): [N, C], or [N, T, V] of a language model."""
        logits: Array = self._session.run(None, dict(encoded))[0]
        return logits

    def logits(self, raw: Raw) -> Array:
        """Logits of raw rows, in one batch."""
        return self.run(self.encoding.encode(raw))

    def log_probabilities(self, raw: Raw) -> Array:
        """Log-probabilities float32 of raw rows, in one batch; shaped like `logits`."""
        return log_softmax(self.logits(raw))

    def predict(self, rows: Any) -> Prediction:
        """Classify what Student.predict takes too. Raises ModelError where this is a language model."""
        if self.classes is None or self.encoding.inputs is None:
            raise ModelError("a language model has no classes", where="predict", cure="Use its logits")
        share_NC = np.exp(self.log_probabilities(self.encoding.inputs.as_raw(rows)))
        labels = np.empty(len(self.classes), dtype=object)
        labels[:] = self.classes
        return Prediction(labels[share_NC.argmax(1)], share_NC, self.classes)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
