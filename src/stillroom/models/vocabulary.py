"""A vocabulary cut to what some texts use, with the rows of embeddings and output layer that belong to it.

Texts the cut was made from are encoded in the same tokens as before. On other texts a tokenizer that falls back to bytes
can still say everything, in more tokens; one of word pieces may meet characters it no longer has: see `unknown_rate`.
"""

from __future__ import annotations

import copy
import json
import re
import string
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers.initialization import no_init_weights

from stillroom.errors import ModelError
from stillroom.models.pretrained import quiet, save_tokenizer
from stillroom.models.tokenizers import encode

BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
PRINTABLE = set(string.printable)


def cut(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str] = (),
    *,
    keep: Iterable[int] = (),
    characters: Literal["seen", "all"] = "seen",
) -> tuple[Any, Any, list[int]]:
    """Copies of model and tokenizer with the tokens that the texts use, and the old id of each new one, rising.

    Also kept: the ids in `keep`, special tokens, what word pieces are merged from, all bytes, and single characters (those
    in the texts and in ASCII, or all). Raises ModelError where a text would then be encoded otherwise.
    """
    smaller, kept = cut_tokenizer(tokenizer, texts, special_ids(model, tokenizer) | set(keep), characters=characters)
    return cut_model(model, kept), smaller, kept


def cut_tokenizer(
    tokenizer: Any, texts: Sequence[str], keep: Iterable[int], *, characters: Literal["seen", "all"] = "seen"
) -> tuple[Any, list[int]]:
    """A copy of the tokenizer with the tokens that `cut` keeps, and the old id of each new one. Raises ModelError."""
    rows = encode(tokenizer, texts)
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    tree.update(truncation=None, padding=None)
    used = {index for ids in rows for index in ids} | set(keep)
    kept = sorted(_needed(tree, used, characters) & set(tokenizer.get_vocab().values()))
    new = {old: place for place, old in enumerate(kept)}
    smaller = _rebuilt(tokenizer, _renumbered(tree, new))
    wanted = {token: new[index] for token, index in tokenizer.get_vocab().items() if index in new}
    changed = [
        text for text, old, ids in zip(texts, rows, encode(smaller, texts), strict=True) if [new[i] for i in old] != ids
    ]
    if smaller.get_vocab() != wanted or changed:
        raise ModelError(
            f"this tokenizer ({tree['model']['type']}) cannot be cut: "
            + (f"{changed[0][:40]!r} would be encoded otherwise" if changed else "its tokens would get other numbers"),
            where=type(tokenizer).__name__,
            cure="Keep the whole vocabulary",
        )
    return smaller, kept


def unknown_rate(tokenizer: Any, texts: Sequence[str]) -> float:
    """Share of the texts' tokens that are the unknown token; 0 for a tokenizer that has none."""
    rows = encode(tokenizer, texts, special=False)
    total, unknown = sum(map(len, rows)), tokenizer.unk_token_id
    return sum(ids.count(unknown) for ids in rows) / total if total and unknown is not None else 0.0


def special_ids(model: Any, tokenizer: Any) -> set[int]:
    """Special tokens, and whatever the tokenizer's own template and the model's settings name by id."""
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    found = {token["id"] for token in tree["added_tokens"] if token["special"]} | set(tokenizer.all_special_ids)
    found |= {index for place, key in _processor_ids(tree["post_processor"]) for index in _listed(place[key])}
    for settings in _settings(model):
        found |= {index for name in _id_names(settings) for index in _listed(getattr(settings, name))}
    unknown = tree["model"].get("unk_id")
    if unknown is None:
        unknown = _vocabulary(tree).get(tree["model"].get("unk_token"))
    return found | ({unknown} if unknown is not None else set())


def _vocabulary(tree: dict[str, Any]) -> dict[str, int]:
    """Token -> id of the model alone, without added tokens. A unigram model lists pieces with their scores."""
    vocab = tree["model"]["vocab"]
    return vocab if isinstance(vocab, dict) else {piece: index for index, (piece, _) in enumerate(vocab)}


def _needed(tree: dict[str, Any], wanted: set[int], characters: str) -> set[int]:
    """The wanted ids, single characters and bytes, and all tokens that any of these is merged from."""
    vocabulary, model = _vocabulary(tree), tree["model"]
    tokens = {index: token for token, index in vocabulary.items()}
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    bytewise = '"ByteLevel"' in json.dumps([tree["pre_tokenizer"], tree["normalizer"]])
    seen = PRINTABLE | {character for index in wanted for character in tokens.get(index, "")}
    seen |= set(ByteLevel.alphabet()) if bytewise else set()
    found = set(wanted)
    for token, index in vocabulary.items():
        bare = token.removeprefix(prefix).removesuffix(suffix) if token not in (prefix, suffix) else token
        if BYTE.fullmatch(token) or (len(bare) == 1 and (characters == "all" or bare in seen)):
            found.add(index)
    parts: dict[str, list[tuple[str, str]]] = {}
    for first, second in _merges(model):
        parts.setdefault(first + second.removeprefix(prefix), []).append((first, second))
    waiting = list(found)
    while waiting:
        for pair in parts.get(tokens.get(waiting.pop(), ""), []):
            more = {vocabulary[part] for part in pair} - found
            found |= more
            waiting += more
    return found


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model.get("merges") or []:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second


