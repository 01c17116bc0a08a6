"""What a recipe for a teacher that reasons would do and cost, the teacher's own work included; spends nothing.

How many samples a question takes is not known before, so without a pilot (reasoning_pilot.py) calls, tokens and USD are told
from the least to the most, and for a third of the samples accepted. Minutes are the teacher's, and of training and exam on
this machine, with traces of an assumed length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.budget import Cost as Bill
from stillroom.evaluation.processes import most_held_bytes
from stillroom.rows import Questions, Splits
from stillroom.rundir import fingerprint
from stillroom.stages.notes import licence_notes
from stillroom.stages.pricing import ends
from stillroom.stages.reasoning import asked_of
from stillroom.stages.reasoning_pilot import Told, between, expected_samples, pilot_traces
from stillroom.stages.reasoning_training import most_tokens, reads
from stillroom.stages.rehearsal import Cost, rehearse
from stillroom.stages.room import WEIGHT_BYTES, memory_notes, refuse_full_disks
from stillroom.stages.train import roles
from stillroom.training.steps import steps_in

if TYPE_CHECKING:
    from stillroom.stages.opening import Run

ACCEPTED = 1 / 3
"""The share of samples that is accepted, for one of the figures; about what NovaSky had of Sky-T1's 45,800 questions."""
LOOKED_AT = 200
"""Questions whose requests are written out, for their mean length."""
ASSUMED_TOKENS = 256
"""Of a trace, where nothing says how long they are."""
WRITING = 3.0
"""Writing an answer takes about so many times as long as reading it."""


def plan_reasoning(run: Run, pilot: int = 0) -> dict[str, Any]:
    """{"name", "figures", "teacher", "notes"} as of any plan; `pilot`: so many calls may be made."""
    recipe, splits = run.recipe, run.splits
    train, test = len(splits.train), len(splits.test)
    figures: dict[str, Any] = {
        "training questions": train,
        "test questions": test,
        "seeds": recipe.seeds,
        "roles": ", ".join(role.name for role in roles(run)),
    }
    notes = [*splits.notes]
    told = _asking(run, pilot)
    figures |= told.figures
    notes += told.notes
    windows, assumed = _windows(run)
    if assumed:
        notes.append(f"minutes are for traces of {windows.raw['ids'].shape[1]:,} tokens, which is a guess")
    seconds, weights, known = 0.0, 0, dict[str, Cost]()
    for role in roles(run):
        student, knobs = role.run.recipe.student, role.run.recipe.training
        same = fingerprint(student.model_dump(mode="json"), knobs.model_dump(mode="json"))
        # A twin takes as long, and a large model takes a while to time.
        cost = known[same] = known.get(same) or rehearse(_over(role.run, windows), student, knobs)
        steps = _steps(role.run, train)
        seconds += recipe.seeds * (cost.step_s * steps + WRITING * cost.row_s * test)
        weights += recipe.seeds * cost.parameters
    held, files = most_held_bytes(), WEIGHT_BYTES * weights + 2**20
    notes += memory_notes(held)
    refuse_full_disks({run.dir.path: files})
    figures |= {
        "models trained": recipe.seeds * len(roles(run)),
        "disk_mib": round(files / 2**20, 1),
        "peak_memory_mib": round(held / 2**20),
        "minutes": round(seconds / 60 + told.minutes + 0.1, 1),
    }
    price = recipe.evaluation.price
    if price is not None:
        figures |= bill(seconds / 3600 * price.usd_per_hour, told.usd)
    notes += licence_notes(recipe)
    piloted = {"piloted": pilot} if pilot else {}
    notes += recipe.notes
    return {"name": recipe.name, "figures": figures, "teacher": told.numbers, "notes": notes, **piloted}


def bill(training_usd: float, teacher_usd: float | None) -> dict[str, float]:
    """What the machine costs, and with the teacher all of it."""
    return {"training_usd": round(training_usd, 4), "usd": round(training_usd + (teacher_usd or 0.0), 4)}


def _asking(run: Run, pilot: int) -> Told:
    """What a teacher that is paid by the call takes; nothing of one that is not."""
    recipe, test = run.recipe, len(run.splits.test)
    scored = test if recipe.traces.score is None else min(recipe.traces.score, test)
    if not recipe.teacher.costs:
        return Told({}, [], 0.0, None, {})
    told = pilot_traces(run, pilot, scored) if pilot else _calls(run, len(run.splits.train), scored)
    if getattr(recipe.teacher, "price", None) is None:
        told.notes.append("the teacher's price is not given, so nothing is said in USD of it; add teacher.price")
    elif recipe.traces.rewrite is not None and getattr(recipe.traces.rewrite, "price", None) is None:
        told.notes.append("the price of rewriting is not given, so USD are said without it; add traces.rewrite.price")
    return told


