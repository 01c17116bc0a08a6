"""What a student is taught of a teacher's traces: question and text to learn, in one of several forms.

    trace      thought, solution and answer, as the teacher wrote them
    answer     the answer of the same traces, alone
    gold       the gold answer of every question
    filler     as many tokens as the trace has, which say nothing, then the answer: extra computation without content
    shuffled   the thought with its steps in another order, then solution and answer
    rationale  two tasks told apart by a word before the question, the answer and the thought (Hsieh et al. 2023,
               arXiv:2305.02301); both weigh the same, and only the answer is asked for afterwards

This file knows no network; a tokenizer it asks only how long a text is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stillroom.reasoning_knobs import Learn
from stillroom.rundir import fingerprint
from stillroom.transfer_set.traces import Trace

ANSWER_TASK, RATIONALE_TASK = "Answer: ", "Explain: "
FILLERS = (".", " .", "\n.", " the")
"""Each is tried as the text of one token of filler."""
TRIED = 16
SENTENCE = re.compile(r"(?<=[.!?;])\s+")


class Pair(NamedTuple):
    """A question, and what is to be said to it."""

    question: str
    text: str
    weight: float = 1.0
    """Of each of its tokens in the loss."""


class Chosen(NamedTuple):
    """A trace to learn from, and the question it answers."""

    key: str
    question: str
    trace: Trace


def whole(trace: Trace) -> str:
    """A trace as a student is to write it."""
    return f"<think>{trace.thought}</think>\n{trace.solution}" if trace.thought else trace.solution


def answer_alone(answer: str) -> str:
    """An answer without reasoning."""
    return f"#### {answer}"


def asked_as(learn: Learn, question: str) -> str:
    """How a student is asked that was taught in this form."""
    return ANSWER_TASK + question if learn == "rationale" else question


def pairs_of(
    learn: Learn,
    chosen: Sequence[Chosen],
    gold: Mapping[str, str],
    asked: Callable[[str], str],
    length_of: Callable[[str], int],
) -> list[Pair]:
    """What is taught. `gold`: gold answers by a question's key, and `asked` gives the question; `length_of`: tokens of a text."""
    if learn == "gold":
        return [Pair(asked(key), answer_alone(answer)) for key, answer in gold.items()]
    if learn == "answer":
        return [Pair(one.question, answer_alone(_answer(one.trace))) for one in chosen]
    if learn == "filler":
        unit = filler_of(length_of)
        return [Pair(one.question, _filled(one.trace, unit, length_of)) for one in chosen]
    if learn == "shuffled":
        return [Pair(one.question, whole(_shuffled(one))) for one in chosen]
    if learn == "rationale":
        return _two_tasks(chosen, length_of)
    return [Pair(one.question, whole(one.trace)) for one in chosen]


def _answer(trace: Trace) -> str:
    assert trace.answer is not None, "only complete traces are chosen"
    return trace.answer


def filler_of(length_of: Callable[[str], int]) -> str:
    """A text that this tokenizer makes one token of, however often it stands there."""
    return next((unit for unit in FILLERS if length_of(unit * TRIED) == TRIED), FILLERS[0])


def _filled(trace: Trace, unit: str, length_of: Callable[[str], int]) -> str:
    answer = answer_alone(_answer(trace))
    count = max(0, length_of(whole(trace)) - length_of(answer))
    return f"{unit * count}\n{answer}".strip()


def _shuffled(one: Chosen) -> Trace:
    """The same thought with its lines, or its sentences, or its words in another order."""
    thought = one.trace.thought or one.trace.solution.rpartition("\n")[0]
    steps, between = _steps(thought)
    dice = random.Random(fingerprint("shuffled", one.key))
    order = list(range(len(steps)))
    while len(steps) > 1 and order == sorted(order):
        dice.shuffle(order)
    mixed = between.join(steps[place] for place in order)
    if one.trace.thought:
        return Trace(mixed, one.trace.solution, one.trace.answer, one.trace.form)
    last = one.trace.solution.rpartition("\n")[2]
    return Trace("", f"{mixed}\n{last}".strip(), one.trace.answer, one.trace.form)


def _steps(thought: str) -> tuple[list[str], str]:
    lines = [line for line in thought.splitlines() if line.strip()]
    if len(lines) > 1:
        return lines, "\n"
    sentences = SENTENCE.split(thought.strip())
    return (sentences, " ") if len(sentences) > 1 else (thought.split(), " ")


def _two_tasks(chosen: Sequence[Chosen], length_of: Callable[[str], int]) -> list[Pair]:
    """Each trace as two rows; a token of an answer weighs as much more as rationales are longer."""
    answers = [answer_alone(_answer(one.trace)) for one in chosen]
    rationales = [_rationale(one.trace) for one in chosen]
    ratio = sum(map(length_of, rationales)) / max(1, sum(map(length_of, answers)))
    found = []
    for one, answer, rationale in zip(chosen, answers, rationales, strict=True):
        found.append(Pair(ANSWER_TASK + one.question, answer, ratio))
        if rationale:
            found.append(Pair(RATIONALE_TASK + one.question, rationale))
    return found


def _rationale(trace: Trace) -> str:
    """The reasoning without the answer that is asked for by itself."""
    return trace.thought or trace.solution.rpartition("\n")[0].strip()


def length_in(tokenizer: Any) -> Callable[[str], int]:
    """How many tokens of this tokenizer a text has."""
    from stillroom.models.tokenizers import encode

    return lambda text: len(encode(tokenizer, [text], special=False)[0])