def _renumbered(tree: dict[str, Any], new: dict[int, int]) -> dict[str, Any]:
    """The tokenizer as JSON with the kept tokens alone, under their new ids."""
    model, vocabulary = dict(tree["model"]), _vocabulary(tree)
    if isinstance(model["vocab"], dict):
        model["vocab"] = {token: new[index] for token, index in vocabulary.items() if index in new}
    else:
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new]
        model["unk_id"] = None if model.get("unk_id") is None else new[model["unk_id"]]
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        results = ((pair, vocabulary[pair[0] + pair[1].removeprefix(prefix)]) for pair in _merges(model))
        model["merges"] = [list(pair) for pair, index in results if index in new]
    added = [{**token, "id": new[token["id"]]} for token in tree["added_tokens"] if token["id"] in new]
    result = {**tree, "model": model, "added_tokens": added, "post_processor": copy.deepcopy(tree["post_processor"])}
    for place, key in _processor_ids(result["post_processor"]):
        place[key] = [new[index] for index in place[key]] if isinstance(place[key], list) else new[place[key]]
    return result


def _processor_ids(part: Any) -> Iterator[tuple[Any, Any]]:
    """Where a post-processor names ids: (container, key) of a number, or of a list of them."""
    if not isinstance(part, dict):
        return
    for inner in part.get("processors", []):
        yield from _processor_ids(inner)
    if part.get("type") == "TemplateProcessing":
        yield from ((special, "ids") for special in part["special_tokens"].values())
    yield from ((part[name], 1) for name in ("cls", "sep") if isinstance(part.get(name), list))


def _rebuilt(tokenizer: Any, tree: dict[str, Any]) -> Any:
    """A tokenizer of the same class around this JSON: through files, as that is the way every class supports."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        save_tokenizer(tokenizer, Path(folder))
        Path(folder, "tokenizer.json").write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
        return type(tokenizer).from_pretrained(folder, local_files_only=True)


def _settings(model: Any) -> list[Any]:
    whole = model.config
    found = [whole, whole.get_text_config(), getattr(model, "generation_config", None)]
    return [settings for place, settings in enumerate(found) if settings is not None and settings not in found[:place]]


def _id_names(settings: Any) -> list[str]:
    return [name for name, value in vars(settings).items() if name.endswith("_token_id") and value is not None]


def _listed(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def cut_model(model: Any, kept: list[int]) -> Any:
    """The model with the kept rows of its embeddings, output layer and its bias, and every id in its settings renumbered."""
    smaller, count = copy.deepcopy(model), len(kept)
    embeddings, head = smaller.get_input_embeddings(), smaller.get_output_embeddings()
    width, index = embeddings.weight.shape[0], torch.tensor(kept, device=embeddings.weight.device)
    head_parts = [head.weight, head.bias] if head is not None else []
    parts = {id(part): part for part in [embeddings.weight, *head_parts] if part is not None}
    for part in parts.values():
        part.data[:count] = part.data[index]
    new = {old: place for place, old in enumerate(kept)}
    old_padding = model.config.get_text_config().pad_token_id
    for settings in _settings(smaller):
        for name in _id_names(settings):
            value = getattr(settings, name)
            numbers = [new[old] for old in _listed(value) if old in new]
            setattr(settings, name, numbers if isinstance(value, list) else numbers[0] if numbers else None)
    _move_padding(smaller, old_padding, new.get(old_padding))
    with quiet():
        smaller.resize_token_embeddings(count, mean_resizing=False)
    for part in smaller.modules():  # an untied head may hold its bias twice
        bias = getattr(part, "bias", None)
        if hasattr(part, "decoder") and isinstance(bias, nn.Parameter) and bias.shape == (width,):
            part.bias = nn.Parameter(bias.data[index])
    with torch.device("meta"), no_init_weights():
        expected = {name: tensor.shape for name, tensor in type(model)(smaller.config).state_dict().items()}
    wrong = [name for name, tensor in smaller.state_dict().items() if tensor.shape != expected.get(name)]
    if wrong:
        raise ModelError(
            f"a {type(model).__name__} has more weights for each token than its embeddings and output: {wrong[0]}",
            where="vocabulary",
            cure="Keep the whole vocabulary of this architecture",
        )
    return smaller


def _move_padding(model: Any, old: int | None, new: int | None) -> None:
    """The padding's id where modules keep it. RoBERTa counts its positions from it, so there it must stay."""
    for name, part in model.named_modules():
        if old is None or old == new or getattr(part, "padding_idx", None) != old:
            continue
        if name.endswith("position_embeddings"):
            raise ModelError(
                "the padding token's id would change, and this architecture counts positions from it",
                where="vocabulary",
                cure="Keep the tokens before it too (keep=)",
            )
        part.padding_idx = new
