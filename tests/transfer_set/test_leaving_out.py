"""Traces that repeat others or give a test question away are marked, and nobody learns from them."""

from __future__ import annotations

from stillroom.transfer_set.leaving_out import GIVES_AWAY, REPEATS, leave_out
from stillroom.transfer_set.sampling import Sampled, Traces

ASKED = {
    "aa": "Ann has 3 pens and buys 4. How many?",
    "bb": "ann has 3 pens,  and buys 4! How many?",
    "cc": "What is 2+5?",
}
ASKED["dd"] = ASKED["aa"].upper()
TEST = "Tom has five apples and buys three more at the corner store"
LONG = " ".join(one + other for one in "abcdefghij" for other in "klmnopqrst")


def said(key: str, thought: str, outcome: str = "accepted", place: int = 0, ended: str = "stop") -> Sampled:
    text = f"<think>{thought}</think>\n#### 7"
    return Sampled(key, place, text, ended, 10, 20, 0.5, outcome, "")


def marks(*samples: Sampled, tests: tuple[str, ...] = (TEST,), overlap: int = 8) -> list[str]:
    return [one.left_out for one in leave_out(samples, ASKED, tests, overlap)]


def test_the_same_text_after_the_same_question_in_other_letters_counts_once_over_all_questions() -> None:
    assert marks(said("aa", "3+4=7"), said("dd", "3 + 4 = 7"), said("cc", "3+4=7")) == ["", REPEATS, ""]
    assert marks(said("aa", "3+4=7"), said("bb", "3+4=7")) == ["", ""], "a comma more is another question"
    assert marks(said("aa", "3+4=7", "rejected"), said("dd", "3+4=7")) == ["", ""], "a rejected one takes no place"


def test_a_text_that_is_nearly_the_same_counts_once_within_its_question() -> None:
    near = LONG.replace("ak", "zz")
    assert marks(said("aa", LONG), said("aa", near, place=1)) == ["", REPEATS]
    assert marks(said("aa", LONG), said("cc", near)) == ["", ""]


def test_a_thought_or_solution_that_gives_a_test_question_away_is_left_out() -> None:
    told = f"This is like: {TEST.lower()}, so 7"
    solution = Sampled("cc", 0, f"{told}.\n#### 7", "stop", 1, 2, 0.5, "accepted", "")
    assert marks(said("aa", told), solution, said("bb", "3+4=7")) == [GIVES_AWAY, GIVES_AWAY, ""]
    assert marks(said("aa", told), overlap=0) == [""]
    assert marks(said("aa", told), overlap=13) == [""]


def test_what_was_cut_is_not_compared_and_what_is_left_out_is_chosen_by_nobody() -> None:
    cut = said("aa", "3+4=7", ended="length")
    found = leave_out([cut, said("aa", "3+4=7", place=1), said("dd", "3+4=7")], ASKED, [TEST], 8)
    assert [one.left_out for one in found] == ["", "", REPEATS]
    for of in ("accepted", "every"):
        assert [(one.key, one.place) for one in Traces(found).choose(of, "first", None)] == [("aa", 1)]
    assert leave_out(found, ASKED, [TEST], 8) == found
