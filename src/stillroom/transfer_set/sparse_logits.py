"""The packed record of one position: an exact head, and the rest of the vocabulary in a few tens of bytes.

    head    ids, most probable first, bit-packed; their log-probabilities, 8 bits each
    facts   log of the tail's mass, entropy, log-probability of the token that stands there: 16 bits each
    tail    hidden: the teacher's hidden state as codes of a fitted basis (basis.py, rounding.py)
            sample: ids of an unbiased sample, each of equal weight
            bucket: nothing, the mass alone

Every record has the same length, so that any of them is found without the others. The layout says which form it is; it
stands in the header of the answers, and a basis, where there is one, beside them.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch.nn import functional

from stillroom.errors import CorruptFile, WrongAnswer
from stillroom.kinds import Knobs
from stillroom.questions.dice import mix
from stillroom.rows import Array, Head, SparseTargets
from stillroom.transfer_set.basis import FittedBasis
from stillroom.transfer_set.bits import MOST_BITS, pack, packed_bytes, unpack
from stillroom.transfer_set.output_layer import NO_LOGIT, largest, logit_chunks, refuse_broken
from stillroom.transfer_set.rounding import TOKENS, rounded

Tail = Literal["hidden", "sample", "bucket"]
FACT_BITS = 16
BESIDE = ("record_bytes", "basis")
"""What a header says beside the layout itself: the length of a record, and which basis it is decoded with."""
FLOOR = 18.0
"""Log-probabilities of a head below minus this are kept as this: together they weigh less than 1e-7."""
BEND = 1.5
"""Code c of b bits stands for -FLOOR * (c / (2 ** b - 1)) ** BEND nats: in 8 bits a step is 0.005 at p = 1, 0.04 at p = 0.4
and 1/16 at p = 0.01, where an equal error in nats costs a hundredth."""
BLOCK = 64
"""Tokens, in the search for a drawn one."""


class Layout(Knobs):
    """What a record holds, and in how many bits; two records can be compared where their layouts are equal."""

    version: Literal[1] = 1
    vocabulary: int = Field(ge=2, le=1 << MOST_BITS)
    head: int = Field(default=8, ge=0)
    """Tokens kept exactly, most probable first."""
    tail: Tail = "hidden"
    tail_bytes: int = Field(default=0, ge=0)
    """Of a hidden tail."""
    samples: int = Field(default=0, ge=0)
    """Of a sampled tail."""
    head_bits: int = Field(default=8, ge=4, le=16)
    """Of a log-probability in the head."""

    @model_validator(mode="after")
    def _one_tail(self) -> Layout:
        wanted = {"hidden": (True, False), "sample": (False, True), "bucket": (False, False)}[self.tail]
        if (self.tail_bytes > 0, self.samples > 0) != wanted:
            raise ValueError("a hidden tail has tail_bytes, a sampled one samples, and a bucket neither")
        if not (self.tail != "sample") <= self.head <= self.vocabulary:
            raise ValueError("a head has at least one token (with samples, none), and no more than the vocabulary")
        return self

    @classmethod
    def of(cls, vocabulary: int, head: int = 8, tail: Tail = "hidden", tail_bytes: int = 32) -> Layout:
        """A layout whose tail, hidden or sampled, takes at most `tail_bytes`; a sample has at least one draw."""
        head = min(head, vocabulary)
        if tail == "hidden":
            return cls(vocabulary=vocabulary, head=head, tail=tail, tail_bytes=tail_bytes)
        if tail == "bucket":
            return cls(vocabulary=vocabulary, head=head, tail=tail)
        samples = max(1, 8 * tail_bytes // id_bits(vocabulary))
        return cls(vocabulary=vocabulary, head=head, tail=tail, samples=samples)

    @property
    def id_bits(self) -> int:
        """Of a token."""
        return id_bits(self.vocabulary)

    @cached_property
    def widths(self) -> list[int]:
        """Bits of each field before the tail."""
        return [self.id_bits] * self.head + [self.head_bits] * self.head + [FACT_BITS] * 3

    @property
    def facts_bytes(self) -> int:
        """Of one position, without its tail."""
        return packed_bytes(self.widths)

    @property
    def record_bytes(self) -> int:
        """Of one position, all told."""
        tail = self.tail_bytes if self.tail == "hidden" else packed_bytes([self.id_bits] * self.samples)
        return self.facts_bytes + tail

    def to_json(self) -> dict[str, Any]:
        """For a header, with the length of a record for those who only need to find one."""
        return {**self.model_dump(mode="json"), "record_bytes": self.record_bytes}

    @classmethod
    def from_json(cls, found: Any) -> Layout:
        """What `to_json` gave. Raises CorruptFile for what this version cannot read."""
        try:
            return cls.model_validate({name: value for name, value in dict(found).items() if name not in BESIDE})
        except (ValidationError, TypeError, ValueError) as error:
            raise CorruptFile(
                "this layout of answers cannot be read by this version",
                where=f"layout {found!r}",
                cure="Remove the answers to ask again, or use the version that wrote them",
            ) from error


def id_bits(vocabulary: int) -> int:
    """The fewest bits that tell the tokens of a vocabulary apart."""
    return max(1, (vocabulary - 1).bit_length())


class Facts(NamedTuple):
    """What a record says of each of P positions apart from its tail."""

    ids_PK: torch.Tensor
    log_p_PK: torch.Tensor
    tail_log_mass_P: torch.Tensor
    entropy_P: torch.Tensor
    forced_log_p_P: torch.Tensor


def encode(
    layout: Layout,
    fitted: FittedBasis | None,
    hidden_PG: torch.Tensor,
    head: Head,
    forced_P: torch.Tensor,
    seed_P: Array | None = None,
) -> Array:
    """Records uint8 [P, R] of positions given by the teacher's last hidden states and its output layer.

    `forced_P` is the token that stands there; `seed_P`, uint64, decides a sample, which so depends on no other position.
    Raises NotFinite for logits that are NaN or infinite, WrongAnswer for what is not of this layout.
    """
    if len(head.weight_VH) != layout.vocabulary:
        raise WrongAnswer(
            f"a teacher with {len(head.weight_VH)} tokens, and a layout for {layout.vocabulary}",
            where="sparse_logits.encode",
            cure="Make the layout for this teacher",
        )
    if layout.tail == "hidden":
        fitted = _fitting(layout, fitted).on(hidden_PG.device)
    hidden_PG = hidden_PG.detach()
    forced_P1 = forced_P.to(hidden_PG.device).long()[:, None]
    parts = [np.zeros((0, layout.record_bytes), np.uint8)]
    spare_CV = None
    for rows, logits_CV in logit_chunks(hidden_PG, head):
        spare_CV = torch.empty_like(logits_CV) if spare_CV is None else spare_CV[: len(logits_CV)]
        seed_C = None if seed_P is None else seed_P[rows]
        forced_C = logits_CV.gather(1, forced_P1[rows])[:, 0]
        parts.append(_records(layout, logits_CV, spare_CV, forced_C, seed_C, fitted, hidden_PG[rows], rows.start))
    return np.concatenate(parts)


def encode_log_p(
    layout: Layout, log_p_CV: torch.Tensor, forced_log_p_C: torch.Tensor, seed_C: Array | None = None
) -> Array:
    """Records of a few whole distributions [C, V], which are overwritten; the tail is a sample or a bucket.

    Log-probabilities need not sum to 1, if only the forced tokens' are off by the same factor. Raises NotFinite for NaN,
    WrongAnswer for a layout that needs more than these.
    """
    if layout.tail == "hidden":
        raise WrongAnswer(
            "a distribution without a hidden state cannot have a hidden tail",
            where="layout.tail",
            cure="Keep a longer head with tail sample or bucket",
        )
    log_p_CV.clamp_(min=NO_LOGIT)
    return _records(layout, log_p_CV, torch.empty_like(log_p_CV), forced_log_p_C, seed_C)


def _records(
    layout: Layout,
    logits_CV: torch.Tensor,
    tail_CV: torch.Tensor,
    forced_C: torch.Tensor,
    seed_C: Array | None,
    fitted: FittedBasis | None = None,
    hidden_CG: torch.Tensor | None = None,
    first: int = 0,
) -> Array:
    more = TOKENS if layout.tail == "hidden" else 0
    top_CJ, top_ids_CJ = largest(logits_CV, min(max(1, layout.head + more), layout.vocabulary))
    refuse_broken(top_CJ[:, 0], first)
    facts = _facts(logits_CV, tail_CV, top_CJ[:, :1], top_ids_CJ[:, : layout.head], forced_C)
    if layout.tail == "hidden":
        assert fitted is not None
        assert hidden_CG is not None
        next_CJ, ids_CJ = top_CJ[:, layout.head :], top_ids_CJ[:, layout.head :]
        share_CJ = (tail_CV.gather(1, ids_CJ) / tail_CV.sum(1, keepdim=True)).nan_to_num_(0.0)
        tail_CR = pack(rounded(fitted, hidden_CG, ids_CJ, next_CJ, share_CJ).cpu().numpy(), fitted.bits_M)
        tail_CR = np.pad(tail_CR, ((0, 0), (0, layout.tail_bytes - tail_CR.shape[1])))
    elif layout.tail == "sample":
        if seed_C is None:
            raise WrongAnswer("a sample without a seed", where="sparse_logits.encode", cure="Give seed_P")
        tail_CR = pack(_drawn(tail_CV, seed_C, layout.samples), [layout.id_bits] * layout.samples)
    else:
        tail_CR = np.zeros((len(logits_CV), 0), np.uint8)
    return np.concatenate([_pack_facts(layout, facts), tail_CR], 1)


def _facts(
    logits_CV: torch.Tensor,
    tail_CV: torch.Tensor,
    top_C1: torch.Tensor,
    ids_CK: torch.Tensor,
    forced_C: torch.Tensor,
) -> Facts:
    """Uses up the logits, and fills `tail_CV` with exp(logits - top), the head emptied. `forced_C` are logits, too."""
    logits_CV -= top_C1
    head_CK = logits_CV.gather(1, ids_CK)
    torch.exp(logits_CV, out=tail_CV)
    sum_C = tail_CV.sum(1)
    weighed_C = logits_CV.mul_(tail_CV).sum(1)
    tail_CV.scatter_(1, ids_CK, 0.0)
    log_sum_C = sum_C.log()
    tail_C = (tail_CV.sum(1).log() - log_sum_C).clamp(max=0)
    return Facts(
        ids_CK,
        head_CK - log_sum_C[:, None],
        tail_C,
        (log_sum_C - weighed_C / sum_C).clamp(min=0),
        forced_C - top_C1[:, 0] - log_sum_C,
    )


def _drawn(weight_CV: torch.Tensor, seed_C: Array, count: int) -> Array:
    """Ids [C, count], drawn in proportion to the weights, ascending.

    Systematic sampling: `count` evenly spaced points, shifted together at random, along the tokens laid end to end. Each
    token is drawn floor or ceil of its expected number of times, so the sample is unbiased with less variance than one
    of independent draws (Madow and Madow 1944).
    """
    vocabulary, device = weight_CV.shape[1], weight_CV.device
    # A point's block is found first, then its token in the block: no running sum over the whole vocabulary.
    block_CIJ = functional.pad(weight_CV, (0, -vocabulary % BLOCK)).view(len(weight_CV), -1, BLOCK)
    size_CI = block_CIJ.sum(2).double()
    end_CI = size_CI.cumsum(1)
    shift_C = (mix(seed_C.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    point_CS = torch.from_numpy((shift_C[:, None] + np.arange(count)) / count).to(device) * end_CI[:, -1:]
    at_CS = torch.searchsorted(end_CI, point_CS, right=True).clamp_(max=end_CI.shape[1] - 1)
    size_CS = size_CI.gather(1, at_CS)
    # How far into the block, as a share of it: below 1 whatever was rounded.
    share_CS = ((point_CS - end_CI.gather(1, at_CS) + size_CS) / size_CS).clamp_(0, 1 - 1e-9)
    end_CSJ = block_CIJ[torch.arange(len(at_CS), device=device)[:, None], at_CS].cumsum(2, dtype=torch.float64)
    inside_CS = (end_CSJ <= share_CS[..., None] * end_CSJ[..., -1:]).sum(2)
    # Where there is no weight at all no token is meant, and the tail's mass says so.
    found: Array = (at_CS * BLOCK + inside_CS).clamp_(max=vocabulary - 1).cpu().numpy()
    return found


def _pack_facts(layout: Layout, facts: Facts) -> Array:
    ids_PK, log_p_PK, *numbers = (part.cpu().numpy() for part in facts)
    top = 2**layout.head_bits - 1
    share_PK = np.clip(-log_p_PK.astype(np.float64) / FLOOR, 0.0, 1.0)
    code_PK = np.rint(top * share_PK ** (1 / BEND)).astype(np.int64)
    with np.errstate(over="ignore"):
        half_PF = np.stack(numbers, 1).astype("<f2")
    # No log-probability of a token that stood there is minus infinity: a loss would be, too.
    half_PF[:, 2] = half_PF[:, 2].clip(min=np.finfo(np.float16).min)
    fields_PF = np.concatenate([ids_PK, code_PK, half_PF.view("<u2").astype(np.int64)], 1)
    return pack(fields_PF, layout.widths)


def decode(layout: Layout, fitted: FittedBasis | None, records_PR: Array) -> SparseTargets:
    """What records hold. Head and tail mass make exactly 1: the mass as it was kept, the head rescaled to the rest."""
    size, count = layout.facts_bytes, layout.head
    if records_PR.shape[1] != layout.record_bytes:
        raise WrongAnswer(
            f"records of {records_PR.shape[1]} bytes, and the layout has {layout.record_bytes}",
            where="sparse_logits.decode",
            cure="Read them with the layout that wrote them",
        )
    fields_PF = unpack(records_PR[:, :size], layout.widths)
    fact_PF = fields_PF[:, 2 * count :].astype("<u2").view("<f2").astype(np.float32)
    targets = SparseTargets(
        ids_PK=torch.from_numpy(fields_PF[:, :count].astype(np.int64)),
        log_p_PK=torch.from_numpy(_head_values(layout, fields_PF[:, count : 2 * count], fact_PF[:, 0])),
        tail_log_mass_P=torch.from_numpy(fact_PF[:, 0].copy()),
        entropy_P=torch.from_numpy(fact_PF[:, 1].copy()),
        forced_log_p_P=torch.from_numpy(fact_PF[:, 2].copy()),
        tail=layout.tail,
    )
    if layout.tail == "hidden":
        fitted = _fitting(layout, fitted)
        codes_PM = unpack(records_PR[:, size : size + fitted.tail_bytes], fitted.bits_M)
        targets.components_PM, targets.basis = fitted.components(codes_PM), fitted.basis
    elif layout.tail == "sample":
        ids_PS = unpack(records_PR[:, size:], [layout.id_bits] * layout.samples).astype(np.int64)
        log_weight_PS = _sample_weights(ids_PS, fact_PF[:, 0])
        targets.sample_ids_PS, targets.sample_log_weight_PS = map(torch.from_numpy, (ids_PS, log_weight_PS))
    return targets


def _head_values(layout: Layout, code_PK: Array, tail_P: Array) -> Array:
    """Log-probabilities of the head, float32, rescaled to what the tail leaves."""
    if not layout.head:
        return np.zeros(code_PK.shape, np.float32)
    top = 2**layout.head_bits - 1
    table = (-FLOOR * (np.arange(top + 1) / top) ** BEND).astype(np.float32)
    value_PK = table[code_PK]
    with np.errstate(divide="ignore"):
        left_P = np.log(-np.expm1(tail_P.astype(np.float64)))
    sum_P = np.log(np.exp(value_PK, dtype=np.float64).sum(1))
    # Of a tail that is all but everything, half precision tells the mass and not what it leaves.
    left_P = np.where(tail_P > -(2.0**-14), sum_P, left_P)
    found: Array = (value_PK + (left_P - sum_P)[:, None]).astype(np.float32)
    return found


def _sample_weights(ids_PS: Array, tail_P: Array) -> Array:
    """Log of each draw's weight, equal shares of the tail; a token drawn again is counted where it stood first."""
    count_P, draws = ids_PS.shape
    first_PS = np.ones(ids_PS.shape, bool)
    first_PS[:, 1:] = ids_PS[:, 1:] != ids_PS[:, :-1]
    start_J = np.flatnonzero(first_PS)
    times_J = np.diff(np.append(start_J, count_P * draws))
    log_PS = np.full(count_P * draws, -np.inf, np.float32)
    log_PS[start_J] = np.log(times_J / draws)
    found: Array = log_PS.reshape(count_P, draws) + tail_P[:, None]
    return found


def _fitting(layout: Layout, fitted: FittedBasis | None) -> FittedBasis:
    if fitted is None or fitted.tail_bytes > layout.tail_bytes or len(fitted.bias_V) != layout.vocabulary:
        raise WrongAnswer(
            "no basis" if fitted is None else f"a basis for {fitted.tail_bytes} bytes of {len(fitted.bias_V)} tokens",
            where=f"a layout with {layout.tail_bytes} bytes for a hidden tail, of {layout.vocabulary} tokens",
            cure="Give the basis that was fitted for it",
        )
    return fitted
