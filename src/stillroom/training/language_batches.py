"""Batches of token windows for the loop, each a pure function of (seed, step); see batches.py for classifiers.

Stored: the teacher's records are read from their memory map and decoded. Live: the teacher sees each batch, and hands
over its last hidden layer, never logits. Knows no objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stillroom.models.device import Device
from stillroom.rows import PADDING, PLAIN_VIEW, UNLABELLED, Array, Basis, Batch, Questions, SparseTargets, Tokens
from stillroom.transfer_set.ask import Seen
from stillroom.transfer_set.store import PositionReader

if TYPE_CHECKING:
    from stillroom.teachers.language import Speaks
    from stillroom.transfer_set.basis import FittedBasis
    from stillroom.transfer_set.sparse_logits import Layout


@dataclass(frozen=True)
class WindowSource:
    """What batches of windows are made of. `readers` stand beside `views`; none where the teacher is live or absent."""

    questions: Questions
    readers: Sequence[PositionReader] = ()
    layout: Layout | None = None
    fitted: FittedBasis | None = None
    live: Speaks | None = None
    views: Sequence[int] = ()
    seen: Seen | None = None
    """Hides tokens of questions as a view has them; none: view 0 only, the windows as they are."""
    with_hidden: bool = False
    layers: tuple[int, ...] = ()
    """Of the teacher: those that stand beside its last hidden layer."""
    layer_width: int = 0
    own: int = 0
    """So many of the first windows the student wrote itself: the teacher scores them, but their tokens are no labels."""


class WindowBatches:
    """An endless, randomly addressable stream: `batches(step)`; each epoch is a new order of all windows."""

    def __init__(self, source: WindowSource, batch_size: int, seed: int, device: Device) -> None:
        self.source, self.seed, self.device = source, seed, device
        self.rows = len(source.questions)
        self.size = min(batch_size, self.rows)
        self.per_epoch = -(-self.rows // self.size)
        # The basis is as large as an embedding, and every batch's targets lean on it: it moves once.
        self.fitted = None if source.fitted is None else source.fitted.on(torch.device(device.name))
        self.weighted = bool((source.questions.weight_N != 1).any())
        self._epoch, self._order_N = -1, np.empty(0, np.int64)

    def order(self, epoch: int) -> Array:
        """The order of the windows in an epoch, int64 [N]."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order_N = epoch, torch.randperm(self.rows, generator=generator).numpy()
        return self._order_N

    def __call__(self, step: int) -> Batch:
        from stillroom.teachers.language import hidden_of

        epoch, place = divmod(step, self.per_epoch)
        index_B = self.order(epoch)[place * self.size : (place + 1) * self.size]
        number, view = 0, PLAIN_VIEW
        if self.source.seen is not None:
            number = epoch % len(self.source.views) if self.source.views else 0
            view = self.source.views[number] if self.source.views else epoch + 1
        questions = self.source.questions.take(index_B)
        if self.source.seen is not None and view != PLAIN_VIEW:
            questions = self.source.seen(questions, view)
        tokens, label_P = tokens_of(questions, self.device)
        own_B = torch.from_numpy(index_B < self.source.own).to(self.device.name)
        if self.source.own:
            label_P = label_P.masked_fill(own_B.repeat_interleave(tokens.scored_BT.sum(1)), UNLABELLED)
        batch = Batch(tokens, label_P, all_labelled=not self.source.own)
        if self.weighted:
            weight_B = torch.from_numpy(questions.weight_N).to(self.device.name)
            batch.weight_B = weight_B.repeat_interleave(tokens.scored_BT.sum(1))
        if self.source.live is not None:
            batch.teacher = self.source.live.output(tokens)
            batch.hidden_BH = hidden_of(batch.teacher).float() if self.source.with_hidden else None
        elif self.source.readers:
            self._read(batch, self.source.readers[number], index_B)
        return batch

    def _read(self, batch: Batch, reader: PositionReader, index_B: Array) -> None:
        from stillroom.transfer_set.sparse_logits import decode

        assert self.source.layout is not None, "records come with their layout"
        batch.sparse = on(decode(self.source.layout, self.fitted, reader.take(index_B)), self.device)
        if self.source.with_hidden:
            batch.hidden_BH = torch.from_numpy(reader.take(index_B, "hidden")).to(self.device.name).float()


def tokens_of(questions: Questions, device: Device) -> tuple[Tokens, torch.Tensor]:
    """Windows as a batch of tokens, cut to the longest, and the scored positions' targets int64 [P]."""
    assert isinstance(questions.raw, dict), "windows are named arrays"
    ids_BT, target_BT = (torch.from_numpy(questions.raw[name]) for name in ("ids", "target"))
    longest = int((ids_BT != PADDING).sum(1).max())
    ids_BT, target_BT = ids_BT[:, :longest].long().to(device.name), target_BT[:, :longest].long().to(device.name)
    scored_BT = target_BT != PADDING
    return Tokens(ids_BT, scored_BT), target_BT[scored_BT]


def on(targets: SparseTargets, device: Device) -> SparseTargets:
    """The same targets where the network is."""
    if device.name == "cpu":
        return targets
    moved = {
        name: value.to(device.name)
        for name in SparseTargets.__slots__
        if torch.is_tensor(value := getattr(targets, name))
    }
    basis = targets.basis
    if basis is not None:
        basis = Basis(basis.matrix_VM.to(device.name), basis.bias_V.to(device.name), basis.soft_cap)
    kept = {name: getattr(targets, name) for name in SparseTargets.__slots__}
    return SparseTargets(**{**kept, **moved, "basis": basis})
