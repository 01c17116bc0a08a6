"""Tokenizers: what makes two the same, texts to ids without a silent cut, and conversations to ids that are scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError

from stillroom.errors import DataError, ModelError
from stillroom.rundir import fingerprint as digest

TODAY = datetime(2024, 7, 26)
"""For chat templates that write today's date: the day that Llama 3.1's take where they are told none."""
DATE_CODES = ("-d", "-m", "d", "e", "m", "b", "B", "y", "Y", "a", "A", "j", "F", "H", "I", "M", "S", "p")
PROBE = (
    "The quick brown fox jumps over the lazy dog. Don't you're I'LL we've",
    "  two  spaces,\ta tab,\n\na blank line\r\n    and four spaces ",
    "1234567890 3.14159 1,000,000 2024-01-31 0x7f 12:34",
    'def f(x: int) -> str:\n\treturn f"{x ** 2:>8}"  # {[(<=>)]} && || != ~/.config;',
    "https://example.org/a_b?q=1&r=%20#top user@example.org C:\\Users",
    "naïve café Straße Ærø Łódź İstanbul e\u0301",
    "Привет, мир Γειά σου",
    "你好，世界 こんにちは テスト 안녕하세요",
    "مرحبا שלום हिन्दी ไทย",
    "😀👩\u200d👩\u200d👧 — “quotes” … \u00a0\u200b\ufeff ∀x∈ℝ €½™",
)
"""Scripts, white space, digits and code: what tokenizers treat differently."""


def fingerprint(tokenizer: Any) -> str:
    """A digest of what decides ids: vocabulary, merges, normaliser, special tokens; not how it was last called."""
    special = {name: getattr(tokenizer, name) for name in _special_names(tokenizer)}
    return digest("tokenizer", {**_backend(tokenizer), "truncation": None, "padding": None}, special)


def _special_names(tokenizer: Any) -> list[str]:
    return sorted(f"{name}_id" for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES if name.endswith("_token"))


def _backend(tokenizer: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def compare(
    teacher: Any,
    student: Any,
    teacher_width: int,
    student_width: int,
    called: Sequence[str] = ("the teacher", "the student"),
) -> int:
    """How many ids, from 0 on, the two models share. Raises ModelError where their tokenizers differ in anything.

    A width is the number of logits. Models of one family have one tokenizer and widths padded differently (151,936 and
    152,064); an id from the common number on is no token, so that its logit must count as -inf, never as 0.
    """
    theirs, ours = teacher.get_vocab(), student.get_vocab()
    where = f"{called[0]}'s and {called[1]}'s tokenizer"
    cure = f"Give {called[1]} the tokenizer of {called[0]}, or choose models of the same family"
    piece = next((piece for piece in PROBE if _alone(teacher, piece) != _alone(student, piece)), None)
    if theirs != ours:
        differing = sorted(set(theirs.items()) ^ set(ours.items()), key=lambda entry: (entry[1], entry[0]))
        token = differing[0][0]
        told = f"{token!r} is {theirs.get(token, 'absent')} for {called[0]} and {ours.get(token, 'absent')} for {called[1]}"
        probed = f"; {_first_difference(teacher, student, piece, called)}" if piece else ""
        count = len({entry[0] for entry in differing})
        raise ModelError(f"the vocabularies differ in {count:,} tokens, first {told}{probed}", where=where, cure=cure)
    if piece is None and fingerprint(teacher) != fingerprint(student):
        _same_merges(teacher, student, where, cure, called)
        texts = [teacher.decode([index]) for index in sorted(theirs.values())]
        pairs = zip(texts, encode(teacher, texts, special=False), encode(student, texts, special=False), strict=True)
        piece = next((text for text, first, second in pairs if first != second), None)
    if piece is not None:
        raise ModelError(_first_difference(teacher, student, piece, called), where=where, cure=cure)
    needed, common = max(theirs.values()) + 1, min(teacher_width, student_width)
    if common < needed:
        raise ModelError(
            f"the tokenizer has {needed:,} tokens, and one of the models gives {common:,} logits",
            where=where,
            cure="Check that each model stands with its own tokenizer",
        )
    return common


def _same_merges(teacher: Any, student: Any, where: str, cure: str, called: Sequence[str]) -> None:
    """Two byte-pair tokenizers that merge otherwise can agree on any probe, and differ on the next text."""
    theirs, ours = (_backend(tokenizer)["model"].get("merges") or [] for tokenizer in (teacher, student))
    theirs, ours = (
        [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges]
        for merges in (theirs, ours)
    )
    for place in range(max(len(theirs), len(ours))):
        first, second = (merges[place] if place < len(merges) else None for merges in (theirs, ours))
        if first != second:
            told = [" + ".join(pair) if pair else "nothing" for pair in (first, second)]
            raise ModelError(
                f"the tokenizers merge differently: rule {place + 1:,} is {told[0]} for {called[0]} and {told[1]} "
                f"for {called[1]}",
                where=where,
                cure=cure,
            )


def _alone(tokenizer: Any, text: str) -> list[int]:
    return encode(tokenizer, [text], special=False)[0]


def _first_difference(teacher: Any, student: Any, piece: str, called: Sequence[str]) -> str:
    theirs, ours = (tokenizer.convert_ids_to_tokens(_alone(tokenizer, piece)) for tokenizer in (teacher, student))
    at = next((i for i, (first, second) in enumerate(zip(theirs, ours, strict=False)) if first != second), 0)
    return (
        f"the text {piece[:40]!r} is encoded differently: {called[0]} reads {theirs[at : at + 3]} where {called[1]} reads "
        f"{ours[at : at + 3]}"
    )


def encode(tokenizer: Any, texts: Sequence[str], length: int | None = None, *, special: bool = True) -> list[list[int]]:
    """The ids of each text, special tokens included. Nothing is cut: more than `length` of them is a DataError."""
    backend = _uncut(tokenizer)
    rows: list[list[int]] = [found.ids for found in backend.encode_batch_fast(list(texts), add_special_tokens=special)]
    for place, ids in enumerate(rows if length is not None else []):
        if length is not None and len(ids) > length:
            raise DataError(
                f"a text of {len(ids):,} tokens, and the model looks at {length:,}: {len(ids) - length:,} too many",
                where=f"text {place + 1:,}: {texts[place][:40]!r}",
                cure="Shorten it, cut it into windows, or use a model with a longer context",
            )
    return rows


def special_tokens(tokenizer: Any) -> list[str]:
    """What a tokenizer takes for a mark of its own wherever it stands, such as the end of an answer."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def refuse_marks(marks: Sequence[str], text: str, where: str) -> None:
    """Raise DataError where somebody's words hold a special token: it would end the answer, or begin another's turn."""
    found = next((mark for mark in marks if mark in text), None)
    if found is not None:
        raise DataError(
            f"this text holds {found!r}, which is a special token of the tokenizer and would be read as one",
            where=where,
            cure="Take it out of the text, or leave the row out",
        )


