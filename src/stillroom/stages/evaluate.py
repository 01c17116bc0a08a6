"""Stage evaluate: predictions once, then scorecard.json and what the report shows. The test split is read here only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.errors import WrongAnswer
from stillroom.evaluation.processes import give_back
from stillroom.kinds import AskedTeacher
from stillroom.models.references import weight_files
from stillroom.rows import PLAIN_VIEW, Questions, Raw
from stillroom.rundir import fingerprint, read_json, verify, write_file, write_json
from stillroom.stages.ask import asking_of
from stillroom.stages.deferring import audit_of, settle_cascade, show_cascade
from stillroom.stages.language import sit_language
from stillroom.stages.on_policy_rounds import WORK
from stillroom.stages.opening import Run, versions, views_of
from stillroom.stages.origin import licences_of
from stillroom.stages.paying import asking_facts
from stillroom.stages.teach import trained_and_built
from stillroom.stages.train import roles
from stillroom.transfer_set.store import UNKNOWN

if TYPE_CHECKING:
    from stillroom.evaluation.cost import Spent
    from stillroom.evaluation.exam import Exam
    from stillroom.transfer_set.sampling import Traces
    from stillroom.transfer_set.store import Kept

FORMAT = 4
"""Of what the evaluation writes; a newer one evaluates again."""
SCORECARD = "scorecard.json"
SHOWN_QUESTIONS = 8


def evaluate(run: Run, asked: AskedTeacher, kept: Kept | Traces) -> None:
    """Predict once, write the predictions, and compute the scorecard from them. The test split is read here only."""
    from stillroom.stages.reasoning_exam import sit_reasoning
    from stillroom.transfer_set.sampling import Traces

    models = {role.name: [run.dir.path / role.folder(seed) for seed in range(role.seeds)] for role in roles(run)}
    taught = _taught_folders(run)
    other = run.recipe.evaluation.independent_teacher
    independent = None if other is None else trained_and_built(run, other, "independent", "independent teacher")
    manifests = [read_json(folder / "manifest.json") for folders in models.values() for folder in folders]
    made_from = fingerprint(
        FORMAT, manifests, asked.fingerprint, run.splits.fingerprint(), run.recipe.to_tree(),
        None if independent is None else independent.fingerprint,
    )  # fmt: skip
    with run.dir.stage("evaluation", made_from) as folder:
        if folder is None:
            verify(models["student"][0])  # what is loaded below is verified there; nobody looks at this one otherwise
        else:
            give_back()
            if isinstance(kept, Traces):
                spent = _spent(run, asked, asking_facts(run, asked))
                sit_reasoning(run, asked, kept, models, spent, _about(run, 1.0), folder)
            elif run.recipe.is_language:
                sit_language(
                    run, asked, kept, models, _spent(run, asked), _about(run, settled_temperature(run)), folder
                )
            else:
                _evaluate(run, _exam(run, asked, kept, models, taught, independent), kept, folder)
    # The one at the top of the run is for people and programs; lost or changed, it comes back.
    scorecard = (run.dir.path / "evaluation" / SCORECARD).read_bytes()
    shown = run.dir.path / SCORECARD
    if not shown.is_file() or shown.read_bytes() != scorecard:
        write_file(shown, scorecard)
    show_cascade(run)


def _evaluate(run: Run, exam: Exam, kept: Kept, folder: Path) -> None:
    from stillroom.evaluation.details import details
    from stillroom.evaluation.exam import sit

    with run.show.stage("evaluate", 1, "scorecard") as done:
        scorecard, found = sit(exam, folder)
        scorecard |= settle_cascade(run, exam, found, kept, folder)
        heat = settled_temperature(run)
        view = views_of(run.recipe)[0]
        stored = None if run.recipe.transfer_set.live else kept.reader(run.splits.train.key_N, view).all()
        told = details(found, run.splits, exam.models, exam.teacher_folders, heat, _about(run, heat), stored)
        write_json(folder / "details.json", told | _rounds(run))
        write_json(folder / SCORECARD, scorecard)
        done(1)


def _rounds(run: Run) -> dict[str, Any]:
    """What the rounds of a run asked, for its report: the record, and some questions of the last round in words."""
    from stillroom.stages.rounds import FILE, ROUNDS

    if run.recipe.rounds is None:
        return {}
    found = read_json(run.dir.path / ROUNDS / FILE)
    last, train = found["rounds"][-1], run.splits.train
    # The training rows are in the order of asking, so those of the last round stand at the end.
    places = [place for place in last["chosen"] if place not in set(last["refused"])][:SHOWN_QUESTIONS]
    first = len(train) - len([place for place in last["chosen"] if place not in set(last["refused"])])
    said = dict(zip(last["chosen"], last["answered"], strict=True))
    guessed = dict(zip(last["chosen"], last.get("guessed") or [None] * len(last["chosen"]), strict=True))
    # What the teacher wrote for the round stands last, and no strategy weighed it.
    doubt = dict(zip(last["chosen"], last.get("why") or [], strict=False))
    asked = [
        {"question": _in_words(train.raw, first + at, place), "said": said[place], "guessed": guessed[place]}
        | ({"doubt": doubt[place]} if place in doubt else {})
        for at, place in enumerate(places)
        if guessed[place] is not None
    ]
    return {"rounds": found, "asked_last": asked}


def _in_words(raw: Raw, at: int, place: int) -> str:
    """A question as a person reads it: its columns, or where it stands."""
    if not isinstance(raw, dict):
        return f"training row {place + 1}"
    return "; ".join(str(column[at]) for column in raw.values())


def _exam(
    run: Run, asked: AskedTeacher, kept: Kept, models: dict[str, list[Path]], taught: list[Path],
    independent: AskedTeacher | None,
) -> Exam:  # fmt: skip
    from stillroom.evaluation.exam import Exam
    from stillroom.rows import Answers

    def answers(questions: Questions) -> Answers | None:
        try:
            return Answers(kept.reader(questions.key_N).all())
        except WrongAnswer:
            return None

    recipe, paid = run.recipe, asking_facts(run, asked)
    return Exam(
        recipe.name, run.splits, models, asked, taught, answers(run.splits.test), answers(run.splits.validation),
        recipe.evaluation, run.device,
        _spent(run, asked, paid),
        sorted(set(run.splits.omitted.label_N.tolist()) - {-1}),
        independent,
        _stored(run, kept), versions(), paid,
    )  # fmt: skip


def _stored(run: Run, kept: Kept) -> dict[str, int]:
    """How many of the kept answers are this run's, the audit slice of its rounds among them, and what the store holds."""
    from stillroom.transfer_set.store import places

    asking = [*asking_of(run), ("audit", audit_of(run, kept), (PLAIN_VIEW,))]
    own = [
        places(questions.key_N[kept.answered(questions.key_N, view)], view)
        for _, questions, views in asking
        for view in views
    ]
    rows = len(np.unique(np.concatenate(own)))
    return {"rows": rows, "stored_rows": len(kept), "bytes": kept.size_bytes, "shared_bytes": 0}


