"""Losses of a language model without its logits: from the last hidden state to the loss and its gradients.

The logits of a few rows at a time are made, judged, turned into their own gradient in place and multiplied back, so that
neither the student's nor the teacher's [P, V] is ever whole in memory. All of it happens in the forward pass; the backward
pass only scales what was kept. One driver serves every form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from stillroom.errors import ModelError, RecipeError
from stillroom.objectives.divergences import Divergence
from stillroom.objectives.fused_forms import Bucket, Dense, Form, KeptForward, KeptTeacher, LiveTeacher, Points
from stillroom.objectives.fused_products import Logits, MixedLogits, product_dtype
from stillroom.rows import Head, MixedHead, SparseTargets

CHUNK_BYTES = 32 << 20
"""Of logits made at once on a processor: fewer rows make slow products, more save 2 % and double the memory."""
BLOCK_BYTES = 2 << 20
"""Of logits passed over at once on a processor, so that they are still in its cache for the next pass."""
ACCELERATOR_BYTES = 256 << 20
"""Of logits made at once elsewhere, where every call has a price."""

MakeForm = Callable[[torch.dtype, int], Form]
"""Given the dtype of the arithmetic and the rows of a chunk."""


def fused_cross_entropy(
    hidden_PH: torch.Tensor,
    head: Head,
    target_P: torch.Tensor,
    *,
    weight_P: torch.Tensor | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """The sum over rows of weight * -log p(target), nats, differentiable in the hidden state, weight and bias.

    A row whose target is negative is left out. `chunk`: rows at a time; by default as many as run fast on the device.
    """
    scored_P = target_P >= 0
    weight_P = scored_P.to(torch.float32) if weight_P is None else weight_P * scored_P
    ids_P1 = target_P.clamp(min=0)[:, None]

    def form(dtype: torch.dtype, rows: int) -> Form:
        return Points(ids_P1, torch.ones_like(ids_P1, dtype=dtype))

    return _run(hidden_PH, head, form, weight_P, 1.0, chunk)


def fused_sparse(
    hidden_PH: torch.Tensor,
    head: Head,
    targets: SparseTargets,
    *,
    temperature: float = 1.0,
    form: Divergence = "forward",
    weight_P: torch.Tensor | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """T^2 times the sum over rows of weight * divergence from a kept teacher, nats (Hinton and others 2015).

    A tail of hidden states gives the whole distribution, so every form and temperature. A bucket is one outcome on both
    sides: every form, temperature 1. A sample estimates KL(teacher || student) without bias, at temperature 1.
    Raises RecipeError for any other pair of tail, form and temperature.
    """
    vocabulary = len(head.weight_VH)
    _refuse(targets.tail, temperature, form)

    def made(dtype: torch.dtype, rows: int) -> Form:
        if targets.tail == "sample":
            return _sampled(targets, dtype)
        if targets.tail == "bucket":
            return Bucket(targets, form, dtype, vocabulary)
        assert targets.basis is not None
        basis = Head(targets.basis.matrix_VM, targets.basis.bias_V, targets.basis.soft_cap)
        _same_vocabulary(basis, head)
        # The product is thin, and the components were rounded once already: always in float32.
        tail = Logits(basis, dtype, dtype, 1.0, rows)
        kept = KeptTeacher(targets, tail, hidden_PH.new_empty(rows, vocabulary, dtype=dtype), temperature)
        return KeptForward(kept) if form == "forward" and temperature == 1 else Dense(kept, form)

    return _run(hidden_PH, head, made, weight_P, temperature, chunk)


def fused_dense(
    hidden_PH: torch.Tensor,
    head: Head,
    teacher_hidden_PG: torch.Tensor,
    teacher_head: Head | MixedHead,
    *,
    temperature: float = 1.0,
    form: Divergence = "forward",
    weight_P: torch.Tensor | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """T^2 times the sum over rows of weight * divergence from a live teacher, or the mean of several, nats; it has no gradient.

    Raises ModelError where the two vocabularies differ in width.
    """
    _same_vocabulary(teacher_head, head)

    def made(dtype: torch.dtype, rows: int) -> Form:
        first = teacher_head.heads[0] if isinstance(teacher_head, MixedHead) else teacher_head
        product = product_dtype(teacher_hidden_PG, first.weight_VH)
        logits: Logits | MixedLogits
        if isinstance(teacher_head, MixedHead):
            logits = MixedLogits(teacher_head, product, dtype, temperature, rows)
        else:
            logits = Logits(teacher_head, product, dtype, temperature, rows)
        out_CV = hidden_PH.new_empty(rows, len(head.weight_VH), dtype=dtype)
        return Dense(LiveTeacher(teacher_hidden_PG, logits, out_CV), form)

    return _run(hidden_PH, head, made, weight_P, temperature, chunk)


def _sampled(targets: SparseTargets, dtype: torch.dtype) -> Form:
    assert targets.sample_ids_PS is not None
    assert targets.sample_log_weight_PS is not None
    ids_PJ = torch.cat([targets.ids_PK, targets.sample_ids_PS.clamp(min=0)], 1)
    log_weight_PJ = torch.cat([targets.log_p_PK, targets.sample_log_weight_PS], 1)
    return Points(ids_PJ, log_weight_PJ.to(dtype).exp(), targets.entropy_P.to(dtype))


def _refuse(tail: str, temperature: float, form: Divergence) -> None:
    if tail == "hidden" or (temperature == 1 and (tail == "bucket" or form == "forward")):
        return
    what = f"temperature {temperature:g}" if temperature != 1 else f"divergence {form}"
    raise RecipeError(
        f"Soft targets kept with tail {tail!r} have no {what}",
        where="objectives",
        cure="Use transfer_set.tail: hidden, or temperature: 1 and divergence: forward",
    )


def _same_vocabulary(teacher: Head | MixedHead, student: Head) -> None:
    if teacher.vocabulary != student.vocabulary:
        raise ModelError(
            f"The teacher's output layer has {teacher.vocabulary:,} tokens, the student's {student.vocabulary:,}",
            where="teacher, student",
            cure="Use a student with the teacher's tokenizer and vocabulary width",
        )


def _rows_at_once(chunk: int | None, vocabulary: int, device: torch.device) -> tuple[int, int]:
    """Rows of a chunk and of a block: products want many rows, passes over [R, V] want to stay in the cache."""
    row_bytes = 4 * vocabulary
    if device.type == "cpu":
        rows = chunk or min(max(CHUNK_BYTES // row_bytes, 128), 512)
        return rows, max(1, min(rows, BLOCK_BYTES // row_bytes))
    rows = chunk or min(max(ACCELERATOR_BYTES // row_bytes, 128), 4096)
    return rows, rows


def _run(
    hidden_PH: torch.Tensor,
    head: Head,
    make: MakeForm,
    weight_P: torch.Tensor | None,
    temperature: float,
    chunk: int | None,
) -> torch.Tensor:
    wanted = torch.is_grad_enabled()
    loss: torch.Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
        hidden_PH, head.weight_VH, head.bias_V, head.soft_cap, make, weight_P, temperature, chunk, wanted
    )
    return loss


class _Fused(torch.autograd.Function):
    """Sums the loss and, where they are wanted, its gradients, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_PH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        soft_cap: float | None,
        make: MakeForm,
        weight_P: torch.Tensor | None,
        temperature: float,
        chunk: int | None,
        wanted: bool,
    ) -> torch.Tensor:
        needs = [wanted and needed for needed in ctx.needs_input_grad[:3]]
        with torch.autocast(hidden_PH.device.type, enabled=False):
            driver = _Driver(hidden_PH, Head(weight_VH, bias_V, soft_cap), needs, temperature, chunk)
            loss = driver.run(make, weight_P)
        # Saved so that they go when the graph does, even where the loss is kept.
        ctx.save_for_backward(*driver.gradients())
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # Fresh tensors: autograd adds into what it is given, and may ask again.
        return *(None if kept is None else kept * gradient for kept in ctx.saved_tensors), *[None] * 6


