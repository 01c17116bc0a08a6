"""How long an answer takes: models are timed in turns, so that what else the machine does falls on all of them alike.

A model is any callable from raw rows to an answer that is complete when it returns. This file knows no framework and no
price.

A round times every model once, beginning with another one each time. Its value for a latency is a quantile of the calls
in the round, so a single hiccup does not show; one that lasts makes the round slow, for every model. Repeats stand
where seeds stand in other figures: of a single callable `per_seed` holds a value for each round, of several (a model's
seeds) one for each; `ci95` is over the rounds, or over seeds and rounds together; `mean` is the mean of `per_seed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from stillroom.errors import DataError
from stillroom.rows import Array, Raw, row_count, take_rows

Answer: TypeAlias = Callable[[Raw], Any]
FIELDS = ("latency_ms_p50", "latency_ms_p95", "latency_ms_p50_batch32", "rows_per_s")
CALLS_FOR_P95 = 20
"""With fewer calls in a round the 95th percentile would be the slowest call by another name."""
LONGEST_FOR_P95_S = 0.25
"""A row that takes longer is not asked for so often, and its 95th percentile is left out."""
MOST_CALLS = 256
DRAWS = 10_000


@dataclass(frozen=True)
class Timing:
    """What the rounds measured of one model: field -> [S, rounds], one line for each callable; unmeasured is absent."""

    values: dict[str, Array]

    def figures(self, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Each field as {"mean", "ci95", "per_seed"}; one round of one callable has no `ci95`."""
        figures: dict[str, dict[str, Any]] = {}
        for name, value_SR in self.values.items():
            per_seed = value_SR[0] if len(value_SR) == 1 else value_SR.mean(axis=1)
            figures[name] = {"mean": float(value_SR.mean())}
            if value_SR.size > 1:
                figures[name]["ci95"] = _interval(_resampled(value_SR, seed))
            figures[name]["per_seed"] = per_seed.tolist()
        return figures