def _calls(run: Run, train: int, scored: int) -> Told:
    """Calls, tokens and USD of a teacher that is paid by the call, for the student's own traces, without asking it."""
    knobs = run.recipe.traces
    least, most = train * min(knobs.keep, knobs.samples) + scored, train * knobs.samples + scored
    each = expected_samples(ACCEPTED, knobs.samples, knobs.keep)
    likely, kept = round(train * each) + scored, train * ACCEPTED * each
    rewrites = train * knobs.keep if knobs.rewrite is not None else 0
    built: Any = run.recipe.teacher.build(run.dir.path, run.folders, [], run.device)
    some = run.splits.train.take(np.arange(min(LOOKED_AT, train)))
    costs = [built.most_of(one) for one in built.wanted(some.raw)]
    tokens = sum(cost.tokens for cost in costs) / len(costs)
    usd = sum(cost.usd for cost in costs) / len(costs)
    again, guessed = _rewriting(run, some), between(built, some, (least, likely, most))
    found: dict[str, Any] = {
        "teacher calls": f"{least:,} to {most:,}, {likely:,} where a third is accepted",
        "tokens a call, at most": round(tokens),
        "teacher tokens, at most": round(tokens * most + again.tokens * rewrites),
        "teacher minutes": ends(guessed.minutes, 1),
    }
    if rewrites:
        found["calls for rewriting, at most"] = rewrites
    written = min(kept, rewrites)
    numbers: dict[str, list[float]] = {
        "calls": [least, likely + round(written), most + rewrites],
        "tokens": [
            round(guessed.tokens.low), round(tokens * likely + again.tokens * written), found["teacher tokens, at most"]
        ],
    }  # fmt: skip
    third = None
    if guessed.usd is not None:
        third = usd * likely + again.usd * written
        numbers["usd"] = [round(one, 9) for one in (guessed.usd.low, third, usd * most + again.usd * rewrites)]
        found["teacher_usd, at most"] = round(usd * most + again.usd * rewrites, 2)
        found["teacher_usd, where a third is accepted"] = f"at most {third:,.2f}"
        found["teacher_usd for a kept trace, where a third is accepted"] = f"at most {third / kept:,.4f}"
    notes = [f"minutes of the teacher, and in all, are {guessed.basis} (--pilot 20)"]
    return Told(found, notes, guessed.minutes.middle, third, numbers)


def _rewriting(run: Run, some: Questions) -> Bill:
    """The most that writing one trace again costs, whose words may be as many as the teacher can write."""
    from stillroom.transfer_set.rewriting import rewrite_messages
    from stillroom.transfer_set.traces import Trace

    writer: Any = run.recipe.traces.rewrite
    if writer is None:
        return Bill()
    built, said = (
        writer.build(run.dir.path, run.folders, []),
        getattr(run.recipe.teacher, "most_tokens", ASSUMED_TOKENS),
    )
    talks = [rewrite_messages(question, Trace("", "", "", "last line")) for question in asked_of(some).values()]
    costs = [built.most_of_talk(talk, said) for talk in talks]
    nano_usd, tokens_in = (sum(getattr(one, name) for one in costs) // len(costs) for name in ("nano_usd", "tokens_in"))
    return Bill(nano_usd, tokens_in, writer.most_tokens)


def _windows(run: Run) -> tuple[Questions, bool]:
    """Rows as a student may be taught them: recorded traces where there are some, else the questions with filler."""
    from stillroom.questions.dialogues import dialogues, misfits
    from stillroom.transfer_set.lessons import filler_of, length_in

    tokenizer, context = reads(run)
    room = most_tokens(run, context)
    some = run.splits.train.take(np.arange(min(LOOKED_AT, len(run.splits.train))))
    asked = list(asked_of(some).values())
    built: Any = run.recipe.teacher.build(run.dir.path, run.folders, [], run.device)
    if built.by_key:
        said = built.samples(some, 1)
        pairs = [(question, one[0].text) for question, one in zip(asked, said, strict=True) if one]
        fitting = [pair for pair, why in zip(pairs, misfits(tokenizer, pairs, room), strict=True) if not why]
        if pairs:
            return dialogues(tokenizer, fitting or pairs, room, where="teacher"), False
    length_of = length_in(tokenizer)
    longest = max(map(length_of, asked))
    filler = filler_of(length_of) * max(1, min(room, ASSUMED_TOKENS) - longest - 16)
    return dialogues(tokenizer, [(question, filler) for question in asked], context), True


def _over(run: Run, windows: Questions) -> Run:
    """The run as if these rows were what it trains on."""
    found = replace(run)
    none = windows.take(np.arange(0))
    found.__dict__["splits"] = Splits(windows, none, none, none, [])
    return found


def _steps(run: Run, questions: int) -> int:
    """With as many rows as there are questions, or as traces of them."""
    knobs = run.recipe.traces
    return steps_in(run.recipe.training, questions * (min(knobs.keep, knobs.count or knobs.keep)))
