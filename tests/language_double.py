"""A small real language model with the interface of models/language.py: words for tokens, and running means for layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stillroom.rows import Array, Head, Output, Questions, Splits, Tokens


class Written(NamedTuple):
    """What a double wrote."""

    ids: list[int]
    text: str


class Words:
    """A tokenizer whose tokens are the words w0, w1, ..; `ids` of them."""

    def __init__(self, ids: int) -> None:
        self.ids = ids

    def get_vocab(self) -> dict[str, int]:
        return {f"w{place}": place for place in range(self.ids)}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return " ".join(f"w{place}" for place in ids)


class Tiny(nn.Module):
    """forward(Tokens) -> Output: each position sees its own token and the mean of those before, or of its whole row."""

    def __init__(self, vocabulary: int, width: int, causal: bool, soft_cap: float | None = None) -> None:
        super().__init__()
        self.causal, self.soft_cap = causal, soft_cap
        self.embed_VH = nn.Parameter(torch.randn(vocabulary, width))
        self.weight_VH = nn.Parameter(torch.randn(vocabulary, width) / width**0.5)
        self.bias_V = nn.Parameter(torch.randn(vocabulary))

    def forward(self, tokens: Tokens) -> Output:
        there_BT = tokens.ids_BT >= 0
        seen_BTH = self.embed_VH[tokens.ids_BT.clamp(min=0)] * there_BT[..., None]
        if self.causal:
            mean_BTH = seen_BTH.cumsum(1) / there_BT.cumsum(1)[..., None]
        else:
            mean_BTH = (seen_BTH.sum(1) / there_BT.sum(1)[:, None])[:, None]
        hidden_PH = (seen_BTH + mean_BTH)[tokens.scored_BT]
        return Output(None, hidden_PH, Head(self.weight_VH, self.bias_V, self.soft_cap))


class Double:
    """A language model that can be saved, loaded, asked and made to go on."""

    def __init__(self, network: Tiny, ids: int) -> None:
        self.network, self.tokenizer, self.context = network, Words(ids), 64

    @property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self.network.parameters())

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        save_file(self.network.state_dict(), folder / "model.safetensors")
        return folder

    def generate(
        self, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Written]:
        assert temperature == 0
        found = []
        for prompt in prompts:
            ids = list(prompt)
            for _ in range(max_new_tokens):
                scored_BT = torch.zeros(1, len(ids), dtype=torch.bool)
                scored_BT[0, -1] = True
                with torch.inference_mode():
                    _, hidden_PH, head, _ = self.network(Tokens(torch.tensor([ids]), scored_BT))
                    ids.append(int((hidden_PH @ head.weight_VH.T + head.bias_V)[0, : self.tokenizer.ids].argmax()))
            found.append(Written(ids[-max_new_tokens:], self.tokenizer.decode(ids[-max_new_tokens:])))
        return found


def double(
    seed: int, *, ids: int = 20, wide: int = 0, width: int = 8, causal: bool = True, soft_cap: float | None = None
) -> Double:
    """A model of so many ids, with `wide` rows of its layers beyond them."""
    torch.manual_seed(seed)
    return Double(Tiny(ids + wide, width, causal, soft_cap), ids)


def loader(ids: int = 20, causal: bool = True) -> Any:
    """Reads what `save` wrote."""

    def load(folder: Path) -> Double:
        weights = load_file(folder / "model.safetensors")
        network = Tiny(*weights["embed_VH"].shape, causal)
        network.load_state_dict(weights)
        return Double(network, ids)

    return load


def windows(seed: int, documents: int, *, ids: int = 20, length: int = 12, causal: bool = True) -> Questions:
    """Two or three windows a document, the last one of each shorter; hidden words are w0."""
    generator = np.random.default_rng(seed)
    rows, targets, document_N = [], [], []
    for document in range(documents):
        for place in range(number := int(generator.integers(2, 4))):
            count = length if place < number - 1 else int(generator.integers(2, length))
            row_T, target_T = np.full(length, -1, np.int32), np.full(length, -1, np.int32)
            row_T[:count] = generator.integers(1, ids, count)
            if causal:
                target_T[: count - 1] = row_T[1:count]
            else:
                hidden = generator.permutation(count)[: max(1, count // 4)]
                target_T[hidden] = row_T[hidden]
                row_T[hidden] = 0
            rows.append(row_T)
            targets.append(target_T)
            document_N.append(document * 7)
    return Questions.of({"ids": np.stack(rows), "target": np.stack(targets)}, row_N=np.array(document_N))


def splits(documents: int = 9, *, length: int = 12, causal: bool = True) -> Splits:
    """Windows for each split, of different documents."""
    train, validation, test = (windows(seed, documents, length=length, causal=causal) for seed in range(3))
    return Splits(train, validation, test, train.take(np.arange(0)), [])


def log_p(network: Tiny, questions: Questions, vocabulary: int) -> Array:
    """Log-probabilities [P, V] of every scored position, whole and in float64, window by window."""
    assert isinstance(questions.raw, dict)
    exact = Tiny(*network.embed_VH.shape, network.causal, network.soft_cap).double()
    exact.load_state_dict(network.state_dict())
    found = []
    for ids_T, target_T in zip(questions.raw["ids"], questions.raw["target"], strict=True):
        count = int((ids_T >= 0).sum())
        ids_BT = torch.from_numpy(ids_T[None, :count].astype(np.int64))
        with torch.inference_mode():
            _, hidden_PH, head, _ = exact(Tokens(ids_BT, torch.from_numpy(target_T[None, :count] >= 0)))
            logits_PV = hidden_PH @ head.weight_VH.T + head.bias_V
            if head.soft_cap is not None:
                logits_PV = head.soft_cap * torch.tanh(logits_PV / head.soft_cap)
            found.append(logits_PV[:, :vocabulary].log_softmax(1).numpy())
    return np.concatenate(found)