def written_out(tokenizer: Any, messages: Sequence[Mapping[str, str]], ask: bool = False) -> str:
    """A conversation under the chat template; one that tells the date is given TODAY, or ids would change overnight.

    `ask`: with what stands before the next answer.
    """
    own, template = tokenizer.get_chat_template(), None
    if "strftime_now" in own:
        # What a template is given is made plain data first, so the function is a macro; that block eats one line feed.
        said = "".join(f".replace('%{code}', '{TODAY.strftime('%' + code)}')" for code in DATE_CODES)
        template = f"{{% macro strftime_now(form) %}}{{{{ form{said} }}}}{{% endmacro %}}\n{own}"
    return str(
        tokenizer.apply_chat_template(list(messages), chat_template=template, tokenize=False, add_generation_prompt=ask)
    )


def chat(tokenizer: Any, messages: Sequence[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """The ids of a conversation under the chat template, and which are scored: the assistant's content and its end.

    What stands before an answer is rendered alone, as it would be when the model is asked, and must give the same ids; so
    a model is trained on what it will see. Raises ModelError without a chat template, DataError where the template leaves out
    a part of the conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "this tokenizer has no chat template",
            where="chat",
            cure="Use an instruct model, or plain text in place of messages",
        )
    marks = special_tokens(tokenizer)
    for place, message in enumerate(messages):
        if not isinstance(message.get("content"), str) or not isinstance(message.get("role"), str):
            raise DataError(
                "a message wants a role and a text as content", where=_named(messages, place), cure="Mend the row"
            )
        refuse_marks(marks, message["content"], _named(messages, place))
    whole = _render(tokenizer, messages, ask=False)
    encoding = _encoded(tokenizer, whole)
    scored, since, done = [False] * len(encoding.ids), 0, 0
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = _render(tokenizer, messages[:place], ask=True)
        if not whole.startswith(asked) or len(asked) < done:
            raise DataError(
                "the chat template writes what stands before this message otherwise once it is answered",
                where=_named(messages, place),
                cure="Use one answer a conversation, or another chat template",
            )
        _all_there(messages, since, place, whole, done, len(asked))
        answered = _render(tokenizer, messages[: place + 1], ask=False)
        start = _find(messages, place, whole, len(asked), len(answered) if whole.startswith(answered) else len(whole))
        done, since = start + len(message["content"].strip()), place + 1
        prompt = _encoded(tokenizer, asked).ids
        if encoding.ids[: len(prompt)] != prompt:
            raise DataError(
                "the first characters of this answer melt into a token of what stands before it",
                where=_named(messages, place),
                cure="Begin the answer without white space, or use another chat template",
            )
        _score(tokenizer, encoding, scored, len(prompt), (start, done))
    _all_there(messages, since, len(messages), whole, done, len(whole))
    return list(encoding.ids), scored


def _encoded(tokenizer: Any, text: str) -> Any:
    return _uncut(tokenizer).encode(text, add_special_tokens=False)


def _uncut(tokenizer: Any) -> Any:
    """The tokenizers library's part, which may still cut and pad as it was last asked to, or as its file says."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def _render(tokenizer: Any, messages: Sequence[dict[str, str]], ask: bool) -> str:
    try:
        return written_out(tokenizer, messages, ask)
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(
            f"the chat template refuses this conversation: {error}",
            where=_named(messages, len(messages) - 1),
            cure="Change the messages to what the model was made for",
        ) from error


def _all_there(messages: Sequence[dict[str, str]], first: int, last: int, whole: str, start: int, end: int) -> None:
    for place in range(first, last):
        start = _find(messages, place, whole, start, end) + len(messages[place]["content"].strip())


def _find(messages: Sequence[dict[str, str]], place: int, whole: str, start: int, end: int) -> int:
    """Where the message's content stands between start and end; a template may strip the white space around it."""
    found = whole.find(messages[place]["content"].strip(), start, end)
    if found < 0:
        raise DataError(
            "the chat template leaves out a part of this message",
            where=_named(messages, place),
            cure="Use a template that keeps it, or take that part out of the message",
        )
    return found


def _named(messages: Sequence[dict[str, str]], place: int) -> str:
    if not 0 <= place < len(messages):
        return "a conversation without messages"
    message = messages[place]
    return f"message {place + 1}, {message.get('role')}: {str(message.get('content'))[:40]!r}"


def _score(tokenizer: Any, encoding: Any, scored: list[bool], prompt: int, content: tuple[int, int]) -> None:
    """Mark the tokens of one answer: those of its content, and the special token that ends it."""
    start, end = content
    ids, offsets = encoding.ids, encoding.offsets  # each look at the encoding makes the whole list anew
    inside = [i for i in range(prompt, len(scored)) if offsets[i][1] > start and offsets[i][0] < end]
    after = inside[-1] + 1 if inside else prompt
    if inside:
        scored[inside[0] : after] = [True] * (after - inside[0])
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    for i in range(after, len(scored)):
        if ids[i] in special:
            scored[after : i + 1] = [True] * (i + 1 - after)
        if ids[i] in special or tokenizer.decode([ids[i]]).strip():
            return
