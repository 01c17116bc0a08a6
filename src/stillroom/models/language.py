"""A language model of the transformers library as a network of ours: tokens in, the hidden states of the scored positions
and the output layer out. Logits are never whole in memory: objectives make them, chunk by chunk.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import transformers
from torch import nn

from stillroom.errors import DataError, ModelError
from stillroom.models import pretrained
from stillroom.models.blending import mixed_logits
from stillroom.models.classifier import autocast, evaluating
from stillroom.models.device import Device
from stillroom.models.tokenizers import encode
from stillroom.rows import PADDING, Head, MixedHead, Output, Tokens
from stillroom.rundir import MANIFEST, read_json, verify, write_json

Kind = Literal["causal", "masked"]

UNBOUNDED = 1 << 20
"""The context of a model whose architecture sets no end to it."""
PROBE_TOKENS, PROBE_ERROR = 7, 1e-3
"""A new network must give its model's own logits on so many tokens, within so much of the largest."""
GENERATION_ROWS = 16


class LanguageNetwork(nn.Module):
    """Wraps a causal or masked model: forward(Tokens [B, T]) -> Output(None, hidden [P, H], head).

    For a masked model the hidden states are those after the head's own transform, so that one linear layer is left to the
    logits; a fixed factor on the logits is taken into the hidden states. Raises ModelError for an architecture whose
    logits do not come about so.
    """

    tokenizer: Any = None

    def __init__(self, model: Any, kind: Kind | None = None) -> None:
        super().__init__()
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters stand inside it
        self.model = plain
        self.kind: Kind = kind or ("masked" if type(plain).__name__.endswith("ForMaskedLM") else "causal")
        config = plain.config.get_text_config()
        self.soft_cap: float | None = getattr(config, "final_logit_softcapping", None)
        self.fill: int = config.pad_token_id if isinstance(config.pad_token_id, int) else 0
        self.scale = 1.0
        self.shows: tuple[int, ...] = ()
        """Layers, counted from 0, whose hidden states are shown too."""
        if plain.get_output_embeddings() is None:
            raise ModelError(
                f"a {type(plain).__name__} gives no logits over a vocabulary",
                where="model",
                cure="Use a language model",
            )
        if not any(weights.is_meta for weights in plain.parameters()):
            self.scale = _logit_factor(self)

    @property
    def head(self) -> Head:
        """The output layer: the model's own weights, through which gradients flow."""
        layer = self.model.get_output_embeddings()
        return Head(layer.weight, layer.bias, self.soft_cap)

    @property
    def hidden_width(self) -> int:
        """H of the hidden states that `forward` gives."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    @property
    def vocabulary(self) -> int:
        """How many logits a position has, ids that are no token included."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def depth(self) -> tuple[int, int]:
        """How many layers the body has, and their width."""
        config = self.model.config.get_text_config()
        return int(config.num_hidden_layers), int(config.hidden_size)

    def forward(self, tokens: Tokens) -> Output:
        if self.shows:
            output, layers = self.with_layers(tokens)
            return output._replace(layers=tuple(layers[layer + 1] for layer in self.shows))
        return self._output(self._body(tokens.ids_BT)[0][tokens.scored_BT])

    def with_layers(self, tokens: Tokens) -> tuple[Output, list[torch.Tensor]]:
        """What `forward` gives, and the hidden states [P, H] of the embeddings and after each layer, in one pass.

        The last of them is the body's own result, before a masked model's transform.
        """
        found = self._body(tokens.ids_BT, output_hidden_states=True)
        layers = [hidden_BTH[tokens.scored_BT] for hidden_BTH in found.hidden_states]
        return self._output(found[0][tokens.scored_BT]), layers

    def layers(self, tokens: Tokens) -> list[torch.Tensor]:
        """The hidden states [P, H] of the embeddings and after each layer (L + 1 of them)."""
        return self.with_layers(tokens)[1]

    def last(self, ids_T: list[int], cache: Any = None) -> tuple[Output, Any]:
        """The output after the last of these ids [1, H], and what the model keeps of them: given back with one more id it
        saves the work. A causal model's; None comes back from one that keeps nothing of that kind."""
        body = self.model.base_model
        # Its name has changed; a model that knows neither is given all ids each time.
        name = "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"
        new = torch.tensor([ids_T if cache is None else ids_T[-1:]], device=self.head.weight_VH.device)
        found = body(input_ids=new, use_cache=True, **({} if cache is None else {name: cache}))
        return self._output(found[0][:, -1]), getattr(found, name, None)

    def _output(self, hidden_PH: torch.Tensor) -> Output:
        hidden_PH, kind = transformed(self.model, hidden_PH), self.head.weight_VH.device.type
        if self.scale != 1.0:
            hidden_PH = hidden_PH * self.scale
        if torch.is_autocast_enabled(kind):
            # As the output layer would take them; a last norm gives float32, and losses multiply in what they are given.
            hidden_PH = hidden_PH.to(torch.get_autocast_dtype(kind))
        return Output(None, hidden_PH, self.head)

    def _body(self, ids_BT: torch.Tensor, **more: Any) -> Any:
        there_BT = ids_BT != PADDING
        ids_BT = ids_BT.masked_fill(~there_BT, self.fill)
        if self.kind == "masked":
            return self.model.base_model(input_ids=ids_BT, attention_mask=there_BT.long(), **more)
        # Padding stands at the right, where a causal model never looks from a real token: no mask, and a faster kernel.
        return self.model.base_model(input_ids=ids_BT, use_cache=False, **more)


