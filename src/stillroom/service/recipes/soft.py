"""Log-probabilities that came with stored answers -> how likely each class was to the one who gave the answer.

They are read as those of a teacher that is asked with `read: logprobs`, by its default estimator. An answer that came without
any, or whose tokens say too little of the classes, counts as what was said and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stillroom.errors import DataError
from stillroom.teachers.api_reading import AROUND, Refusal, read_distribution

MOST_TOP = 20
"""Tokens of a position that are looked at: as many as the interface tells."""
LEAST_SHARE = 0.5
"""Of the mass of the tokens told, on those that begin a class. With less they spell something else, such as a thought that was
cut off the answer."""


def tokens_of(choice: Mapping[str, Any]) -> str | None:
    """As JSON, the likeliest tokens of each position of an answer; None where it came without, or with what are none."""
    try:
        found = [
            {**_scored(one), "top_logprobs": [_scored(each) for each in one["top_logprobs"]]}
            for one in choice["logprobs"]["content"]
        ]
    except (TypeError, KeyError):  # whatever stands there, as a teacher gave it
        return None
    return json.dumps(found, ensure_ascii=False) if any(one["top_logprobs"] for one in found) else None


def _scored(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": one["token"], "logprob": one["logprob"]}


def soft_answers(said: Sequence[str], tokens: Sequence[str | None]) -> tuple[list[dict[str, float]], int]:
    """The log-probabilities of each answer's likelier classes, the rest being shared by the others; and how many of them are
    more than what was said. Raises DataError where none is.
    """
    classes = sorted(set(said))
    bare = [name.strip(AROUND) for name in classes]
    words = bare if all(bare) and len(set(bare)) == len(bare) else classes
    found = [_likely(text, told, classes, words) for text, told in zip(said, tokens, strict=True)]
    soft = sum(one is not None for one in found)
    if not soft:
        raise DataError(
            f"none of these {len(said):,} answers came with log-probabilities that tell the classes apart",
            where="distillation.soft_targets",
            cure="Store answers that were asked for with logprobs: true and top_logprobs: 20; or leave soft_targets out, and "
            "learn what was said",
        )
    return [one or {text: 0.0} for one, text in zip(found, said, strict=True)], soft


def _likely(text: str, told: str | None, classes: Sequence[str], words: Sequence[str]) -> dict[str, float] | None:
    if told is None:
        return None
    choice = {"message": {"content": text}, "logprobs": {"content": json.loads(told)}}
    read = read_distribution({"choices": [choice]}, words, "bucket", MOST_TOP, LEAST_SHARE)
    if isinstance(read, Refusal):
        return None
    # Those that were not seen have one and the same share: unsaid, they get it when this is read, and 200 classes cost little.
    likelier = {name: math.log(p) for name, p in zip(classes, read, strict=True) if p > min(read)}
    return likelier or {name: math.log(p) for name, p in zip(classes, read, strict=True)}
