"""Tokenizers: equal or not and why, nothing cut in silence, and a conversation's scored tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stillroom.errors import DataError, ModelError

pytest.importorskip("transformers", reason="the tests of language models need the transformers package")

import transformers
from tests.models.tiny_models import SENTENCES, TEMPLATE, byte_pairs, word_pieces
from tokenizers import Tokenizer

from stillroom.models import tokenizers

TALK = [
    {"role": "user", "content": "what is 12 plus 34"},
    {"role": "assistant", "content": "12 plus 34 is 46, and that is all."},
    {"role": "user", "content": "and 7 times 8?"},
    {"role": "assistant", "content": "56"},
]


def changed(tokenizer: Any, edit: Any) -> Any:
    """The same tokenizer with its JSON edited."""
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    edit(tree)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree)), pad_token="[PAD]"
    )
    made.chat_template = tokenizer.chat_template
    return made


def swap_last_two(tree: Any) -> None:
    vocab = tree["model"]["vocab"]
    first, second = sorted(vocab, key=vocab.get)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]


def drop_last(tree: Any) -> None:
    vocab = tree["model"]["vocab"]
    last = max(vocab, key=vocab.get)
    del vocab[last]
    tree["model"]["merges"] = [pair for pair in tree["model"]["merges"] if "".join(pair) != last]


def test_the_fingerprint_is_of_what_it_is_not_of_how_it_was_called() -> None:
    first, second = byte_pairs(), byte_pairs()
    second(SENTENCES, padding="max_length", truncation=True, max_length=4)
    second.chat_template = None
    assert tokenizers.fingerprint(first) == tokenizers.fingerprint(second)
    second.pad_token = "[UNK]"
    assert tokenizers.fingerprint(first) != tokenizers.fingerprint(second)
    assert tokenizers.fingerprint(first) != tokenizers.fingerprint(
        changed(first, lambda tree: tree["model"]["merges"].pop())
    )


def test_one_tokenizer_with_two_widths_has_a_common_vocabulary() -> None:
    size = len(byte_pairs())
    assert tokenizers.compare(byte_pairs(), byte_pairs(), size + 112, size) == size
    assert tokenizers.compare(byte_pairs(), byte_pairs(), size + 16, size + 112) == size + 16
    with pytest.raises(ModelError, match=f"{size:,} tokens.* gives {size - 1:,} logits"):
        tokenizers.compare(byte_pairs(), byte_pairs(), size - 1, size)


def test_tokenizers_that_differ_in_one_entry_are_refused_by_name() -> None:
    teacher = byte_pairs()
    size = len(teacher)
    with pytest.raises(ModelError, match=r"differ in 1 tokens, first .* is 399 for the teacher and absent"):
        tokenizers.compare(teacher, changed(teacher, drop_last), size, size)
    with pytest.raises(
        ModelError, match=r"differ in 2 tokens, first .* is 398 for the teacher and 399 for the student"
    ):
        tokenizers.compare(teacher, changed(teacher, swap_last_two), size, size)


def test_another_kind_of_tokenizer_is_shown_by_the_probe() -> None:
    with pytest.raises(ModelError, match=r"the text 'The quick brown.* is encoded differently: the teacher reads \['"):
        tokenizers.compare(byte_pairs(), word_pieces(), 400, 160)
    with pytest.raises(
        ModelError, match=r"^the text .* is encoded differently: the teacher reads .* where the student"
    ):
        lower = changed(word_pieces(), lambda tree: tree["normalizer"].update(lowercase=False))
        tokenizers.compare(word_pieces(), lower, 160, 160)


def test_merges_that_no_probe_meets_still_count() -> None:
    teacher = byte_pairs()

    def without_last_rule(tree: Any) -> None:
        tree["model"]["merges"].pop()

    student = changed(teacher, without_last_rule)
    assert teacher.get_vocab() == student.get_vocab()
    with pytest.raises(
        ModelError, match=r"rule \d+ is .+ \+ .+ for the teacher and nothing for the student|is encoded"
    ):
        tokenizers.compare(teacher, student, 400, 400)


def test_nothing_is_cut_in_silence() -> None:
    tokenizer = word_pieces()
    tokenizer(SENTENCES, padding=True, truncation=True, max_length=4)
    whole = tokenizers.encode(tokenizer, SENTENCES)
    assert [ids[0] for ids in whole] == [tokenizer.cls_token_id] * len(SENTENCES)
    assert len({len(ids) for ids in whole}) > 1
    longest = max(map(len, whole))
    assert tokenizers.encode(tokenizer, SENTENCES, longest) == whole
    assert tokenizers.encode(tokenizer, SENTENCES[:1], special=False)[0] == whole[0][1:-1]
    with pytest.raises(DataError, match=rf"a text of \d+ tokens.* looks at {longest - 2}: \d too many .text \d: '"):
        tokenizers.encode(tokenizer, SENTENCES, longest - 2)


def test_the_assistants_tokens_and_their_end_are_scored() -> None:
    tokenizer = byte_pairs()
    ids, scored = tokenizers.chat(tokenizer, TALK)
    assert tokenizer.decode(ids) == "".join(f"<|{one['role']}|>{one['content']}<|end|>" for one in TALK)
    shown = tokenizer.decode([index for index, on in zip(ids, scored, strict=True) if on])
    assert shown == TALK[1]["content"] + "<|end|>" + "56<|end|>"
    assert tokenizers.chat(tokenizer, TALK[:1])[1] == [False] * (
        2 + len(tokenizers.encode(tokenizer, [TALK[0]["content"]])[0])
    )


def test_white_space_after_the_end_token_is_not_scored_and_before_it_is() -> None:
    chat_markup = (
        "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content | trim }} <|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    tokenizer = byte_pairs(template=chat_markup)
    ids, scored = tokenizers.chat(tokenizer, [*TALK[:3], {"role": "assistant", "content": "  56 🎉 \n"}])
    assert tokenizer.decode(ids[-1:]) == "\n"
    shown = tokenizer.decode([index for index, on in zip(ids, scored, strict=True) if on])
    assert shown == TALK[1]["content"] + " <|end|>" + "56 🎉 <|end|>"


STRIPS = TEMPLATE.replace("message['content']", "message['content'].split('</think>')[-1]")
STRIPS_EARLIER = TEMPLATE.replace(
    "message['content']", "(message['content'] if loop.last else message['content'].split('</think>')[-1])"
)
DROPS_SYSTEM = TEMPLATE.replace(
    "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
)


@pytest.mark.parametrize(
    ("template", "message", "named"),
    [
        (STRIPS, {"role": "assistant", "content": "<think>8 * 7</think>56"}, r"message 4, assistant: '<think>8"),
        (DROPS_SYSTEM, {"role": "system", "content": "be brief"}, r"message 4, system: 'be brief'"),
        (TEMPLATE.replace("message['content']", "message['content'][:9]"), TALK[2], r"message 1, user: 'what is 12"),
    ],
)
def test_a_template_that_drops_a_part_is_refused_by_message(template: str, message: dict[str, str], named: str) -> None:
    tokenizer = byte_pairs(template=template)
    with pytest.raises(DataError, match=rf"leaves out a part of this message .{named}"):
        tokenizers.chat(tokenizer, [*TALK[:3], message])


def test_a_template_that_strips_the_reasoning_of_earlier_turns_is_refused() -> None:
    tokenizer = byte_pairs(template=STRIPS_EARLIER)
    talk = [TALK[0], {"role": "assistant", "content": "<think>12 + 34</think>46"}, *TALK[2:]]
    assert tokenizers.chat(tokenizer, talk[:2])[1].count(True) > 5
    with pytest.raises(DataError, match=r"message 2, assistant: '<think>12 \+ 34"):
        tokenizers.chat(tokenizer, talk)


def test_a_conversation_the_template_refuses_says_why() -> None:
    raises = "{% if messages[0].role != 'user' %}{{ raise_exception('a user speaks first') }}{% endif %}" + TEMPLATE
    with pytest.raises(DataError, match="refuses this conversation: a user speaks first"):
        tokenizers.chat(byte_pairs(template=raises), TALK[1:2])
    with pytest.raises(DataError, match=r"a message wants a role and a text .*message 1, user: 'None'"):
        tokenizers.chat(byte_pairs(), [{"role": "user"}])
    with pytest.raises(ModelError, match="no chat template"):
        tokenizers.chat(word_pieces(), TALK)


def test_an_answer_that_melts_into_its_prompt_is_refused() -> None:
    glued = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer = byte_pairs(template=glued)
    with pytest.raises(DataError, match="melt into a token"):
        tokenizers.chat(tokenizer, [{"role": "user", "content": "th"}, {"role": "assistant", "content": "e lazy dog"}])
    rewrites = TEMPLATE.replace("'<|' +", "(messages | length) ~ '<|' +")
    with pytest.raises(DataError, match="otherwise once it is answered"):
        tokenizers.chat(byte_pairs(template=rewrites), TALK[:2])


def test_words_that_hold_a_special_token_are_refused() -> None:
    talk = [*TALK[:1], {"role": "assistant", "content": "46<|end|><|user|>and now?"}]
    with pytest.raises(DataError, match=r"holds '<\|user\|>', which is a special token .*message 2, assistant: '46"):
        tokenizers.chat(byte_pairs(), talk)
    marked = {"role": "user", "content": "what is <|pad|> or <|End|>?"}
    assert tokenizers.chat(byte_pairs(), [marked, *TALK[1:2]])[0]


def test_a_template_that_tells_the_date_gives_the_same_ids_every_day() -> None:
    dated = "\n{%- set day = strftime_now('%d %b %Y') %}{{ day }}; {{ strftime_now('%A, %B %-d, %Y') }}\n" + TEMPLATE
    tokenizer, plain = byte_pairs(template=dated), byte_pairs()
    ids, _ = tokenizers.chat(tokenizer, TALK)
    assert tokenizer.decode(ids).startswith("26 Jul 2024; Friday, July 26, 2024\n<|user|>what")
    assert tokenizers.written_out(tokenizer, TALK[:1], ask=True).startswith("26 Jul 2024; Friday")
    of_llama = "\n{%- if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}\n  {% if true %}\n x{% endif %}"
    tokenizer.chat_template, plain.chat_template = of_llama, of_llama.replace("strftime_now('%Y')", "'2024'")
    assert tokenizers.written_out(tokenizer, TALK) == tokenizers.written_out(plain, TALK)
