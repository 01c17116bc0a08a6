"""The mean of several models' distributions over one vocabulary, a few positions at a time. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from stillroom.rows import Head, Mean, MixedHead, Output


def blended(total_CV: torch.Tensor | None, logits_CV: torch.Tensor, share: float, mean: Mean) -> torch.Tensor:
    """One more model in a mean: None or what came before, and this model's logits with its share; both are overwritten.

    After the last model the logits [C, V] of the mean. Of probabilities they are normalised, of log-probabilities (a product
    of experts) up to a constant a row, as those of a single model.
    """
    if mean == "geometric":
        logits_CV.mul_(share)
        return logits_CV if total_CV is None else total_CV.add_(logits_CV)
    logits_CV.sub_(logits_CV.logsumexp(1, keepdim=True) - math.log(share))
    return logits_CV if total_CV is None else torch.logaddexp(total_CV, logits_CV, out=total_CV)


def mixed_logits(
    hidden_CH: torch.Tensor, head: MixedHead, made: Callable[[torch.Tensor, Head], torch.Tensor]
) -> torch.Tensor:
    """Logits [C, V] of the mean at a few positions; `made` gives those of one model, fresh, from its hidden states."""
    total_CV: torch.Tensor | None = None
    for one, share, own_CH in zip(head.heads, head.share_K, torch.split(hidden_CH, head.widths, 1), strict=True):
        total_CV = blended(total_CV, made(own_CH, one), share, head.mean)
    assert total_CV is not None, "a mean is of at least one"
    return total_CV


def side_by_side(outputs: Sequence[Output], share_K: Sequence[float], mean: Mean) -> Output:
    """The outputs of several models for the same tokens as one."""
    hidden, heads = [], []
    for output in outputs:
        assert output.hidden_BH is not None
        assert isinstance(output.head, Head), "a mean of means is listed as one"
        hidden.append(output.hidden_BH)
        heads.append(output.head)
    return Output(None, torch.cat(hidden, 1), MixedHead(tuple(heads), tuple(share_K), mean))
