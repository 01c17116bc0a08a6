"""Several language models over one vocabulary as one: their hidden states stand side by side, their distributions are averaged.

Knows no teacher and no store; how distributions are averaged stands in blending.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stillroom.models import pretrained
from stillroom.models.blending import side_by_side
from stillroom.models.classifier import autocast, evaluating
from stillroom.models.device import Device
from stillroom.models.language import Generated, LanguageModel, logits
from stillroom.rows import Mean, Output, Tokens
from stillroom.rundir import fingerprint


class MixedNetwork(nn.Module):
    """forward(Tokens) -> Output(None, hidden [P, H + H + ..], MixedHead)."""

    def __init__(self, members: Sequence[nn.Module], share_K: Sequence[float], mean: Mean) -> None:
        super().__init__()
        self.members, self.share_K, self.mean = nn.ModuleList(members), list(share_K), mean

    def forward(self, tokens: Tokens) -> Output:
        return side_by_side([member(tokens) for member in self.members], self.share_K, self.mean)


class MixedModel:
    """What the exam asks of a language model, of several: their mean speaks, and what they weigh is the sum."""

    def __init__(self, members: Sequence[LanguageModel], share_K: Sequence[float], mean: Mean) -> None:
        self.members, self.share_K, self.mean = list(members), list(share_K), mean
        self.network = MixedNetwork([member.network for member in members], share_K, mean).eval()
        self.tokenizer, self.kind = members[0].tokenizer, members[0].kind
        self.context = min(member.context for member in members)
        pairs = sorted((member.fingerprint, share) for member, share in zip(members, self.share_K, strict=True))
        self.fingerprint = fingerprint("ensemble", mean, pairs)

    @property
    def device(self) -> Device:
        """Where they are; each has its own number format."""
        return self.members[0].device

    @property
    def vocabulary(self) -> int:
        """How many logits a position has."""
        return self.members[0].vocabulary

    @property
    def parameters(self) -> int:
        """How many weights they have together."""
        return sum(member.parameters for member in self.members)

    def generate(
        self,
        prompts: Sequence[str] | Sequence[list[int]],
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generated]:
        """What their mean writes after each prompt, one prompt after another; see LanguageModel.generate. Raises DataError."""
        given = [self.members[0].ids_of(prompt) for prompt in prompts]
        for member in self.members:
            member.refuse_long(given, max_new_tokens)
        chance = torch.Generator(self.device.name).manual_seed(seed)
        with evaluating(self.network), pretrained.quiet():
            return [self._continue(ids, max_new_tokens, temperature, chance) for ids in given]

    def _continue(self, ids: list[int], most: int, temperature: float, chance: torch.Generator) -> Generated:
        first, written = self.members[0], list[int]()
        caches, ends = [None for _ in self.members], first.ends()
        while len(written) < most and not (written and written[-1] in ends):
            outputs = []
            for place, member in enumerate(self.members):
                with autocast(member.device):
                    output, caches[place] = member.network.last([*ids, *written], caches[place])
                outputs.append(output)
            mean = side_by_side(outputs, self.share_K, self.mean)
            assert mean.hidden_BH is not None
            assert mean.head is not None
            said_V = logits(mean.hidden_BH, mean.head)[0]
            drawn = torch.multinomial((said_V / temperature).softmax(0), 1, generator=chance) if temperature else None
            written.append(int(said_V.argmax() if drawn is None else drawn))
        return first.generated(written, ends)