def _spent(run: Run, asked: AskedTeacher, paid: Mapping[str, Any] = MappingProxyType({})) -> Spent:
    """What the run has cost so far, from its events; `paid`: what the ledger says of a teacher that is paid by the call."""
    from stillroom.evaluation.cost import Spent
    from stillroom.teachers.ensemble import members_of

    events = run.dir.events()
    trained = {one["name"]: one["seconds"] for one in events if one["event"] in ("trained", "taught")}
    # One student, what it went on from, and those on which its temperature was tried: no user of it can do without.
    before = ("tuning/student/", f"{WORK}/student/")
    needed = [seconds for name, seconds in trained.items() if name == "student" or name.startswith(before)]
    # Answers of a teacher that the recipe no longer names were paid for, but not for this student.
    asked_now = {asked.fingerprint, *(member.fingerprint for member in members_of(asked))}
    asking = [one for one in events if one["event"] == "asked" and one["teacher"] in asked_now]
    live = sum(one.get("asked", 0) for one in events if one["event"] == "trained") * len(members_of(asked))
    return Spent(
        asking_s=sum(one["seconds"] for one in asking),
        training_s=sum(trained.values()),
        needed_training_s=sum(needed) if needed else None,
        teacher_calls=paid.get("calls", live + sum(one["calls"] for one in asking)),
        teacher_tokens=paid.get("tokens", sum(one.get("tokens", 0) for one in asking)),
        teacher_bill_usd=paid.get("usd"),
    )


