"""A language model as a teacher, or several as one: it shows its last hidden layer and its output layer, never whole logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

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
"""A batch that is asked has at most so many tokens, padding included, or one window."""


class Heard(NamedTuple):
    """What a batch of windows was answered with; batches come by length, and not in the order of the questions."""

    place_B: Array
    """Where each window stands among the questions."""
    count_B: Array
    """Its scored positions."""
    output: Output
    target_P: torch.Tensor
    """The tokens that stand there."""


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
        found, places = [], []
        for place_B, count_B, output, _ in self.outputs(questions):
            assert output.hidden_BH is not None
            assert output.head is not None
            last_B = torch.from_numpy(np.cumsum(count_B) - 1)
            found.append(logits(output.hidden_BH[last_B].float(), output.head).log_softmax(1).cpu().numpy())
            places.append(place_B)
        return Answers(np.concatenate(found)[np.argsort(np.concatenate(places))])

    def outputs(self, questions: Questions) -> Iterator[Heard]:
        """Batch by batch, windows of like length together, so that short ones are not padded to the longest."""
        assert isinstance(questions.raw, dict), "windows are named arrays"
        ids_NT, target_NT = questions.raw["ids"], questions.raw["target"]
        length_N = (ids_NT != PADDING).sum(1)
        for place_B in by_length(length_N):
            longest = int(length_N[place_B[-1]])
            ids_BT = torch.from_numpy(ids_NT[place_B, :longest]).long().to(self.model.device.name)
            target_BT = torch.from_numpy(target_NT[place_B, :longest]).long().to(self.model.device.name)
            scored_BT = target_BT != PADDING
            count_B = scored_BT.sum(1).cpu().numpy()
            yield Heard(place_B, count_B, self.output(Tokens(ids_BT, scored_BT)), target_BT[scored_BT])


def by_length(length_N: Array) -> Iterator[Array]:
    """The places of windows of these lengths, shortest first, in batches of at most FORWARD_TOKENS with their padding."""
    order_N, start = np.argsort(length_N, kind="stable"), 0
    while start < len(order_N):
        tokens_n = np.arange(1, len(order_N) - start + 1) * length_N[order_N[start:]]
        rows = max(1, int(np.searchsorted(tokens_n, FORWARD_TOKENS, side="right")))
        yield order_N[start : start + rows]
        start += rows


def in_order(heard: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Of batches' places and counts, laid end to end: the positions' indices [P] in the questions' order, and counts [N]."""
    place_N, count_N = (np.concatenate(column) for column in zip(*heard, strict=True))
    start_N, back_N = np.cumsum(count_N) - count_N, np.argsort(place_N)
    index_P = np.concatenate([np.arange(start_N[at], start_N[at] + count_N[at]) for at in back_N])
    return index_P, count_N[back_N]


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
