"""Hard labels: the cross-entropy of one class a row, from the data's label or the teacher's top answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stillroom.kinds import Loss, Objective, Setting
from stillroom.rows import Head, MixedHead

if TYPE_CHECKING:
    import torch

    from stillroom.rows import Batch, Output


class HardLabel(Objective):
    """-log p(label), over the rows that have one."""

    kind: Literal["hard_label"] = "hard_label"
    needs: ClassVar[frozenset[str]] = frozenset()
    source: Literal["label", "teacher"] = Field(default="label", alias="from")
    """Whose class: the data's label, or the teacher's top answer."""

    def required(self) -> frozenset[str]:
        return frozenset({"answers"}) if self.source == "teacher" else frozenset()

    def build(self, setting: Setting) -> Loss:
        return HardLabelLoss(self.source == "teacher")


class HardLabelLoss:
    """Rows without a label count nothing and have no gradient."""

    def __init__(self, from_teacher: bool) -> None:
        self.from_teacher = from_teacher

    def _target(self, batch: Batch) -> torch.Tensor:
        """Class of each row, -1 where there is none."""
        if self.from_teacher:
            if batch.sparse is not None:
                return batch.sparse.ids_PK[:, 0]
            if batch.teacher is not None:
                return _top(batch.teacher)
            assert batch.log_probabilities_BC is not None
            return batch.log_probabilities_BC.argmax(1)
        assert batch.label_B is not None
        return batch.label_B

    def _known(self, batch: Batch, target_B: torch.Tensor) -> torch.Tensor:
        """True where a row has its label, and under mixup the other row has too."""
        known_B = target_B >= 0
        mixed = batch.mixed_label_B is not None and not self.from_teacher
        return known_B & (batch.mixed_label_B >= 0) if mixed and batch.mixed_label_B is not None else known_B

    def count(self, batch: Batch) -> float:
        if (self.from_teacher or batch.all_labelled) and batch.weight_B is None:
            return float(batch.rows)
        known_B = self._known(batch, self._target(batch))
        return float(known_B.sum() if batch.weight_B is None else (known_B * batch.weight_B).sum())

    def sum(self, output: Output, batch: Batch) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        if isinstance(output.head, Head):
            from stillroom.objectives.fused import fused_cross_entropy

            assert output.hidden_BH is not None
            return fused_cross_entropy(output.hidden_BH, output.head, self._target(batch), weight_P=batch.weight_B)
        assert output.logits_BC is not None
        logits_BC, target_B = output.logits_BC.float(), self._target(batch)
        mixed_B = None if self.from_teacher else batch.mixed_label_B
        if mixed_B is None and batch.weight_B is None:
            return cross_entropy(logits_BC, target_B, reduction="sum", ignore_index=-1)
        weight_B = self._known(batch, target_B).float()
        row_B = cross_entropy(logits_BC, target_B, reduction="none", ignore_index=-1)
        if mixed_B is not None:
            other_B = cross_entropy(logits_BC, mixed_B, reduction="none", ignore_index=-1)
            row_B = batch.mix * row_B + (1 - batch.mix) * other_B
        return (row_B * (weight_B if batch.weight_B is None else weight_B * batch.weight_B)).sum()

    def parameters(self) -> list[torch.nn.Parameter]:
        return []


CHUNK = 256


def _top(teacher: Output) -> torch.Tensor:
    """The most probable token at each position, int64 [P], chunk by chunk."""
    import torch

    assert teacher.hidden_BH is not None
    found = []
    if isinstance(teacher.head, MixedHead):
        from stillroom.models.language import logits

        return torch.cat([logits(one_pG, teacher.head).argmax(1) for one_pG in torch.split(teacher.hidden_BH, CHUNK)])
    assert teacher.head is not None
    weight_VH, bias_V, _ = teacher.head  # a cap changes no order
    for hidden_pG in torch.split(teacher.hidden_BH, CHUNK):
        logits_pV = hidden_pG.to(weight_VH.dtype) @ weight_VH.T
        found.append((logits_pV if bias_V is None else logits_pV + bias_V).argmax(1))
    return torch.cat(found)
