"""What students are taught of traces, form by form."""

from __future__ import annotations

from stillroom.models.characters import characters
from stillroom.reasoning_knobs import Learn
from stillroom.transfer_set.lessons import Chosen, Pair, asked_as, filler_of, length_in, pairs_of
from stillroom.transfer_set.traces import read_trace

LENGTH = length_in(characters())
CHOSEN = [
    Chosen("aa", "1+2+3=", read_trace("<think>1+2=3\n3+3=6\nso 6</think>\n#### 6")),
    Chosen("bb", "2+2=", read_trace("Two and two\nmake four.\n#### 4")),
]
GOLD = {"aa": "6", "bb": "4", "cc": "9"}
ASKED = {"aa": "1+2+3=", "bb": "2+2=", "cc": "4+5="}


def taught(learn: Learn) -> list[Pair]:
    return pairs_of(learn, CHOSEN, GOLD, ASKED.__getitem__, LENGTH)


def test_a_trace_is_what_the_teacher_wrote() -> None:
    assert [pair.text for pair in taught("trace")] == [
        "<think>1+2=3\n3+3=6\nso 6</think>\n#### 6", "Two and two\nmake four.\n#### 4",
    ]  # fmt: skip
    assert [pair.question for pair in taught("trace")] == ["1+2+3=", "2+2="]


def test_answers_alone_and_gold_answers_of_every_question() -> None:
    assert [pair.text for pair in taught("answer")] == ["#### 6", "#### 4"]
    assert [(pair.question, pair.text) for pair in taught("gold")][-1] == ("4+5=", "#### 9")


def test_filler_has_the_length_of_the_trace_and_none_of_its_content() -> None:
    for filled, whole in zip(taught("filler"), taught("trace"), strict=True):
        assert abs(LENGTH(filled.text) - LENGTH(whole.text)) <= 1
        assert set(filled.text.rpartition("\n")[0]) == {"."}
        assert read_trace(filled.text).answer == read_trace(whole.text).answer


def test_filler_is_one_token_each_whatever_the_tokenizer() -> None:
    assert filler_of(LENGTH) == "."
    assert filler_of(lambda text: len(text) // 2 if text[0] == " " else 1) == " ."


def test_shuffled_steps_are_the_same_steps_in_another_order() -> None:
    for mixed, whole in zip(taught("shuffled"), taught("trace"), strict=True):
        assert mixed.text != whole.text
        assert sorted(mixed.text) == sorted(whole.text)
        assert mixed.text.rpartition("\n")[2] == whole.text.rpartition("\n")[2]
    assert taught("shuffled") == taught("shuffled")


def test_two_tasks_weigh_the_same_and_the_answer_is_asked_for_afterwards() -> None:
    pairs = taught("rationale")
    answers = [pair for pair in pairs if pair.question.startswith("Answer: ")]
    rationales = [pair for pair in pairs if pair.question.startswith("Explain: ")]
    assert len(answers) == len(rationales) == 2
    assert all("####" not in pair.text for pair in rationales)
    weights = [sum(pair.weight * LENGTH(pair.text) for pair in several) for several in (answers, rationales)]
    assert abs(weights[0] - weights[1]) < 1e-6 * weights[0]
    assert asked_as("rationale", "2+2=") == "Answer: 2+2="
    assert asked_as("trace", "2+2=") == "2+2="
