"""Questions with answers as rows of tokens for a causal student: targets stand where the answer is said, as in a chat.

A row is what `tokenizers.chat` makes of one question and one answer, and where the tokenizer has no chat template the
question, a new line and the answer. Many rows are made at once: the template is written out once, around a question and an
answer that nobody asks, and the first rows are compared with what the template itself makes of them. This file knows no
trace and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.errors import DataError, ModelError
from stillroom.models.tokenizers import chat, encode, refuse_marks, special_tokens, written_out
from stillroom.questions.windows import questions_of
from stillroom.rows import PADDING, Array, Questions

COMPARED = 8
"""So many rows are made by the template itself too."""
MARKED, TOO_LONG, MELTED = (
    "with a special token in it",
    "longer than the student can read",
    "whose first characters melt into a token of the question",
)
"""Why a question and its answer make no row."""
SAID, ANSWERED = "Qa7x", "Zb3y"
"""A question and an answer that are looked for in what the template writes."""


@dataclass(frozen=True)
class Form:
    """What stands around a question and its answer, as text, and the tokens that end an answer."""

    before: str
    between: str
    after: str
    scored_after: int
    """Of the tokens of `after`, so many are predicted: the end of the answer."""
    templated: bool

    def prompt(self, question: str) -> str:
        """What the model is given."""
        return f"{self.before}{question}{self.between}"


def form_of(tokenizer: Any) -> Form:
    """How this tokenizer's model is asked and answers. Raises ModelError where it has no token that ends an answer."""
    if getattr(tokenizer, "chat_template", None):
        return _templated(tokenizer)
    end = tokenizer.eos_token
    if end is None:
        raise ModelError(
            "this tokenizer has no chat template, and no token that ends a text",
            where="student",
            cure="Use an instruct model, or one whose tokenizer has an eos_token",
        )
    return Form(tokenizer.bos_token or "", "\n", end, 1, templated=False)


def _templated(tokenizer: Any) -> Form:
    messages = [{"role": "user", "content": SAID}, {"role": "assistant", "content": ANSWERED}]
    whole = written_out(tokenizer, messages)
    before, found, rest = whole.partition(SAID)
    between, answered, after = rest.partition(ANSWERED)
    if not (found and answered):
        raise ModelError(
            "the chat template leaves out the question or the answer", where="student", cure="Use another chat template"
        )
    ids, scored = chat(tokenizer, messages)
    last = max(place for place, is_scored in enumerate(scored) if is_scored)
    tail = len(encode(tokenizer, [after], special=False)[0])
    return Form(before, between, after, tail - (len(ids) - 1 - last), templated=True)


def prompts(tokenizer: Any, asked: Sequence[str]) -> list[list[int]]:
    """The tokens after which the model is to answer each question. Raises DataError for one that holds a special token."""
    form, marks = form_of(tokenizer), special_tokens(tokenizer)
    for row, question in enumerate(asked):
        refuse_marks(marks, question, f"question {row + 1:,}: {question[:40]!r}")
    return encode(tokenizer, [form.prompt(question.strip()) for question in asked], special=False)


def dialogues(
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    length: int,
    *,
    weight_N: Array | None = None,
    where: str = "questions",
) -> Questions:
    """A row for each question and answer, `ids` and `target` [N, T] as in windows.py, T the longest of them.

    `length` is the most tokens a row may have; nothing is cut. Raises DataError for a longer one, for a text that holds a
    special token, or for an answer whose first characters melt into a token of the question.
    """
    form, marks = form_of(tokenizer), special_tokens(tokenizer)
    for row, (question, answer) in enumerate(pairs):
        refuse_marks(marks, question, f"{where}, row {row + 1:,}, the question")
        refuse_marks(marks, answer, f"{where}, row {row + 1:,}, the answer")
    asked = [question.strip() for question, _ in pairs]
    answered = [answer.strip() for _, answer in pairs]
    rows, given = _encoded(tokenizer, form, pairs)
    tail = len(encode(tokenizer, [form.after], special=False)[0]) - form.scored_after
    _refuse(rows, given, length, where)
    shape = (len(rows), max(map(len, rows), default=2))
    ids, target = np.full(shape, PADDING, np.int32), np.full(shape, PADDING, np.int32)
    for row, (ids_T, prompt_T) in enumerate(zip(rows, given, strict=True)):
        ids[row, : len(ids_T)] = ids_T
        last = len(ids_T) - tail
        target[row, len(prompt_T) - 1 : last - 1] = ids_T[len(prompt_T) : last]
    _compare(tokenizer, form, asked, answered, (ids, target), where)
    made = questions_of({"ids": ids, "target": target}, np.arange(len(rows)))
    if weight_N is None:
        return made
    return Questions(made.raw, made.key_N, made.label_N, weight_N.astype(np.float32), made.row_N)


def _encoded(tokenizer: Any, form: Form, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of each question with its answer, and of what the model is given of it."""
    prompts = [form.prompt(question.strip()) for question, _ in pairs]
    texts = [f"{prompt}{answer.strip()}{form.after}" for prompt, (_, answer) in zip(prompts, pairs, strict=True)]
    return encode(tokenizer, texts, special=False), encode(tokenizer, prompts, special=False)


def misfits(tokenizer: Any, pairs: Sequence[tuple[str, str]], length: int) -> list[str]:
    """Why a question and its answer cannot be a row of `dialogues`, for each of the pairs; "" where they can."""
    marks = special_tokens(tokenizer)
    rows, given = _encoded(tokenizer, form_of(tokenizer), pairs)
    found = []
    for pair, ids, prompt in zip(pairs, rows, given, strict=True):
        is_marked = any(mark in text for mark in marks for text in pair)
        is_melted = ids[: len(prompt)] != prompt
        found.append(MARKED if is_marked else TOO_LONG if len(ids) > length else MELTED if is_melted else "")
    return found


def _refuse(rows: list[list[int]], given: list[list[int]], length: int, where: str) -> None:
    for row, (ids, prompt) in enumerate(zip(rows, given, strict=True)):
        if len(ids) > length:
            raise DataError(
                f"a question and its answer have {len(ids):,} tokens, and a row has room for {length:,}; it is not cut, "
                "since its end would be lost",
                where=f"{where}, row {row + 1:,}",
                cure=f"Use a student with a context of {len(ids):,} tokens; questions.window, where it is set, bounds it too",
            )
        if ids[: len(prompt)] != prompt:
            raise DataError(
                "the first characters of this answer melt into a token of the question",
                where=f"{where}, row {row + 1:,}",
                cure="Use a tokenizer with a chat template",
            )


def _compare(
    tokenizer: Any, form: Form, asked: list[str], answered: list[str], made: tuple[Array, Array], where: str
) -> None:
    """Raise DataError where the template itself makes other rows of the first questions."""
    for row in range(min(COMPARED, len(asked)) if form.templated else 0):
        messages = [{"role": "user", "content": asked[row]}, {"role": "assistant", "content": answered[row]}]
        ids, scored = chat(tokenizer, messages)
        ids_T, target_T = (part[row, : len(ids)].tolist() for part in made)
        wanted = [ids[place] if scored[place] else PADDING for place in range(1, len(ids))]
        if ids_T != ids or target_T[:-1] != wanted:
            raise DataError(
                "the chat template writes this question otherwise than it writes others",
                where=f"{where}, row {row + 1:,}",
                cure="Use another chat template",
            )
