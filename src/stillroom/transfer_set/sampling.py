"""Sampling a teacher's reasoning: ask until enough answers of a question are accepted, and keep every one with its verdict.

What was sampled is one file of JSON lines, rejected answers included, so that they are chosen from, judged and shown again
without asking. This file knows what an asked teacher's `samples` gives; it knows no ledger and no student.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stillroom.errors import CorruptFile, ModelError
from stillroom.kinds import Verifier
from stillroom.rows import Questions, Verdict
from stillroom.rundir import write_file
from stillroom.transfer_set.rewriting import read_rewrite
from stillroom.transfer_set.trace_choice import Billed, CostOfKept, Length, choose_traces, cost_of_kept, more_needed
from stillroom.transfer_set.traces import Trace, read_trace
from stillroom.transfer_set.verify import judged

FILE = "traces.jsonl"
AT_ONCE = 256
"""Questions that are put to the teacher together; after each such lot a budget may stop the run."""
GIVE_UP = 100
"""So many samples without a single accepted one, and sampling on would be a waste."""
FAILED = Verdict("unsure", "the teacher gave no answer")
LIKELY_REASONS = 3
ALL = 1 << 30


class Sample(Billed, Protocol):
    """What a teacher says once; `thought` is what some teachers give apart from the text."""

    @property
    def text(self) -> str:
        """The answer."""
        ...

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        ...

    @property
    def thought(self) -> str:
        """Empty where there is none apart."""
        ...


class Sampler(Protocol):
    """A teacher whose reasoning can be sampled."""

    @property
    def by_key(self) -> bool:
        """It looks answers up, so it has no more than were recorded."""
        ...

    def samples(
        self, questions: Questions, n: int, purpose: str | None = None, first: int = 0
    ) -> Sequence[Sequence[Sample]]:
        """Answers `first` to `first + n` to each question; fewer where some failed or there are no more."""
        ...


@dataclass(frozen=True)
class Sampled:
    """One answer of a teacher, as it was given, and what the verifier said of it."""

    key: str
    """Of the question, in hex."""
    place: int
    """Among the answers to that question."""
    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int
    usd: float
    outcome: str
    reason: str
    rewritten: str = ""
    """The same trace as another model wrote it again; empty where there is none, or it was not as good."""
    left_out: str = ""
    """Why nobody learns from it, whatever the verifier says; empty where somebody may."""

    @cached_property
    def trace(self) -> Trace:
        """Split into thought, solution and answer."""
        return read_trace(self.rewritten) if self.rewritten else self.sampled

    @cached_property
    def sampled(self) -> Trace:
        """As it was sampled, whoever wrote it again."""
        return read_trace(self.text, self.finish_reason)

    @property
    def verdict(self) -> Verdict:
        """Of the verifier."""
        return Verdict(self.outcome, self.reason)  # type: ignore[arg-type]


@dataclass
class _Asked:
    """A question that is being sampled."""

    row: int
    key: str
    gold: str | None
    samples: list[Sample] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    failed: int = 0
    ended: bool = False
    """The teacher has no more answers to it."""

    def judge(self, verifier: Verifier) -> None:
        """Verdicts of all samples; where they judge each other, anew with each one more."""
        done = len(self.verdicts) if verifier.needs_gold else 0
        new = self.traces[done:]
        said = judged(verifier, [trace.answer if trace.complete else None for trace in new], self.gold)
        self.verdicts[done:] = [
            verdict if trace.complete else Verdict("unsure", trace.cut or "it says no answer")
            for trace, verdict in zip(new, said, strict=True)
        ]

    def all(self) -> list[Verdict]:
        """Of what was sampled and of what failed."""
        return [*self.verdicts, *[FAILED] * self.failed]


def sample(
    teacher: Sampler,
    questions: Questions,
    gold: dict[bytes, str],
    verifier: Verifier,
    *,
    most: int,
    wanted: int,
    purpose: str,
    must_accept: bool = True,
    told: Callable[[int], None] = lambda samples: None,
) -> list[Sampled]:
    """Every answer sampled, in the order of the questions: up to `most` of each, and no more where `wanted` are accepted.

    Whether a question is worth another sample follows from its own verdicts and from the share accepted over all
    (trace_choice.more_needed). Raises ModelError where `must_accept` and nothing is accepted, after GIVE_UP samples.
    """
    asked = [
        _Asked(row, key.tobytes().hex(), gold.get(key.tobytes())) for row, key in enumerate(questions.key_N)
    ]  # fmt: skip
    rate = 0.5
    while True:
        needed: dict[tuple[int, int], list[_Asked]] = {}
        for one in asked:
            count = 0 if one.ended else more_needed(one.all(), most, wanted, rate, at_once=wanted)
            if count:
                needed.setdefault((len(one.all()), count), []).append(one)
        if not needed:
            break
        for (first, count), some in sorted(needed.items()):
            while some:
                # Until one is accepted no more are bought at once than are enough to give up.
                many = not must_accept or any(verdict.accepted for one in asked for verdict in one.all())
                size = AT_ONCE if many else max(1, GIVE_UP // count)
                now, some = some[:size], some[size:]
                _sample(teacher, questions, now, first, count, purpose, verifier)
                told(count * len(now))
                _refuse_rejected(asked, must_accept, GIVE_UP)
        verdicts = [verdict for one in asked for verdict in one.all()]
        rate = (sum(verdict.accepted for verdict in verdicts) + 1) / (len(verdicts) + 2)  # few samples say little
    _refuse_rejected(asked, must_accept, 0)
    return [kept for one in asked for kept in _kept(one)]


def _sample(
    teacher: Sampler, questions: Questions, some: list[_Asked], first: int, count: int, purpose: str, verifier: Verifier
) -> None:
    rows = teacher.samples(questions.take(np.array([one.row for one in some])), count, purpose, first)
    for one, said in zip(some, rows, strict=True):
        one.ended = teacher.by_key and len(said) < count
        one.failed += 0 if teacher.by_key else count - len(said)
        one.samples += said
        one.traces += [read_trace(_whole(sample), sample.finish_reason) for sample in said]
        one.judge(verifier)


def _whole(sample: Sample) -> str:
    """Thought and text in one, as most teachers write them."""
    return f"<think>\n{sample.thought}\n</think>\n{sample.text}" if sample.thought else sample.text


def _kept(one: _Asked) -> list[Sampled]:
    return [
        Sampled(
            one.key, place, _whole(sample), sample.finish_reason, sample.tokens_in, sample.tokens_out, sample.usd,
            verdict.outcome, verdict.reason,
        )
        for place, (sample, verdict) in enumerate(zip(one.samples, one.verdicts, strict=True))
    ]  # fmt: skip


def _refuse_rejected(asked: list[_Asked], must_accept: bool, least: int) -> None:
    verdicts = [verdict for one in asked for verdict in one.all()]
    if not must_accept or len(verdicts) < max(1, least) or any(verdict.accepted for verdict in verdicts):
        return
    reasons = Counter(f"{verdict.outcome}: {verdict.reason}" for verdict in verdicts).most_common(LIKELY_REASONS)
    raise ModelError(
        f"none of the first {len(verdicts):,} sampled answers was accepted; most often "
        + "; ".join(f"{reason} ({count:,})" for reason, count in reasons),
        where="teacher, transfer_set.verify",
        cure="Look at the prompt, at how the answer is to be written, and at the gold answers; what was answered is kept, and "
        "is read again without asking",
    )


@dataclass(frozen=True)
class Traces:
    """All that was sampled of a teacher."""

    samples: list[Sampled]
    folder: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> Traces:
        """What `write` wrote. Raises CorruptFile."""
        path = folder / FILE
        try:
            # Not splitlines(): a text may hold U+2028 and its like, which JSON leaves as they are.
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            return cls([Sampled(**line) for line in lines], folder)
        except (OSError, ValueError, TypeError) as error:
            raise CorruptFile(
                "these are no whole traces",
                where=str(path),
                cure=f"Remove {folder} and run again; what was bought is kept",
            ) from error

    def write(self, folder: Path) -> None:
        """One JSON line for each sample."""
        lines = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self.samples)
        write_file(folder / FILE, lines.encode())

    @cached_property
    def by_question(self) -> dict[str, list[Sampled]]:
        """By the question's key in hex, in the order of asking."""
        found: dict[str, list[Sampled]] = {}
        for one in self.samples:
            found.setdefault(one.key, []).append(one)
        return found

    def choose(self, of: str, length: Length, count: int | None) -> list[Sampled]:
        """Those that a student learns from: at most `count` of each question, each text once, complete ones alone.

        By what was sampled: so the traces that were chosen to be written again are those that are learned from.
        """
        chosen = []
        for key, several in self.by_question.items():
            verdicts = [_as_wanted(one, of) for one in several]
            places = choose_traces([one.sampled for one in several], verdicts, key, length, count or ALL)
            chosen += [several[place] for place in places]
        return chosen

    def cost(self, kept: int) -> CostOfKept:
        """What all samples cost, and how much of it falls on each of so many that were kept."""
        return cost_of_kept(self.samples, [one.verdict for one in self.samples], kept)


