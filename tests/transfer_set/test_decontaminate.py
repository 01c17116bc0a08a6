"""Training rows that give a test question away, and rows that repeat each other."""

from __future__ import annotations

from random import Random

from stillroom.transfer_set.decontaminate import normalised, overlaps, repeats, words

QUESTION = "Tom has 5 apples and buys 3 more at the store on the corner"


def test_a_run_of_words_gives_a_test_question_away() -> None:
    found = overlaps(["Here: tom HAS 5 apples, and buys 3 more! At dawn.", "Something else"], ["no", QUESTION], n=8)
    assert [(one.row, one.test_row) for one in found] == [(0, 1)]
    assert found[0].shared == "tom has 5 apples and buys 3 more"
    assert overlaps([QUESTION.replace("5", "6")], [QUESTION], n=8) != [], "the tail is the same"
    assert overlaps(["Tom has 5 apples and buys 4 more at a store"], [QUESTION], n=8) == []
    assert overlaps([QUESTION], [QUESTION], n=13)[0].test_row == 0


def test_short_questions_count_only_whole() -> None:
    tests = ["12 * 34 =", "What is 7 + 8?"]
    assert [(one.row, one.test_row) for one in overlaps(["12×34", "what is 7+8", "12 * 35 =", "7 - 8"], tests)] == [
        (0, 0),
        (1, 1),
    ]
    assert overlaps(["First 12 * 34 = 408, then more words follow here"], tests) == []


def test_made_questions_are_compared_whole() -> None:
    made = [QUESTION.replace("5", str(n)) for n in range(4)]
    assert overlaps(made[:2], made[2:], n=8) != []
    assert overlaps(made[:2], made[2:], n=0) == []
    assert [one.row for one in overlaps([made[0], made[3]], made[2:], n=0)] == [1]
    assert overlaps(["", "  "], [""], n=0) == []


def test_equal_rows_are_one() -> None:
    found = repeats(["A b  c.", "x", "a B c", "a b d", "A b c"])
    assert [(one.row, one.of, one.likeness) for one in found] == [(2, 0, 1.0), (4, 0, 1.0)]


def test_nearly_equal_rows_are_one_within_a_group_and_with_the_same_numbers() -> None:
    long = " ".join(f"word{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10]}" for n in range(100)) + " is 18"
    almost, other_number = f"well {long}", long.replace("18", "19")
    assert [(one.row, one.of) for one in repeats([long, almost, other_number])] == [(1, 0)]
    assert repeats([long, almost], groups=["one question", "another"]) == []
    assert repeats([long, almost], near=1.0) == []
    assert repeats([long, " ".join(reversed(long.split()))]) == []


def test_near_repeats_are_found_among_many() -> None:
    dice = Random(0)
    vocabulary = ["".join(dice.choices("abcdefghijklmnop", k=6)) for _ in range(500)]
    texts = [" ".join(dice.choices(vocabulary, k=120)) for _ in range(200)]
    found = repeats(texts + [f"{text} indeed" for text in texts])
    assert [(one.row, one.of) for one in found] == [(200 + n, n) for n in range(200)]


def test_words_keep_numbers_and_operators() -> None:
    assert words("3.5 + 1,000 = It’s") == ["3.5", "+", "1,000", "=", "it", "s"]
    assert normalised(" 12 × 34 = ") == "12*34"
