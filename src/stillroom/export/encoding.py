"""Raw rows as the named arrays an exported graph takes. Knows no graph; needs neither torch nor onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.errors import DataError
from stillroom.inputs import Inputs, Texts
from stillroom.rows import PADDING, Array, Raw

ROWS, IDS, MASK = "input", "input_ids", "attention_mask"
WINDOW, TARGET = "ids", "target"
"""Columns of a language model's windows: token ids, and what each position should say; PADDING where nothing."""


@dataclass(frozen=True)
class Encoding:
    """How raw rows become a graph's inputs: `input` [N, ...] float32, or `input_ids` and `attention_mask` [N, T] int64."""

    inputs: Inputs | None
    """What was learned of rows or texts; none: the rows are windows of token ids."""
    pad_id: int = 0
    """Stands in `input_ids` where a row has ended; the mask says so too."""

    @property
    def of_tokens(self) -> bool:
        """True where the graph takes tokens."""
        return self.inputs is None or isinstance(self.inputs, Texts)

    def encode(self, raw: Raw) -> dict[str, Array]:
        """The graph's inputs. Raises DataError for rows of another kind."""
        if self.inputs is not None and not self.of_tokens:
            return {ROWS: self.inputs.encode(raw)}
        ids_NT = self.inputs.encode(raw) if self.inputs is not None else _window(raw)
        there_NT = ids_NT != PADDING
        longest = int(there_NT.sum(1).max(initial=1))
        ids_NT, there_NT = ids_NT[:, :longest], there_NT[:, :longest]
        return {IDS: np.where(there_NT, ids_NT, self.pad_id).astype(np.int64), MASK: there_NT.astype(np.int64)}


def _window(raw: Raw) -> Array:
    ids = raw.get(WINDOW) if isinstance(raw, dict) else raw
    if ids is None or ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise DataError(
            "a language model takes windows of token ids",
            where=f"column {WINDOW}",
            cure="Give whole numbers [rows, tokens], with -1 after a row's end",
        )
    return ids
