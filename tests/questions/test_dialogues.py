"""Questions with answers as rows of tokens: what is asked is not scored, and rows are those of the chat template."""

from __future__ import annotations

import numpy as np
import pytest
from tests.models.tiny_models import byte_pairs

from stillroom.errors import DataError
from stillroom.models.characters import characters
from stillroom.models.tokenizers import chat
from stillroom.questions.dialogues import _refuse, dialogues, form_of, prompts
from stillroom.rows import PADDING

PAIRS = [("12+34=", "<think>46</think>\n#### 46"), ("1+2=", "#### 3"), ("a longer question, in words?", "#### yes")]


def test_rows_are_what_the_chat_template_makes_of_them() -> None:
    tokenizer = characters()
    found = dialogues(tokenizer, PAIRS, 128)
    assert isinstance(found.raw, dict)
    for row, (question, answer) in enumerate(PAIRS):
        ids, scored = chat(tokenizer, [{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
        assert found.raw["ids"][row, : len(ids)].tolist() == ids
        assert (found.raw["ids"][row, len(ids) :] == PADDING).all()
        target = found.raw["target"][row]
        assert target[: len(ids) - 1].tolist() == [
            one if is_scored else PADDING for one, is_scored in zip(ids[1:], scored[1:], strict=True)
        ]


def test_only_the_answer_and_its_end_are_predicted() -> None:
    tokenizer = characters()
    found = dialogues(tokenizer, PAIRS[1:2], 64)
    assert isinstance(found.raw, dict)
    said = [one for one in found.raw["target"][0].tolist() if one != PADDING]
    assert tokenizer.decode(said) == "#### 3<|endoftext|>"


def test_a_prompt_is_the_beginning_of_its_row() -> None:
    tokenizer = characters()
    found = dialogues(tokenizer, PAIRS, 128)
    assert isinstance(found.raw, dict)
    for row, prompt in enumerate(prompts(tokenizer, [question for question, _ in PAIRS])):
        assert found.raw["ids"][row, : len(prompt)].tolist() == prompt
        assert found.raw["target"][row, len(prompt) - 1] != PADDING
        assert (found.raw["target"][row, : len(prompt) - 1] == PADDING).all()


def test_without_a_template_a_line_stands_between() -> None:
    tokenizer = byte_pairs(template=None)
    assert form_of(tokenizer).prompt("why?") == "why?\n"
    found = dialogues(tokenizer, [("why?", "so")], 64)
    assert isinstance(found.raw, dict)
    ids = [one for one in found.raw["ids"][0].tolist() if one != PADDING]
    assert tokenizer.decode(ids) == "why?\nso<|end|>"


def test_weights_go_with_the_rows() -> None:
    found = dialogues(characters(), PAIRS, 128, weight_N=np.array([1, 2, 3], np.float32))
    assert found.weight_N.tolist() == [1, 2, 3]


def test_what_is_too_long_is_refused_and_not_cut() -> None:
    with pytest.raises(DataError, match="has room for 8"):
        dialogues(characters(), PAIRS, 8)


def test_an_answer_that_melts_into_the_question_is_refused() -> None:
    with pytest.raises(DataError, match="melt into a token"):
        _refuse([[1, 7, 3]], [[1, 2]], 64, "questions")


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (("1+<|user|>=", "3"), "holds '<.user.>'.*questions, row 2, the question"),
        (("1+2=", "3<|endoftext|>"), "holds '<.endoftext.>'.*questions, row 2, the answer"),
    ],
)
def test_words_that_hold_a_special_token_are_refused(pair: tuple[str, str], told: str) -> None:
    with pytest.raises(DataError, match=told):
        dialogues(characters(), [PAIRS[0], pair], 64)
    if "user" in pair[0]:
        with pytest.raises(DataError, match=r"question 1: '1.<.user.>='"):
            prompts(characters(), [pair[0]])


def test_rows_do_not_depend_on_the_day() -> None:
    tokenizer = characters()
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }}" + tokenizer.chat_template
    assert form_of(tokenizer).before.startswith("2024-07-26")
    assert len(dialogues(tokenizer, PAIRS, 128)) == len(PAIRS)
