"""Batches for the loop, each a pure function of (seed, step), so that a resumed run sees the very same rows.

Stored: inputs encoded once, the teacher's answers read from their memory map. Views: the rows are augmented anew as the
epoch's view shows them, and the answers of that very view are read. Live: the teacher sees each batch, mixup included,
just as the student does. Knows no objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stillroom.inputs import Inputs, Texts
from stillroom.kinds import AskedTeacher
from stillroom.models.classifier import to_device
from stillroom.models.device import Device
from stillroom.rows import PLAIN_VIEW, Array, Batch, Questions, Raw
from stillroom.transfer_set.ask import Seen
from stillroom.transfer_set.store import Reader

POOL_BATCHES = 50
"""Texts of like length are put together within so many batches' worth of random rows."""


@dataclass(frozen=True)
class Source:
    """What batches are made of. `readers` stand beside `views`; there are none where the teacher is live or absent."""

    questions: Questions
    inputs: Inputs
    readers: Sequence[Reader] = ()
    live: AskedTeacher | None = None
    views: Sequence[int] = ()
    """The views that epochs go round; none, with `seen`: a new one each epoch, for a live teacher or none at all."""
    seen: Seen | None = None
    """Augments questions as a view has them; none: view 0 only, the rows as they are."""
    with_hidden: bool = False
    spoil: Callable[[Array], Array] | None = None
    """Experiments: changes all of the teacher's answers at once (see transfer_set/wrong_classes.py)."""
    layers: tuple[int, ...] = ()
    """Of the teacher: those that stand beside its last hidden layer."""
    layer_width: int = 0


class Batches:
    """An endless, randomly addressable stream: `batches(step)`; each epoch is a new order of all rows."""

    def __init__(self, source: Source, batch_size: int, seed: int, device: Device, mixup: float = 0.0) -> None:
        self.source, self.seed, self.device, self.mixup = source, seed, device, mixup
        self.rows = len(source.questions)
        self.size = min(batch_size, self.rows)
        self.per_epoch = -(-self.rows // self.size)
        label_N = source.questions.label_N
        self._label_N = torch.from_numpy(label_N).to(device.name)
        self._all_labelled = bool((label_N >= 0).all())
        weight_N = source.questions.weight_N
        self._weight_N = None if (weight_N == 1).all() else torch.from_numpy(weight_N).to(device.name)
        self._input_N = to_device(source.inputs.encode(source.questions.raw), device) if source.seen is None else None
        self._spoiled_VNC = None
        if source.spoil is not None and source.readers:
            self._spoiled_VNC = [torch.from_numpy(source.spoil(reader.all())) for reader in source.readers]
        tokens = isinstance(source.inputs, Texts) and self._input_N is not None
        self._length_N = (self._input_N >= 0).sum(1).cpu() if tokens and self._input_N is not None else None
        self._epoch, self._order_N = -1, torch.empty(0, dtype=torch.int64)

    def order(self, epoch: int) -> torch.Tensor:
        """The order of the rows in an epoch, int64 [N]."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order_N = epoch, torch.randperm(self.rows, generator=generator)
            if self._length_N is not None:
                self._order_N = self._alike(self._order_N, self._length_N, generator)
        return self._order_N

    def _alike(self, order_N: torch.Tensor, length_N: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The same order, but that rows of like length share a batch; the batches come in random order."""
        pools = torch.split(order_N, POOL_BATCHES * self.size)
        sorted_N = torch.cat([pool[length_N[pool].argsort(stable=True)] for pool in pools])
        whole = self.rows // self.size
        batches = sorted_N[: whole * self.size].view(whole, self.size)
        shuffled = batches[torch.randperm(whole, generator=generator)].reshape(-1)
        return torch.cat([shuffled, sorted_N[whole * self.size :]])

    def __call__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.per_epoch)
        index_B = self.order(epoch)[place * self.size : (place + 1) * self.size]
        place_of_view, view = self._view(epoch)
        if self._input_N is not None and self.source.live is None and not self.mixup:
            input_B = self._input_N[index_B]
            raw: Raw | None = None
        else:
            raw = self._shown(index_B, view).raw
            input_B = to_device(self.source.inputs.encode(raw), self.device)
        batch = Batch(input_B, self._label_N[index_B], self._all_labelled)
        if self._weight_N is not None:
            batch.weight_B = self._weight_N[index_B]
        if self.mixup and raw is not None:
            raw = self._mix(batch, raw, index_B, step)
        self._answer(batch, raw, index_B, place_of_view, view)
        return batch

    def _view(self, epoch: int) -> tuple[int, int]:
        """The view of an epoch: its place among the stored ones, and its number. View 0 is the row as it is."""
        if self.source.seen is None:
            return 0, PLAIN_VIEW
        if not self.source.views:
            return 0, epoch + 1
        place = epoch % len(self.source.views)
        return place, self.source.views[place]

    def _shown(self, index_B: torch.Tensor, view: int) -> Questions:
        questions = self.source.questions.take(index_B.numpy())
        return self.source.seen(questions, view) if self.source.seen is not None else questions

    def _mix(self, batch: Batch, raw: Raw, index_B: torch.Tensor, step: int) -> Raw:
        """Mix each row with another of the batch, in place in `batch`; returns the mixed raw rows for the teacher."""
        assert not isinstance(raw, dict), "check() refuses mixup for tables"
        random = np.random.default_rng([self.seed, step])
        share = float(random.beta(self.mixup, self.mixup))
        other_B = random.permutation(len(index_B))
        mixed: Array = share * raw.astype(np.float32) + (1 - share) * raw[other_B].astype(np.float32)
        mixed = np.round(mixed).astype(raw.dtype) if raw.dtype == np.uint8 else mixed
        batch.input = to_device(self.source.inputs.encode(mixed), self.device)
        assert batch.label_B is not None
        batch.mixed_label_B, batch.mix = batch.label_B[torch.from_numpy(other_B)], share
        return mixed

    def _answer(self, batch: Batch, raw: Raw | None, index_B: torch.Tensor, place: int, view: int) -> None:
        if self.source.live is not None:
            assert raw is not None
            questions = self.source.questions.take(index_B.numpy())
            asked = Questions(raw, questions.key_N, questions.label_N, questions.weight_N, questions.row_N)
            answers = self.source.live.answer(asked, view)
            batch.log_probabilities_BC = torch.from_numpy(answers.log_probabilities_NC).to(self.device.name)
            if self.source.with_hidden and answers.hidden_NH is not None:
                batch.hidden_BH = torch.from_numpy(answers.hidden_NH).to(self.device.name)
        elif self.source.readers:
            reader, rows = self.source.readers[place], index_B.numpy()
            if self._spoiled_VNC is not None:
                batch.log_probabilities_BC = self._spoiled_VNC[place][index_B].to(self.device.name)
            else:
                batch.log_probabilities_BC = torch.from_numpy(reader.take(rows)).to(self.device.name).float()
            if self.source.with_hidden:
                batch.hidden_BH = torch.from_numpy(reader.take(rows, "hidden")).to(self.device.name).float()
