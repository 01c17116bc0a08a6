"""A mind that is a language model: it writes what the model writes, with the model's own log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from stillroom.errors import ModelError
from stillroom.loopback.minds import Asked, Mind, Piece, Said, dice, text_of

if TYPE_CHECKING:
    from stillroom.models.language import Generated, LanguageModel

KEPT_WORDS = 20
"""Of a distribution: the most that can be asked for."""
DEFAULT_TOKENS = 256


class Language(Mind):
    """A causal model of the transformers library: a folder, or `package:MODULE/FILE.gguf`."""

    kind: Literal["language"] = "language"
    model: str
    """The folder or file; a relative path is taken from the file's folder."""
    max_tokens: int = DEFAULT_TOKENS
    """Of an answer, where a request does not say."""
    at_once: int = Field(default=16, ge=1)
    """Requests that it answers together."""

    def build(self, folders: list[Path]) -> Speaker:
        """See Mind. Raises ModelError for what is no causal language model."""
        from stillroom.models.language import LanguageModel
        from stillroom.models.references import resolve

        model = LanguageModel.load(resolve(self.model, folders))
        if model.kind != "causal":
            raise ModelError("a masked model does not write", where=self.model, cure="Use a causal language model")
        return Speaker(self, model)


class Speaker:
    """The language model at work. Answers to several requests are written together, each drawn by its own request."""

    def __init__(self, knobs: Language, model: LanguageModel) -> None:
        self.knobs, self.model, self.rows = knobs, model, knobs.at_once

    def say(self, asked: Sequence[Asked]) -> list[Said]:
        """An answer to each."""
        prompts = [self._prompt(one.messages) for one in asked]
        limits = [one.max_tokens or self.knobs.max_tokens for one in asked]
        found: list[Said | None] = [None] * len(asked)
        for heat in sorted({max(0.0, one.temperature) for one in asked}):
            places = [place for place, one in enumerate(asked) if max(0.0, one.temperature) == heat]
            seeds = [dice(self.knobs.seed, prompts[place], asked[place].draw).getrandbits(31) for place in places]
            written = self.model.generate(
                [prompts[place] for place in places], max(limits[place] for place in places), heat, batch=self.rows,
                seeds=seeds,
            )  # fmt: skip
            for place, whole in zip(places, written, strict=True):
                found[place] = self._said(prompts[place], whole, limits[place], asked[place].top)
        return [said for said in found if said is not None]

    def _prompt(self, messages: Sequence[Any]) -> list[int]:
        """The tokens of a conversation, in the model's own template where it has one."""
        from stillroom.models.tokenizers import written_out

        plain = [{"role": str(one["role"]), "content": text_of(one.get("content"))} for one in messages]
        if getattr(self.model.tokenizer, "chat_template", None):
            text = written_out(self.model.tokenizer, plain, ask=True)
        else:
            text = "\n\n".join(one["content"] for one in plain) + "\n"
        return self.model.ids_of(str(text))

    def _said(self, prompt: list[int], written: Generated, limit: int, top: int) -> Said:
        """Token by token; the one that ends the answer is not part of it."""
        ends = self.model.ends()
        ids = [index for index in written.ids[:limit] if index not in ends]
        finished = written.finished and len(written.ids) <= limit
        texts, before = [], ""
        for count in range(1, len(ids) + 1):
            whole = str(self.model.tokenizer.decode(ids[:count], skip_special_tokens=True))
            texts.append(whole[len(before) :])
            before = whole
        rows = self._distributions(prompt, ids) if top and ids else [None] * len(ids)
        return Said([Piece(text, row) for text, row in zip(texts, rows, strict=True)], finished)

    def _distributions(self, prompt: list[int], ids: list[int]) -> list[dict[str, float]]:
        """The likeliest tokens at each place of an answer, and the one that was written, in one pass."""
        import torch

        from stillroom.models.classifier import evaluating
        from stillroom.models.language import logits
        from stillroom.rows import Tokens

        device = self.model.device.name
        ids_BT = torch.tensor([prompt + ids], device=device)
        scored_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
        scored_BT[0, len(prompt) - 1 : -1] = True
        with evaluating(self.model.network):
            output = self.model.network(Tokens(ids_BT, scored_BT))
            assert output.hidden_BH is not None
            assert output.head is not None
            p_PV = logits(output.hidden_BH, output.head).softmax(1)
        top = p_PV.topk(min(KEPT_WORDS, p_PV.shape[1]), dim=1)
        rows = []
        for place, index in enumerate(ids):
            row: dict[str, float] = {}
            for p, other in zip(top.values[place].tolist(), top.indices[place].tolist(), strict=True):
                row.setdefault(self.model.tokenizer.decode([other]), p)
            row.setdefault(self.model.tokenizer.decode([index]), float(p_PV[place, index]))
            rows.append(row)
        return rows
