"""Stage ask: put every question to every teacher once; what they answer is the transfer set."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.errors import InputError, WrongAnswer
from stillroom.kinds import AskedTeacher
from stillroom.rows import PLAIN_VIEW, Questions
from stillroom.rundir import read_json, write_json
from stillroom.stages.opening import ASKED, Run, views_of

if TYPE_CHECKING:
    from stillroom.transfer_set.store import Kept

MERGE = "merge answers"


def ask(run: Run, asked: AskedTeacher) -> Kept:
    """Ask each member what the store lacks, then merge the members' answers where there are several."""
    from stillroom.teachers.ensemble import AskedEnsemble, Ensemble
    from stillroom.transfer_set.ask import KeptTeacher

    teacher = run.recipe.teacher
    members = asked.members if isinstance(asked, AskedEnsemble) else [asked]
    licences = {"teacher": teacher.licence or "unknown"}
    kept: list[Kept] = []
    for place, (member, knobs) in enumerate(zip(members, teacher.each(), strict=True)):
        licence = knobs.licence or teacher.licence or "unknown"
        kept.append(
            _ask_one(run, member, knobs.kind, {"teacher": licence}, f"ask teacher {place + 1} of {len(members)}")
        )
    whole = kept[0]
    if isinstance(teacher, Ensemble):
        for place, one in enumerate(kept):
            licences[f"teacher.{place}"] = one.header.licences["teacher"]
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


def _ask_one(run: Run, teacher: AskedTeacher, kind: str, licences: dict[str, str], words: str) -> Kept:
    """All the questions one teacher is asked: the transfer set in its views, and every other split as it is."""
    from stillroom.teachers.python import CallableTeacher
    from stillroom.transfer_set.ask import ask as ask_all
    from stillroom.transfer_set.store import Store

    recipe, splits = run.recipe, run.splits
    if recipe.is_language:
        return _ask_language(run, teacher, licences, words)
    shared = recipe.transfer_set.store
    store = Store(run.dir.path / "transfer_set" if shared is None else run.folders[0] / shared)
    views = [] if recipe.transfer_set.live else views_of(recipe)
    # The teacher's class prior is its mean answer to the rows as they are, whatever view the students learn from.
    prior = [PLAIN_VIEW] if recipe.training.class_prior == "teacher" else []
    asking: list[tuple[str, Questions, Sequence[int]]] = [
        ("train", splits.train, sorted({*views, *prior})),
        ("omitted", splits.omitted, prior),
        ("validation", splits.validation, (PLAIN_VIEW,)),
        ("test", splits.test, (PLAIN_VIEW,)),
    ]
    if isinstance(teacher, CallableTeacher) and not teacher.fingerprint:
        teacher.identify(splits.train)
    total = sum(len(questions) * len(which) for _, questions, which in asking)
    with run.show.stage(words, total, "answers") as done:
        started = time.monotonic()

        def count(rows: int) -> None:
            # An event a shard: what was asked before a kill is counted too.
            nonlocal started
            seconds, started = time.monotonic() - started, time.monotonic()
            calls = 0 if words == MERGE else rows
            run.dir.event("asked", calls=calls, seconds=round(seconds, 3), teacher=teacher.fingerprint)
            done(rows)

        for name, questions, which in asking:
            try:
                found = ask_all(
                    store, teacher, questions, kind=kind, licences=licences, views=which,
                    seen=run.seen_as(recipe.questions.augment), progress=count,
                )  # fmt: skip
            except WrongAnswer:
                # Recorded answers may cover the transfer set alone; the teacher is then not scored on that split.
                if name == "train" or kind not in ("recorded", "ensemble"):
                    raise
            run.clock.check()
    return found


def _ask_language(run: Run, teacher: AskedTeacher, licences: dict[str, str], words: str) -> Kept:
    from stillroom.stages.language import ask_language, scored_positions
    from stillroom.teachers.language import AskedLanguageModel

    assert isinstance(teacher, AskedLanguageModel), "kinds that solve a language task build one"
    asked = len(run.splits.train) * (0 if run.recipe.transfer_set.live else len(views_of(run.recipe)))
    positions = scored_positions(run)
    with run.show.stage(words, asked, "windows") as done:
        started = time.monotonic()

        def count(rows: int) -> None:
            nonlocal started
            seconds, started = time.monotonic() - started, time.monotonic()
            tokens = rows * positions // max(1, asked)
            run.dir.event("asked", calls=rows, tokens=tokens, seconds=round(seconds, 3), teacher=teacher.fingerprint)
            done(rows)
            run.clock.check()

        return ask_language(run, teacher, licences, count)
