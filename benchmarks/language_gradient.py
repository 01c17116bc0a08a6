"""Gradients of the losses without logits, in float32, against plain float64 that makes all logits and lets autograd work.

The references are written from the definitions and share nothing with the losses but what a record means.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.language_sizes import Shape, Sizes
from benchmarks.results import Found, Row, Table, shown
from stillroom.objectives.fused import fused_cross_entropy, fused_dense, fused_sparse
from stillroom.rows import Head, SparseTargets
from stillroom.transfer_set.basis import fit_basis
from stillroom.transfer_set.sparse_logits import Layout, decode, encode

POSITIONS = 32
USUAL, STRONG = (1.0, 2.0), (3.0, 4.0)
"""Deviation of a student's and its teacher's logits."""
STRONG_DRAWS = 3
Loss = Callable[[torch.Tensor, Head], torch.Tensor]


class Draw:
    """A random student and teacher at one set of positions."""

    def __init__(self, shape: Shape, seed: int, strength: tuple[float, float] = USUAL) -> None:
        roll = torch.Generator().manual_seed(seed)
        V, H, G = shape.vocabulary, shape.width, shape.teacher_width
        self.hidden_PH = torch.randn(POSITIONS, H, generator=roll)
        bias_V = torch.randn(V, generator=roll) if seed % 2 else None
        self.head = Head(
            torch.randn(V, H, generator=roll) * strength[0] / H**0.5, bias_V, 30.0 if seed % 3 == 2 else None
        )
        strength_G = torch.linspace(1, 0, G).square() + 0.02
        self.teacher_PG = torch.randn(POSITIONS, G, generator=roll) * strength_G
        spread = strength[1] / float(strength_G.square().sum().sqrt())
        self.teacher = Head(torch.randn(V, G, generator=roll) * spread)
        self.target_P = torch.randint(0, V, (POSITIONS,), generator=roll)

    def kept(self, tail: str) -> SparseTargets:
        """Records of the teacher, decoded."""
        V = len(self.teacher.weight_VH)
        layout = Layout.of(V, 8, tail, 32)  # type: ignore[arg-type]
        fitted = fit_basis(self.teacher_PG, *self.teacher, tail_bytes=32) if tail == "hidden" else None
        seed_P = torch.arange(POSITIONS).numpy().astype("uint64")
        return decode(layout, fitted, encode(layout, fitted, self.teacher_PG, self.teacher, self.target_P, seed_P))


def log_softmax(hidden_PH: torch.Tensor, head: Head) -> torch.Tensor:
    """All log-probabilities [P, V]."""
    logits_PV = hidden_PH @ head.weight_VH.T
    if head.bias_V is not None:
        logits_PV = logits_PV + head.bias_V
    if head.soft_cap is not None:
        logits_PV = head.soft_cap * torch.tanh(logits_PV / head.soft_cap)
    return logits_PV.log_softmax(1)


def whole(kept: SparseTargets) -> torch.Tensor:
    """log q [P, V] of a record with a hidden tail, float64: head and mass made to sum to 1, the tail in its shape."""
    assert kept.basis is not None
    assert kept.components_PM is not None
    outcome_PO = torch.cat([kept.log_p_PK, kept.tail_log_mass_P[:, None]], 1).double().log_softmax(1)
    tail_PV = kept.components_PM.double() @ kept.basis.matrix_VM.double().T + kept.basis.bias_V.double()
    tail_PV = tail_PV.scatter(1, kept.ids_PK, -torch.inf).log_softmax(1) + outcome_PO[:, -1:]
    return tail_PV.scatter(1, kept.ids_PK, outcome_PO[:, :-1])


def divergence(form: str, log_q: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """Summed over all; q is the teacher."""
    if form == "forward":
        return (log_q.exp() * (log_q - log_p)).sum()
    if form == "reverse":
        return (log_p.exp() * (log_p - log_q)).sum()
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=log_p.dtype))
    return (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum() / 2


def _text(draw: Draw) -> tuple[Loss, Loss]:
    def reference(hidden_PH: torch.Tensor, head: Head) -> torch.Tensor:
        return -log_softmax(hidden_PH, head).gather(1, draw.target_P[:, None]).sum()

    return lambda hidden_PH, head: fused_cross_entropy(hidden_PH, head, draw.target_P), reference


def _live(form: str) -> Callable[[Draw], tuple[Loss, Loss]]:
    def made(draw: Draw) -> tuple[Loss, Loss]:
        log_q_PV = log_softmax(draw.teacher_PG.double(), Head(draw.teacher.weight_VH.double()))

        def ours(hidden_PH: torch.Tensor, head: Head) -> torch.Tensor:
            return fused_dense(hidden_PH, head, draw.teacher_PG, draw.teacher, form=form)  # type: ignore[arg-type]

        return ours, lambda hidden_PH, head: divergence(form, log_q_PV, log_softmax(hidden_PH, head))

    return made


def _tail(draw: Draw) -> tuple[Loss, Loss]:
    kept = draw.kept("hidden")
    log_q_PV = whole(kept)
    return (
        lambda hidden_PH, head: fused_sparse(hidden_PH, head, kept),
        lambda hidden_PH, head: divergence("forward", log_q_PV, log_softmax(hidden_PH, head)),
    )


def _samples(draw: Draw) -> tuple[Loss, Loss]:
    kept = draw.kept("sample")
    assert kept.sample_ids_PS is not None
    assert kept.sample_log_weight_PS is not None
    ids_PJ = torch.cat([kept.ids_PK, kept.sample_ids_PS], 1)
    weight_PJ = torch.cat([kept.log_p_PK, kept.sample_log_weight_PS], 1).double().exp()

    def reference(hidden_PH: torch.Tensor, head: Head) -> torch.Tensor:
        return -(weight_PJ * log_softmax(hidden_PH, head).gather(1, ids_PJ)).sum()

    return lambda hidden_PH, head: fused_sparse(hidden_PH, head, kept), reference


def _bucket(draw: Draw) -> tuple[Loss, Loss]:
    kept = draw.kept("bucket")
    log_q_PO = torch.cat([kept.log_p_PK, kept.tail_log_mass_P[:, None]], 1).double().log_softmax(1)

    def reference(hidden_PH: torch.Tensor, head: Head) -> torch.Tensor:
        log_p_PV = log_softmax(hidden_PH, head)
        rest_P1 = log_p_PV.scatter(1, kept.ids_PK, -torch.inf).logsumexp(1, keepdim=True)
        return divergence("forward", log_q_PO, torch.cat([log_p_PV.gather(1, kept.ids_PK), rest_P1], 1))

    return lambda hidden_PH, head: fused_sparse(hidden_PH, head, kept), reference


FORMS: dict[str, Callable[[Draw], tuple[Loss, Loss]]] = {
    "cross-entropy on text": _text,
    "stored, hidden tail": _tail,
    "stored, samples": _samples,
    "stored, bucket": _bucket,
    "live, forward": _live("forward"),
    "live, reverse": _live("reverse"),
    "live, Jensen-Shannon": _live("jensen_shannon"),
}


def gradients(loss: Loss, draw: Draw, dtype: torch.dtype) -> list[torch.Tensor]:
    """Of hidden states, output matrix and bias."""
    leaves = [draw.hidden_PH, draw.head.weight_VH, *([] if draw.head.bias_V is None else [draw.head.bias_V])]
    leaves = [leaf.to(dtype).requires_grad_() for leaf in leaves]
    head = Head(leaves[1], leaves[2] if len(leaves) > 2 else None, draw.head.soft_cap)
    return list(torch.autograd.grad(loss(leaves[0], head), leaves))


def errors(draw: Draw, make: Callable[[Draw], tuple[Loss, Loss]]) -> tuple[float, float]:
    """The largest error of a gradient over the largest gradient, of whichever weights it is worst for.

    Of the loss without logits, and of autograd through all logits in float32.
    """
    ours, reference = make(draw)
    wanted = gradients(reference, draw, torch.float64)
    found = []
    for loss in (ours, reference):
        pairs = zip(gradients(loss, draw, torch.float32), wanted, strict=True)
        found.append(max(float((one.double() - other).abs().max() / other.abs().max()) for one, other in pairs))
    return found[0], found[1]


def gradient(sizes: Sizes) -> Row:
    """Every form at `sizes.draws` draws; every second one has a bias, every third a soft cap."""
    rows, worst = [], 0.0
    for name, make in FORMS.items():
        usual = [errors(Draw(sizes.shape, seed), make) for seed in range(sizes.draws)]
        strong = [errors(Draw(sizes.shape, seed, STRONG), make) for seed in range(min(STRONG_DRAWS, sizes.draws))]
        worst = max(worst, *(ours for ours, _ in usual))
        rows.append([name, *(shown(max(column)) for found in (usual, strong) for column in zip(*found, strict=True))])
        print(f"  {rows[-1]}", flush=True)
    note = (
        f"The largest error over the largest gradient, the worst of {sizes.draws} draws with {POSITIONS} positions and "
        f"{sizes.shape.vocabulary:,} tokens; every second draw has a bias, every third a soft cap; of hidden states, output "
        f"matrix and bias the worst counts. Logits of the student deviate by {USUAL[0]:g}, of an unrelated teacher by "
        f"{USUAL[1]:g}; in the strong draws ({min(STRONG_DRAWS, sizes.draws)} of them, not in the bar) by {STRONG[0]:g} and "
        f"{STRONG[1]:g}, where float32 itself resolves less: the columns of plain autograd, which makes all logits, show it."
    )
    columns = ["", "without logits", "plain autograd", "strong: without logits", "strong: plain autograd"]
    table = Table("Gradients in float32 against float64", columns, rows, note)
    return Row({"lm-gradient": Found(worst, None, f"{sizes.draws} draws")}, {"gradient": table})
