"""The losses without the logits mean their names: against plain float64 references that make the logits whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from stillroom.objectives.fused import fused_cross_entropy, fused_dense, fused_sparse
from stillroom.rows import Basis, Head, SparseTargets

ROWS, WIDTH, VOCABULARY, HEAD, THIN, DRAWS = 13, 16, 97, 5, 6, 4
FORMS = ("forward", "reverse", "jensen_shannon")
HEATS = (1.0, 3.0)
TAILS = [("hidden", form, heat) for form in FORMS for heat in HEATS]
TAILS += [("bucket", form, 1.0) for form in FORMS] + [("sample", "forward", 1.0)]
LAYERS = [(False, None), (True, None), (True, 4.0)]

Loss = Callable[..., Tensor]


def student(
    bias: bool = True, soft_cap: float | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Head]:
    hidden = torch.randn(ROWS, WIDTH).to(dtype).requires_grad_()
    weight = (torch.randn(VOCABULARY, WIDTH) * 0.4).to(dtype).requires_grad_()
    return hidden, Head(weight, torch.randn(VOCABULARY).to(dtype).requires_grad_() if bias else None, soft_cap)


def kept(tail: str) -> SparseTargets:
    """What keeping a random teacher would give; its tail is near the teacher's, not equal."""
    matrix, components = torch.randn(VOCABULARY, THIN), torch.randn(ROWS, THIN)
    basis = Basis(matrix, torch.randn(VOCABULARY))
    log_p = (components @ matrix.T + basis.bias_V + torch.randn(ROWS, VOCABULARY)).double().log_softmax(1)
    top = log_p.topk(HEAD, 1)
    rest = log_p.scatter(1, top.indices, -math.inf)
    targets = SparseTargets(
        top.indices,
        top.values.float(),
        rest.logsumexp(1).float(),
        -(log_p.exp() * log_p).sum(1).float(),
        log_p[:, 0].float(),
        tail,  # type: ignore[arg-type]
    )
    if tail == "hidden":
        targets.components_PM, targets.basis = components, basis
    if tail == "sample":
        targets.sample_ids_PS = rest.exp().multinomial(DRAWS, replacement=True)
        share = rest.logsumexp(1, keepdim=True) - math.log(DRAWS)
        targets.sample_log_weight_PS = share.float().repeat(1, DRAWS)
        targets.sample_log_weight_PS[0, -1] = -math.inf
    return targets


def logits(hidden: Tensor, head: Head) -> Tensor:
    made = hidden @ head.weight_VH.T
    if head.bias_V is not None:
        made = made + head.bias_V
    return made if head.soft_cap is None else head.soft_cap * (made / head.soft_cap).tanh()


def divergence(log_q: Tensor, log_p: Tensor, form: str) -> Tensor:
    def kl(left: Tensor, right: Tensor) -> Tensor:
        return (left.exp() * (left - right)).sum(1)

    if form == "forward":
        return kl(log_q, log_p)
    if form == "reverse":
        return kl(log_p, log_q)
    middle = ((log_q.exp() + log_p.exp()) / 2).log()
    return (kl(log_q, middle) + kl(log_p, middle)) / 2


def rebuilt(targets: SparseTargets) -> Tensor:
    """The whole distribution, as the format's description says it."""
    assert targets.basis is not None
    assert targets.components_PM is not None
    tail = targets.components_PM.double() @ targets.basis.matrix_VM.double().T + targets.basis.bias_V.double()
    tail = tail.scatter(1, targets.ids_PK, -math.inf).log_softmax(1) + targets.tail_log_mass_P.double()[:, None]
    return tail.scatter(1, targets.ids_PK, targets.log_p_PK.double()).log_softmax(1)


def naive_sparse(hidden: Tensor, head: Head, targets: SparseTargets, temperature: float, form: str) -> Tensor:
    whole = logits(hidden, head)
    if targets.tail == "hidden":
        log_q = (rebuilt(targets) / temperature).log_softmax(1)
        return temperature**2 * divergence(log_q, (whole / temperature).log_softmax(1), form)
    log_p = whole.log_softmax(1)
    if targets.tail == "bucket":
        rest = (1 - log_p.exp().gather(1, targets.ids_PK).sum(1, keepdim=True)).log()
        known = torch.cat([targets.log_p_PK, targets.tail_log_mass_P[:, None]], 1).double()
        return divergence(known.log_softmax(1), torch.cat([log_p.gather(1, targets.ids_PK), rest], 1), form)
    assert targets.sample_ids_PS is not None
    assert targets.sample_log_weight_PS is not None
    head_part = (targets.log_p_PK.double().exp() * log_p.gather(1, targets.ids_PK)).sum(1)
    tail_part = (targets.sample_log_weight_PS.double().exp() * log_p.gather(1, targets.sample_ids_PS)).sum(1)
    return -head_part - tail_part - targets.entropy_P.double()


def doubled(hidden: Tensor, head: Head) -> tuple[Tensor, Head]:
    weight, bias = head.weight_VH.detach().double().requires_grad_(), head.bias_V
    bias = None if bias is None else bias.detach().double().requires_grad_()
    return hidden.detach().double().requires_grad_(), Head(weight, bias, head.soft_cap)


