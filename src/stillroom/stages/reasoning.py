"""What is different of a stage where the teacher reasons: problems for rows, sampled traces for answers, text to learn."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import DataError, ModelError
from stillroom.kinds import AskedTeacher, Verifier, parse
from stillroom.rows import Questions, Splits
from stillroom.rundir import fingerprint, write_json
from stillroom.stages.origin import licences_of
from stillroom.stages.paying import SCORE, charged

if TYPE_CHECKING:
    from stillroom.stages.opening import Run
    from stillroom.transfer_set.sampling import Sampled, Traces
    from stillroom.transfer_set.verify import BadGold

FORMAT = 3
"""Of what is kept of traces; another one is read from the raw answers anew."""
TRACE, REWRITE = "trace", "rewrite"
"""What a call is for: reasoning that students learn from, or accepted reasoning that is written again."""
FACTS = "facts.json"


def problems_of(run: Run) -> Splits:
    """The questions with their gold answers; training questions that give a test question away are left out."""
    from stillroom.questions.dataset import Dataset
    from stillroom.questions.problems import QUESTION, problems
    from stillroom.transfer_set.decontaminate import overlaps

    knobs = run.recipe.questions
    assert isinstance(knobs, Dataset), "only a data set gives problems"
    found = problems(knobs, run.folders)
    train, test = (_column(part, QUESTION) for part in (found.train, found.test))
    shared = {one.row for one in overlaps(train, test, run.recipe.traces.overlap)}
    if not shared:
        return found
    if len(shared) == len(train):
        raise DataError(
            "every training question shares its words with a test question",
            where="traces.overlap",
            cure="Set it to 0 for questions made from templates, so that only whole questions count",
        )
    kept = np.array([row for row in range(len(train)) if row not in shared], np.int64)
    told = f"{run.recipe.traces.overlap} words in a row" if run.recipe.traces.overlap else "the whole question"
    note = f"train: {len(shared):,} questions left out, which share {told} with a test question"
    return replace(found, train=found.train.take(kept), notes=[*found.notes, note])


def _column(questions: Questions, name: str) -> list[str]:
    assert isinstance(questions.raw, dict), "problems are a named column"
    return [str(value) for value in questions.raw[name].tolist()]


def asked_of(questions: Questions) -> dict[str, str]:
    """Each question's words, by its key in hex."""
    from stillroom.questions.problems import QUESTION

    words = _column(questions, QUESTION)
    return {key.tobytes().hex(): text for key, text in zip(questions.key_N, words, strict=True)}


def verifier_of(run: Run) -> Verifier:
    """The recipe's; else numeric where every gold answer is a number, else exact."""
    given = run.recipe.transfer_set.verify
    return given if given is not None else _fitting(frozenset((run.splits.gold or {}).values()))


@lru_cache(maxsize=8)
def _fitting(golds: frozenset[str]) -> Verifier:
    numeric: Verifier = parse("verifier", {"kind": "numeric"})
    if golds and all(numeric.check_gold(answer).accepted for answer in golds):
        return numeric
    exact: Verifier = parse("verifier", {"kind": "exact"})
    return exact


def ask_traces(run: Run, asked: AskedTeacher) -> Traces:
    """Score the teacher on test questions, then sample its reasoning; what was bought before is not bought again.

    The traces are those that students learn from, rewritten where the recipe says so.
    """
    from stillroom.transfer_set.sampling import Traces, sample

    verifier, knobs, splits = verifier_of(run), run.recipe.traces, run.splits
    score_teacher(run, asked, verifier)
    questions, bad = with_good_gold(splits, splits.train, verifier)
    name = f"arms/{run.arm}/traces" if run.arm else "transfer_set/traces"
    made_from = fingerprint(
        FORMAT, asked.fingerprint, questions.fingerprint(), _golds(splits, questions), verifier.model_dump(mode="json"),
        knobs.samples, knobs.keep, knobs.of, knobs.overlap, splits.test.fingerprint(), licences_of(run.recipe),
    )  # fmt: skip
    with run.dir.stage(name, made_from) as folder:
        if folder is not None:
            with run.show.stage("sample the teacher's reasoning", len(questions) * knobs.keep, "samples") as done:
                found = sample(
                    charged(run, asked, TRACE), questions, splits.gold or {}, verifier,  # type: ignore[arg-type]
                    most=knobs.samples, wanted=knobs.keep, purpose=TRACE, must_accept=knobs.of == "accepted",
                    told=_counted(run, asked, done),
                )  # fmt: skip
            Traces(_left_out(run, found)).write(folder)
            facts = {"bad_gold": [asdict(one) for one in bad], "licences": licences_of(run.recipe)}
            write_json(folder / FACTS, facts)
    return _rewritten(run, Traces.read(run.dir.path / name), verifier)


