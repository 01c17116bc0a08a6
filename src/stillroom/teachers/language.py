"""A language model as a teacher: it shows its last hidden layer and its output layer, and never whole logits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom.models.classifier import autocast, evaluating
from stillroom.models.language import LanguageModel, logits
from stillroom.rows import PADDING, Answers, Array, Head, Output, Questions, Tokens

FORWARD_TOKENS = 2048
"""A batch that is asked has about so many tokens."""


class AskedLanguageModel:
    """A causal or masked model at work. Its answers are packed where they are kept (see transfer_set/recording.py)."""

    gives = frozenset({"answers", "probabilities", "hidden", "text"})
    by_key = False
    classes: list[Any] = []  # noqa: RUF012 - a language model has none

    def __init__(self, model: LanguageModel, folders: list[Path] | None = None) -> None:
        self.model, self.folders = model, folders or []
        """`folders`: where its weights stand, for their size."""
        self.fingerprint = model.fingerprint
        self.hidden_width: int | None = model.network.hidden_width

    def output(self, tokens: Tokens) -> Output:
        """The last hidden layer of the scored positions [P, G], and the output layer; no gradient."""
        with evaluating(self.model.network), autocast(self.model.device):
            found: Output = self.model.network(tokens)
        return found._replace(head=self.head())

    def head(self) -> Head:
        """Its output layer, without gradient."""
        weight_VH, bias_V, soft_cap = self.model.network.head
        return Head(weight_VH.detach(), None if bias_V is None else bias_V.detach(), soft_cap)

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """Log-probabilities [N, V] of the last scored position of each window: what comes next, as a classifier would say."""
        found = []
        for count_B, output, _ in self.outputs(questions):
            assert output.hidden_BH is not None
            assert output.head is not None
            last_B = torch.from_numpy(np.cumsum(count_B) - 1)
            found.append(logits(output.hidden_BH[last_B].float(), output.head).log_softmax(1).cpu().numpy())
        return Answers(np.concatenate(found))

    def outputs(self, questions: Questions) -> Iterator[tuple[Array, Output, torch.Tensor]]:
        """Batch by batch: scored positions of each question [B], the output, and the target tokens [P]."""
        assert isinstance(questions.raw, dict), "windows are named arrays"
        ids_NT, target_NT = questions.raw["ids"], questions.raw["target"]
        rows = max(1, FORWARD_TOKENS // ids_NT.shape[1])
        for start in range(0, len(questions), rows):
            there = ids_NT[start : start + rows] != PADDING
            longest = int(there.sum(1).max())
            ids_BT = torch.from_numpy(ids_NT[start : start + rows, :longest]).long().to(self.model.device.name)
            target_BT = torch.from_numpy(target_NT[start : start + rows, :longest]).long().to(self.model.device.name)
            scored_BT = target_BT != PADDING
            yield scored_BT.sum(1).cpu().numpy(), self.output(Tokens(ids_BT, scored_BT)), target_BT[scored_BT]
