"""Documents and conversations -> rows of tokens, for language models.

What a row is. Raw `ids` int32 [N, T], PADDING (-1) at the end, and `target` int32 [N, T], the id to predict at each
position, PADDING where none is: scored = target >= 0 (see rows.Tokens). T is the same for all rows.

- Causal: the target at t is the id at t + 1. Rows of one document overlap by one token, so each token but a document's
  first is predicted exactly once; where the tokenizer begins texts with a token of its own, each row begins with it, and
  a document's first token is predicted too. The last row of a document is padded.
- Masked: rows do not overlap and stand between the tokenizer's own first and last tokens. The target is the id that
  stands there, at each token of the text and at no special one: the view `mask` chooses among them, and hides none in
  view 0. Validation and test rows come masked, by view 1, so that every model meets the same holes.
- `pack`: training documents are joined into one stream, each followed by the end-of-text token, which is predicted like
  any other; rows cross documents. Validation and test are never packed, so that a row belongs to one document.
- Conversations: a row each, with targets at what the assistant says. One that is too long is refused, never cut.

A row's `row_N` is the place of its document in the source (packed: of the one it begins in), and `slice_N` follows it.
Text is text: what looks like a special token in it is split into plain ones. This file knows no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.errors import DataError, ModelError
from stillroom.questions.running import MESSAGES, TEXT, conversation
from stillroom.questions.views import Mask
from stillroom.rows import PADDING, Array, Questions, Raw, Splits, content_keys, row_count, take_rows

DEFAULT_LENGTH = 256
"""Tokens of a row where the recipe says nothing."""
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>")
"""What models of documents were trained to see between them; a chat model's eos_token ends a message instead."""
HELD_OUT_VIEW = 1
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
CHUNK = 4096


def windows(
    splits: Splits,
    tokenizer: Any,
    length: int | None = None,
    *,
    context: int | None = None,
    pack: bool = True,
    skip: int = 0,
    mask: Mask | None = None,
) -> Splits:
    """The documents of all splits as rows of `length` tokens (none: 256); see above for what they hold.

    `mask` makes them rows for a masked model. `context` is the most tokens that the models look at; none: what the
    tokenizer says. The first `skip` positions of a validation or test row have no target. Raises DataError, ModelError.
    """
    length = DEFAULT_LENGTH if length is None else length
    form = _form(tokenizer, length, context, skip, mask)
    notes, found, slice_N = list(splits.notes), dict[str, Questions](), None
    for role in ("train", "validation", "test"):
        part: Questions = getattr(splits, role)
        rows, document_N = _rows(part, form, role, pack and role == "train")
        if role != "train":
            rows["target"][:, :skip] = PADDING
            rows = _masked(rows, form.mask)
        kept = np.flatnonzero((rows["target"] >= 0).any(1))
        if not len(kept):
            raise DataError(
                f"no text of {role} has a token to predict{f' after the first {skip:,} of a row' if skip else ''}",
                where=f"questions.source, {role}",
                cure="Give more text" + (", or a smaller skip" if skip else ""),
            )
        found[role] = questions_of({name: column[kept] for name, column in rows.items()}, part.row_N[document_N[kept]])
        if role == "test" and splits.slice_N is not None:
            slice_N = splits.slice_N[document_N[kept]]
        predicted = int((rows["target"] >= 0).sum())
        told = "that may be hidden" if form.masked and role == "train" else "to predict"
        notes.append(f"{role}: {len(kept):,} rows of {length:,} tokens, {predicted:,} of them {told}")
    none = found["train"].take(np.arange(0))
    return Splits(found["train"], found["validation"], found["test"], none, splits.classes, notes, slice_N)


def scored_bytes(questions: Questions, tokenizer: Any) -> Array:
    """UTF-8 bytes of text that the targets of each row stand for, int64 [N]; for bits per byte.

    Over the rows of a document they sum to its bytes, less its first token's where that is not predicted, and less those
    at skipped positions. The end of a text or message is no text and has no bytes. Raises ModelError, as token_bytes.
    """
    assert isinstance(questions.raw, dict)
    target = questions.raw["target"]
    byte_V = token_bytes(tokenizer)
    found: Array = np.where(target >= 0, byte_V[target], 0).sum(1)
    return found


