"""Windows of tokens: every token predicted once, none lost, bytes that add up, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from questions import tiny_tokenizers as tiny
from stillroom.columns import objects
from stillroom.errors import DataError, ModelError
from stillroom.questions.views import Mask
from stillroom.questions.windows import encoded, scored_bytes, token_bytes, windows
from stillroom.rows import PADDING, Array, Questions, Splits, content_keys

TEXTS = [f"{text} {n} <|im_end|> [MASK] </s>" * (n + 1) for n, text in enumerate(tiny.WORDS * 2)]


def documents(texts: list[str], place: int = 0) -> Questions:
    return Questions.of({"text": objects(texts)}, row_N=np.arange(len(texts)) + place)


def splits_of(train: list[str], test: list[str] | None = None, slices: list[str] | None = None) -> Splits:
    held = documents(TEXTS[:3] if test is None else test, 10)
    part = documents(train)
    return Splits(
        part, held, held, part.take(np.arange(0)), [], ["a note"], None if slices is None else objects(slices)
    )


def raw_of(questions: Questions) -> tuple[Array, Array]:
    assert isinstance(questions.raw, dict)
    assert list(questions.raw) == ["ids", "target"]
    ids, target = questions.raw["ids"], questions.raw["target"]
    assert ids.dtype == target.dtype == np.int32
    assert ids.shape == target.shape == (len(questions), ids.shape[1])
    return ids, target


def predicted(ids: Array, target: Array) -> list[int]:
    """The targets in order; each is the id that follows, where the row goes on."""
    inside = target[:, :-1] >= 0
    assert (target[:, :-1][inside] == ids[:, 1:][inside]).all()
    assert (target[:, -1] == PADDING).all()
    return [int(token) for token in target[target >= 0]]


@pytest.mark.parametrize("length", [2, 3, 7, 64, 500])
def test_each_token_of_a_document_but_the_first_is_predicted_once(length: int) -> None:
    tokenizer = tiny.byte_level()
    found = windows(splits_of(TEXTS), tokenizer, length, pack=False)
    tokens = encoded(tokenizer, TEXTS)
    for part, whole, place in ((found.train, tokens, 0), (found.test, tokens[:3], 10)):
        ids, target = raw_of(part)
        assert ids.shape[1] == length
        for document, text in enumerate(whole):
            rows = np.flatnonzero(part.row_N == document + place)
            assert (np.diff(rows) == 1).all()
            assert predicted(ids[rows], target[rows]) == text[1:]
            assert [int(token) for token in ids[rows[0]] if token >= 0] == text[:length]
    assert len(found.omitted) == 0
    assert not found.train.labelled_N.any()
    assert (found.classes, found.notes[0]) == ([], "a note")
    assert f"{len(found.train):,} rows of {length:,} tokens, {sum(map(len, tokens)) - len(tokens):,}" in found.notes[1]


def test_packed_documents_are_one_stream_and_test_is_not_packed() -> None:
    tokenizer = tiny.byte_level()
    found = windows(splits_of(TEXTS), tokenizer, 16)
    ids, target = raw_of(found.train)
    stream = [token for text in encoded(tokenizer, TEXTS) for token in [*text, tokenizer.eos_token_id]]
    assert predicted(ids, target) == stream[1:]
    assert (ids[:-1] >= 0).all()
    begins = np.cumsum([0, *(len(text) + 1 for text in encoded(tokenizer, TEXTS))])
    for row, document in enumerate(found.train.row_N):
        assert begins[document] <= row * 15 < begins[document + 1]
    assert found.test.fingerprint() == windows(splits_of(TEXTS), tokenizer, 16, pack=False).test.fingerprint()


def test_a_token_that_begins_texts_begins_every_row() -> None:
    tokenizer = tiny.byte_level(begins="<s>")
    begin = tokenizer.bos_token_id
    for pack in (False, True):
        found = windows(splits_of([*TEXTS, "x"]), tokenizer, 16, pack=pack)
        ids, target = raw_of(found.train)
        assert (ids[:, 0] == begin).all()
        tokens = encoded(tokenizer, [*TEXTS, "x"])
        expected = [token for text in tokens for token in ([*text, tokenizer.eos_token_id] if pack else text)]
        assert predicted(ids, target) == expected, "a document's first token follows the begin"
        assert not (target == begin).any()


def test_the_end_of_a_document_is_what_models_of_documents_know() -> None:
    tokenizer = tiny.byte_level()
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    ids, _ = raw_of(windows(splits_of(TEXTS), tokenizer, 16).train)
    assert (ids == tokenizer.convert_tokens_to_ids("<|endoftext|>")).sum() >= len(TEXTS)
    assert not (ids == tokenizer.eos_token_id).any(), "in a text, <|im_end|> is six plain letters and more"
    other = tiny.byte_level(ends="</s>")
    assert (raw_of(windows(splits_of(TEXTS), other, 16).train)[0] == other.eos_token_id).sum() >= len(TEXTS)


def test_masked_rows_stand_between_their_own_tokens() -> None:
    tokenizer = tiny.word_piece()
    cls, sep, unknown = (tokenizer.convert_tokens_to_ids(token) for token in ("[CLS]", "[SEP]", "[UNK]"))
    for pack in (True, False):
        found = windows(splits_of(TEXTS), tokenizer, 12, pack=pack, mask=Mask())
        ids, target = raw_of(found.train)
        length = (ids >= 0).sum(1)
        assert (ids[:, 0] == cls).all()
        assert (ids[np.arange(len(ids)), length - 1] == sep).all()
        hidden = target >= 0
        assert (target[hidden] == ids[hidden]).all()
        assert not np.isin(target[hidden], tokenizer.all_special_ids).any()
        text = [token for row, end in zip(ids, length, strict=True) for token in row[1 : end - 1].tolist()]
        tokens = encoded(tokenizer, TEXTS)
        between = [sep] if pack else []
        stream = [token for one in tokens for token in [*one, *between]]
        assert text == stream[: len(stream) - len(between)]
        assert hidden.sum() == sum(token != unknown for one in tokens for token in one)


def test_held_out_rows_come_masked_and_the_same_each_time() -> None:
    tokenizer = tiny.word_piece()
    found = windows(splits_of(TEXTS[:3]), tokenizer, 12, pack=False, mask=Mask(share=0.3))
    train, (ids, target) = found.train, raw_of(found.test)
    seen = Mask(share=0.3).for_tokenizer(tokenizer).apply(train.raw, train.key_N, 1)
    assert isinstance(seen, dict)
    np.testing.assert_array_equal(ids, seen["ids"])
    np.testing.assert_array_equal(target, seen["target"])
    assert (content_keys(found.test.raw) == found.test.key_N).all()
    whole, able = raw_of(train)
    assert (target >= 0).sum() == np.maximum(1, np.rint(0.3 * (able >= 0).sum(1))).sum()
    assert ((ids != whole) <= (target >= 0)).all()
    with pytest.raises(ModelError, match="no mask token"):
        windows(splits_of(TEXTS), tiny.byte_level(), 12, mask=Mask())


@pytest.mark.parametrize("kind", ["byte_level", "sentence_piece"])
def test_bytes_of_all_rows_are_the_bytes_of_the_text(kind: str) -> None:
    tokenizer = getattr(tiny, kind)()
    texts = [*TEXTS, "🙂🙂 日本語 \t\n  x"]
    splits = splits_of(texts, texts)
    found = windows(splits, tokenizer, 9, pack=False)
    byte_V = token_bytes(tokenizer)
    first = [int(byte_V[ids[0]]) for ids in encoded(tokenizer, texts)]
    counted = scored_bytes(found.test, tokenizer)
    assert counted.shape == (len(found.test),)
    for document, text in enumerate(texts):
        assert counted[found.test.row_N == document + 10].sum() == len(text.encode()) - first[document]
    assert (
        scored_bytes(windows(splits, tokenizer, 9).train, tokenizer).sum()
        == sum(len(text.encode()) for text in texts) - first[0]
    )
    skipped = windows(splits, tokenizer, 9, skip=4)
    assert 0 < scored_bytes(skipped.test, tokenizer).sum() < counted.sum()


def test_bytes_of_a_tokenizer_that_loses_text_are_refused() -> None:
    with pytest.raises(ModelError, match=r"do not say how many bytes.*decoder WordPiece.*perplexity"):
        token_bytes(tiny.word_piece())


def test_skipped_positions_have_no_target_in_held_out_rows_only() -> None:
    tokenizer = tiny.byte_level()
    plain, skipped = windows(splits_of(TEXTS), tokenizer, 16), windows(splits_of(TEXTS), tokenizer, 16, skip=5)
    assert plain.train.fingerprint() == skipped.train.fingerprint()
    for one, other in ((plain.validation, skipped.validation), (plain.test, skipped.test)):
        (_, before), (ids, after) = raw_of(one), raw_of(other)
        assert (after[:, :5] == PADDING).all()
        rows = (before[:, 5:] >= 0).any(1)
        assert (after[:, 5:] == before[rows, 5:]).all()
        assert len(ids) == rows.sum()


def test_slices_and_places_follow_their_documents() -> None:
    found = windows(splits_of(TEXTS, TEXTS[:3], ["a", "b", "c"]), tiny.byte_level(), 16)
    assert found.slice_N is not None
    assert found.slice_N.tolist() == ["abc"[row - 10] for row in found.test.row_N]
    assert set(found.slice_N) == set("abc")


def test_keys_are_the_content_and_the_same_for_any_company() -> None:
    tokenizer = tiny.byte_level()
    found = windows(splits_of(TEXTS), tokenizer, 16, pack=False)
    assert (found.train.key_N == content_keys(found.train.raw)).all()
    turned = windows(splits_of(TEXTS[::-1]), tokenizer, 16, pack=False)
    assert {key.tobytes() for key in turned.train.key_N} == {key.tobytes() for key in found.train.key_N}
    assert windows(splits_of(TEXTS), tokenizer, 16, pack=False).fingerprint() == found.fingerprint()
    before = tokenizer("a <|im_end|>")["input_ids"]
    assert before[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>"), "the tokenizer is left as it was"


def talks(*messages: list[dict[str, str]]) -> Questions:
    return Questions.of({"messages": objects([json.dumps(talk) for talk in messages])})


def test_a_conversation_is_a_row_scored_where_the_assistant_speaks() -> None:
    tokenizer = tiny.byte_level()
    ask, say = {"role": "user", "content": "what then?"}, {"role": "assistant", "content": "The cat sat."}
    part = talks([ask, say], [ask, say, ask, {"role": "assistant", "content": "so on"}])
    found = windows(Splits(part, part, part, part.take(np.arange(0)), []), tokenizer, 200)
    ids, target = raw_of(found.train)
    assert len(found.train) == 2
    whole = tokenizer.apply_chat_template([ask, say], tokenize=True)["input_ids"]
    assert [int(token) for token in ids[0] if token >= 0] == list(whole)
    assert tokenizer.decode(predicted(ids[:1], target[:1])) == "The cat sat.<|im_end|>"
    assert tokenizer.decode(predicted(ids[1:], target[1:])) == "The cat sat.<|im_end|>so on<|im_end|>"
    assert scored_bytes(found.test, tokenizer).tolist() == [12, 17]


def test_a_conversation_that_does_not_fit_is_named_not_cut() -> None:
    tokenizer = tiny.byte_level()
    short = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    long = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "The cat " * 40}]
    splits = Splits(talks(short), talks(short), talks(short, long), talks(short).take(np.arange(0)), [])
    with pytest.raises(
        DataError, match=r"conversation has \d+ tokens, and a row 64;.*test, row 2\)\. Set questions\.win"
    ):
        windows(splits, tokenizer, 64)
    with pytest.raises(DataError, match=r"test, row 2\)\. Shorten or take it out"):
        windows(splits, tokenizer, 64, context=70)
    with pytest.raises(DataError, match="these rows are conversations"):
        windows(splits, tiny.word_piece(), 64, mask=Mask())
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(DataError, match=r"leaves out a part.*questions\.source, train, row 1, message"):
        windows(splits, tokenizer, 64)


@pytest.mark.parametrize(
    ("tokenizer", "length", "knobs", "message"),
    [
        ("byte_level", 1, {}, r"no room to predict one \(questions\.window\)\. Use 2 or more"),
        ("word_piece", 3, {"mask": Mask()}, r"no room to predict one \(questions\.window\)\. Use 4 or more"),
        ("word_piece", 65, {"mask": Mask()}, r"looks at 64 at most \(questions\.window\)\. Set it to 64"),
        ("byte_level", 65, {"context": 64}, "looks at 64 at most"),
        ("byte_level", 16, {"skip": 15}, r"each row are to be skipped, and a row has 16 \(questions\.skip\)"),
        ("word_piece", 16, {"skip": 1, "mask": Mask()}, "a masked model looks both ways"),
    ],
)
def test_knobs_that_do_not_fit(tokenizer: str, length: int, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        windows(splits_of(TEXTS), getattr(tiny, tokenizer)(), length, **knobs)


def test_rows_that_cannot_be_windows() -> None:
    tokenizer = tiny.byte_level()
    table = Questions.of({"text": objects(["a"]), "more": objects(["b"])})
    with pytest.raises(DataError, match="learns from running text, and these rows are none"):
        windows(Splits(table, table, table, table, []), tokenizer, 16)
    with pytest.raises(DataError, match=r"no text of validation has a token to predict.*questions\.source, val"):
        windows(splits_of(TEXTS, ["x"]), tokenizer, 16)
    with pytest.raises(DataError, match=r"after the first 14 of a row.*a smaller skip"):
        windows(splits_of(TEXTS, ["xyz"]), tokenizer, 16, skip=14)
    tokenizer = tiny.sentence_piece()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"no token that ends a text \(questions\.pack\)\. Set it to false"):
        windows(splits_of(TEXTS), tokenizer, 16)
    assert len(windows(splits_of(TEXTS), tokenizer, 16, pack=False).train)