def time_together(
    models: Mapping[str, Answer | Sequence[Answer]],
    raw: Raw,
    *,
    seconds: float = 10.0,
    rounds: int = 9,
    big_batch: int = 1024,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time models in turns on rows of `raw`, in batches of 1, 32 and `big_batch` rows; few rows are repeated.

    A model is a callable or several, one for each seed. `seconds` is for everything: a share of it goes to each batch
    size of each callable in each round. Each is called at least once, and with single rows at least CALLS_FOR_P95 times
    where that is quick, so slow models get fewer rounds, and one round of very slow ones may take longer. Raises DataError
    without rows.
    """
    if not row_count(raw):
        raise DataError("there are no rows to time a model on", where="questions.split", cure="Give a test split")
    callables = {name: list(model) if isinstance(model, Sequence) else [model] for name, model in models.items()}
    turns = [(name, place) for name, answers in callables.items() for place in range(len(answers))]
    batches = {size: _batches(raw, size) for size in (1, 32, big_batch)}
    began = clock()
    least = dict.fromkeys(((turn, size) for turn in turns for size in batches), 1)
    for size, cut in batches.items():
        for name, place in turns:
            # The first call loads and compiles, and is no part of an answer; cheap ones go on until caches are warm.
            share_s = seconds / 10 / len(turns) / len(batches)
            spent_s = _block(callables[name][place], cut, share_s, clock, least=1 if size > 1 else 3)
            if size == 1 and min(spent_s) <= LONGEST_FOR_P95_S:
                least[(name, place), size] = CALLS_FOR_P95
    once_s = _one_round_s(callables, turns, batches, clock, least)
    rounds = int(np.clip((seconds - (clock() - began)) / max(once_s, 1e-9), 1, rounds))
    share_s = max(0.0, seconds - (clock() - began)) / rounds / max(1, len(turns) * len(batches))
    measured: dict[tuple[str, int], list[dict[str, float]]] = {turn: [] for turn in turns}
    for number in range(rounds):
        first = number % max(1, len(turns))
        for name, place in turns[first:] + turns[:first]:
            spent = {
                size: _block(callables[name][place], cut, share_s, clock, least[(name, place), size])
                for size, cut in batches.items()
            }
            measured[name, place].append(_fields(spent, big_batch))
    return {
        name: _timing([measured[name, place] for place in range(len(answers))]) for name, answers in callables.items()
    }


def measure_together(
    models: Mapping[str, Answer | Sequence[Answer]],
    raw: Raw,
    *,
    seconds: float = 10.0,
    rounds: int = 9,
    big_batch: int = 1024,
) -> dict[str, dict[str, dict[str, Any]]]:
    """model -> field -> {"mean", "ci95", "per_seed"} for the fields of a scorecard. See `time_together`.

    latency_ms_p50, latency_ms_p95    of single rows; the latter is absent where a row takes more than a quarter second
    latency_ms_p50_batch32            of 32 rows at once, for all 32
    rows_per_s                        with `big_batch` rows at once
    """
    timings = time_together(models, raw, seconds=seconds, rounds=rounds, big_batch=big_batch)
    return {name: timing.figures() for name, timing in timings.items()}


def measure(
    answer: Answer | Sequence[Answer], raw: Raw, *, seconds: float = 5.0, rounds: int = 9, big_batch: int = 1024
) -> dict[str, dict[str, Any]]:
    """field -> {"mean", "ci95", "per_seed"} of one model alone; to compare models, `measure_together` is fairer."""
    return measure_together({"model": answer}, raw, seconds=seconds, rounds=rounds, big_batch=big_batch)["model"]


def ratio(first: Timing, second: Timing, name: str, *, seed: int = 0) -> dict[str, Any]:
    """first / second of one field, round by round: {"mean", "ci95", "per_round"}; both must come from the same rounds.

    Of several seeds the mean of each round is taken. One round has no `ci95`.
    """
    ratio_R = first.values[name].mean(axis=0) / second.values[name].mean(axis=0)
    figure: dict[str, Any] = {"mean": float(ratio_R.mean())}
    if len(ratio_R) > 1:
        figure["ci95"] = _interval(_resampled(ratio_R[None], seed))
    return figure | {"per_round": ratio_R.tolist()}


def _batches(raw: Raw, size: int) -> list[Raw]:
    """Batches of exactly `size` rows, cut before any clock runs, until each of the first rows was seen once."""
    rows = row_count(raw)
    count = max(1, min(MOST_CALLS, rows) // size)
    return [take_rows(raw, np.arange(start * size, (start + 1) * size) % rows) for start in range(count)]


def _block(answer: Answer, batches: list[Raw], seconds: float, clock: Callable[[], float], least: int) -> list[float]:
    """Seconds of each call: at least `least` of them, then as many as the time has room for, at most MOST_CALLS."""
    spent: list[float] = []
    began = clock()
    while len(spent) < least or (len(spent) < MOST_CALLS and clock() - began + spent[-1] < seconds):
        batch = batches[len(spent) % len(batches)]
        start = clock()
        answer(batch)
        spent.append(clock() - start)
    return spent


def _one_round_s(
    callables: Mapping[str, list[Answer]],
    turns: list[tuple[str, int]],
    batches: Mapping[int, list[Raw]],
    clock: Callable[[], float],
    least: Mapping[tuple[tuple[str, int], int], int],
) -> float:
    """How long the shortest possible round takes: each callable as often as it must with each batch size."""
    return sum(
        sum(_block(callables[name][place], cut, 0.0, clock, least[(name, place), size]))
        for name, place in turns
        for size, cut in batches.items()
    )


def _fields(spent: Mapping[int, list[float]], big_batch: int) -> dict[str, float]:
    single, middle, big = spent[1], spent[32], spent[big_batch]
    fields = {"latency_ms_p50": float(np.median(single)) * 1e3}
    if len(single) >= CALLS_FOR_P95:
        fields["latency_ms_p95"] = float(np.percentile(single, 95)) * 1e3
    fields["latency_ms_p50_batch32"] = float(np.median(middle)) * 1e3
    return fields | {"rows_per_s": big_batch / max(float(np.median(big)), 1e-9)}


def _timing(per_callable: list[list[dict[str, float]]]) -> Timing:
    """The fields that every round of every callable has."""
    return Timing(
        {
            name: np.array([[fields[name] for fields in rounds] for rounds in per_callable])
            for name in FIELDS
            if all(name in fields for rounds in per_callable for fields in rounds)
        }
    )


def _resampled(value_SR: Array, seed: int) -> Array:
    """The mean in each bootstrap draw of seeds and rounds together [draws]."""
    generator = np.random.default_rng([seed, 2])
    seeds, rounds = value_SR.shape
    picked_DS = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    picked_DR = generator.multinomial(rounds, np.full(rounds, 1 / rounds), size=DRAWS) / rounds
    mean_D: Array = ((picked_DS @ value_SR) * picked_DR).sum(axis=1)
    return mean_D


def _interval(value_D: Array) -> list[float]:
    low, high = np.percentile(value_D, [2.5, 97.5])
    return [float(low), float(high)]