class _Driver:
    """What one pass over the rows needs: kept buffers, and sums of the gradients that are wanted."""

    def __init__(
        self, hidden_PH: torch.Tensor, head: Head, needs: list[bool], temperature: float, chunk: int | None
    ) -> None:
        vocabulary = len(head.weight_VH)
        self.hidden_PH, self.head, self.temperature = hidden_PH, head, temperature
        product = product_dtype(hidden_PH, head.weight_VH)
        self.exact = torch.promote_types(product, torch.float32)
        self.chunk, self.block = _rows_at_once(chunk, vocabulary, hidden_PH.device)
        self.chunk = max(1, min(self.chunk, len(hidden_PH)))
        self.logits = Logits(head, product, self.exact, temperature, self.chunk, back=any(needs))
        self.student_CV = hidden_PH.new_empty(self.chunk, vocabulary, dtype=self.exact)
        self.loss_P = hidden_PH.new_empty(len(hidden_PH), dtype=self.exact)
        like = [hidden_PH, head.weight_VH, head.bias_V]
        sums = [
            torch.zeros_like(tensor, dtype=self.exact) if needed and tensor is not None else None
            for needed, tensor in zip(needs, like, strict=True)
        ]
        self.hidden_sum_PH, self.weight_sum_VH, self.bias_sum_V = sums

    def run(self, make: MakeForm, weight_P: torch.Tensor | None) -> torch.Tensor:
        """The loss, summed in float64 so that it does not depend on the number of rows."""
        form = make(self.exact, self.chunk)
        weight_P = torch.ones_like(self.loss_P) if weight_P is None else weight_P.detach().to(self.exact)
        # d loss / d logits = T^2 * d divergence / d (logits / T) / T; the rows' factors never meet the V logits.
        factor_P1 = self.temperature * weight_P[:, None]
        if form.mass_P1 is not None:
            factor_P1 = factor_P1 * form.mass_P1
        for start in range(0, len(self.hidden_PH), self.chunk):
            rows = slice(start, min(start + self.chunk, len(self.hidden_PH)))
            student_CV = self.student_CV[: rows.stop - start]
            self.logits.fill(self.hidden_PH[rows], student_CV)
            form.open(rows)
            for first in range(start, rows.stop, self.block):
                block = slice(first, min(first + self.block, rows.stop))
                self.loss_P[block] = form.block(student_CV[first - start : block.stop - start], block)
            self._back(student_CV, rows, factor_P1[rows])
        # One kind of device has no float64.
        wide = torch.float32 if self.loss_P.device.type == "mps" else torch.float64
        row_P = torch.where(weight_P == 0, 0.0, self.loss_P.to(wide) * weight_P)
        return (self.temperature**2 * row_P.sum()).to(self.exact)

    def _back(self, gradient_CV: torch.Tensor, rows: slice, factor_C1: torch.Tensor) -> None:
        if self.hidden_sum_PH is None and self.weight_sum_VH is None and self.bias_sum_V is None:
            return
        made_CV = self.logits.back(gradient_CV)
        if self.bias_sum_V is not None:
            self.bias_sum_V.addmv_(gradient_CV.T, factor_C1[:, 0])
        if self.hidden_sum_PH is not None:
            out_CH = self.hidden_sum_PH[rows]
            self.logits.to_hidden(made_CV, out_CH)
            out_CH.mul_(factor_C1)
        if self.weight_sum_VH is not None:
            self.logits.to_weight(made_CV, self.hidden_PH[rows] * factor_C1, self.weight_sum_VH)

    def gradients(self) -> list[torch.Tensor | None]:
        """Of the hidden state, the weight and the bias, each in its own dtype; None where it is not wanted."""
        tensors = [self.hidden_PH, self.head.weight_VH, self.head.bias_V]
        sums = [self.hidden_sum_PH, self.weight_sum_VH, self.bias_sum_V]
        return [
            None if kept is None or tensor is None else kept.to(tensor.dtype)
            for kept, tensor in zip(sums, tensors, strict=True)
        ]
