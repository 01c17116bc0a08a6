"""Which traces are kept, how many more are sampled, and what a kept one cost."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from stillroom.rows import Verdict
from stillroom.transfer_set.trace_choice import choose_traces, cost_of_kept, more_needed
from stillroom.transfer_set.traces import Trace, read_trace

RIGHT, WRONG, UNSURE = Verdict("accepted"), Verdict("rejected"), Verdict("unsure", "it takes longer than 1 s")


@dataclass
class Sample:
    tokens_in: int
    tokens_out: int
    usd: float


def trace(words: int) -> Trace:
    return Trace("so " * words, "#### 5", "5", "hashes")


TRACES = [trace(5), trace(2), trace(9), trace(2), trace(1)]
VERDICTS = [RIGHT, RIGHT, RIGHT, RIGHT, WRONG]


def test_short_long_first() -> None:
    assert choose_traces(TRACES, VERDICTS, "q", "short") == [1]
    assert choose_traces(TRACES, VERDICTS, "q", "long") == [2]
    assert choose_traces(TRACES, VERDICTS, "q", "first") == [0]
    assert choose_traces(TRACES, VERDICTS, "q", "short", count=9) == [1, 0, 2], "the same text counts once"
    assert choose_traces(TRACES, [WRONG] * 5, "q", "short") == []


def test_a_trace_that_was_cut_off_is_never_kept() -> None:
    assert choose_traces([read_trace("#### 5", "length"), read_trace("#### 5")], [RIGHT, RIGHT], "q", "first") == [1]
    assert choose_traces([trace(1)], [UNSURE], "q", "first") == []


def test_mixed_keeps_one_long_in_five_and_the_question_alone_decides_which() -> None:
    chosen = [choose_traces(TRACES, VERDICTS, f"question {n}", "mixed")[0] for n in range(2000)]
    assert set(chosen) == {1, 2}
    assert chosen.count(2) / len(chosen) == pytest.approx(0.2, abs=0.04)
    again = [choose_traces(TRACES, VERDICTS, f"question {n}", "mixed")[0] for n in range(2000)]
    assert again == chosen


def test_sampling_stops_when_there_are_enough_or_no_room() -> None:
    assert more_needed([], most=8) == 1
    assert more_needed([WRONG], most=8) == 1
    assert more_needed([RIGHT], most=8) == 0
    assert more_needed([RIGHT], most=8, wanted=2) == 1
    assert more_needed([WRONG] * 8, most=8) == 0
    assert more_needed([UNSURE] * 3, most=8) == 1


def test_sampling_stops_when_another_accepted_one_is_unlikely() -> None:
    def until(rate: float, worth: float) -> int:
        return next(n for n in range(1000) if not more_needed([WRONG] * n, most=1000, rate=rate, worth=worth))

    assert until(0.5, 0.05) == 19, "1 / (n + 2) falls below 0.05"
    assert until(0.1, 0.05) == 3, "0.2 / (n + 2) falls below 0.05"
    assert until(0.9, 0.05) > until(0.5, 0.05)
    assert more_needed([WRONG] * 500, most=1000, worth=0.0) == 1


def test_asking_for_several_at_once_stays_within_bounds() -> None:
    assert more_needed([], most=16, wanted=4, rate=0.5, at_once=16) == 8
    assert more_needed([], most=5, wanted=4, rate=0.5, at_once=16) == 5
    assert more_needed([], most=16, wanted=4, rate=0.5, at_once=3) == 3
    assert more_needed([RIGHT] * 3, most=16, wanted=4, rate=0.5, at_once=16) == 2


def test_the_adaptive_stop_costs_little_more_than_it_must() -> None:
    """Questions of one chance p need 1 / p samples for an accepted one; bounded sampling never needs 1.3 times that."""
    from random import Random

    dice = Random(0)
    for chance in (0.3, 0.6, 0.9):
        made = kept = 0
        for _ in range(3000):
            verdicts: list[Verdict] = []
            while more := more_needed(verdicts, most=16, rate=chance):
                verdicts += [RIGHT if dice.random() < chance else WRONG for _ in range(more)]
            made += len(verdicts)
            kept += RIGHT in verdicts
        assert made / kept <= 1.3 / chance


def test_the_cost_of_a_kept_trace_includes_those_that_were_not_kept() -> None:
    samples = [Sample(100, 50, 0.01), Sample(100, 150, 0.03), Sample(100, 100, 0.02)]
    cost = cost_of_kept(samples, [RIGHT, WRONG, UNSURE])
    assert (cost.kept, cost.calls, cost.tokens_in, cost.tokens_out) == (1, 3, 300, 300)
    assert cost.usd == pytest.approx(0.06)
    assert (cost.usd_per_kept, cost.tokens_per_kept, cost.calls_per_kept) == (pytest.approx(0.06), 600, 3)
    assert cost.outcomes == {"accepted": 1, "rejected": 1, "unsure": 1}
    fewer = cost_of_kept(samples, [RIGHT, RIGHT, UNSURE], kept=1, calls=1)
    assert (fewer.usd_per_kept, fewer.calls_per_kept) == (pytest.approx(0.06), 1)
    none = cost_of_kept(samples, [WRONG] * 3)
    assert (none.usd_per_kept, none.tokens_per_kept, none.calls_per_kept) == (None, None, None)
