"""Distributions over labels from the tokens of an answer, where several labels begin with the same token."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stillroom.teachers.api_reading import Refusal, read_distribution

WORDS = ["refund", "return", "cancel"]


def body(*positions: dict[str, float], said: str) -> dict[str, Any]:
    """An answer of these tokens, each position with what else was likely; the first of each is the one that was chosen."""
    content = []
    for tokens in positions:
        told = [{"token": token, "logprob": math.log(p)} for token, p in tokens.items()]
        content.append({**told[0], "top_logprobs": told})
    choice = {"message": {"content": said}, "finish_reason": "stop", "logprobs": {"content": content}}
    return {"choices": [choice]}


def read(*positions: dict[str, float], said: str, estimator: Any = "renormalised") -> Any:
    return read_distribution(body(*positions, said=said), WORDS, estimator, 20)


def test_a_token_that_was_not_taken_is_shared_by_its_labels() -> None:
    assert read({"cancel": 0.6, "re": 0.4}, said="cancel") == pytest.approx([0.2, 0.2, 0.6])
    assert read({"cancel": 0.5, "re": 0.3, "ref": 0.1}, said="cancel") == pytest.approx(
        [0.25 / 0.9, 0.15 / 0.9, 0.5 / 0.9]
    )


def test_a_token_that_was_taken_is_parted_where_the_answer_goes_on() -> None:
    found = read({"re": 0.8, "cancel": 0.2}, {"fund": 0.75, "turn": 0.25}, said="refund")
    assert found == pytest.approx([0.6, 0.2, 0.2])
    found = read({"re": 0.8, "Re": 0.1, "cancel": 0.1}, {"fund": 1.0}, said="refund")
    assert found == pytest.approx([0.85, 0.05, 0.1])


def test_an_answer_that_ends_before_its_labels_part_is_shared() -> None:
    assert read({"re": 0.8, "cancel": 0.2}, said="re") == pytest.approx([0.4, 0.4, 0.2])
    assert isinstance(read({"re": 1.0}, said="re"), Refusal), "which label is said is not known at all"


def test_blanks_and_quotes_say_nothing_of_a_label() -> None:
    assert read({"cancel": 0.6, " ": 0.2, '"': 0.1, "ref": 0.1}, said="cancel") == pytest.approx([1 / 7, 0, 6 / 7])


def test_a_label_that_has_its_share_is_not_in_the_bucket_too() -> None:
    found = read({"cancel": 0.5, "re": 0.3}, said="cancel", estimator="bucket")
    assert found == pytest.approx([0.15 / 0.8, 0.15 / 0.8, 0.5 / 0.8])


@pytest.mark.parametrize(("least", "is_one"), [(0.0, True), (0.5, True), (0.7, False)])
def test_labels_want_a_share_of_what_is_told(least: float, is_one: bool) -> None:
    """A doubtful teacher tells little of its mass; what counts is how much of that is on labels."""
    told = body({"cancel": 0.2, "The": 0.1}, said="cancel")
    found = read_distribution(told, WORDS, "bucket", 20, least)
    assert isinstance(found, list) is is_one
    assert is_one or isinstance(found, Refusal)
