"""Feature matching: the student's last hidden layer, through a learned projection, towards the teacher's.

Romero and others 2014 (arXiv:1412.6550) for the squared error; Sanh and others 2019 (arXiv:1910.01108) for the cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import RecipeError
from stillroom.kinds import Loss, Objective, Setting

if TYPE_CHECKING:
    import torch

    from stillroom.rows import Batch, Output


class Hidden(Objective):
    """Distance between the hidden layers: mean squared error over units, or 1 - cosine."""

    kind: Literal["hidden"] = "hidden"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    distance: Literal["mse", "cosine"] = "mse"
    """Mean squared error over units, or 1 - cosine."""

    def build(self, setting: Setting) -> Loss:
        if setting.student_hidden is None or setting.teacher_hidden is None:
            raise RecipeError(
                "the student or the teacher shows no hidden layer",
                where="objectives, kind hidden",
                cure="Use a model kind of Stillroom's for both, or take the objective out",
            )
        return HiddenLoss(self.distance, setting.student_hidden, setting.teacher_hidden)


class HiddenLoss:
    """Projects where the widths differ; equal widths are compared as they are."""

    def __init__(self, distance: Literal["mse", "cosine"], student: int, teacher: int) -> None:
        from torch import nn

        self.distance = distance
        self.projection = None if student == teacher else nn.Linear(student, teacher, bias=False)

    def count(self, batch: Batch) -> float:
        return float(batch.rows) if batch.weight_B is None else float(batch.weight_B.sum())

    def sum(self, output: Output, batch: Batch) -> torch.Tensor:
        from torch.nn import functional

        assert output.hidden_BH is not None
        assert batch.hidden_BH is not None
        student_BH, teacher_BH = output.hidden_BH.float(), batch.hidden_BH
        if self.projection is not None:
            self.projection.to(student_BH.device)
            student_BH = self.projection(student_BH)
        if self.distance == "mse":
            row_B = (student_BH - teacher_BH).square().mean(1)
        else:
            row_B = 1 - functional.cosine_similarity(student_BH, teacher_BH, dim=1)
        return row_B.sum() if batch.weight_B is None else (row_B * batch.weight_B).sum()

    def parameters(self) -> list[torch.nn.Parameter]:
        return [] if self.projection is None else list(self.projection.parameters())
