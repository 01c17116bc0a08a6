"""Traces: the cross-entropy of a teacher's own text, token by token (Kim and Rush 2016, arXiv:1606.07947).

The text is the questions' own: recorded answers, chat messages (loss on the assistant's tokens alone), or what was
generated. It is what `hard_label` is for labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.kinds import Loss, Objective, Setting
from stillroom.rows import Head

if TYPE_CHECKING:
    import torch

    from stillroom.rows import Batch, Output


class Trace(Objective):
    """-log p(token), over the scored tokens of the teacher's text."""

    kind: Literal["trace"] = "trace"
    needs: ClassVar[frozenset[str]] = frozenset({"text"})

    def build(self, setting: Setting) -> Loss:
        return TraceLoss()


class TraceLoss:
    """Looks at every scored token; logits are never whole in memory."""

    def count(self, batch: Batch) -> float:
        if batch.all_labelled or batch.label_B is None:
            return float(batch.rows) if batch.weight_B is None else float(batch.weight_B.sum())
        known_P = batch.label_B >= 0  # what a student wrote itself is no text to learn
        return float(known_P.sum() if batch.weight_B is None else (known_P * batch.weight_B).sum())

    def sum(self, output: Output, batch: Batch) -> torch.Tensor:
        from stillroom.objectives.fused import fused_cross_entropy

        assert output.hidden_BH is not None, "a classifier writes no text"
        assert isinstance(output.head, Head), "a student is one model"
        assert batch.label_B is not None
        return fused_cross_entropy(output.hidden_BH, output.head, batch.label_B, weight_P=batch.weight_B)

    def parameters(self) -> list[torch.nn.Parameter]:
        return []