def token_bytes(tokenizer: Any) -> Array:
    """UTF-8 bytes that each token stands for, int64 [V]; 0 for special tokens.

    Exact for byte-level tokenizers, and for SentencePiece's up to the blank they put before a text. Raises ModelError for
    a tokenizer that does not give a text back, such as WordPiece.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    decoder = described.get("decoder") or {"type": "none"}
    steps = decoder.get("decoders", [decoder])
    kinds = {step["type"] for step in steps}
    added = {token["content"]: token["special"] for token in described.get("added_tokens", [])}
    bytewise = "ByteLevel" in kinds
    if not bytewise and not any(
        "▁" in (step.get("replacement"), (step.get("pattern") or {}).get("String")) for step in steps
    ):
        raise ModelError(
            "the tokens of this tokenizer do not say how many bytes of text they stand for",
            where=f"tokenizer {type(tokenizer).__name__}, decoder {decoder['type']}",
            cure="Judge by perplexity; bits per byte wants a byte-level or SentencePiece tokenizer",
        )
    vocabulary, special = tokenizer.get_vocab(), set(tokenizer.all_special_ids)
    byte_V = np.zeros(max(vocabulary.values()) + 1, np.int64)
    for token, place in vocabulary.items():
        if added.get(token) or place in special:
            continue
        if bytewise and token not in added:
            byte_V[place] = len(token)  # each letter of such a token stands for one byte
        elif "ByteFallback" in kinds and BYTE.fullmatch(token):
            byte_V[place] = 1
        else:
            byte_V[place] = len((token if bytewise else token.replace("▁", " ")).encode())
    return byte_V


@dataclass(frozen=True)
class _Form:
    """What rows are made of."""

    tokenizer: Any
    length: int
    context: int
    first: list[int]
    last: list[int]
    """The tokenizer's own tokens around a text; causal rows have none at their end."""
    between: int | None
    """Ends a document in a packed stream."""
    special: Array
    mask: Mask | None

    @property
    def masked(self) -> bool:
        """For a masked model."""
        return self.mask is not None

    @property
    def room(self) -> int:
        """Tokens of text in a row."""
        return self.length - len(self.first) - len(self.last)


