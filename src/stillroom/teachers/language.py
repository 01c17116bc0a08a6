"""A language model as a teacher, or several as one: it shows its last hidden layer and its output layer, never whole logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom.models import pretrained, tokenizers
from stillroom.models.blending import side_by_side
from stillroom.models.classifier import autocast, evaluating, showing
from stillroom.models.language import LanguageModel, logits
from stillroom.models.mixed import MixedModel
from stillroom.rows import PADDING, Answers, Array, Head, Mean, Output, Questions, Tokens
from stillroom.rundir import fingerprint

FORWARD_TOKENS = 2048
"""A batch that is asked has about so many tokens."""


class Speaks:
    """What a teacher that says the next token, or a hidden one, has in common whether it is one model or several."""

    by_key = False
    classes: list[Any] = []  # noqa: RUF012 - a language model has none
    gives: frozenset[str]
    hidden_width: int | None

    def __init__(self, model: LanguageModel | MixedModel, folders: list[Path]) -> None:
        self.model, self.folders = model, folders
        """`folders`: where its weights stand, for their size."""
        self.fingerprint = model.fingerprint

    @property
    def made_of(self) -> dict[str, str]:
        """Digests that tell in what two teachers differ, by the name of the part."""
        return {"teacher": self.fingerprint}

    def output(self, tokens: Tokens) -> Output:
        """The last hidden layer of the scored positions [P, G], and the output layer; no gradient."""
        raise NotImplementedError

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


def hidden_of(output: Output) -> torch.Tensor:
    """The last hidden layer and the further ones that are shown, side by side [P, ..]."""
    assert output.hidden_BH is not None
    return torch.cat([output.hidden_BH, *output.layers], 1) if output.layers else output.hidden_BH


class AskedLanguageModel(Speaks):
    """A causal or masked model at work. Its answers are packed where they are kept (see transfer_set/recording.py)."""

    gives = frozenset({"answers", "probabilities", "hidden", "text"})

    def __init__(self, model: LanguageModel, folders: list[Path] | None = None) -> None:
        super().__init__(model, folders or [])
        self.single = model
        self.hidden_width = model.network.hidden_width
        self.layers: tuple[int, ...] = ()

    @cached_property
    def made_of(self) -> dict[str, str]:  # weights are read for it, which takes a while
        tokenizer = self.single.tokenizer
        parts = {"tokenizer": tokenizers.fingerprint(tokenizer), "template": fingerprint(tokenizer.chat_template)}
        if self.folders:
            parts["weights"] = pretrained.weights_fingerprint(self.folders[0])
        return {"teacher": self.fingerprint} | parts

    def with_layers(self, layers: tuple[int, ...]) -> AskedLanguageModel:
        """The same teacher, which shows the hidden states after these layers too."""
        found = copy(self)
        found.layers = layers
        assert self.hidden_width is not None
        found.hidden_width = self.hidden_width + len(layers) * self.single.network.depth[1]
        return found

    def output(self, tokens: Tokens) -> Output:
        network = self.single.network
        with evaluating(network), autocast(self.single.device), showing(network, self.layers):
            found: Output = network(tokens)
        return found._replace(head=self.head())

    def head(self) -> Head:
        """Its output layer, without gradient."""
        weight_VH, bias_V, soft_cap = self.single.network.head
        return Head(weight_VH.detach(), None if bias_V is None else bias_V.detach(), soft_cap)


class AskedLanguageEnsemble(Speaks):
    """Several of them over one vocabulary, whose distributions are averaged; it shows their hidden layers side by side."""

    gives = frozenset({"answers", "probabilities", "text"})
    hidden_width: int | None = None

    def __init__(self, members: Sequence[AskedLanguageModel], share_K: Sequence[float], mean: Mean) -> None:
        self.members, self.share_K, self.mean = list(members), list(share_K), mean
        models = [member.single for member in members]
        super().__init__(MixedModel(models, share_K, mean), [folder for one in members for folder in one.folders])

    def output(self, tokens: Tokens) -> Output:
        return side_by_side([member.output(tokens) for member in self.members], self.share_K, self.mean)
