"""An ensemble of language models over one vocabulary: what each has said of a position, averaged and kept as one record.

Members are read as they were kept, so that none is asked twice. The mean of several hidden states' distributions is no
hidden state's, so the merged record has a longer head and a sampled tail. A sample and not a bucket, because the tails of
an ensemble differ where a bucket says nothing, and a sample of their mean is unbiased. Of members that keep buckets a bucket
is all that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stillroom.errors import RecipeError, WrongAnswer
from stillroom.questions.dice import seeds
from stillroom.rows import Array, Mean, MixedHead, Output, PositionAnswers, Questions, SparseTargets
from stillroom.rundir import fingerprint
from stillroom.teachers.language import AskedLanguageEnsemble
from stillroom.transfer_set.fidelity import dense, part
from stillroom.transfer_set.output_layer import row_chunks
from stillroom.transfer_set.recording import Recorder, position_seeds
from stillroom.transfer_set.sparse_logits import Layout, decode, encode_log_p
from stillroom.transfer_set.store import Kept

LONGER = 2


def merged_layout(member: Layout) -> Layout:
    """Twice a member's head, and as many samples as its tail has room for; of a bucket, a bucket."""
    if member.tail == "bucket":
        return Layout.of(member.vocabulary, LONGER * member.head, "bucket")
    return Layout.of(member.vocabulary, LONGER * member.head, "sample", member.record_bytes - member.facts_bytes)


class Merger:
    """An ensemble whose answers are made from what is kept of its members' (transfer_set.ask.Packs): nobody is asked.

    Of members that were never asked, with no `kept`, it still tells how close their mean is kept.
    """

    hidden_width: int | None = None
    classes: list[Any] = []  # noqa: RUF012 - a language model has none
    shard_rows = Recorder.shard_rows

    def __init__(self, teacher: AskedLanguageEnsemble, members: Sequence[Recorder], kept: Sequence[Kept] = ()) -> None:
        self.teacher, self.members, self.kept = teacher, list(members), list(kept)
        self.layout = merged_layout(members[0].layout)
        pairs = sorted(
            [member.fingerprint, member.written.get("basis"), share]
            for member, share in zip(members, teacher.share_K, strict=True)
        )
        self.fingerprint = fingerprint("merged", teacher.mean, pairs, self.layout.to_json())

    @property
    def made_of(self) -> dict[str, str]:
        """A digest of the ensemble, for a header; those of its members stand in theirs."""
        return self.teacher.made_of

    @property
    def written(self) -> dict[str, Any]:
        """The layout for a header."""
        return self.layout.to_json()

    def answer(self, questions: Questions, view: int = 0) -> PositionAnswers:
        """Merged records of every scored position, from the members' kept ones. Raises WrongAnswer where they lack one."""
        readers = [kept.position_reader(questions.key_N, view) for kept in self.kept]
        every = np.arange(len(questions))
        count_N = readers[0].count(every)
        targets = [member.unpacked(reader.take(every)) for member, reader in zip(self.members, readers, strict=True)]
        seed_P = position_seeds(seeds(questions.key_N), count_N, view)
        return PositionAnswers(self._merged(targets, seed_P), count_N)

    def pack(self, output: Output, target_P: torch.Tensor, seed_P: Array) -> Array:
        """Merged records of an output of the ensemble, by way of its members' records."""
        assert output.hidden_BH is not None
        assert isinstance(output.head, MixedHead)
        hidden = torch.split(output.hidden_BH, output.head.widths, 1)
        outputs = [Output(None, own_PG, head) for own_PG, head in zip(hidden, output.head.heads, strict=True)]
        return self._merged(
            [
                member.unpacked(member.pack(own, target_P, seed_P))
                for member, own in zip(self.members, outputs, strict=True)
            ],
            seed_P,
        )

    def unpacked(self, records_PR: Array) -> SparseTargets:
        """What records hold."""
        return decode(self.layout, None, records_PR)

    def _merged(self, targets: Sequence[SparseTargets], seed_P: Array) -> Array:
        return merge(self.layout, targets, self.teacher.share_K, self.teacher.mean, seed_P)


def merge(
    layout: Layout,
    members: Sequence[SparseTargets],
    weights: Sequence[float] | None = None,
    mean: Mean = "arithmetic",
    seed_P: Array | None = None,
) -> Array:
    """Records uint8 [P, R] of the weighted mean of several teachers' distributions at the same P positions.

    The arithmetic mean is of probabilities, the geometric one of log-probabilities, renormalised. Equal weights where none
    are given. Raises WrongAnswer where members do not have the same positions, RecipeError for a geometric mean of samples.
    """
    counts = {len(member.ids_PK) for member in members}
    share_K = np.ones(len(members)) if weights is None else np.asarray(weights, np.float64)
    if len(counts) != 1 or len(share_K) != len(members) or not (np.isfinite(share_K) & (share_K > 0)).all():
        raise WrongAnswer(
            f"{len(members)} teachers with {sorted(counts)} positions and {len(share_K)} weights cannot be merged",
            where="merging.merge",
            cure="Give every teacher's answers to the same questions, and a weight above 0 for each",
        )
    if mean == "geometric" and any(member.tail == "sample" for member in members):
        raise RecipeError(
            "a geometric mean of samples: a token that was not drawn would have no probability",
            where="teacher, kind ensemble",
            cure="Use the arithmetic mean, or keep tail: hidden",
        )
    share_K = share_K / share_K.sum()
    parts = [np.zeros((0, layout.record_bytes), np.uint8)]
    for rows in row_chunks(counts.pop(), layout.vocabulary):
        here = [part(member, rows) for member in members]
        log_p_CV, forced_C = _mean(here, share_K.tolist(), mean, layout.vocabulary)
        parts.append(encode_log_p(layout, log_p_CV, forced_C, None if seed_P is None else seed_P[rows]))
    return np.concatenate(parts)


def _mean(
    members: Sequence[SparseTargets], shares: list[float], mean: Mean, vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean distribution [C, V] and the forced token's log-probability [C], in logs, both up to the same constant."""
    log_p_CV = torch.full((len(members[0].ids_PK), vocabulary), 0.0 if mean == "geometric" else -torch.inf)
    forced_C = log_p_CV[:, 0].clone()
    for member, share in zip(members, shares, strict=True):
        # The forced token's is known exactly, its place in the rebuilt tail only nearly.
        for total, one in ((log_p_CV, dense(member, vocabulary)), (forced_C, member.forced_log_p_P)):
            if mean == "geometric":
                total.add_(one.cpu(), alpha=share)
            else:
                torch.logaddexp(total, one.cpu() + np.log(share), out=total)
    return log_p_CV, forced_C
