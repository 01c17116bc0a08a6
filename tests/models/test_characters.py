"""The tokenizer of single characters: nothing melts, nothing is unknown, and it comes back from a folder as it was."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stillroom.models import pretrained
from stillroom.models.characters import MARKS, characters
from stillroom.models.tokenizers import encode, fingerprint
from stillroom.questions.windows import token_bytes

TOKENIZER = characters()


@given(st.text(max_size=40))
def test_every_text_comes_back(text: str) -> None:
    (ids,) = encode(TOKENIZER, [text], special=False)
    special = {TOKENIZER.decode([place]) for place in TOKENIZER.all_special_ids}
    if not any(mark in text for mark in special):
        assert TOKENIZER.decode(ids) == text


@given(st.text(alphabet="0123456789+-*=() \n", max_size=40))
def test_an_ascii_character_is_a_token(text: str) -> None:
    assert len(encode(TOKENIZER, [text], special=False)[0]) == len(text)


def test_marks_are_one_token_and_survive() -> None:
    for mark in MARKS:
        (ids,) = encode(TOKENIZER, [mark], special=False)
        assert len(ids) == 1
        assert TOKENIZER.decode(ids, skip_special_tokens=True) == mark


def test_a_saved_one_reads_as_it_wrote(tmp_path: Path) -> None:
    pretrained.save_tokenizer(TOKENIZER, tmp_path)
    found = pretrained.load_tokenizer(tmp_path, weights=False)
    assert fingerprint(found) == fingerprint(TOKENIZER)
    assert found.chat_template == TOKENIZER.chat_template


def test_its_tokens_say_how_many_bytes_they_stand_for() -> None:
    byte_V = token_bytes(TOKENIZER)
    (ids,) = encode(TOKENIZER, ["2+2=4, naïve #### 4"], special=False)
    assert sum(byte_V[ids]) == len("2+2=4, naïve #### 4".encode())
