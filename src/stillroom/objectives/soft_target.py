"""Soft targets: the divergence between teacher and student, both softened by a temperature (Hinton and others 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stillroom.kinds import Loss, Objective, Setting
from stillroom.rows import Head

if TYPE_CHECKING:
    import torch

    from stillroom.rows import Batch, Output


class SoftTarget(Objective):
    """T^2 times the divergence from the teacher's softened probabilities, so that its gradient does not shrink with T."""

    kind: Literal["soft_target"] = "soft_target"
    needs: ClassVar[frozenset[str]] = frozenset({"probabilities"})
    temperature: Annotated[float, Field(gt=0)] | Literal["auto"] = 4.0
    """auto: of 1, 2, 4, 8 and 20, tried on one student each, the one with the fewest validation errors, then the lowest loss."""
    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    """KL(teacher || student), KL(student || teacher), or the Jensen-Shannon divergence."""
    standardise: bool = False
    """Compare logits standardised a row, so that the student need not match the teacher's scale."""

    def heat(self) -> float | Literal["auto"] | None:
        return self.temperature

    def build(self, setting: Setting) -> Loss:
        assert self.temperature != "auto", "flow settles the temperature before training"
        return SoftTargetLoss(self.temperature, self.divergence, self.standardise)


class SoftTargetLoss:
    """Looks at every row that has an answer of the teacher."""

    def __init__(
        self, temperature: float, form: Literal["forward", "reverse", "jensen_shannon"], standard: bool
    ) -> None:
        self.temperature, self.form, self.standard = temperature, form, standard

    def count(self, batch: Batch) -> float:
        return float(batch.rows) if batch.weight_B is None else float(batch.weight_B.sum())

    def sum(self, output: Output, batch: Batch) -> torch.Tensor:
        from stillroom.objectives.divergences import divergence, standardise

        if isinstance(output.head, Head):
            return self._without_logits(output, output.head, batch)
        assert batch.log_probabilities_BC is not None
        assert output.logits_BC is not None
        student_BC, teacher_BC = output.logits_BC.float(), batch.log_probabilities_BC
        if self.standard:
            student_BC, teacher_BC = standardise(student_BC), standardise(teacher_BC)
        heat = self.temperature
        row_B = divergence((teacher_BC / heat).log_softmax(1), (student_BC / heat).log_softmax(1), self.form)
        return heat**2 * (row_B.sum() if batch.weight_B is None else (row_B * batch.weight_B).sum())

    def _without_logits(self, output: Output, head: Head, batch: Batch) -> torch.Tensor:
        """Of a language model, from its last hidden layer; neither side's logits are whole in memory."""
        from stillroom.objectives.fused import fused_dense, fused_sparse

        assert output.hidden_BH is not None
        heat, form, weight_P = self.temperature, self.form, batch.weight_B
        if batch.sparse is not None:
            return fused_sparse(output.hidden_BH, head, batch.sparse, temperature=heat, form=form, weight_P=weight_P)
        assert batch.teacher is not None
        assert batch.teacher.hidden_BH is not None
        assert batch.teacher.head is not None
        return fused_dense(
            output.hidden_BH, head, batch.teacher.hidden_BH, batch.teacher.head, temperature=heat, form=form,
            weight_P=weight_P,
        )  # fmt: skip

    def parameters(self) -> list[torch.nn.Parameter]:
        return []
