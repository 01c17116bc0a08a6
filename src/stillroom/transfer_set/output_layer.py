"""A teacher's output layer at work a few rows at a time: the logits of all tokens are never whole in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from stillroom.errors import NotFinite
from stillroom.models.blending import blended
from stillroom.rows import Head, MixedHead

CHUNK_NUMBERS = 1 << 24
"""Logits made at once: 64 MiB in float32."""
MOST_ROWS = 256
NO_LOGIT = -1e4
"""Stands for a logit of minus infinity, which a padded token may have: times a probability of 0 it is 0 and not NaN."""
STRIPES = 32
"""Of the vocabulary, in the search for the largest logits."""


def chunk_rows(vocabulary: int) -> int:
    """How many rows are worked on at once."""
    return max(1, min(MOST_ROWS, CHUNK_NUMBERS // vocabulary))


def row_chunks(count: int, vocabulary: int) -> Iterator[slice]:
    """The rows 0..count-1, chunk by chunk."""
    size = chunk_rows(vocabulary)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def logit_chunks(hidden_PG: torch.Tensor, head: Head | MixedHead) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows and their logits [C, V] in float32, in one kept buffer that the caller may overwrite."""
    if isinstance(head, MixedHead):
        yield from _mixed_chunks(hidden_PG, head)
        return
    weight_GV = head.weight_VH.detach().float().T
    bias_V = None if head.bias_V is None else head.bias_V.detach().float().clamp(min=NO_LOGIT)
    # A kept buffer: the first writing into fresh memory costs several times the writing itself.
    kept_CV = weight_GV.new_empty(min(len(hidden_PG), chunk_rows(weight_GV.shape[1])), weight_GV.shape[1])
    for rows in row_chunks(len(hidden_PG), weight_GV.shape[1]):
        logits_CV = kept_CV[: rows.stop - rows.start]
        torch.mm(hidden_PG[rows].detach().float(), weight_GV, out=logits_CV)
        if bias_V is not None:
            logits_CV += bias_V
        if head.soft_cap is not None:
            logits_CV.div_(head.soft_cap).tanh_().mul_(head.soft_cap)
        yield rows, logits_CV


def _mixed_chunks(hidden_PG: torch.Tensor, head: MixedHead) -> Iterator[tuple[slice, torch.Tensor]]:
    """The same of a mean of several models, in the buffer of the first."""
    parts = zip(torch.split(hidden_PG, head.widths, 1), head.heads, strict=True)
    for chunks in zip(*(logit_chunks(own_PG, one) for own_PG, one in parts), strict=True):
        total_CV: torch.Tensor | None = None
        for (_, logits_CV), share in zip(chunks, head.share_K, strict=True):
            refuse_broken(logits_CV.amax(1), chunks[0][0].start)
            total_CV = blended(total_CV, logits_CV, share, head.mean)
        assert total_CV is not None
        yield chunks[0][0], total_CV


def refuse_broken(number_C: torch.Tensor, first: int = 0) -> None:
    """Raises NotFinite where a number is NaN or infinite; each belongs to a position, the first one to position `first`."""
    broken_C = ~number_C.isfinite()
    if broken_C.any():
        raise NotFinite(
            "the teacher's logits are NaN or infinite",
            where=f"position {first + int(broken_C.nonzero()[0, 0])} of a batch",
            cure="Look at this question, or run the teacher in float32",
        )


def mean_distribution(hidden_PG: torch.Tensor, head: Head) -> torch.Tensor:
    """The mean of what P positions predict, float64 [V]. Raises NotFinite."""
    sum_V = torch.zeros(len(head.weight_VH), dtype=torch.float64, device=hidden_PG.device)
    for rows, logits_CV in logit_chunks(hidden_PG, head):
        torch.softmax(logits_CV, 1, out=logits_CV)
        refuse_broken(logits_CV[:, 0], rows.start)
        sum_V += logits_CV.sum(0)
    return sum_V / len(hidden_PG)


def largest(logits_CV: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest logits of each row, largest first, and their ids: as topk, at a sixth of its time.

    The vocabulary is seen as stripes, one under another; the largest must stand in those columns whose own largest
    are the largest.
    """
    vocabulary = logits_CV.shape[1]
    width = vocabulary // STRIPES
    if 2 * count > width:
        top = logits_CV.topk(count, 1)
        return top.values, top.indices
    striped_CSW = logits_CV[:, : width * STRIPES].view(-1, STRIPES, width)
    column_Cn = striped_CSW.amax(1).topk(count, 1, sorted=False).indices
    step_S = torch.arange(STRIPES, device=logits_CV.device) * width
    id_Cn = (column_Cn[:, None, :] + step_S[:, None]).flatten(1)
    rest_V = torch.arange(width * STRIPES, vocabulary, device=logits_CV.device)
    id_Cn = torch.cat([id_Cn, rest_V.expand(len(id_Cn), -1)], 1)
    top = logits_CV.gather(1, id_Cn).topk(count, 1)
    return top.values, id_Cn.gather(1, top.indices)
