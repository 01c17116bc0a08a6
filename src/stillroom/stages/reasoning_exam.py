"""Stage evaluate where the teacher reasons: what the exam is handed, and what the scorecard says of the traces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.kinds import AskedTeacher
from stillroom.rundir import fingerprint, read_json, write_json
from stillroom.stages.opening import versions
from stillroom.stages.paying import asking_facts, is_paid
from stillroom.stages.reasoning import FACTS, asked_of, judging, scored, verifier_of
from stillroom.stages.reasoning_training import LESSON, knobs_of, prompted
from stillroom.stages.train import roles

if TYPE_CHECKING:
    from stillroom.evaluation.cost import Spent
    from stillroom.evaluation.reasoning_exam import Candidate
    from stillroom.stages.opening import Run
    from stillroom.transfer_set.sampling import Sampled, Traces

ROOM = 16
"""A student may write twice as much as it was taught at most, and so many tokens more."""


def sit_reasoning(
    run: Run, asked: AskedTeacher, traces: Traces, models: dict[str, list[Path]], spent: Spent, about: dict[str, Any],
    folder: Path,
) -> None:  # fmt: skip
    """The exam: scorecard.json and details.json."""
    from stillroom.evaluation.reasoning_exam import ReasoningExam, sit_reasoning
    from stillroom.transfer_set.verify import judged_gold

    test, judge = run.splits.test, judging(verifier_of(run))
    gold, words = run.splits.gold or {}, asked_of(test)
    good = np.array([judged_gold(judge, gold[key.tobytes()]).accepted for key in test.key_N], bool)
    rows = np.flatnonzero(good)
    keys = [test.key_N[row].tobytes() for row in rows]
    questions = [words[key.hex()] for key in keys]
    if len(rows) < len(test):
        bad = f"{len(test) - len(rows):,} test questions left out, whose gold answers the verifier cannot read"
        about = {**about, "notes": [*about["notes"], bad]}
    candidates = {name: _candidate(run, name, folders, questions) for name, folders in models.items()}
    manifests = [read_json(one / "manifest.json") for folders in models.values() for one in folders]
    golds, most = [gold[key] for key in keys], {name: one.most_tokens for name, one in candidates.items()}
    work = run.dir.work_of("evaluation", fingerprint(manifests, questions, golds, most, judge.model_dump(mode="json")))
    work.mkdir(parents=True, exist_ok=True)
    total = len(rows) * sum(len(folders) for folders in models.values())
    with run.show.stage("evaluate", total, "test answers") as done:
        exam = ReasoningExam(
            run.recipe.name, {"train": len(run.splits.train), "asked": len(traces.by_question)}, questions,
            [key.hex() for key in keys], golds,
            None if run.splits.slice_N is None else run.splits.slice_N[rows], candidates, scored(run), traces,
            _kept_facts(run, traces, models), judge, run.recipe.evaluation, run.device,
            _bill(run, traces, spent), versions(), about, work, asked_of(run.splits.train), done,
        )  # fmt: skip
        scorecard, details = sit_reasoning(exam, folder)
        asking = asking_facts(run, asked)
        if asking:
            scorecard["asking"] = asking
    write_json(folder / "details.json", details)
    write_json(folder / "scorecard.json", scorecard)


def _candidate(run: Run, name: str, folders: list[Path], questions: list[str]) -> Candidate:
    from stillroom.evaluation.reasoning_exam import Candidate
    from stillroom.questions.dialogues import prompts

    role = next(role for role in roles(run) if role.name == name)
    ask = prompted(knobs_of(role).learn)
    facts = read_json(folders[0] / LESSON)
    most = role.run.recipe.traces.write or 2 * int(facts["longest"]) + ROOM

    def in_tokens(tokenizer: Any) -> list[list[int]]:
        return prompts(tokenizer, [ask(question) for question in questions])

    return Candidate(folders, in_tokens, most, facts)


def _kept_facts(run: Run, traces: Traces, models: dict[str, list[Path]]) -> dict[str, Any]:
    """What was sampled, what of it the student learned from, what one kept trace cost, and how good the teacher was."""
    from stillroom.transfer_set.leaving_out import GIVES_AWAY, REPEATS
    from stillroom.transfer_set.sampling import facts_of

    knobs = run.recipe.traces
    kept = len(traces.choose(knobs.of, knobs.length, knobs.count))
    verifier = run.recipe.transfer_set.verify or verifier_of(run)
    found = facts_of(traces, kept) | {"verifier": verifier.kind}
    home = "arms/" + run.arm if run.arm else "transfer_set"
    bad = read_json(run.dir.path / home / "traces" / FACTS)["bad_gold"]
    again = [one for one in traces.samples if one.rewritten]
    if again:
        found["rewritten"] = len(again)
    for name, why in (("repeats", REPEATS), ("overlapping", GIVES_AWAY)):
        count = sum(one.left_out == why for one in traces.samples)
        if count:
            found[name] = count
    if bad:
        found["bad_gold"] = len(bad)
    unknown = [] if is_paid(run.recipe) else ["usd", "usd_per_kept"]
    if not _tokens_of(traces.samples):
        unknown += ["tokens_in", "tokens_out", "tokens_per_kept"]
    return {name: value for name, value in found.items() if name not in unknown}


def _tokens_of(several: Sequence[Sampled]) -> int | None:
    """Read and written; None where nobody counted them, as of recorded answers."""
    return sum(one.tokens_in + one.tokens_out for one in several) or None


def _bill(run: Run, traces: Traces, spent: Spent) -> Spent:
    """With what the calls cost, whoever paid for them: an answer that another run bought was bought for this one too."""
    from dataclasses import replace

    several = [*traces.samples, *scored(run)]
    usd = sum(one.usd for one in several) if is_paid(run.recipe) else None
    return replace(spent, teacher_calls=len(several), teacher_tokens=_tokens_of(several), teacher_bill_usd=usd)
