"""What asking would take, before it is done: calls, tokens, USD and minutes, each with the ends of an interval.

Without a pilot the figures are a guess from the lengths of the prompts, and called one. After a pilot of a few calls they
are its ratios to these lengths, with 95 % intervals by Student's t: for the rest of the calls, not for their mean alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from stillroom.budget import MILLION, NANO
from stillroom.errors import DataError
from stillroom.ledger import Ledger
from stillroom.rows import Array, Questions
from stillroom.teachers.api_asked import AskedApi, Wanted

BYTES_A_TOKEN = (6.0, 4.0, 2.0)
"""Low, middle and high guess of tokens: English prose has about 4 bytes a token, numbers and other scripts fewer."""
LATENCY_S = (0.3, 1.0, 5.0)
SHARE_OF_REASONING = (0.1, 0.5, 1.0)
"""Of the most tokens that an answer with reasoning may have."""
LABEL_TOKENS = {"exact": (1, 2, 6), "logprobs": (1, 2, 6), "json": (6, 9, 20)}
TOKENS_A_SECOND = (200.0, 50.0, 15.0)
"""That a model writes where an answer is long."""
GUESS = "a guess from the lengths of the prompts, at 4 bytes a token and 1 s a call; a pilot measures it"
GUESS_OF_REASONING = (
    "a guess: 4 bytes a token, answers of half the most tokens, 50 tokens a second; a pilot measures it"
)
LEAST = 3


class Range(NamedTuple):
    """A figure between its ends."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Expected:
    """What asking takes; `usd` is None where no price is known."""

    calls: int
    """New ones: what the ledger holds already costs nothing."""
    tokens: Range
    usd: Range | None
    minutes: Range
    basis: str
    """A guess, or a pilot of so many calls."""


@dataclass(frozen=True)
class Pilot:
    """Of n calls that were made: bytes of their prompts, tokens read and written, seconds, each [n]."""

    bytes_N: Array
    tokens_in_N: Array
    tokens_out_N: Array
    seconds_N: Array


def wanted_by(asked: AskedApi, questions: Sequence[Questions], ledger: Ledger | None = None) -> list[Wanted]:
    """The requests that answering these questions would make; each once, and none that is paid for already."""
    each = {one.key: one for some in questions if len(some) for one in asked.wanted(some.raw)}
    kept = set() if ledger is None else ledger.kept_among(list(each))
    return [one for key, one in each.items() if key not in kept]


