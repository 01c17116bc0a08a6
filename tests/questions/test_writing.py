"""Questions that a teacher writes: prompts, what is read of an answer, near-duplicates, and how a round's calls are shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stillroom.kinds import parse
from stillroom.questions.writing import Example, Known, Writes, read_texts, runs_of, text_column, written_questions
from stillroom.rows import Pool, Questions


def strategy(kind: str = "teacher_written", **knobs: Any) -> Writes:
    found: Writes = parse("strategy", {"kind": kind, **knobs})
    return found


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ('["one two", "three"]', ["one two", "three"]),
        ('```json\n["one",\n "two"]\n```', ["one", "two"]),
        ('{"texts": ["one", "two"]}', ["one", "two"]),
        ("1. one\n2) two\n(3) three", ["one", "two", "three"]),
        ('- "one"\n* two\n\n• three  four', ["one", "two", "three four"]),
        ('["one\u2028two", "three"]', ["one two", "three"]),
        ("", []),
        ("[1, 2]", []),
        ('"alone"', []),
        ("3 cards were lost", ["3 cards were lost"]),
    ],
)
def test_texts_are_read_from_whatever_list_an_answer_holds(answer: str, texts: list[str]) -> None:
    assert read_texts(answer) == texts


def naive_jaccard(first: str, second: str) -> float:
    one, two = runs_of(first), runs_of(second)
    return len(one & two) / len(one | two)


def test_likeness_is_the_largest_jaccard_index() -> None:
    rng = np.random.default_rng(0)
    words = ["card", "lost", "pin", "bank", "money", "where", "is", "my"]
    texts = [" ".join(rng.choice(words, 6)) for _ in range(60)]
    known = Known(texts[:50])
    for text in texts[50:]:
        assert known.likest(text) == pytest.approx(max(naive_jaccard(text, other) for other in texts[:50]))
    assert known.likest(texts[0].upper()) == 1
    assert known.likest("zzzzzzzz") == 0


def test_near_duplicates_of_known_texts_and_of_each_other_are_left_out() -> None:
    known = Known(["i lost my card at the airport yesterday"])
    given = [
        "i lost my card at the airport yesterday !",
        "where is the nearest branch of your bank",
        "where is the nearest branch of your bank ?",
        "how do i change the pin of this thing",
        "one more that is not wanted any more",
    ]
    assert known.take_new(given, 0.7, 2) == ([given[1], given[3]], 2)
    assert known.take_new([given[1]], 0.7, 2) == ([], 1)


def test_a_rounds_calls_are_shared_between_writing_and_what_is_written() -> None:
    assert strategy(share=0.5, variants=4).plan(100) == (10, 40)
    assert strategy(share=1.0, variants=1).plan(9) == (4, 5)
    assert strategy(share=0.5, variants=4).plan(8) == (0, 0)


def test_mistakes_are_what_is_varied_and_what_was_chosen_is_reworded() -> None:
    before = [Example("a", "x", "y"), Example("b", "x", "x"), Example("c", None, "x")]
    chosen = [Example("d")]
    assert strategy().after(before, chosen) == before[:1]
    assert strategy().after(before[1:], chosen) == before[1:]
    assert strategy("reword").after(before, chosen) == chosen
    prompt = strategy(variants=3).prompt(before[0])
    assert prompt.startswith("Write 3 new texts")
    assert '"a"' in prompt
    assert 'It is "y", and was mistaken for "x"' in prompt
    assert "mistaken" not in strategy().prompt(before[2])
    assert strategy("reword").prompt(chosen[0]).startswith("Reword the text below in 4 ways")
    requests = strategy().conversations(before, 5)
    assert [one[0]["role"] for one in requests] == ["user"] * 5
    assert requests[3] == requests[0]
    assert strategy().conversations([], 5) == []


def test_the_rest_of_a_round_is_chosen_by_another_strategy() -> None:
    one, pool = strategy(others="entropy"), Pool(4, np.array([[[0.5, 0.5], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]]]))
    assert one.choose(pool, 2, 0).tolist() == [0, 2]
    assert one.doubt(pool)[0] == pytest.approx(np.log(2))
    assert strategy(others={"kind": "committee", "size": 3}).students() == 3
    assert strategy(others="random").doubt(pool).tolist() == [0, 0, 0, 0]


def test_written_questions_stand_behind_the_others_and_have_no_label() -> None:
    like = Questions.of({"text": np.array(["one", "two"], object)}, np.array([0, 1]), np.array([7, 3]))
    found = written_questions(like, ["three", "four"])
    assert found.row_N.tolist() == [8, 9]
    assert found.label_N.tolist() == [-1, -1]
    assert found.key_N.tolist() == Questions.of({"text": np.array(["three", "four"], object)}).key_N.tolist()


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"text": np.array(["a", "b"], object)}, "text"),
        (np.array(["a", "b"], object), ""),
        ({"text": np.array(["a"], object), "other": np.array([1.0])}, None),
        ({"number": np.array([1.0])}, None),
        (np.zeros((2, 3)), None),
    ],
)
def test_only_texts_are_written(raw: Any, name: str | None) -> None:
    assert text_column(raw) == name
