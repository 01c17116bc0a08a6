"""Answers that are not to be learned: broken off, or of weight 0; and what is said where one class is left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.service.test_sources import ASKED, completion, lines, talk

from stillroom.errors import DataError
from stillroom.service.recipes import talks
from stillroom.service.recipes.drafting import ANSWERS, TALKS, Rejected, Talk, asked, recorded
from stillroom.service.recipes.presets import OF_LETTERS, OF_WORDS
from stillroom.service.recipes.talks import of_completion
from stillroom.service.settings import Settings

FILE = f"file-{'a' * 24}"


BROKEN_OFF = "the answer was broken off: its finish_reason is {}"


@pytest.mark.parametrize("reason", ["length", "content_filter", "stop", None])
def test_how_an_answer_ended(reason: str | None) -> None:
    found = ended(reason, "half an ans")
    if reason == "content_filter":
        assert isinstance(found, Rejected)
        assert found.why == BROKEN_OFF.format(reason)
    else:
        assert isinstance(found, Talk)
        assert found.cut == (reason == "length")


def ended(reason: str | None, *answers: str) -> Any:
    """Stored answers that ended so, one or as a list."""
    found = []
    for place, words in enumerate(answers):
        question = {**ASKED, "content": f"question {place} that ended with {reason}"}
        found.append(
            of_completion(
                completion([question], [{"message": {"role": "assistant", "content": words}, "finish_reason": reason}])
            )
        )
    return found[0] if len(found) == 1 else found


def test_classes_whose_answers_all_end_after_one_token_are_learned(tmp_path: Path) -> None:
    drafted = recorded(ended("length", *("yes", "no ") * 20), OF_WORDS, tmp_path, None)
    assert not drafted.rejected
    assert {row["answer"] for row in lines(tmp_path / ANSWERS)} == {"yes", "no"}


def test_a_class_that_is_there_whole_counts_where_it_was_broken_off_too(tmp_path: Path) -> None:
    whole, cut = ended("stop", *("yes", "no") * 20), ended("length", *("yes", "not") * 5)
    drafted = recorded(whole + cut, OF_WORDS, tmp_path, None)
    assert not drafted.rejected
    assert Counter(row["answer"] for row in lines(tmp_path / ANSWERS)) == {"yes": 25, "no": 20, "not": 5}


def test_what_only_begins_a_class_is_none(tmp_path: Path) -> None:
    whole, cut = ended("stop", *("praise", "blame") * 20), ended("length", *["pra"] * 6)
    drafted = recorded(whole + cut, OF_WORDS, tmp_path, None)
    assert [one.why for one in drafted.rejected] == [BROKEN_OFF.format("length")] * 6
    assert [one.talk for one in drafted.rejected] == cut


def test_a_text_that_was_broken_off_is_not_learned(tmp_path: Path) -> None:
    whole = ended("stop", *(f"a whole answer {place}" for place in range(30)))
    cut = ended("length", *(f"a half answer {place}" for place in range(5)))
    drafted = recorded(whole + cut, OF_LETTERS, tmp_path, None)
    assert [one.talk for one in drafted.rejected] == cut
    assert drafted.sources == whole


def of_weights(tmp_path: Path, *weights: int, answers: tuple[str, ...]) -> list[Talk]:
    """A file of forty rows, the first ten with answers of these weights, as a job reads it."""
    rows = []
    for place in range(40):
        row: list[dict[str, Any]] = []
        for turn, weight in enumerate(weights):
            row.append({"role": "user", "content": f"question {place} {turn}"})
            said = answers[place % len(answers)] if turn == len(weights) - 1 else "first thought"
            row.append({"role": "assistant", "content": said, **({"weight": weight} if place < 10 else {})})
        rows.append(json.dumps({"messages": row}))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / FILE).write_text("\n".join(rows))
    return talks.of_file(Settings(tmp_path), FILE)


def test_a_classifier_does_not_learn_an_answer_of_weight_0(tmp_path: Path) -> None:
    found = of_weights(tmp_path, 1, 0, answers=("yes", "no"))
    for drafted in (recorded(found, OF_WORDS, tmp_path, None), asked(found, [], {}, None, tmp_path)):
        assert {one.line for one in drafted.sources} == set(range(11, 41))
        assert [one.why for one in drafted.rejected] == ["its answer has weight 0, so it is not to be learned"] * 10


def test_a_classifier_learns_the_last_answer_alone(tmp_path: Path) -> None:
    found = of_weights(tmp_path, 0, 1, answers=("yes", "no"))
    assert not recorded(found, OF_WORDS, tmp_path, None).rejected


@pytest.mark.parametrize("weights", [(0, 1), (1, 0)])
def test_a_writing_student_learns_no_row_with_an_answer_of_weight_0(tmp_path: Path, weights: tuple[int, int]) -> None:
    found = of_weights(tmp_path, *weights, answers=tuple(f"answer {place}" for place in range(40)))
    drafted = recorded(found, OF_LETTERS, tmp_path, None)
    assert {one.line for one in drafted.sources} == set(range(11, 41))
    assert len(drafted.rejected) == 10
    assert all("weight 0" in one.why for one in drafted.rejected)
    assert len(lines(tmp_path / TALKS)) == 30
    assert "weight" not in (tmp_path / TALKS).read_text()


def test_one_class_is_said_to_be_one(tmp_path: Path) -> None:
    rows = [talk(f"question {place}", "praise") for place in range(100)]
    with pytest.raises(DataError, match="all 100 answers are the same, and a classifier has at least two classes"):
        recorded(rows, OF_WORDS, tmp_path, None)
