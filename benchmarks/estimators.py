"""How biased are soft targets made of 20 log-probabilities? Against a teacher whose whole distribution is known.

    python -m benchmarks.estimators          prints the table
    python -m benchmarks.estimators --write  puts it into docs/explanation/soft-targets-from-an-api.md

The teacher is a softmax over 100 labels, and some of its mass goes to tokens that are none. What the API would tell of it,
the 20 likeliest tokens or sampled labels, is read by the code that reads real answers (teachers/api_reading.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stillroom.rows import Array
from stillroom.teachers.api_reading import Estimator, read_distribution, shares

LABELS, TOP, OTHER, FLOOR = 100, 20, 0.05, 1e-6
OTHER_TOKENS = ("The", "It", "I", "This")
SCALES = {"doubtful": 1.0, "between": 2.0, "sure": 4.0}
"""Standard deviation of the logits: how sure the teacher is."""
WORDS = [f"{chr(97 + place // 10)}{chr(97 + place % 10)}-label" for place in range(LABELS)]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "soft-targets-from-an-api.md"
START, END = "<!-- made by benchmarks/estimators.py -->", "<!-- end -->"


class Measured(NamedTuple):
    """Of an estimator, means over questions; probabilities of labels, given that the answer is one."""

    calls: int
    confidence_bias: float
    """Of the likeliest label's probability."""
    tail_bias: float
    """Of the mass of all labels that are not among the 20 likeliest."""
    bias: float
    """Total variation between the teacher and the estimate's mean over repetitions."""
    error: float
    """Total variation between the teacher and one estimate."""
    kl: float
    """KL(teacher, mean of estimates), nats: what a student that fits the estimates loses, with FLOOR for a probability of 0."""


def teacher(scale: float, questions: int, seed: int = 0) -> Array:
    """Its probabilities of the labels and of other tokens [N, C + others]."""
    chance = np.random.default_rng((seed, round(1000 * scale)))
    logits_NC = scale * chance.standard_normal((questions, LABELS))
    p_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    others = 2.0 ** -np.arange(len(OTHER_TOKENS))
    other_NC = np.broadcast_to(others / others.sum() * OTHER, (questions, len(OTHER_TOKENS)))
    return np.concatenate([p_NC / p_NC.sum(1, keepdims=True) * (1 - OTHER), other_NC], 1)


def answer(p_C: Array) -> dict[str, Any]:
    """What an API tells of a distribution: the likeliest token, and the log-probabilities of the 20 likeliest."""
    tokens = [*WORDS, *OTHER_TOKENS]
    likeliest = np.argsort(-p_C, kind="stable")[:TOP]
    told = [{"token": tokens[place], "logprob": float(np.log(p_C[place]))} for place in likeliest]
    first = {**told[0], "top_logprobs": told}
    message = {"role": "assistant", "content": told[0]["token"]}
    return {"choices": [{"message": message, "finish_reason": "stop", "logprobs": {"content": [first]}}]}


def from_tokens(p_NC: Array, estimator: Estimator) -> Array:
    """The estimate [N, C] from one answer to each question."""
    read = [read_distribution(answer(p_C), WORDS, estimator, TOP) for p_C in p_NC]
    assert all(isinstance(one, list) for one in read), "each of these answers has a label among its tokens"
    return np.array(read)


def from_samples(truth_NC: Array, samples: int, repetitions: int, seed: int) -> tuple[Array, Array]:
    """One estimate [N, C] from so many sampled answers, and its mean over repetitions."""
    chance = np.random.default_rng(seed)
    drawn = [chance.choice(LABELS, samples, p=p_C).tolist() for p_C in truth_NC]
    one_NC = np.array([shares(places, LABELS) for places in drawn])
    return one_NC, chance.multinomial(samples * repetitions, truth_NC) / (samples * repetitions)


def measure(truth_NC: Array, one_NC: Array, mean_NC: Array, calls: int) -> Measured:
    """One estimate and its mean against the truth [N, C]."""
    rows = np.arange(len(truth_NC))
    first_N = truth_NC.argmax(1)
    in_tail_NC = truth_NC < np.sort(truth_NC, 1)[:, -TOP][:, None]
    kl_N = (truth_NC * (np.log(truth_NC) - np.log(np.maximum(mean_NC, FLOOR)))).sum(1)
    return Measured(
        calls,
        float((mean_NC - truth_NC)[rows, first_N].mean()),
        float(((mean_NC - truth_NC) * in_tail_NC).sum(1).mean()),
        float(np.abs(mean_NC - truth_NC).sum(1).mean() / 2),
        float(np.abs(one_NC - truth_NC).sum(1).mean() / 2),
        float(kl_N.mean()),
    )


def table(questions: int = 1000, repetitions: int = 2000) -> dict[str, dict[str, Measured]]:
    """How sure the teacher is -> estimator -> what was measured."""
    found: dict[str, dict[str, Measured]] = {}
    for name, scale in SCALES.items():
        p_NC = teacher(scale, questions)
        truth_NC = p_NC[:, :LABELS] / p_NC[:, :LABELS].sum(1, keepdims=True)
        read: dict[str, Measured] = {}
        for estimator in ("renormalised", "bucket"):
            one_NC = from_tokens(p_NC, estimator)
            read[estimator] = measure(truth_NC, one_NC, one_NC, 1)
        for samples in (5, 20):
            read[f"sampled, {samples}"] = measure(
                truth_NC, *from_samples(truth_NC, samples, repetitions, seed=1), samples
            )
        found[name] = read
    return found


def markdown(found: dict[str, dict[str, Measured]]) -> str:
    """The table as it stands in the docs."""
    head = ["teacher", "estimator", "calls", "likeliest label", "tail's mass", "bias", "error of one", "KL"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    for name, read in found.items():
        for estimator, one in read.items():
            signed = [f"{figure:+.3f}" for figure in (one.confidence_bias, one.tail_bias)]
            figures = [*signed, *(f"{figure:.3f}" for figure in (one.bias, one.error, one.kl))]
            lines.append("| " + " | ".join([name, estimator, str(one.calls), *figures]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it into the page."""
    told = markdown(table())
    print(told)
    if "--write" in sys.argv[1:]:
        before, _, rest = PAGE.read_text().partition(START)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{START}\n\n{told}\n\n{END}{after}")


if __name__ == "__main__":
    main()