def rewritten(
    traces: Traces, chosen: Sequence[Sampled], said: Sequence[Any], verifier: Verifier, gold: dict[bytes, str]
) -> Traces:
    """The traces with `said` in the place of the chosen ones, where it is complete and has the same answer.

    What rewriting cost is added to the trace that was rewritten, whether it was used or not.
    """
    found = {(one.key, one.place): one for one in traces.samples}
    for one, again in zip(chosen, said, strict=True):
        if not hasattr(again, "finish_reason"):
            continue  # refused, or failed
        right = gold.get(bytes.fromhex(one.key), one.trace.answer or "")
        read = read_rewrite(again.text, one.trace, right, verifier, again.finish_reason)
        found[one.key, one.place] = replace(
            one, rewritten="" if read.kept_because else again.text, tokens_in=one.tokens_in + again.tokens_in,
            tokens_out=one.tokens_out + again.tokens_out, usd=one.usd + again.usd,
        )  # fmt: skip
    return Traces(list(found.values()))


def _as_wanted(one: Sampled, of: str) -> Verdict:
    """Accepted where it is of the wanted outcome; one that is cut or left out is never chosen, whatever is wanted."""
    wanted = not one.left_out and (of == "every" or one.outcome == of)
    return Verdict("accepted" if wanted else "rejected", one.reason)


def reasons(samples: Iterable[Sampled]) -> dict[str, dict[str, int]]:
    """Outcome -> reason -> how many; reasons that name an answer are told without it."""
    found: dict[str, Counter[str]] = {}
    for one in samples:
        found.setdefault(one.outcome, Counter())[_plain(one)] += 1
    return {outcome: dict(counted.most_common()) for outcome, counted in found.items()}


def _plain(one: Sampled) -> str:
    if one.outcome == "rejected":
        return "another answer than the gold one"
    return one.reason.partition("'")[0].strip() or one.outcome


def facts_of(traces: Traces, kept: int) -> dict[str, Any]:
    """What a scorecard says of them."""
    cost = traces.cost(kept)
    told = {name: value for name, value in asdict(cost).items() if value is not None}
    asked = len(traces.by_question)
    return {"questions": asked, "samples": len(traces.samples), **told, "reasons": reasons(traces.samples)}
