"""The losses without the logits keep the rules of the house: shifts, masks, temperatures, dtypes, memory, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from objectives.test_fused import (
    FORMS,
    HEAD,
    NAMES,
    ROWS,
    THIN,
    VOCABULARY,
    WIDTH,
    agrees,
    divergence,
    doubled,
    every_loss,
    kept,
    leaves,
    logits,
    rebuilt,
    student,
)
from stillroom.errors import ModelError, RecipeError
from stillroom.objectives import fused_products
from stillroom.objectives.fused import fused_cross_entropy, fused_dense, fused_sparse
from stillroom.objectives.fused_products import WHOLE_BYTES, Logits
from stillroom.rows import Head, SparseTargets


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("heat", [0.05, 1.0, 4.0])
def test_equal_models_have_no_loss(form: Any, heat: float) -> None:
    targets = kept("hidden")
    assert targets.basis is not None
    assert targets.components_PM is not None
    whole = targets.components_PM @ targets.basis.matrix_VM.T + targets.basis.bias_V
    top = whole.double().log_softmax(1).topk(HEAD, 1)
    mass = whole.double().log_softmax(1).scatter(1, top.indices, -math.inf).logsumexp(1)
    targets.ids_PK, targets.log_p_PK, targets.tail_log_mass_P = top.indices, top.values.float(), mass.float()
    hidden, head = targets.components_PM, Head(targets.basis.matrix_VM, targets.basis.bias_V + 3)
    assert abs(fused_sparse(hidden, head, targets, form=form, temperature=heat).item()) < 1e-4
    assert abs(fused_dense(hidden, head, hidden, head, form=form, temperature=heat).item()) < 1e-4
    targets.tail = "bucket"
    assert abs(fused_sparse(hidden, head, targets, form=form).item()) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_shifting_the_logits_changes_nothing(name: str) -> None:
    hidden, head = student()
    loss = every_loss(hidden, head)[name]
    assert head.bias_V is not None
    moved = head._replace(bias_V=(head.bias_V + 30).detach().requires_grad_())
    assert abs((loss(hidden, moved) - loss(hidden, head)).item()) < 1e-3
    for one, other in zip(
        torch.autograd.grad(loss(hidden, head), leaves(hidden, head)),
        torch.autograd.grad(loss(hidden, moved), leaves(hidden, moved)),
        strict=True,
    ):
        assert (one - other).abs().max() < 1e-4 * one.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_no_weight_have_no_gradient(name: str) -> None:
    hidden, head = student()
    loss, weight = every_loss(hidden, head)[name], (torch.rand(ROWS) > 0.5).float()
    (gradient,) = torch.autograd.grad(loss(hidden, head, weight_P=weight), [hidden])
    assert torch.equal(gradient.abs().sum(1) > 0, weight > 0)
    value = loss(hidden, head, weight_P=torch.zeros(ROWS))
    assert value.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(value, leaves(hidden, head)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heat", [0.05, 0.3, 100.0])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_any_temperature_gives_finite_gradients(heat: float, dtype: torch.dtype, size: float) -> None:
    hidden, head = student(dtype=dtype)
    with torch.no_grad():
        head.weight_VH.mul_(size)
    for name, loss in every_loss(hidden, head, heat).items():
        value = loss(hidden, head)
        assert value.isfinite(), name
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, leaves(hidden, head))), name


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_that_of_its_inputs(name: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_products, "gains_from_bfloat16", lambda device: native)
    hidden, head = student(soft_cap=4.0, dtype=torch.bfloat16)
    loss = every_loss(hidden, head)[name]
    hidden64, head64 = doubled(hidden, head)
    agrees(loss(hidden, head), loss(hidden64, head64), leaves(hidden, head), leaves(hidden64, head64), bar=2e-2)


@pytest.mark.parametrize("weight", [torch.float32, torch.bfloat16])
def test_products_are_narrow_only_where_the_hidden_state_is_and_that_gains(
    weight: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = torch.empty(0, device="cpu", dtype=weight)
    for native in (False, True):
        monkeypatch.setattr(fused_products, "gains_from_bfloat16", lambda device, native=native: native)
        half, brain = (torch.empty(0, device="cpu", dtype=dtype) for dtype in (torch.float16, torch.bfloat16))
        assert fused_products.product_dtype(brain, given) == (torch.bfloat16 if native else torch.float32)
        for exact in (torch.float32, torch.float64):
            assert fused_products.product_dtype(torch.empty(0, device="cpu", dtype=exact), given) == exact
        assert fused_products.product_dtype(half, given) == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_the_same_to_the_bit_on_a_processor_with_bfloat16(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, head = student(soft_cap=4.0)
    loss, found = every_loss(hidden, head)[name], list[Tensor]()
    for native in (False, True):
        monkeypatch.setattr(fused_products, "gains_from_bfloat16", lambda device, native=native: native)
        value = loss(hidden, head)
        found.append(torch.cat([one.flatten() for one in (value, *torch.autograd.grad(value, leaves(hidden, head)))]))
    assert torch.equal(found[0], found[1])


def test_autocast_changes_nothing() -> None:
    hidden, head = student(dtype=torch.bfloat16)
    head = doubled(hidden, head)[1]
    head = Head(head.weight_VH.detach().float().requires_grad_(), None)
    loss = every_loss(hidden, head)["dense forward"]
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(hidden, head)
    assert torch.equal(inside, loss(hidden, head))
    inside.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16
    assert head.weight_VH.grad is not None
    assert head.weight_VH.grad.dtype == torch.float32


def test_a_tied_weight_gathers_both_gradients() -> None:
    embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
    target = torch.randint(0, VOCABULARY, (ROWS,))
    fused_cross_entropy(embedding(target).tanh(), Head(embedding.weight), target).backward()
    copy = embedding.weight.detach().double().requires_grad_()
    torch.nn.functional.cross_entropy(copy[target].tanh() @ copy.T, target, reduction="sum").backward()
    assert embedding.weight.grad is not None
    assert copy.grad is not None
    assert (embedding.weight.grad - copy.grad).abs().max() <= 1e-5 * copy.grad.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_backward_may_be_asked_for_again(name: str) -> None:
    hidden, head = student()
    value = every_loss(hidden, head)[name](hidden, head)
    first = torch.autograd.grad(value, leaves(hidden, head), retain_graph=True)
    (3 * value).backward(retain_graph=True)
    value.backward()
    for leaf, gradient in zip(leaves(hidden, head), first, strict=True):
        assert leaf.grad is not None
        assert torch.allclose(leaf.grad, 4 * gradient)


def test_only_what_is_wanted_has_a_gradient() -> None:
    hidden, head = student()
    frozen = Head(head.weight_VH.detach(), None)
    for loss in every_loss(hidden, head).values():
        (gradient,) = torch.autograd.grad(loss(hidden, frozen), [hidden])
        assert gradient.any()
        with torch.no_grad():
            value = loss(hidden, head)
        assert not value.requires_grad
        assert torch.equal(value, loss(hidden, head))


def test_no_rows_give_no_loss() -> None:
    hidden, head = student()
    value = fused_cross_entropy(hidden[:0], head, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert head.weight_VH.grad is not None
    assert not head.weight_VH.grad.any()


def test_every_token_drawn_is_the_whole_divergence() -> None:
    """The sample's loss is linear in its weights, so the whole tail as its sample shows that it has no bias."""
    (hidden, head), targets = student(), kept("hidden")
    log_q = rebuilt(targets)
    tail = log_q.scatter(1, targets.ids_PK, -math.inf)
    sampled = SparseTargets(
        targets.ids_PK,
        log_q.gather(1, targets.ids_PK).float(),
        tail.logsumexp(1).float(),
        -(log_q.exp() * log_q).sum(1).float(),
        targets.forced_log_p_P,
        "sample",
        sample_ids_PS=torch.arange(VOCABULARY).repeat(ROWS, 1),
        sample_log_weight_PS=tail.float(),
    )
    one, other = fused_sparse(hidden, head, sampled), fused_sparse(hidden, head, targets)
    assert abs((one - other).item()) < 1e-4
    for left, right in zip(*(torch.autograd.grad(loss, leaves(hidden, head)) for loss in (one, other)), strict=True):
        assert (left - right).abs().max() < 1e-5 * right.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_a_tail_of_no_mass_does_no_harm(form: Any) -> None:
    hidden, head = student()
    for tail in ("hidden", "bucket"):
        targets = kept(tail)
        targets.log_p_PK = targets.log_p_PK.log_softmax(1)
        targets.tail_log_mass_P = torch.full((ROWS,), -math.inf)
        loss = fused_sparse(hidden, head, targets, form=form)
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, leaves(hidden, head), retain_graph=True))
        if form == "forward":
            log_p = logits(hidden, head).log_softmax(1).gather(1, targets.ids_PK)
            exact = (targets.log_p_PK.exp() * (targets.log_p_PK - log_p)).sum()
            assert torch.allclose(loss, exact, rtol=1e-4)


