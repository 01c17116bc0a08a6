"""A language student at work: what it is given to go on from, and what it writes, whole or token by token.

Whole answers are written for several callers at once. Where tokens are wanted one by one, with their log-probabilities or
up to a word at which to stop, each is written by itself. Both draw the same words by the same seed. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from stillroom.errors import DataError, RunError
from stillroom.models.language import LanguageModel, logits
from stillroom.models.tokenizers import refuse_marks, special_tokens, written_out
from stillroom.rows import Output
from stillroom.service.students.batching import Batches

MOST_TOGETHER = 16
MOST_TOKENS = 1024
"""Written at most, whatever is asked for."""
HALF_A_LETTER = "\ufffd"


@dataclass(frozen=True)
class Wish:
    """How to write. `most`: tokens; `top`: log-probabilities of so many tokens at each place, None: none at all."""

    most: int | None = None
    temperature: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top: int | None = None


@dataclass(frozen=True)
class Token:
    """A token of an answer, and the likeliest that could have stood there."""

    text: str
    log_p: float
    top: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """What came next: some text, and the tokens it is of; `finish` at the end alone: stop or length."""

    text: str
    tokens: list[Token]
    finish: str | None = None


@dataclass(frozen=True)
class Written:
    """One whole answer."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int
    tokens: list[Token] | None = None


@dataclass(frozen=True)
class _Prompt:
    ids: list[int]
    most: int
    temperature: float
    seed: int