def _form(tokenizer: Any, length: int, context: int | None, skip: int, mask: Mask | None) -> _Form:
    masked = mask is not None
    limit = tokenizer.model_max_length if context is None else context
    if length > limit:
        raise DataError(
            f"rows of {length:,} tokens are asked for, and the model looks at {limit:,} at most",
            where="questions.window",
            cure=f"Set it to {limit} or less",
        )
    first, last = _around(tokenizer)
    ends = [tokenizer.convert_tokens_to_ids(end) for end in DOCUMENT_ENDS if end in tokenizer.all_special_tokens]
    between = [*ends, tokenizer.eos_token_id, tokenizer.sep_token_id]
    form = _Form(
        tokenizer,
        length,
        limit,
        first,
        last if masked else [],
        next((token for token in between if token is not None), None),
        np.array(tokenizer.all_special_ids, np.int32),
        None if mask is None else mask.for_tokenizer(tokenizer),
    )
    least = 2 + len(form.first) + len(form.last)
    if length < least:
        raise DataError(
            f"a row of {length} tokens has no room to predict one",
            where="questions.window",
            cure=f"Use {least} or more",
        )
    if skip and (masked or skip >= length - 1):
        what = "a masked model looks both ways" if masked else f"a row has {length:,}"
        raise DataError(
            f"the first {skip:,} positions of each row are to be skipped, and {what}",
            where="questions.skip",
            cure="Take it out" if masked else f"Use less than {length - 1}",
        )
    return form


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer puts before a text of its own accord, and those after it."""
    bare, whole = encoded(tokenizer, ["a"])[0], list(tokenizer("a", add_special_tokens=True)["input_ids"])
    start = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
    return whole[:start], whole[start + len(bare) :]


def encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, whole, with none of the tokenizer's own around them or in them."""
    backend = tokenizer.backend_tokenizer
    before = backend.encode_special_tokens
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    try:
        return [found.ids for found in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    finally:
        backend.encode_special_tokens = before


def _rows(part: Questions, form: _Form, role: str, pack: bool) -> tuple[dict[str, Array], Array]:
    """The rows of one split, and the place in `part` of the document that each comes from."""
    if not isinstance(part.raw, dict) or set(part.raw) not in ({TEXT}, {MESSAGES}):
        raise DataError(
            "a language model learns from running text, and these rows are none",
            where="questions.source",
            cure="Give a .txt, or a .jsonl with one column, text or messages",
        )
    if MESSAGES in part.raw:
        return _spoken(part, form, role)
    documents = [np.array(ids, np.int32) for ids in encoded(form.tokenizer, part.raw[TEXT].tolist())]
    if pack and len(documents) > 1:
        if form.between is None:
            raise ModelError(
                "documents are to be joined, and this tokenizer has no token that ends a text",
                where="questions.pack",
                cure="Set it to false",
            )
        documents = [np.append(ids, np.int32(form.between)) for ids in documents]
        end_D = np.cumsum([len(ids) for ids in documents])
        # A masked row ends with the same token anyway.
        ids, target, start = _cut(np.concatenate(documents)[: -1 if form.masked else None], form)
        return {"ids": ids, "target": target}, np.searchsorted(end_D, start, side="right")
    cut = [_cut(ids, form) for ids in documents]
    document_N = np.repeat(np.arange(len(cut)), [len(ids) for ids, _, _ in cut])
    return {
        name: np.concatenate([one[place] for one in cut]) for place, name in enumerate(("ids", "target"))
    }, document_N


def _cut(text: Array, form: _Form) -> tuple[Array, Array, Array]:
    """ids [N, T], target [N, T] and the start in `text` of each row."""
    before, room, causal = len(form.first), form.room, not form.masked
    # A causal row begins with the last token of the one before; a last token alone would have nothing to predict.
    end = max(len(text) - 1, min(before, len(text))) if causal else len(text)
    start_N = np.arange(0, end, room - 1 if causal else room)
    place = start_N[:, None] + np.arange(room)
    there = place < len(text)
    ids = np.full((len(start_N), form.length), PADDING, np.int32)
    ids[:, :before] = form.first
    ids[:, before : before + room][there] = text[place[there]]
    target = np.full_like(ids, PADDING)
    if causal:
        target[:, before:-1] = ids[:, before + 1 :]
        if before and len(ids):
            target[0, before - 1] = text[0]
    else:
        target[:, before : before + room] = ids[:, before : before + room]
        target[np.isin(target, form.special)] = PADDING
        for offset, token in enumerate(form.last):
            ids[np.arange(len(ids)), before + there.sum(1) + offset] = token
    return ids, target, start_N


def _spoken(part: Questions, form: _Form, role: str) -> tuple[dict[str, Array], Array]:
    """A row for each conversation, with targets where the assistant speaks."""
    from stillroom.models.tokenizers import chat

    if form.masked:
        raise DataError(
            "a masked model learns from running text, and these rows are conversations",
            where="questions.source",
            cure="Give texts, or a causal model",
        )
    assert isinstance(part.raw, dict)
    shape = (len(part), form.length)
    ids, target = np.full(shape, PADDING, np.int32), np.full(shape, PADDING, np.int32)
    for row, kept in enumerate(part.raw[MESSAGES].tolist()):
        where = f"questions.source, {role}, row {part.row_N[row] + 1}"
        try:
            token_T, scored_T = (np.asarray(one) for one in chat(form.tokenizer, conversation(kept)))
        except DataError as error:
            raise DataError(error.what, where=f"{where}, {error.where}", cure=error.cure) from error
        if len(token_T) > form.length:
            longer = (
                f"Set questions.window to {len(token_T)}, or take"
                if len(token_T) <= form.context
                else "Shorten or take"
            )
            raise DataError(
                f"this conversation has {len(token_T):,} tokens, and a row {form.length:,}; it is not cut, since its end "
                "would be lost",
                where=where,
                cure=f"{longer} it out",
            )
        ids[row, : len(token_T)] = token_T
        target[row, : len(token_T) - 1] = np.where(scored_T[1:], token_T[1:], PADDING)
    return {"ids": ids, "target": target}, np.arange(len(part))


def _masked(rows: dict[str, Array], mask: Mask | None) -> dict[str, Array]:
    """Held-out rows with their holes, those of the view that every model meets."""
    shown = rows if mask is None else mask.apply(rows, _keys(rows), HELD_OUT_VIEW)
    assert isinstance(shown, dict)
    return shown


def prompt_lengths(questions: Questions, tokens: int, tokenizer: Any) -> Array:
    """How many of its first tokens a causal model may go on from, int64 [N]; 0 where a row leaves nothing to go on from or to.

    Of running text so many tokens; of a conversation all up to where scoring begins.
    """
    assert isinstance(questions.raw, dict), "windows are named arrays"
    ids_NT, scored_NT = questions.raw["ids"], questions.raw["target"] >= 0
    first_N = scored_NT.argmax(1)
    prompt_N = np.where(first_N > len(_around(tokenizer)[0]), first_N + 1, tokens)
    usable_N = scored_NT.any(1) & (prompt_N <= (ids_NT >= 0).sum(1)) & (prompt_N < ids_NT.shape[1])
    found: Array = np.where(usable_N, prompt_N, 0).astype(np.int64)
    return found


def written_windows(
    prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]], length: int, row_N: Array
) -> Questions:
    """Rows of `length` tokens of what a model wrote after each prompt; targets are what it wrote, and nothing else."""
    ids_NT = np.full((len(prompts), length), PADDING, np.int32)
    target_NT = np.full_like(ids_NT, PADDING)
    for row, (before, after) in enumerate(zip(prompts, written, strict=True)):
        end = len(before) + len(after)
        ids_NT[row, :end] = [*before, *after]
        target_NT[row, len(before) - 1 : end - 1] = after
    return questions_of({"ids": ids_NT, "target": target_NT}, row_N)


def questions_of(raw: dict[str, Array], row_N: Array) -> Questions:
    """Rows of tokens as questions, with keys made of what they hold and no label."""
    count = row_count(raw)
    return Questions(raw, _keys(raw), np.full(count, -1, np.int64), np.ones(count, np.float32), row_N)


def _keys(raw: Raw) -> Array:
    """content_keys in pieces, since it turns numbers into float64."""
    count = row_count(raw)
    parts = [content_keys(take_rows(raw, np.arange(at, min(at + CHUNK, count)))) for at in range(0, count, CHUNK)]
    return np.concatenate(parts) if parts else content_keys(raw)