@pytest.mark.parametrize("tail", ["hidden", "bucket"])
@pytest.mark.parametrize("form", FORMS)
def test_a_head_of_the_whole_vocabulary_has_no_tail(tail: Any, form: Any) -> None:
    (hidden, head), targets = student(), kept("hidden")
    log_q = rebuilt(targets).topk(VOCABULARY, 1)
    targets.ids_PK, targets.log_p_PK, targets.tail = log_q.indices, log_q.values.float(), tail
    targets.tail_log_mass_P = torch.full((ROWS,), -17.0)
    hidden64, head64 = doubled(hidden, head)
    log_p = logits(hidden64, head64).log_softmax(1).gather(1, log_q.indices)
    exact = divergence(log_q.values, log_p, form).sum()
    agrees(fused_sparse(hidden, head, targets, form=form), exact, leaves(hidden, head), leaves(hidden64, head64))


def test_tokens_that_a_bias_forbids_are_left_out() -> None:
    hidden, head = student()
    bias = torch.zeros(VOCABULARY).index_fill(0, torch.arange(90, VOCABULARY), -math.inf)
    padded, narrow = Head(head.weight_VH, bias), Head(head.weight_VH[:90], None)
    teacher, wide = torch.randn(ROWS, 7), torch.randn(VOCABULARY, 7)
    for form in FORMS:
        loss = fused_dense(hidden, padded, teacher, Head(wide, bias), form=form, temperature=0.5)  # type: ignore[arg-type]
        exact = fused_dense(hidden, narrow, teacher, Head(wide[:90]), form=form, temperature=0.5)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, [head.weight_VH])
        assert torch.allclose(loss, exact, rtol=1e-5)
        assert gradient.isfinite().all()
        assert not gradient[90:].any()