class Speaker:
    """A language student that several callers ask at once."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._ends = model.ends()
        backend = model.tokenizer.backend_tokenizer
        backend.no_truncation()  # once: a tokenizer that is changed while another thread reads with it fails
        backend.no_padding()
        self._together: Batches[_Prompt, list[int]] = Batches(self._write, MOST_TOGETHER, _alike)

    def ids_of(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens to go on from: by the chat template, or where there is none the messages' texts, one a line.

        Raises DataError for what the template does not take, and for special tokens in a message.
        """
        tokenizer = self.model.tokenizer
        marks = special_tokens(tokenizer)
        for place, message in enumerate(messages):  # a caller's words begin no turn of their own
            refuse_marks(marks, message["content"], f"messages.{place}.content")
        if getattr(tokenizer, "chat_template", None):
            try:
                text = written_out(tokenizer, messages, ask=True)
            except (TypeError, ValueError) as error:
                raise DataError(f"the student's chat template refuses this: {error}", where="messages") from error
            ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        else:
            text = "\n".join(message["content"] for message in messages)
            ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=True).ids
        return list(ids) or self.model.ids_of([])

    def room(self, ids: list[int], wish: Wish) -> int:
        """How many tokens may be written. Raises DataError where the prompt alone fills the context."""
        left = self.model.context - len(ids)
        if left < 1:
            raise DataError(
                f"the messages have {len(ids):,} tokens, and this student looks at {self.model.context:,}",
                where="messages", cure="Shorten them",
            )  # fmt: skip
        return min(left, MOST_TOKENS, wish.most or MOST_TOKENS)

    def whole(self, messages: Sequence[dict[str, str]], wish: Wish) -> Written:
        """One answer, written beside those of other callers where that can be."""
        ids = self.ids_of(messages)
        most = self.room(ids, wish)
        if wish.stop or wish.top is not None:
            pieces = list(self.pieces(messages, wish))
            tokens = [token for piece in pieces for token in piece.tokens]
            text = "".join(piece.text for piece in pieces)
            told = tokens if wish.top is not None else None
            return Written(text, pieces[-1].finish or "stop", len(ids), len(tokens), told)
        found = self._together.ask(_Prompt(ids, most, wish.temperature, wish.seed))
        ended = bool(found) and found[-1] in self._ends
        return Written(self._text(found), "stop" if ended else "length", len(ids), len(found) - ended)

    def pieces(self, messages: Sequence[dict[str, str]], wish: Wish) -> Iterator[Piece]:
        """One answer as it comes. What may be the beginning of a word to stop at is held back until that is known."""
        ids = self.ids_of(messages)
        told, written, held, waiting, finish = "", list[int](), "", list[Token](), "length"
        for index, log_p, top in self._drawn(ids, self.room(ids, wish), wish):
            if index in self._ends:
                finish = "stop"
                break
            written.append(index)
            waiting.append(Token(self._text([index]), log_p, [(self._text([one]), value) for one, value in top]))
            text = self._text(written)
            if text.endswith(HALF_A_LETTER):
                continue
            held, told = held + text[len(told) :], text
            at = min((found for found in map(held.find, wish.stop) if found >= 0), default=None)
            if at is not None:
                yield Piece(held[:at], waiting, "stop")
                return
            keep = _begun(held, wish.stop)
            if len(held) > keep:
                yield Piece(held[: len(held) - keep], waiting)
                held, waiting = held[len(held) - keep :], []
        yield Piece(held + self._text(written)[len(told) :], waiting, finish)

    def _drawn(self, ids: list[int], most: int, wish: Wish) -> Iterator[tuple[int, float, list[tuple[int, float]]]]:
        """Token after token: its id, its log-probability, and those of the likeliest."""
        ids, cache, dice = list(ids), None, np.random.default_rng(wish.seed)
        for _ in range(most):
            with torch.inference_mode():
                output, cache = self.model.network.last(ids, cache)
                logits_V = _logits(output)
                log_p_V = logits_V.log_softmax(0)  # of the student itself, at temperature 1
                if wish.temperature > 0:
                    noise_V = torch.from_numpy(dice.gumbel(size=len(logits_V)))
                    chosen = int((logits_V.double() / wish.temperature + noise_V).argmax())
                else:
                    chosen = int(logits_V.argmax())
                top = log_p_V.topk(min(wish.top, len(log_p_V))) if wish.top else None
            pairs = [] if top is None else list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
            ids.append(chosen)
            yield chosen, float(log_p_V[chosen]), pairs

    def _write(self, prompts: list[_Prompt]) -> list[list[int]]:
        """Ids of several answers at once, each no longer than it may be."""
        first, longest = prompts[0], max(len(prompt.ids) for prompt in prompts)
        most = min(max(prompt.most for prompt in prompts), self.model.context - longest)
        said = self.model.generate(
            [prompt.ids for prompt in prompts], most, first.temperature,
            seeds=None if first.temperature == 0 else [prompt.seed for prompt in prompts],
        )  # fmt: skip
        found = [one.ids[: prompt.most] for one, prompt in zip(said, prompts, strict=True)]
        for place, (one, prompt) in enumerate(zip(said, prompts, strict=True)):
            if (
                not one.finished and len(one.ids) < prompt.most
            ):  # beside a longer prompt there was no room for all of it
                found[place] = self._write([prompt])[0]
        return found

    def _text(self, ids: list[int]) -> str:
        return str(self.model.tokenizer.decode(ids, skip_special_tokens=True))


def _logits(output: Output) -> torch.Tensor:
    """Of the token after the last one [V]."""
    if output.hidden_BH is None or output.head is None:
        raise RunError("this student has no output layer", where="generate")
    return logits(output.hidden_BH, output.head)[0]


def _alike(chosen: list[_Prompt], one: _Prompt) -> bool:
    """They are drawn alike, and none is much longer."""
    first = chosen[0]
    return one.temperature == first.temperature and first.most / 2 <= one.most <= 2 * first.most


def _begun(text: str, stop: tuple[str, ...]) -> int:
    """How many letters at a text's end may be the beginning of a word to stop at."""
    longest = max((len(word) - 1 for word in stop), default=0)
    return next((n for n in range(min(longest, len(text)), 0, -1) if text.endswith(tuple(w[:n] for w in stop))), 0)
