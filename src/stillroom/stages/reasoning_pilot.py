"""What sampling a teacher that reasons would take: a guess, or what a pilot of a few samples tells, judged like any others.

A pilot buys first samples of training questions, so a run finds them in its ledger and pays for none of them again. How
many samples a question takes follows from the share that is accepted; each end of its interval goes with an end of the
interval of tokens and seconds a call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.rows import Questions
from stillroom.stages.paying import ledger_path, paying
from stillroom.stages.pricing import ends
from stillroom.stages.reasoning import asked_of, verifier_of, with_good_gold

if TYPE_CHECKING:
    from stillroom.stages.opening import Run
    from stillroom.teachers.api_asked import AskedApi
    from stillroom.teachers.api_estimates import Expected, Pilot, Range
    from stillroom.transfer_set.sampling import Sampled

PILOT = "pilot"
REWRITTEN_TOKENS = (0.5, 1.0, 1.5)
"""Tokens of a rewritten trace over those of the sampled one: one that is longer than the last is not used."""


@dataclass(frozen=True)
class Told:
    """Figures and notes for a plan; minutes and USD of all calls that are still to come, USD None where no price is known."""

    figures: dict[str, Any]
    notes: list[str]
    minutes: float
    usd: float | None
    numbers: dict[str, list[float]]
    """What they take as a plan tells it: `calls`, `tokens` and `usd`, each [low, middle, high], whoever writes traces again
    included."""


@dataclass(frozen=True)
class _Seen:
    """What the pilot saw."""

    calls: int
    samples: list[Sampled]
    took: Pilot

    @property
    def accepted(self) -> list[Sampled]:
        return [one for one in self.samples if one.verdict.accepted]


def expected_samples(accepted: float, most: int, wanted: int) -> float:
    """Samples of a question, on average, where each is accepted with this chance and asking stops at `wanted` or `most`."""
    share_W = np.zeros(wanted)
    share_W[0], expected = 1.0, 0.0
    for _ in range(most):
        expected += share_W.sum()
        more_W = share_W * accepted
        share_W = share_W * (1 - accepted)
        share_W[1:] += more_W[:-1]
    return float(expected)


def between(asked: AskedApi, questions: Questions, calls: tuple[int, int, int], took: Pilot | None = None) -> Expected:
    """What the fewest, the likely and the most calls take, about questions as long as these."""
    from stillroom.teachers.api_estimates import Range, expected_of

    sizes_N = np.array([len(one.messages) for one in asked.wanted(questions.raw)], float)
    least, likely, most = (expected_of(asked, np.resize(sizes_N, count), took) for count in calls)

    def spread(low: Range, middle: Range, high: Range) -> Range:
        return Range(low.low, middle.middle, high.high)

    usd = None
    if least.usd is not None and likely.usd is not None and most.usd is not None:
        usd = spread(least.usd, likely.usd, most.usd)
    return replace(
        likely, tokens=spread(least.tokens, likely.tokens, most.tokens), usd=usd,
        minutes=spread(least.minutes, likely.minutes, most.minutes),
    )  # fmt: skip


def pilot_traces(run: Run, calls: int, scored: int) -> Told:
    """Sample and judge, with at most so many calls, and tell what the rest would take. Raises what asking raises."""
    from stillroom.evaluation.proportions import wilson

    knobs, asked = run.recipe.traces, _teacher(run)
    questions, _ = with_good_gold(run.splits, run.splits.train, verifier_of(run))
    # The samples are the run's, so the folder is from now on; a run that is at work is not disturbed.
    with run.dir.hold(run.recipe.name), paying(run):
        assert run.ledger is not None, "a teacher that is paid has one"
        charged: AskedApi = asked.charge(run.ledger, PILOT)
        seen = _seen(run, charged, questions, calls)
        keys = [one.key for one in charged.wanted(questions.raw, knobs.samples)]
        bought, spent = len(run.ledger.kept_among(keys)), run.ledger.spent(PILOT)
    right, (low, high) = len(seen.accepted), wilson(len(seen.accepted), seen.calls)
    shares = (high, right / seen.calls, low)
    each = [expected_samples(share, knobs.samples, knobs.keep) for share in shares]
    to_come = tuple(max(0, round(len(questions) * one) + scored - bought) for one in each)
    found = between(charged, questions, to_come, seen.took)  # type: ignore[arg-type]
    kept = tuple(len(questions) * share * one for share, one in zip(shares, each, strict=True))
    figures = {**_of_calls(seen, shares, to_come, found), **_rewriting(run, seen, kept)}
    usd = f" for {spent.usd:.4g} USD" if found.usd is not None else ""
    notes = [
        f"the pilot made {spent.calls:,} calls{usd}; its answers are kept in {ledger_path(run)} and paid for once",
        f"calls, tokens, USD and minutes of the teacher are what is still to come, by a pilot of {seen.calls:,} samples: the "
        "share accepted with Wilson's 95 % interval, tokens and seconds with Student's, and a question takes as many samples as "
        "if each had that chance; where some questions are never solved it is more",
    ]
    if not right:
        notes.append(
            "no sample of the pilot was accepted: look at the prompt, at transfer_set.verify and at the gold answers"
        )
    usd_of_all = None if found.usd is None else found.usd.middle + _rewriting_usd(run, seen, kept[1])
    return Told(figures, notes, found.minutes.middle, usd_of_all, _numbers(run, seen, to_come, kept, found))


def _numbers(
    run: Run, seen: _Seen, calls: tuple[int, ...], kept: tuple[float, ...], found: Expected
) -> dict[str, list[float]]:
    """For Told; tokens are left out where a model whose tokens nobody counted writes traces again."""
    again = run.recipe.traces.rewrite is not None and bool(seen.accepted)
    ends_of_kept = [round(one) * again for one in reversed(kept)]
    numbers: dict[str, list[float]] = {"calls": [one + more for one, more in zip(calls, ends_of_kept, strict=True)]}
    if not again:
        numbers["tokens"] = [round(one) for one in found.tokens]
    if found.usd is not None:
        beside = [_rewriting_usd(run, seen, one, place) for place, one in enumerate(reversed(kept))]
        numbers["usd"] = [round(one + more, 9) for one, more in zip(found.usd, beside, strict=True)]
    return numbers


def _teacher(run: Run) -> AskedApi:
    built: Any = run.recipe.teacher.build(run.dir.path, run.folders, [], run.device)
    found: AskedApi = built
    return found


def _seen(run: Run, charged: AskedApi, questions: Questions, calls: int) -> _Seen:
    """One sample of each of so many questions; several of fewer, where only several can judge each other."""
    from stillroom.teachers.api_estimates import measured
    from stillroom.transfer_set.sampling import sample

    verifier = verifier_of(run)
    each = 1 if verifier.needs_gold else min(calls, run.recipe.traces.samples)
    count = min(len(questions), max(1, calls // each))
    drawn = questions.take(np.sort(np.random.default_rng(0).choice(len(questions), count, replace=False)))
    # A pilot is for now, and tells how long a call takes.
    single = replace(charged, knobs=charged.knobs.model_copy(update={"batch": False}))
    found = sample(
        single, drawn, run.splits.gold or {}, verifier, most=each, wanted=each, purpose=PILOT, must_accept=False
    )
    return _Seen(count * each, found, measured(charged, charged.wanted(drawn.raw, each)))


def _of_calls(
    seen: _Seen, shares: tuple[float, float, float], calls: tuple[int, ...], found: Expected
) -> dict[str, Any]:
    from stillroom.teachers.api_estimates import Range, mean_of

    high, share, low = shares
    figures: dict[str, Any] = {
        "accepted in the pilot": f"{len(seen.accepted):,} of {seen.calls:,}: {share:.0%} ({low:.0%} to {high:.0%})",
        "tokens a trace": ends(mean_of(seen.took.tokens_out_N), 0),
        "seconds a call": ends(mean_of(seen.took.seconds_N), 2),
        "teacher calls": ends(Range(*map(float, calls)), 0),
        "teacher tokens": ends(found.tokens, 0),
        "teacher minutes": ends(found.minutes, 1),
    }
    if found.usd is not None:
        figures["teacher_usd"] = ends(found.usd, 4)
        if low > 0 and calls[1]:
            a_call = mean_of(np.array([one.usd for one in seen.samples]))
            kept = Range(a_call.low / high, a_call.middle / share, a_call.high / low)
            figures["teacher_usd for a kept trace"] = ends(kept, 6)
    return figures


def _rewriting(run: Run, seen: _Seen, kept: tuple[float, ...]) -> dict[str, Any]:
    """Calls and USD of writing kept traces again, from the fewest to the most of them."""
    from stillroom.teachers.api_estimates import Range

    writer: Any = run.recipe.traces.rewrite
    if writer is None or not seen.accepted:
        return {}
    most, likely, fewest = kept
    figures: dict[str, Any] = {"calls for rewriting": ends(Range(fewest, likely, most), 0)}
    if writer.price is not None:
        usd = [_rewriting_usd(run, seen, one, place) for place, one in enumerate((fewest, likely, most))]
        figures["rewriting_usd"] = ends(Range(*usd), 4)
    return figures


def _rewriting_usd(run: Run, seen: _Seen, kept: float, place: int = 1) -> float:
    """Of so many traces, at the low, middle or high guess of their tokens."""
    from stillroom.teachers.api_estimates import BYTES_A_TOKEN
    from stillroom.transfer_set.rewriting import rewrite_messages

    writer: Any = run.recipe.traces.rewrite
    if writer is None or not seen.accepted:
        return 0.0
    asked = asked_of(run.splits.train)
    talks = [rewrite_messages(asked[one.key], one.trace) for one in seen.accepted]
    read = sum(len(part["content"].encode()) for talk in talks for part in talk) / BYTES_A_TOKEN[place]
    written = REWRITTEN_TOKENS[place] * sum(one.tokens_out for one in seen.accepted)
    return float(writer.rates(writer.batch).cost(round(read), round(written)).usd * kept / len(talks))