class Largest(TorchDispatchMode):
    """Remembers the most rows of vocabulary width that any tensor made had; weights are [V, H], and their views [H, V]."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        wide = [t for t in tensors if t.ndim > 1 and t.shape[-1] == VOCABULARY and t.shape[0] not in (7, THIN, WIDTH)]
        self.most = max([self.most, *(t.numel() // VOCABULARY for t in wide)])
        return made


@pytest.mark.parametrize("name", NAMES)
def test_no_logits_are_ever_whole(name: str) -> None:
    hidden, head = student()
    loss = every_loss(hidden, head)[name]
    with Largest() as largest:
        loss(hidden, head, chunk=2).backward()
    assert largest.most == 2


@pytest.mark.parametrize(
    ("tail", "heat", "form"), [("bucket", 2.0, "forward"), ("sample", 2.0, "forward"), ("sample", 1.0, "reverse")]
)
def test_what_a_tail_does_not_know_is_refused(tail: str, heat: float, form: Any) -> None:
    hidden, head = student()
    with pytest.raises(RecipeError, match=tail):
        fused_sparse(hidden, head, kept(tail), temperature=heat, form=form)


def test_another_vocabulary_is_refused() -> None:
    hidden, head = student()
    with pytest.raises(ModelError, match="98 tokens"):
        fused_dense(hidden, head, hidden, Head(torch.randn(VOCABULARY + 1, WIDTH)))


@pytest.mark.parametrize("weight", [torch.float32, torch.bfloat16])
def test_products_in_half_precision_sum_in_full(weight: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accelerator does, and a processor with instructions for it: products in the dtype of the hidden state."""
    hidden, head = student(soft_cap=4.0)
    inner = Head(head.weight_VH.detach().to(weight), head.bias_V, 4.0)
    monkeypatch.setattr(fused_products, "TILE_BYTES", 40 * 2 * WIDTH)  # several of them, and the last one is not full
    layer = Logits(inner, torch.bfloat16, torch.float32, 2.0, ROWS, back=True)
    out, gradient = torch.empty(ROWS, VOCABULARY), torch.randn(ROWS, VOCABULARY)
    hidden64, head64 = doubled(hidden, head)
    exact = logits(hidden64, head64) / 2
    true = torch.autograd.grad(exact, leaves(hidden64, head64)[:2], gradient.double())
    layer.fill(hidden.detach(), out)
    assert (out - exact).abs().max() < 0.05
    made, sums = layer.back(gradient), torch.zeros(VOCABULARY, WIDTH)
    back = torch.empty(ROWS, WIDTH)
    layer.to_hidden(made, back)
    layer.to_weight(made, hidden.detach(), sums)
    for one, other in ((back, true[0]), (sums, true[1])):
        assert (one / 2 - other).abs().max() < 2e-2 * other.abs().max()


