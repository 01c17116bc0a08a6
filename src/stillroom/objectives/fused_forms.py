"""What the text losses do with a block of logits: the loss of each row, and in the logits' place their gradient.

A form is given `student_RV`, logits already divided by the temperature, and overwrites it with d loss / d those logits.
R is the rows of a block, J the outcomes of a row that are weighed one by one, O all outcomes of a distribution.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch.nn import functional

from stillroom.objectives.divergences import Divergence
from stillroom.objectives.fused_products import NEVER, Logits, MixedLogits
from stillroom.rows import SparseTargets

NO_MASS = -1e4
"""Stands for a log-probability of minus infinity, so that a divergence which would be infinite stays finite."""


class Form(Protocol):
    """How rows of student logits are judged."""

    @property
    def mass_P1(self) -> torch.Tensor | None:
        """What the gradient of each row must still be multiplied by; None: by nothing."""

    def open(self, rows: slice) -> None:
        """Makes ready what the blocks of this chunk need."""

    def block(self, student_RV: torch.Tensor, rows: slice) -> torch.Tensor:
        """The loss [R] of these rows of the batch; their gradient stands in `student_RV` afterwards."""


class Teacher(Protocol):
    """A whole teacher distribution, block by block."""

    def open(self, rows: slice) -> None:
        """Makes this chunk's logits."""

    def block(self, rows: slice, q_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Softened logits [R, V], which the caller may overwrite, and their log-sum-exp [R, 1]; fills the softened q."""


def normalise(logits_RO: torch.Tensor, out_RO: torch.Tensor) -> torch.Tensor:
    """Writes the softmax and gives the log-sum-exp [R, 1]. `out_RO` may be the logits themselves."""
    top_R1 = logits_RO.amax(1, keepdim=True)
    torch.softmax(logits_RO, 1, out=out_RO)
    # The largest probability is exp(0) / sum: no second pass of exponentials.
    return top_R1.sub_(out_RO.amax(1, keepdim=True).log_())


def row_dot(left_RO: torch.Tensor, right_RO: torch.Tensor, scratch_RO: torch.Tensor) -> torch.Tensor:
    """The dot product of each row, [R, 1]; `scratch_RO` may be one of the two."""
    return torch.mul(left_RO, right_RO, out=scratch_RO).sum(1, keepdim=True)


class Points:
    """Cross-entropy with a few weighted outcomes of a row, minus a constant: - sum of weight log p - constant."""

    def __init__(self, ids_PJ: torch.Tensor, weight_PJ: torch.Tensor, constant_P: torch.Tensor | None = None) -> None:
        self.ids_PJ, self.weight_PJ, self.constant_P = ids_PJ, weight_PJ, constant_P
        self.mass_P1 = weight_PJ.sum(1, keepdim=True)
        self.share_PJ = weight_PJ / self.mass_P1.clamp(min=torch.finfo(weight_PJ.dtype).tiny)

    def open(self, rows: slice) -> None:
        """Nothing to do."""

    def block(self, student_RV: torch.Tensor, rows: slice) -> torch.Tensor:
        """The gradient is mass * (p - share): a draw's total weight may differ from 1, as the loss does."""
        ids_RJ = self.ids_PJ[rows]
        at_RJ = student_RV.gather(1, ids_RJ)
        loss_R = (self.weight_PJ[rows] * (normalise(student_RV, student_RV) - at_RJ)).sum(1)
        student_RV.scatter_add_(1, ids_RJ, -self.share_PJ[rows])
        return loss_R if self.constant_P is None else loss_R - self.constant_P[rows]


class Bucket:
    """A divergence of K + 1 outcomes: the head one by one, everything else as one."""

    mass_P1 = None

    def __init__(self, targets: SparseTargets, form: Divergence, dtype: torch.dtype, vocabulary: int) -> None:
        self.ids_PK, self.form = targets.ids_PK, form
        self.log_q_PO = torch.cat([*known_masses(targets, dtype, vocabulary)], 1)

    def open(self, rows: slice) -> None:
        """Nothing to do."""

    def block(self, student_RV: torch.Tensor, rows: slice) -> torch.Tensor:
        """Within the bucket the gradient is shared out by the student's own probabilities."""
        ids_RK, log_q_RO = self.ids_PK[rows], self.log_q_PO[rows]
        head_RK = student_RV.gather(1, ids_RK)
        student_RV.scatter_(1, ids_RK, NEVER)
        outcome_RO = torch.cat([head_RK, normalise(student_RV, student_RV)], 1).log_softmax(1)
        none_R1 = torch.zeros_like(log_q_RO[:, :1])
        scratch_RO = torch.empty_like(outcome_RO)
        loss_R = judge(self.form, outcome_RO, log_q_RO.clone(), log_q_RO.exp(), none_R1, scratch_RO)
        student_RV.mul_(outcome_RO[:, -1:]).scatter_(1, ids_RK, outcome_RO[:, :-1])
        return loss_R


class Dense:
    """A divergence of whole distributions."""

    mass_P1 = None

    def __init__(self, teacher: Teacher, form: Divergence) -> None:
        self.teacher, self.form = teacher, form
        self.q_RV = self.scratch_RV = torch.empty(0)

    def open(self, rows: slice) -> None:
        """Makes the teacher's logits of this chunk."""
        self.teacher.open(rows)

    def block(self, student_RV: torch.Tensor, rows: slice) -> torch.Tensor:
        """The form decides how many passes over V there are."""
        if len(self.q_RV) < len(student_RV):
            self.q_RV, self.scratch_RV = torch.empty_like(student_RV), torch.empty_like(student_RV)
        q_RV, scratch_RV = self.q_RV[: len(student_RV)], self.scratch_RV[: len(student_RV)]
        teacher_RV, log_sum_R1 = self.teacher.block(rows, q_RV)
        return judge(self.form, student_RV, teacher_RV, q_RV, log_sum_R1, scratch_RV)


class KeptForward:
    """KL(q || p) from a kept teacher at temperature 1: `Dense` in two passes over V less, and q is never made whole."""

    mass_P1 = None

    def __init__(self, kept: KeptTeacher) -> None:
        self.kept, self.share_RV = kept, torch.empty(0)

    def open(self, rows: slice) -> None:
        """Makes the tail's logits of this chunk."""
        self.kept.open(rows)

    def block(self, student_RV: torch.Tensor, rows: slice) -> torch.Tensor:
        """What the tail adds is its mass times a sum over its own softmax, 0 in the head's places; the head is added to it."""
        if len(self.share_RV) < len(student_RV):
            self.share_RV = torch.empty_like(student_RV)
        kept, share_RV = self.kept, self.share_RV[: len(student_RV)]
        ids_RK, head_RK, log_head_RK = kept.ids_PK[rows], kept.head_PK[rows], kept.log_head_PK[rows]
        mass_R1, log_mass_R1 = kept.mass_P1[rows], kept.log_mass_P1[rows]
        tail_RV = kept.logits(rows)
        log_mass_R1 = log_mass_R1 - normalise(tail_RV, share_RV)
        tail_R1 = mass_R1 * (row_dot(tail_RV.sub_(student_RV), share_RV, tail_RV) + log_mass_R1)
        head_R1 = (head_RK * (log_head_RK - student_RV.gather(1, ids_RK))).sum(1, keepdim=True)
        loss_R1 = tail_R1 + head_R1 + normalise(student_RV, student_RV)
        student_RV.addcmul_(share_RV, mass_R1, value=-1).scatter_add_(1, ids_RK, -head_RK)
        return loss_R1[:, 0]


class LiveTeacher:
    """Logits made from the teacher's last hidden state."""

    def __init__(self, hidden_PG: torch.Tensor, logits: Logits | MixedLogits, out_CV: torch.Tensor) -> None:
        self.hidden_PG, self.logits, self.out_CV = hidden_PG.detach(), logits, out_CV
        self.first = 0

    def open(self, rows: slice) -> None:
        """One product, and the cap if there is one."""
        self.first = rows.start
        self.logits.fill(self.hidden_PG[rows], self.out_CV[: rows.stop - rows.start])

    def block(self, rows: slice, q_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits came out softened."""
        logits_RV = self.out_CV[rows.start - self.first : rows.stop - self.first]
        return logits_RV, normalise(logits_RV, q_RV)


class KeptTeacher:
    """A tail made from kept components, renormalised to the kept mass, with the exact head written over."""

    def __init__(self, targets: SparseTargets, tail: Logits, out_CV: torch.Tensor, temperature: float) -> None:
        assert targets.components_PM is not None
        self.ids_PK, self.components_PM = targets.ids_PK, targets.components_PM
        self.tail, self.out_CV, self.temperature = tail, out_CV, temperature
        self.log_head_PK, self.log_mass_P1 = known_masses(targets, out_CV.dtype, out_CV.shape[1])
        self.head_PK, self.mass_P1 = self.log_head_PK.exp(), self.log_mass_P1.exp()
        self.first = 0

    def open(self, rows: slice) -> None:
        """A thin product, with the head's places emptied."""
        self.first = rows.start
        logits_CV = self.out_CV[: rows.stop - rows.start]
        self.tail.fill(self.components_PM[rows], logits_CV)
        logits_CV.scatter_(1, self.ids_PK[rows], NEVER)

    def logits(self, rows: slice) -> torch.Tensor:
        """The tail's of these rows, to be overwritten, [R, V]; the head's places are empty."""
        return self.out_CV[rows.start - self.first : rows.stop - self.first]

    def block(self, rows: slice, q_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log q of the tail is its log-softmax plus the log of its mass; then the head, then the temperature."""
        ids_RK = self.ids_PK[rows]
        log_q_RV = self.logits(rows)
        log_q_RV.add_(self.log_mass_P1[rows] - normalise(log_q_RV, q_RV))
        log_q_RV.scatter_(1, ids_RK, self.log_head_PK[rows])
        if self.temperature == 1:
            q_RV.mul_(self.mass_P1[rows]).scatter_(1, ids_RK, self.head_PK[rows])
            return log_q_RV, torch.zeros_like(self.mass_P1[rows])
        log_q_RV.mul_(1 / self.temperature)
        return log_q_RV, normalise(log_q_RV, q_RV)


def known_masses(targets: SparseTargets, dtype: torch.dtype, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the head [P, K] and of everything else [P, 1], which together make exactly 1."""
    log_head_PK = targets.log_p_PK.to(dtype).clamp(min=NO_MASS)
    log_mass_P1 = targets.tail_log_mass_P.to(dtype).clamp(min=NO_MASS)[:, None]
    if log_head_PK.shape[1] >= vocabulary:
        log_mass_P1 = torch.full_like(log_mass_P1, NO_MASS)
    # What was rounded when it was kept may be off by more than an arithmetic error, and a divergence must not be below 0.
    whole_P1 = torch.cat([log_head_PK, log_mass_P1], 1).logsumexp(1, keepdim=True)
    return log_head_PK - whole_P1, log_mass_P1 - whole_P1


def judge(
    form: Divergence,
    student_RO: torch.Tensor,
    teacher_RO: torch.Tensor,
    q_RO: torch.Tensor,
    teacher_sum_R1: torch.Tensor,
    scratch_RO: torch.Tensor,
) -> torch.Tensor:
    """The divergence [R] of two rows of logits; overwrites all four, the student's logits with their gradient.

    q is the softmax of the teacher's logits and `teacher_sum_R1` their log-sum-exp.
    """
    if form == "forward":
        return _forward(student_RO, teacher_RO, q_RO, teacher_sum_R1)
    if form == "reverse":
        return _reverse(student_RO, teacher_RO, teacher_sum_R1, scratch_RO)
    return _jensen_shannon(student_RO, teacher_RO, q_RO, teacher_sum_R1, scratch_RO)


def _forward(
    student_RO: torch.Tensor, teacher_RO: torch.Tensor, q_RO: torch.Tensor, teacher_sum_R1: torch.Tensor
) -> torch.Tensor:
    """KL(q || p); its gradient is p - q."""
    dot_R1 = row_dot(teacher_RO.sub_(student_RO), q_RO, teacher_RO)
    loss_R1 = dot_R1 + (normalise(student_RO, student_RO) - teacher_sum_R1)
    student_RO.sub_(q_RO)
    return loss_R1[:, 0]


def _reverse(
    student_RO: torch.Tensor, teacher_RO: torch.Tensor, teacher_sum_R1: torch.Tensor, scratch_RO: torch.Tensor
) -> torch.Tensor:
    """KL(p || q); with d = log p - log q its gradient is p (d - the mean of d under p), finite wherever p is 0."""
    student_sum_R1 = normalise(student_RO, scratch_RO)
    # Subtracting the two sums from d costs a pass and keeps d small, so that its mean cancels exactly.
    student_RO.sub_(teacher_RO).sub_(student_sum_R1 - teacher_sum_R1)
    loss_R1 = row_dot(student_RO, scratch_RO, teacher_RO)
    student_RO.sub_(loss_R1).mul_(scratch_RO)
    return loss_R1[:, 0]


def _jensen_shannon(
    student_RO: torch.Tensor,
    teacher_RO: torch.Tensor,
    q_RO: torch.Tensor,
    teacher_sum_R1: torch.Tensor,
    scratch_RO: torch.Tensor,
) -> torch.Tensor:
    """With a = log(p / m), m the mixture: (sum of p a + q (a - log p / q)) / 2; its gradient p (a - the mean of a) / 2."""
    ratio_RO = torch.sub(student_RO, teacher_RO, out=teacher_RO)
    ratio_RO.sub_(normalise(student_RO, student_RO) - teacher_sum_R1)
    ratio_R1 = row_dot(ratio_RO, q_RO, scratch_RO)
    above_RO = functional.logsigmoid(ratio_RO).add_(math.log(2))
    mean_R1 = row_dot(above_RO, student_RO, scratch_RO)
    loss_R1 = (mean_R1 + row_dot(above_RO, q_RO, scratch_RO) - ratio_R1) / 2
    student_RO.mul_(above_RO.sub_(mean_R1)).mul_(0.5)
    return loss_R1[:, 0]