def _taught_folders(run: Run) -> list[Path]:
    """Where the weights of the teacher's members stand; empty where one has none."""
    home, members = run.dir.path / run.teacher_home, run.recipe.teacher.each()
    homes = [home / str(place) if len(members) > 1 else home for place in range(len(members))]
    found = [member.weights_at(one, run.folders) for member, one in zip(members, homes, strict=True)]
    known = [place for place in found if place is not None and weight_files(place)]
    return known if len(known) == len(members) else []


def settled_temperature(run: Run) -> float:
    """The temperature the student was trained at; 1 where it had none."""
    chosen = run.dir.path / "tuning" / "student" / "chosen.json"
    for objective in run.recipe.objectives:
        heat = objective.heat()
        if heat is not None:
            return float(read_json(chosen)["temperature"]) if heat == "auto" else float(heat)
    return 1.0


def flat(sections: Mapping[str, Any], above: str = "") -> list[str]:
    """What an arm lays over the recipe, as on a command line: training.epochs=30."""
    found: list[str] = []
    for key, value in sections.items():
        name = f"{above}{key}"
        found += flat(value, f"{name}.") if isinstance(value, dict) else [f"{name}={json.dumps(value)}"]
    return found


def _about(run: Run, heat: float) -> dict[str, Any]:
    """What the report and the card say of how it was made."""
    recipe, members = run.recipe, run.recipe.teacher.each()
    what = "; ".join(sorted({member.describe() for member in members}))
    licences = licences_of(recipe) | {"data": recipe.questions.licence or UNKNOWN}
    return {
        "teacher": f"an ensemble of {len(members)}: {what}" if len(members) > 1 else what,
        "student": recipe.student.describe(),
        "licences": licences,
        "recipe_yaml": (run.dir.path / "recipe.yaml").read_text(),
        "temperature": heat,
        "arms": {name: ", ".join(flat(sections)) for name, sections in recipe.arms.items()},
        "own_teacher": [name for name, arm in run.arms.items() if arm.has_own_teacher],
        "soft": any("probabilities" in one.required() for one in recipe.objectives),
        "notes": [*run.splits.notes, *recipe.notes, *_vocabulary_notes(run)],
    }


def _vocabulary_notes(run: Run) -> list[str]:
    """Of each student with a vocabulary of its own: how many tokens it has, and how often test text holds one it lacks."""
    from stillroom.inputs import Texts
    from stillroom.students.shrink import Shrink

    found = []
    for who, part in {"student": run, **{f"arm {name}": arm for name, arm in run.arms.items()}}.items():
        student = part.recipe.student
        if not isinstance(student, Shrink) or student.vocabulary == "whole":
            continue
        learned = part.inputs(student, part.splits.train.raw, part.ground(untaught=True))
        assert isinstance(learned, Texts), "only texts have a vocabulary"
        unknown = learned.unknown_rate(part.splits.test.raw)
        told = "" if unknown is None else f"; of the test rows' tokens {unknown:.2%} are unknown to it"
        found.append(f"the vocabulary of the {who} was cut to {learned.tokens:,} tokens{told}")
    return found