def test_a_large_weight_of_another_dtype_is_converted_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_products, "gains_from_bfloat16", lambda device: False)
    width = 64
    vocabulary = WHOLE_BYTES // (4 * width) + 321
    weight = (torch.randn(vocabulary, width) * 0.1).bfloat16().requires_grad_()
    hidden, target = torch.randn(3, width).bfloat16().requires_grad_(), torch.randint(0, vocabulary, (3,))
    with torch.no_grad():
        whole = hidden.float() @ weight.float().T
    gradient = whole.softmax(1) - torch.nn.functional.one_hot(target, vocabulary)
    loss = fused_cross_entropy(hidden, Head(weight), target, chunk=2)
    made = torch.autograd.grad(loss, [hidden, weight])
    exact = torch.nn.functional.cross_entropy(whole, target, reduction="sum")
    # Where half precision is native, the products of its hidden states are in it.
    narrow = fused_products.product_dtype(hidden, weight) == torch.bfloat16
    assert torch.allclose(loss, exact, rtol=1e-3 if narrow else 1e-5)
    for one, other in zip(
        made, (gradient @ weight.detach().float(), gradient.T @ hidden.detach().float()), strict=True
    ):
        assert (one - other).abs().max() <= 1e-2 * other.abs().max()


@pytest.mark.parametrize("cap", [None, 4.0])
@pytest.mark.parametrize("whole", [True, False])
def test_a_bias_goes_with_a_weight_that_is_converted(
    whole: bool, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        monkeypatch.setattr(fused_products, "WHOLE_BYTES", 0)
        monkeypatch.setattr(fused_products, "TILE_BYTES", 40 * 4 * WIDTH)
    hidden, bias = torch.randn(ROWS, WIDTH), torch.randn(VOCABULARY)
    bias[5] = -torch.inf
    head = Head(torch.randn(VOCABULARY, WIDTH).bfloat16(), bias, cap)
    layer, out = Logits(head, torch.float32, torch.float32, 2.0, ROWS), torch.empty(ROWS, VOCABULARY)
    exact = hidden.double() @ head.weight_VH.double().T + bias.double()
    exact = (exact if cap is None else cap * torch.tanh(exact / cap)).clamp(min=fused_products.NEVER) / 2
    for _ in range(2):
        layer.fill(hidden, out)
        assert torch.allclose(out.double(), exact, rtol=1e-5, atol=1e-5)
    assert layer.column_V is not None
