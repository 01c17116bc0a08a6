"""Rounding of components in each position's own metric, so that the tail they make is nearest where its mass is.

A component rounded to the nearest level makes errors that lie anywhere. What counts is the error of the logits of the
tokens which are probable at this very position, and the one who rounds knows them; who decodes need not. So components
are rounded one after another, each making good what those before it, and what was left out, have done to those logits:
a quarter less KL from the same bytes.
"""

from __future__ import annotations

import torch

from stillroom.transfer_set.basis import FittedBasis

TOKENS = 64
"""The most probable of a tail, whose logits are looked at one by one; the rest stand under the basis's own metric."""
PRIOR = 0.5
"""Weight of the basis's own metric on top of the rest's share of the tail; without it the few tokens are overfitted."""
SWEEPS = 3


def rounded(
    fitted: FittedBasis,
    hidden_CG: torch.Tensor,
    ids_CJ: torch.Tensor,
    logit_CJ: torch.Tensor,
    share_CJ: torch.Tensor,
) -> torch.Tensor:
    """Codes uint8 [C, M] of hidden states, given the J most probable tokens of each tail.

    `logit_CJ` are the teacher's logits of those tokens and `share_CJ` their shares of the tail's mass. Minimises, by
    coordinate descent over the codes, the variance of the logits' errors under the tail's own probabilities.
    """
    step_M = fitted.step_M
    edges = [2.0**bits / 2 - 0.5 for bits in fitted.bits_M]
    place_CM = (hidden_CG.float() - fitted.mean_G) @ fitted.encode_GM
    slope_MCJ, error_CJ = _errors(fitted, hidden_CG, place_CM, ids_CJ, logit_CJ, share_CJ)
    rest_C = (1 - share_CJ.sum(1)).clamp(min=0)
    weight_MC = (rest_C + PRIOR) * step_M[:, None].square()
    bend_MC = slope_MCJ.square().sum(2) + weight_MC
    # In steps, and so that levels lie at whole numbers; `off` is how far a component has been moved so far.
    wanted_MC = (place_CM / step_M).T + torch.tensor(edges, device=step_M.device)[:, None]
    off_MC = torch.zeros_like(wanted_MC)
    ease_MC = 1 - weight_MC / bend_MC
    lists = (slope_MCJ, wanted_MC, off_MC, ease_MC, -1 / bend_MC)
    # Coarse components first: fine ones can make good what they do.
    backwards = list(zip(*(part.unbind(0) for part in lists), edges, strict=True))[::-1]
    for _ in range(SWEEPS):
        for slope_CJ, wanted_C, off_C, ease_C, back_C, edge in backwards:
            best_C = torch.addcmul(wanted_C, off_C, ease_C)
            best_C.addcmul_(torch.linalg.vecdot(slope_CJ, error_CJ), back_C)
            moved_C = best_C.round_().clamp_(0, 2 * edge).sub_(wanted_C)
            error_CJ.addcmul_(slope_CJ, (moved_C - off_C)[:, None])
            off_C.copy_(moved_C)
    return (wanted_MC + off_MC).round_().T.to(torch.uint8)


def _errors(
    fitted: FittedBasis,
    hidden_CG: torch.Tensor,
    place_CM: torch.Tensor,
    ids_CJ: torch.Tensor,
    logit_CJ: torch.Tensor,
    share_CJ: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one step of each component does to the logits' errors [M, C, J + 1], and those errors before rounding [C, J + 1].

    Errors are measured from their mean over the tail, since a tail is renormalised, and scaled by the root of each token's
    share; the last one stands for the rest of the tail.
    """
    matrix_CJM = fitted.wide_VM[ids_CJ]
    made_CJ = (matrix_CJM @ place_CM[:, :, None])[..., 0] + fitted.bias_V[ids_CJ]
    if fitted.soft_cap is not None:
        made_CJ = torch.tanh_(made_CJ / fitted.soft_cap)
        matrix_CJM *= (1 - made_CJ.square())[..., None]
        made_CJ *= fitted.soft_cap
    rest_C1 = (1 - share_CJ.sum(1, keepdim=True)).clamp(min=0)
    all_C1M = fitted.centre_M.expand(len(place_CM), 1, -1)
    slope_CJM = torch.cat([matrix_CJM, all_C1M], 1)
    left_out_C = place_CM @ fitted.centre_M - (hidden_CG.float() - fitted.mean_G) @ fitted.centre_G
    error_CJ = torch.cat([made_CJ - logit_CJ, left_out_C[:, None]], 1)
    share_CJ = torch.cat([share_CJ, rest_C1], 1)
    slope_CJM -= (share_CJ[:, None, :] @ slope_CJM) / share_CJ.sum(1)[:, None, None]
    error_CJ -= (share_CJ * error_CJ).sum(1, keepdim=True) / share_CJ.sum(1, keepdim=True)
    root_CJ = share_CJ.sqrt()
    slope_CJM *= root_CJ[..., None] * fitted.step_M
    return slope_CJM.permute(2, 0, 1).contiguous(), error_CJ * root_CJ