def _rewritten(run: Run, traces: Traces, verifier: Verifier) -> Traces:
    """The traces with accepted ones written again by another model, where the recipe says so and it changes no answer."""
    from stillroom.transfer_set.rewriting import rewrite_messages
    from stillroom.transfer_set.sampling import Traces, rewritten

    knobs = run.recipe.traces
    if knobs.rewrite is None:
        return traces
    writer = knobs.rewrite.build(run.dir.path, run.folders, [])
    asked, chosen = asked_of(run.splits.train), traces.choose("accepted", knobs.length, knobs.count)
    messages = [rewrite_messages(asked[one.key], one.trace) for one in chosen]
    made_from = fingerprint(
        FORMAT, writer.fingerprint, [[one.key, one.place] for one in chosen], messages,
        [asdict(one) for one in traces.samples], _golds(run.splits, run.splits.train),
        judging(verifier).model_dump(mode="json"), licences_of(run.recipe),
    )  # fmt: skip
    name = f"arms/{run.arm}/rewritten" if run.arm else "transfer_set/rewritten"
    with run.dir.stage(name, made_from) as folder:
        if folder is not None:
            with run.show.stage("have traces rewritten", len(chosen), "traces") as done:
                said: list[Any] = charged(run, writer, REWRITE).chat(messages)  # type: ignore[attr-defined]
                done(len(chosen))
            found = rewritten(traces, chosen, said, judging(verifier), run.splits.gold or {})
            Traces(_left_out(run, found.samples)).write(folder)
            write_json(folder / FACTS, {"licences": licences_of(run.recipe)})
    return Traces.read(run.dir.path / name)


def _left_out(run: Run, samples: list[Sampled]) -> list[Sampled]:
    """The samples, marked where they repeat each other or give a test question away."""
    from stillroom.transfer_set.leaving_out import leave_out

    tests = list(asked_of(run.splits.test).values())
    return leave_out(samples, asked_of(run.splits.train), tests, run.recipe.traces.overlap)


def score_teacher(run: Run, asked: AskedTeacher, verifier: Verifier) -> None:
    """Ask the teacher test questions, once each, as it will be asked for traces; one with recorded answers may have none."""
    from stillroom.transfer_set.sampling import Traces, sample

    test, wanted = run.splits.test, run.recipe.traces.score
    count = len(test) if wanted is None else min(wanted, len(test))
    if run.arm or not count:
        return
    chosen = test.take(np.unique(np.linspace(0, len(test) - 1, count).astype(np.int64)))
    judge = judging(verifier)
    made_from = fingerprint(
        FORMAT, asked.fingerprint, chosen.fingerprint(), _golds(run.splits, chosen), judge.model_dump(mode="json")
    )
    with run.dir.stage("transfer_set/scored", made_from) as folder:
        if folder is not None:
            with run.show.stage("score the teacher", len(chosen), "answers") as done:
                found = sample(
                    charged(run, asked, SCORE), chosen, run.splits.gold or {}, judge,  # type: ignore[arg-type]
                    most=1, wanted=1, purpose=SCORE, must_accept=False, told=_counted(run, asked, done),
                )  # fmt: skip
            Traces(found).write(folder)


def judging(verifier: Verifier) -> Verifier:
    """How single answers are judged: a verifier by majority compares two of them by another."""
    same = getattr(verifier, "same", None)
    return same if isinstance(same, Verifier) else verifier


def scored(run: Run) -> list[Sampled]:
    """What the teacher said to test questions."""
    from stillroom.transfer_set.sampling import FILE, Traces

    folder = run.dir.path / "transfer_set" / "scored"
    return Traces.read(folder).samples if (folder / FILE).is_file() and run.recipe.traces.score != 0 else []


def _golds(splits: Splits, questions: Questions) -> list[str | None]:
    gold = splits.gold or {}
    return [gold.get(key.tobytes()) for key in questions.key_N]


def with_good_gold(splits: Splits, questions: Questions, verifier: Verifier) -> tuple[Questions, list[BadGold]]:
    """The questions whose gold answers can judge others, and each that is left out, with the reason."""
    from stillroom.transfer_set.verify import bad_golds

    bad = bad_golds(verifier, _golds(splits, questions))
    if len(bad) == len(questions):
        raise ModelError(
            f"no gold answer can be read by this verifier, such as {bad[0].gold!r}: {bad[0].reason}",
            where="transfer_set.verify",
            cure="Choose another verifier, or mend the answers",
        )
    return questions.take(np.setdiff1d(np.arange(len(questions)), [one.row for one in bad])), bad


def _counted(run: Run, asked: AskedTeacher, done: Any) -> Any:
    """Tell the progress, and write down that the teacher was asked and how long it took."""
    started = time.monotonic()

    def count(samples: int) -> None:
        nonlocal started
        seconds, started = time.monotonic() - started, time.monotonic()
        run.dir.event("asked", calls=samples, seconds=round(seconds, 3), teacher=asked.fingerprint)
        done(samples)
        run.clock.check()

    return count