def pilot(asked: AskedApi, questions: Questions, calls: int, seed: int = 0) -> Pilot:
    """Ask about so many questions drawn at random, charged as a pilot; their answers are bought for good.

    Raises DataError where too few of them are answered to tell anything.
    """
    assert asked.ledger is not None, "charge() hands it a ledger"
    count = min(len(questions), max(1, calls // asked.knobs.samples))
    drawn = questions.take(np.random.default_rng(seed).choice(len(questions), count, replace=False))
    single = asked.knobs.model_copy(update={"batch": False})  # a pilot is for now, and tells how long a call takes
    replace(asked.charge(asked.ledger, "pilot"), knobs=single).answer(drawn)
    return measured(asked, asked.wanted(drawn.raw))


def measured(asked: AskedApi, made: Sequence[Wanted]) -> Pilot:
    """What those of these requests that are in the ledger took. Raises DataError where they are too few to tell anything."""
    assert asked.ledger is not None, "charge() hands it a ledger"
    wanted = {one.key: one for one in made}
    kept = [(wanted[key], response) for key, response in asked.ledger.kept_of(list(wanted))]
    if len(kept) < LEAST:
        raise DataError(
            f"a pilot of {len(kept)} answered calls tells nothing",
            where="--pilot",
            cure=f"Make it at least {LEAST} calls, and look at why they are not answered",
        )
    return Pilot(
        np.array([len(one.messages) for one, _ in kept], float),
        np.array([response.cost.tokens_in for _, response in kept], float),
        np.array([response.cost.tokens_out for _, response in kept], float),
        np.array([response.latency_s for _, response in kept], float),
    )


def expected(asked: AskedApi, wanted: Sequence[Wanted], piloted: Pilot | None = None) -> Expected:
    """What these requests would take; a guess where there was no pilot."""
    return expected_of(asked, np.array([len(one.messages) for one in wanted], float), piloted)


def expected_of(asked: AskedApi, sizes_N: Array, piloted: Pilot | None = None) -> Expected:
    """What calls with prompts of so many bytes [N] would take; a guess where there was no pilot."""
    rates = asked.batcher.rates if asked.knobs.batch else asked.caller.rates
    if piloted is None:
        basis = GUESS_OF_REASONING if asked.knobs.task == "reasoning" else GUESS
        read, written, seconds = _guess(asked, sizes_N)
        tokens = Range(*map(sum, zip(read, written, strict=True)))
        usd = Range(*(rates.cost(math.ceil(one), math.ceil(two)).usd for one, two in zip(read, written, strict=True)))
    else:
        basis = f"a pilot of {len(piloted.bytes_N)} calls, 95 % intervals"
        tokens = _total(piloted, sizes_N, 1, 1)
        usd = _total(piloted, sizes_N, rates.nano_usd_in / MILLION / NANO, rates.nano_usd_out / MILLION / NANO)
        seconds = _seconds(piloted, len(sizes_N))
    minutes = Range(*(_minutes(asked, len(sizes_N), one, two) for one, two in zip(tokens, seconds, strict=True)))
    return Expected(len(sizes_N), tokens, usd if asked.knobs.price is not None else None, minutes, basis)


def _guess(asked: AskedApi, sizes_N: Array) -> tuple[Range, Range, Range]:
    """Tokens read and written, and seconds in flight, of all calls together."""
    knobs, calls = asked.knobs, len(sizes_N)
    written = LABEL_TOKENS[knobs.read]
    if knobs.task == "reasoning":
        written = tuple(share * knobs.most_tokens for share in SHARE_OF_REASONING)  # type: ignore[assignment]
    tokens = Range(*(min(one, knobs.most_tokens) * calls for one in written))
    seconds = Range(*(one * calls for one in LATENCY_S))
    if knobs.task == "reasoning":
        seconds = Range(*(one + many / fast for one, many, fast in zip(seconds, tokens, TOKENS_A_SECOND, strict=True)))
    return Range(*(sizes_N.sum() / size for size in BYTES_A_TOKEN)), tokens, seconds


def _seconds(piloted: Pilot, calls: int) -> Range:
    """In flight, of all calls together."""
    none_N = np.zeros_like(piloted.seconds_N)
    return _total(Pilot(none_N + 1, piloted.seconds_N, none_N, none_N), np.ones(calls), 1, 0)


def _total(piloted: Pilot, sizes_N: Array, of_read: float, of_written: float) -> Range:
    """A weighted sum of tokens over all calls: tokens read go with the prompt's size, tokens written do not.

    The ratio estimator (Cochran 1977, section 6), with the residuals of the pilot for its error and for that of the calls
    to come.
    """
    n, calls = len(piloted.bytes_N), len(sizes_N)
    ratio = piloted.tokens_in_N.sum() / piloted.bytes_N.sum()
    mean = piloted.tokens_out_N.mean()
    residual_N = of_read * (piloted.tokens_in_N - ratio * piloted.bytes_N) + of_written * (piloted.tokens_out_N - mean)
    spread = math.sqrt(float((residual_N**2).sum()) / (n - 1))
    middle = of_read * ratio * float(sizes_N.sum()) + of_written * mean * calls
    half = _t(n - 1) * spread * math.sqrt(calls**2 / n + calls)
    return Range(max(0.0, middle - half), middle, middle + half)


def mean_of(value_N: Array) -> Range:
    """The mean with its 95 % interval by Student's t."""
    count, middle = len(value_N), float(value_N.mean())
    half = _t(count - 1) * float(value_N.std(ddof=1)) / math.sqrt(count)
    return Range(max(0.0, middle - half), middle, middle + half)


def _t(freedom: int) -> float:
    """The 97.5 % point of Student's t, by its expansion about the normal one (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, 1)))


def _minutes(asked: AskedApi, calls: int, tokens: float, seconds: float) -> float:
    """As long as the slowest of the limits takes; what a batch takes is not known."""
    limits = asked.knobs.limits
    by_limits = [
        calls / limits.requests_per_minute if limits.requests_per_minute else 0.0,
        tokens / limits.tokens_per_minute if limits.tokens_per_minute else 0.0,
    ]
    return max(seconds / 60 / max(1, min(calls, limits.concurrency)), *by_limits)
