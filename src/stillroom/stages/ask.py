"""Stage ask: put every question to every teacher once; what they answer is the transfer set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.errors import InputError, WrongAnswer
from stillroom.kinds import AskedTeacher
from stillroom.rows import PLAIN_VIEW, Questions
from stillroom.rundir import read_json, write_json
from stillroom.stages.layers import showing_layers
from stillroom.stages.opening import ASKED, Run, store_of, views_of
from stillroom.stages.origin import terms_of
from stillroom.stages.paying import LABEL, SCORE, charged, is_charged, is_paid, keep_answered

if TYPE_CHECKING:
    from stillroom.transfer_set.sampling import Traces
    from stillroom.transfer_set.store import Kept

MERGE = "merge answers"


def ask(run: Run, asked: AskedTeacher) -> Kept | Traces:
    """Every question once; of a teacher that reasons, its traces."""
    if run.recipe.is_reasoning:
        from stillroom.stages.reasoning import ask_traces

        return ask_traces(run, asked)
    return ask_answers(run, asked)


def ask_answers(run: Run, asked: AskedTeacher, purpose: str = "", written: Questions | None = None) -> Kept:
    """Ask each member what the store lacks, then merge the members' answers where there are several.

    `purpose`: of the calls where a round asks; it sees for itself what was not answered. `written`: windows that a language
    model wrote, asked about in the place of the run's own.
    """
    from stillroom.teachers.ensemble import Ensemble, members_of
    from stillroom.transfer_set.ask import KeptTeacher
    from stillroom.transfer_set.store import UNKNOWN

    teacher, members = run.recipe.teacher, members_of(asked)
    terms = terms_of(run.recipe)
    licences = {"teacher": teacher.licence or UNKNOWN, **terms}
    kept: list[Kept] = []
    for place, (member, knobs) in enumerate(zip(members, teacher.each(), strict=True)):
        licence = knobs.licence or teacher.licence or UNKNOWN
        words = f"ask teacher {place + 1} of {len(members)}"
        told = {"teacher": licence, **terms}
        if written is not None:
            kept.append(_ask_language(run, member, knobs.kind, told, words, questions=written))
            continue
        kept.append(_ask_one(run, member, knobs.kind, told, words, purpose or LABEL))
        if purpose:
            train = run.splits.train
            answered = train.take(np.flatnonzero(kept[-1].answered(train.key_N)))
            run.__dict__["splits"] = replace(run.splits, train=answered)
        else:
            keep_answered(run, kept[-1], member)
    whole = kept[0]
    if isinstance(teacher, Ensemble):
        for place, one in enumerate(kept):
            licences[f"teacher.{place}"] = one.header.licences["teacher"]
        if run.recipe.is_language:
            whole = _ask_language(run, asked, "ensemble", licences, MERGE, kept, written)
        else:
            whole = _ask_one(run, teacher.over([KeptTeacher(one) for one in kept]), "ensemble", licences, MERGE)
    if not run.arm:
        own = run.dir.path / "transfer_set"
        at = whole.folder.relative_to(own) if whole.folder.is_relative_to(own) else whole.folder.resolve()
        write_json(run.dir.path / ASKED, {"answers": str(at), "teacher": whole.header.fingerprint})
    return whole


def answers_of(run: Path) -> Kept:
    """The kept answers of a run, read without its teacher. Raises InputError where there are none yet."""
    from stillroom.transfer_set.store import open_kept

    if not (run / ASKED).is_file():
        raise InputError("this run has no answers yet", where=str(run), cure=f"stillroom ask {run}")
    return open_kept(run / "transfer_set" / read_json(run / ASKED)["answers"])


def asking_of(run: Run) -> list[tuple[str, Questions, Sequence[int]]]:
    """What a teacher of classes is asked: the questions of each split, and in which views."""
    recipe, splits = run.recipe, run.splits
    views = [] if recipe.transfer_set.live else views_of(recipe)
    # The teacher's class prior is its mean answer to the rows as they are, whatever view the students learn from.
    prior = [PLAIN_VIEW] if recipe.training.class_prior == "teacher" else []
    return [
        ("train", splits.train, sorted({*views, *prior})),
        ("omitted", splits.omitted, prior),
        ("validation", splits.validation, (PLAIN_VIEW,)),
        ("test", splits.test, (PLAIN_VIEW,)),
    ]


def _ask_one(
    run: Run, teacher: AskedTeacher, kind: str, licences: dict[str, str], words: str, purpose: str = LABEL
) -> Kept:
    """All the questions one teacher is asked: the transfer set in its views, and every other split as it is."""
    from stillroom.teachers.python import CallableTeacher
    from stillroom.transfer_set.ask import ask as ask_all
    from stillroom.transfer_set.recognise import recognise

    recipe = run.recipe
    if recipe.is_language:
        return _ask_language(run, teacher, kind, licences, words)
    plain = teacher  # what a run counts calls by; with further layers beside the last, its answers are kept apart
    if not recipe.transfer_set.live and words != MERGE:
        teacher = showing_layers(run, teacher)
    store = store_of(run)
    asking = asking_of(run)
    if is_paid(recipe):  # first how good it is, on rows whose labels are known
        asking.sort(key=lambda part: part[0] not in ("validation", "test"))
    if isinstance(teacher, CallableTeacher) and teacher.looks:
        recognise(store, teacher, [part[1:] for part in asking], run.seen_as(recipe.questions.augment))
    total = sum(len(questions) * len(which) for _, questions, which in asking)
    told_each = is_charged(run, teacher)  # of a shard's thousands of calls each one may take seconds
    calls: int = teacher.knobs.samples if told_each else 1  # type: ignore[attr-defined]
    with run.show.stage(words, total * calls, "merged answers" if words == MERGE else "answers") as done:
        started = time.monotonic()

        def count(rows: int) -> None:
            # An event a shard: what was asked before a kill is counted too.
            nonlocal started
            seconds, started = time.monotonic() - started, time.monotonic()
            asked = 0 if words == MERGE else rows
            run.dir.event("asked", calls=asked, seconds=round(seconds, 3), teacher=plain.fingerprint)
            if not told_each:
                done(rows)
            run.clock.check()

        for name, questions, which in asking:
            paid_as = purpose if name == "train" else SCORE
            try:
                found = ask_all(
                    store, charged(run, teacher, paid_as, done), questions, kind=kind, licences=licences, views=which,
                    seen=run.seen_as(recipe.questions.augment), progress=count,
                    known=lambda rows: done(rows * calls, before=True),
                )  # fmt: skip
            except WrongAnswer:
                # Recorded answers may cover the transfer set alone; the teacher is then not scored on that split.
                if name == "train" or kind not in ("recorded", "ensemble"):
                    raise
    return found


def _ask_language(
    run: Run, teacher: AskedTeacher, kind: str, licences: dict[str, str], words: str, members: Sequence[Kept] = (),
    questions: Questions | None = None,
) -> Kept:  # fmt: skip
    from stillroom.stages.language_asking import ask_language, keep_nothing, merge_language
    from stillroom.teachers.language import AskedLanguageEnsemble, AskedLanguageModel

    windows = len(run.splits.train if questions is None else questions)
    asked = windows * (0 if run.recipe.transfer_set.live else len(views_of(run.recipe)))
    with run.show.stage(words, asked, "merged windows" if words == MERGE else "windows") as done:
        started = time.monotonic()

        def count(rows: int, tokens: int) -> None:
            nonlocal started
            seconds, started = time.monotonic() - started, time.monotonic()
            calls = 0 if words == MERGE else rows
            run.dir.event("asked", calls=calls, tokens=tokens, seconds=round(seconds, 3), teacher=teacher.fingerprint)
            done(rows)
            run.clock.check()

        if teacher.by_key:
            return keep_nothing(run, teacher, kind, licences)
        if isinstance(teacher, AskedLanguageEnsemble):
            return merge_language(run, teacher, members, licences, count, questions)
        assert isinstance(teacher, AskedLanguageModel), "kinds that solve a language task build one"
        return ask_language(run, teacher, kind, licences, count, questions)