def transformed(model: Any, hidden_PH: torch.Tensor) -> torch.Tensor:
    """Hidden states through all of a head but its last linear layer, as each family builds it; a decoder has but that."""
    predictions: Any = getattr(getattr(model, "cls", None), "predictions", None)
    if hasattr(predictions, "transform"):  # BERT
        result = predictions.transform(hidden_PH)
    elif hasattr(model, "vocab_transform"):  # DistilBERT
        result = model.vocab_layer_norm(model.activation(model.vocab_transform(hidden_PH)))
    elif hasattr(getattr(model, "lm_head", None), "layer_norm"):  # RoBERTa
        result = model.lm_head.layer_norm(nn.functional.gelu(model.lm_head.dense(hidden_PH)))
    elif hasattr(model, "generator_predictions"):  # ELECTRA
        result = model.generator_predictions(hidden_PH)
    elif hasattr(getattr(model, "predictions", None), "dense"):  # ALBERT
        head = model.predictions
        result = head.LayerNorm(head.activation(head.dense(hidden_PH)))
    elif hasattr(model, "head") and hasattr(model, "decoder"):  # ModernBERT
        result = model.head(hidden_PH)
    else:
        result = hidden_PH
    return result  # type: ignore[no-any-return]


def _logit_factor(network: LanguageNetwork) -> float:
    """The factor some architectures put on their logits, found by trying. Raises ModelError where none gives the model's own."""
    model, config = network.model, network.model.config.get_text_config()
    factors = [1.0]
    for name, invert in (("logit_scale", False), ("logits_scaling", True), ("lm_head_multiplier", False)):
        value = getattr(config, name, None)
        factors += [1 / value if invert else value] if isinstance(value, float | int) and value else []
    device = next(model.parameters()).device
    known = [index for index in range(min(network.vocabulary, 40)) if index != network.fill] or [0]
    ids_BT = torch.tensor(
        [[known[(3 * t + b) % len(known)] for t in range(PROBE_TOKENS)] for b in (0, 1)], device=device
    )
    ids_BT[1, PROBE_TOKENS // 2 :] = PADDING
    there_BT = ids_BT != PADDING
    with evaluating(model), pretrained.quiet():
        filled_BT = ids_BT.masked_fill(~there_BT, network.fill)
        wanted_PV = model(input_ids=filled_BT, attention_mask=there_BT.long()).logits[there_BT].float()
        if wanted_PV.isnan().any():
            raise ModelError(
                f"a {type(model).__name__} answers NaN to a few tokens",
                where=f"model type {model.config.model_type}",
                cure="Look at its weights: some are NaN, or too large",
            )
        for factor in factors:
            hidden_PH = network(Tokens(ids_BT, there_BT)).hidden_BH * factor
            if _same(logits(hidden_PH, network.head), wanted_PV):
                return factor
    ahead = " that know nothing of later tokens" if network.kind == "causal" else ""
    raise ModelError(
        f"the logits of a {type(model).__name__} are not one linear layer on hidden states{ahead}",
        where=f"model type {model.config.model_type}",
        cure="Use an architecture such as Llama, Qwen, Gemma, Granite or GPT-2 (causal), or BERT, DistilBERT, RoBERTa or "
        "ModernBERT (masked)",
    )


def _same(found_PV: torch.Tensor, wanted_PV: torch.Tensor) -> bool:
    same_shape = found_PV.shape == wanted_PV.shape
    return same_shape and bool((found_PV - wanted_PV).abs().max() <= PROBE_ERROR * wanted_PV.abs().max() + 1e-6)


def logits(hidden_PH: torch.Tensor, head: Head | MixedHead) -> torch.Tensor:
    """All logits [P, V] in float32: for a few positions only, as they are large."""
    if isinstance(head, MixedHead):
        return mixed_logits(hidden_PH, head, logits)
    bias_V = None if head.bias_V is None else head.bias_V.float()
    with torch.autocast(hidden_PH.device.type, enabled=False):
        logits_PV = nn.functional.linear(hidden_PH.float(), head.weight_VH.float(), bias_V)
    return logits_PV if head.soft_cap is None else head.soft_cap * torch.tanh(logits_PV / head.soft_cap)


def context_of(model: Any, tokenizer: Any = None) -> int:
    """The most tokens a model can look at, as its positions and its tokenizer say."""
    config = model.config.get_text_config()
    bounds = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    for name, layer in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            bounds.append(layer.num_embeddings - layer.padding_idx - 1)  # RoBERTa counts from after the padding's id
    return min([UNBOUNDED, *(int(bound) for bound in bounds if isinstance(bound, int | float) and bound > 0)])


class Generated(NamedTuple):
    """What a model wrote: ids with the end token where it came to one, and the text without special tokens."""

    ids: list[int]
    text: str
    finished: bool
    """It ended of itself; else the limit of tokens cut it."""


class LanguageModel:
    """A language model with its tokenizer, that can be loaded, saved and asked to write."""

    def __init__(self, model: Any, tokenizer: Any, kind: Kind, device: Device | None = None) -> None:
        self.tokenizer, self.kind, self.device = tokenizer, kind, device or Device()
        self.network = LanguageNetwork(model, kind).to(self.device.name)
        self.network.tokenizer = tokenizer
        self.context = context_of(self.network.model, tokenizer)
        self.fingerprint = ""

    @property
    def vocabulary(self) -> int:
        """How many logits a position has; the tokenizer may know fewer tokens."""
        return self.network.vocabulary

    @property
    def parameters(self) -> int:
        """How many weights the model has, tied ones counted once."""
        return pretrained.count_parameters(self.network)

    @classmethod
    def load(cls, path: Path, kind: Kind | None = None, device: Device | None = None) -> LanguageModel:
        """Read a folder or GGUF file; the kind is taken from stillroom.json, or else causal. Raises ModelError."""
        if (path / MANIFEST).is_file():
            verify(path)
        beside = path / pretrained.BESIDE
        known = read_json(beside) if beside.is_file() else {}
        if known.get("task", "language") != "language":
            raise ModelError("this folder holds no language model", where=str(path), cure="Use it as a classifier")
        kind = kind or known.get("kind", "causal")
        model, tokenizer = pretrained.load(path, kind)
        found = cls(model, tokenizer, kind, device)
        found.fingerprint = pretrained.fingerprint_of(path)
        found.network.eval()
        return found

    def save(self, folder: Path) -> None:
        """Write the folder in transformers format, with stillroom.json beside it."""
        pretrained.save(self.network.model, self.tokenizer, folder)
        told = {"format": 1, "task": "language", "kind": self.kind, "parameters": self.parameters}
        write_json(folder / pretrained.BESIDE, told)

    def generate(
        self,
        prompts: Sequence[str] | Sequence[list[int]],
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        batch: int = GENERATION_ROWS,
        seeds: Sequence[int] | None = None,
    ) -> list[Generated]:
        """What the model writes after each prompt (a text, or ids): the likeliest token at temperature 0, else drawn from
        its whole distribution by seed; with `seeds` each by its own, whatever is written beside it. Raises ModelError
        for a masked model, DataError where a prompt and its answer would not fit the context.
        """
        if self.kind != "causal":
            raise ModelError("a masked model does not write", where="generate", cure="Use a causal language model")
        given = [self.ids_of(prompt) for prompt in prompts]
        self.refuse_long(given, max_new_tokens)
        order = sorted(range(len(given)), key=lambda place: (len(given[place]), place))
        written: dict[int, Generated] = {}
        with torch.random.fork_rng([self.device.name] if self.device.name.startswith("cuda") else []):
            torch.manual_seed(seed)
            for start in range(0, len(order), batch):
                places = order[start : start + batch]
                own = None if seeds is None else [seeds[place] for place in places]
                rows = self._continue([given[place] for place in places], max_new_tokens, temperature, own)
                written.update(zip(places, rows, strict=True))
        return [written[place] for place in range(len(given))]

    def ids_of(self, prompt: str | list[int]) -> list[int]:
        """The tokens to go on from."""
        ids = encode(self.tokenizer, [prompt])[0] if isinstance(prompt, str) else list(prompt)
        start = self.tokenizer.bos_token_id
        return ids or [start if start is not None else self.network.fill]

    def refuse_long(self, given: list[list[int]], max_new_tokens: int) -> None:
        """Raise DataError where a prompt and its answer would not fit the context."""
        for place, ids in enumerate(given):
            if len(ids) + max_new_tokens > self.context:
                raise DataError(
                    f"a prompt of {len(ids):,} tokens and {max_new_tokens:,} to write, and the model looks at {self.context:,}",
                    where=f"prompt {place + 1:,}",
                    cure="Shorten it, or ask for fewer tokens",
                )

    def _continue(
        self, rows: list[list[int]], max_new_tokens: int, temperature: float, seeds: list[int] | None = None
    ) -> list[Generated]:
        """One batch. Padded at the left, so that all rows go on from their last token."""
        model, width = self.network.model, max(map(len, rows))
        ids_BT = torch.full((len(rows), width), self.network.fill)
        there_BT = torch.zeros((len(rows), width), dtype=torch.long)
        for row, ids in enumerate(rows):
            ids_BT[row, width - len(ids) :] = torch.tensor(ids)
            there_BT[row, width - len(ids) :] = 1
        ends = self.ends()
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}
        drawn = [_Drawn(seeds, temperature)] if seeds is not None and temperature > 0 else []
        asked = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max_new_tokens,
            pad_token_id=self.network.fill,
            eos_token_id=sorted(ends) or None,
            **({} if drawn else sampling),
        )
        with evaluating(self.network), autocast(self.device), pretrained.quiet(), _own_settings(model):
            written_BT = model.generate(
                ids_BT.to(self.device.name), attention_mask=there_BT.to(self.device.name), generation_config=asked,
                logits_processor=drawn,
            )  # fmt: skip
        return [self.generated(ids, ends) for ids in written_BT[:, width:].tolist()]

    def ends(self) -> set[int]:
        """Ids that end an answer: the model's, and the tokenizer's."""
        found: set[int] = set()
        for holder in (self.network.model.generation_config, self.network.model.config, self.tokenizer):
            ends = getattr(holder, "eos_token_id", None)
            found |= set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        return found

    def generated(self, ids: list[int], ends: set[int]) -> Generated:
        """What was written, up to the first token that ends an answer."""
        stop = next((place for place, index in enumerate(ids) if index in ends), None)
        kept = ids if stop is None else ids[: stop + 1]
        return Generated(kept, str(self.tokenizer.decode(kept, skip_special_tokens=True)), stop is not None)


class _Drawn(transformers.LogitsProcessor):
    """Draws each row's next token by that row's own seed: the largest logit after Gumbel noise (Gumbel 1954)."""

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.dice, self.temperature = [np.random.default_rng(seed) for seed in seeds], temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = np.stack([dice.gumbel(size=scores.shape[1]) for dice in self.dice])
        return scores.double() / self.temperature + torch.from_numpy(noise).to(scores.device)


@contextmanager
def _own_settings(model: Any) -> Iterator[None]:
    """Without the generation settings that came with the model: a penalty or a cut of the tail would not be its answer."""
    kept = model.generation_config
    model.generation_config = transformers.GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = kept