def leaves(hidden: Tensor, head: Head) -> list[Tensor]:
    return [hidden, head.weight_VH] + ([] if head.bias_V is None else [head.bias_V])


def agrees(loss: Tensor, exact: Tensor, made: list[Tensor], true: list[Tensor], bar: float = 1e-5) -> None:
    """The bar of the gradient: largest error / largest gradient."""
    assert abs(loss.item() - exact.item()) <= 10 * bar * max(1.0, abs(exact.item()))
    for gradient, reference in zip(torch.autograd.grad(loss, made), torch.autograd.grad(exact, true), strict=True):
        assert gradient.dtype == made[0].dtype
        assert (gradient.double() - reference).abs().max() <= bar * reference.abs().max()


@pytest.mark.parametrize(("bias", "soft_cap"), LAYERS)
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_cross_entropy_is_that_of_the_whole_logits(bias: bool, soft_cap: float | None, chunk: int | None) -> None:
    hidden, head = student(bias, soft_cap)
    target, weight = torch.randint(0, VOCABULARY, (ROWS,)), torch.rand(ROWS)
    target[3] = -1
    loss = fused_cross_entropy(hidden, head, target, weight_P=weight, chunk=chunk)
    hidden64, head64 = doubled(hidden, head)
    rows = torch.nn.functional.cross_entropy(logits(hidden64, head64), target, ignore_index=-1, reduction="none")
    agrees(loss, (rows * weight).sum(), leaves(hidden, head), leaves(hidden64, head64))


@pytest.mark.parametrize(("bias", "soft_cap"), LAYERS)
@pytest.mark.parametrize(("tail", "form", "heat"), TAILS)
def test_a_kept_teacher_gives_the_divergence_from_what_was_kept(
    tail: str, form: Any, heat: float, bias: bool, soft_cap: float | None
) -> None:
    (hidden, head), targets, weight = student(bias, soft_cap), kept(tail), torch.rand(ROWS)
    loss = fused_sparse(hidden, head, targets, temperature=heat, form=form, weight_P=weight, chunk=4)
    hidden64, head64 = doubled(hidden, head)
    exact = (naive_sparse(hidden64, head64, targets, heat, form) * weight).sum()
    agrees(loss, exact, leaves(hidden, head), leaves(hidden64, head64))


@pytest.mark.parametrize(("bias", "soft_cap"), LAYERS)
@pytest.mark.parametrize("heat", HEATS)
@pytest.mark.parametrize("form", FORMS)
def test_a_live_teacher_gives_the_divergence_of_the_whole_logits(
    form: Any, heat: float, bias: bool, soft_cap: float | None
) -> None:
    (hidden, head), weight = student(bias, soft_cap), torch.rand(ROWS)
    teacher = torch.randn(ROWS, 7, requires_grad=True)
    teacher_head = Head(torch.randn(VOCABULARY, 7, requires_grad=True), torch.randn(VOCABULARY), soft_cap)
    options = {"temperature": heat, "form": form, "weight_P": weight, "chunk": 4}
    loss = fused_dense(hidden, head, teacher, teacher_head, **options)
    hidden64, head64 = doubled(hidden, head)
    log_q = (logits(*doubled(teacher, teacher_head)).detach() / heat).log_softmax(1)
    rows = heat**2 * divergence(log_q, (logits(hidden64, head64) / heat).log_softmax(1), form)
    agrees(loss, (rows * weight).sum(), leaves(hidden, head), leaves(hidden64, head64))
    fused_dense(hidden, head, teacher, teacher_head, **options).backward()
    assert teacher.grad is None
    assert teacher_head.weight_VH.grad is None


def every_loss(hidden: Tensor, head: Head, heat: float = 1.0) -> dict[str, Loss]:
    """One call each of all public functions, with targets drawn once."""
    target, made = torch.randint(0, VOCABULARY, (ROWS,)), {tail: kept(tail) for tail in ("hidden", "bucket", "sample")}
    teacher, teacher_head = torch.randn(ROWS, 7), Head(torch.randn(VOCABULARY, 7))
    losses: dict[str, Loss] = {
        "cross_entropy": lambda h, o, **kw: fused_cross_entropy(h, o, target, **kw),
        "sample": lambda h, o, **kw: fused_sparse(h, o, made["sample"], **kw),
    }

    def bind(form: Any) -> None:
        losses[f"bucket {form}"] = lambda h, o, **kw: fused_sparse(h, o, made["bucket"], form=form, **kw)
        losses[f"hidden {form}"] = lambda h, o, **kw: fused_sparse(
            h, o, made["hidden"], form=form, temperature=heat, **kw
        )
        losses[f"dense {form}"] = lambda h, o, **kw: fused_dense(
            h, o, teacher, teacher_head, form=form, temperature=heat, **kw
        )

    for form in FORMS:
        bind(form)
    return losses


NAMES = sorted(every_loss(*student()))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_keeps_its_bar_over_twenty_draws(name: str) -> None:
    for _ in range(20):
        hidden, head = student()
        loss = every_loss(hidden, head)[name]
        hidden64, head64 = doubled(hidden, head)
        agrees(loss(hidden, head), loss(hidden64, head64), leaves(hidden, head), leaves(hidden64, head64))
