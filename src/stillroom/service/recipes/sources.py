"""From a request to a recipe and its data files in jobs/<id>/data: what may be used is checked at once, what is in it later.

`checked` looks at rows alone and is quick: it answers the client. `prepared` reads the data and writes the folder; the worker
does that before it estimates the job, again after any kill, and each time with the same result.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, or_, select

from stillroom.errors import DataError
from stillroom.recipe import LONGEST_NAME, Recipe
from stillroom.rundir import write_file, write_json
from stillroom.service.data import completion_rows, jsonl
from stillroom.service.data.file_rows import file_path, find_file
from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row
from stillroom.service.jobs.asked import CreateJob, Distillation, StoredRows
from stillroom.service.recipes import drafting, talks
from stillroom.service.recipes.drafting import Drafted, Rejected, Talk
from stillroom.service.recipes.presets import BASE, PRESETS, Preset, Task, base_folder, preset_of, trained
from stillroom.service.recipes.references import BUILTIN, Resolved, resolved, resolved_student, teachers_of
from stillroom.service.rows.tables import teachers
from stillroom.service.settings import Settings
from stillroom.service.teachers.teacher_rows import find_teacher, handed, recipe_part, refuse_distilling
from stillroom.service.work.executor import DATA
from stillroom.service.work.trainer import RECIPE

REJECTED = "rejected.jsonl"
IN_A_RECIPE = {
    "teacher": "Name it in the recipe, teacher: {teacher: NAME}",
    "student": "Describe it in the recipe's student",
    "source": "Name the file's id in the recipe's questions.source",
    "labels": "Write them into the recipe's teacher.labels",
    "soft_targets": "Take the objective soft_target into the recipe, and read: logprobs into its teacher",
    "cascade": "Write it into the recipe, cascade: {risk: SHARE}",
}
"""Where each of these stands in a recipe."""
RECIPE_BYTES = 1 << 18
"""Of a recipe as JSON: it is shown with its job, in each list too. Data belong into files."""
NOTHING = ("", "none")
"""What stands for no training file, which the official clients want in any case."""
STORED_ROWS = "stored_completions"
"""What stands for a file where rows are stored completions, which are named elsewhere."""


@dataclass(frozen=True)
class Checked:
    """What a request comes down to before any data is read."""

    training_file: str
    teacher: str | None
    """The name of the teacher whose answers are learned; None: nobody that is known by name."""


@dataclass(frozen=True)
class Prepared:
    """A job that can be estimated: its recipe, the rows it is made from, and those that were left out, counted by reason."""

    recipe: Recipe
    sources: list[tuple[str, int]]
    rejected: Counter[str] | None
    """None: not counted, since what is left out by the run of a recipe is known to that run alone."""
    note: str | None = None
    """What else is to be told of the rows."""


def checked(rows: Connection, state: Any, project_id: str, body: CreateJob) -> Checked:
    """Raise ApiError for what cannot become a job: a path, a file that is not there, a teacher that may not be learned from."""
    wanted = body.wanted
    if body.method is not None and body.method.type in ("dpo", "reinforcement"):
        raise ApiError(400, f"The method {body.method.type} is none of this service's.", param="method.type",
                       code="unsupported_method")  # fmt: skip
    if wanted is not None and wanted.recipe is not None:
        _refuse_beside(wanted)
        _refuse_long(wanted.recipe)
        found = resolved(rows, state, project_id, wanted.recipe)
        _named_recipe(found, "check").recipe  # noqa: B018 - raises for what is none
        _refuse_names(body)
        source = body.training_file if body.training_file not in (*NOTHING, None) else _source_of(wanted.recipe)
        return Checked(str(source)[:200], found.teachers[0]["name"] if found.teachers else None)
    preset = preset_of(state.settings, body.model, wanted)
    _student(rows, state, project_id, preset)
    _refuse_of_writers(wanted, preset.task)
    if body.validation_file is not None:
        _chat_file(rows, project_id, body.validation_file, "validation_file")
    teacher = _teacher(rows, state, project_id, wanted)
    stored = None if wanted is None or wanted.source is None else wanted.source.stored_completions
    if stored is not None:
        return _checked_stored(rows, state, project_id, stored, teacher)
    name, param = _file_of(body)
    _chat_file(rows, project_id, name, param)
    if teacher is None and wanted is not None and wanted.soft_targets:
        raise ApiError(400, "Soft targets are asked of a teacher; name one that is registered.",
                       param="distillation.teacher", code="teacher_needed")  # fmt: skip
    return Checked(name, None if teacher is None else teacher["name"])


def prepared(state: Any, job: Row, folder: Path) -> Prepared:
    """Write the data folder and recipe.json of a job. Raises DataError, ApiError for what was there and is no more.

    What stands in rows is looked up first, since no log of writes can begin anew while somebody still reads an older state.
    """
    body = CreateJob.model_validate(job["asked"])
    data = folder / DATA
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    wanted = body.wanted or Distillation()
    if wanted.recipe is not None:
        with state.database.reading() as rows:
            found = resolved(rows, state, job["project_id"], wanted.recipe)
        sources, rejected, note = _rows_of(state.settings, found.files), None, None
    else:
        found, drafted = _drafted(state, job, body, wanted, data)
        sources = [(talk.source, talk.line) for talk in drafted.sources]
        rejected, note = Counter(one.why for one in drafted.rejected), drafted.note
        write_file(folder / REJECTED, rejected_text(drafted.rejected))
    _named_recipe(found, _title(job["suffix"]) or job["id"])
    if wanted.seeds is not None:
        found.tree["seeds"] = wanted.seeds
    if wanted.budget is not None:
        found.tree["budget"] = _budget(wanted, found)
    _link(state.settings, found, data)
    recipe = found.recipe
    write_json(folder / RECIPE, recipe.to_tree())
    return Prepared(recipe, sources, rejected, note)


def handed_to(state: Any, job: Row) -> dict[str, dict[str, str]]:
    """What the job's process is handed to reach its teachers with; their addresses are looked at anew.

    So is whether one may learn from them, and from what was stored: that can change while a job waits. Its files are in its
    folder, so they are not looked up. Raises ApiError as for a new job.
    """
    wanted = CreateJob.model_validate(job["asked"]).wanted
    if wanted is None:
        return {}
    with state.database.reading() as rows:
        if wanted.recipe is not None:
            asked = teachers_of(rows, state, job["project_id"], wanted.recipe)
        else:
            row = _teacher(rows, state, job["project_id"], wanted)
            if _is_stored(wanted):
                _refuse_any(
                    rows, state, job["project_id"], completion_rows.learned_by(rows, job["project_id"], job["id"])
                )
            asked = [row] if row is not None and not _is_stored(wanted) else []
    found: dict[str, dict[str, str]] = {}
    for row in asked:
        for name, part in handed(state, row).items():
            found.setdefault(name, {}).update(part)
    return found


def _rows_of(settings: Settings, files: Mapping[str, str]) -> list[tuple[str, int]]:
    """What a recipe's run is given: each line of its .jsonl files. A file of another form, or of too many lines, is row 0."""
    found: list[tuple[str, int]] = []
    for name, file_id in files.items():
        left = settings.limits.file_rows - len(found)
        by_line = name.endswith(".jsonl")
        lines = list(islice(jsonl.lines_with_words(file_path(settings, file_id)), left + 1)) if by_line else []
        found += [(file_id, line) for line in lines] if 0 < len(lines) <= left else [(file_id, 0)]
    return found


def rejected_text(rejected: Sequence[Rejected]) -> bytes:
    """As they are kept: one JSON object a line."""
    told = ({"source": one.talk.source, "line": one.talk.line, "why": one.why} for one in rejected)
    return b"".join(json.dumps(line).encode() + b"\n" for line in told)


def _title(suffix: str | None) -> str:
    """What a client called a job, as a run may be named; nothing where nothing is left of it."""
    letters = "".join(one if one.isprintable() and one not in "/\\" else " " for one in suffix or "")
    kept = " ".join(letters.split()).lstrip(". ")
    return kept.encode()[:LONGEST_NAME].decode(errors="ignore").strip()


def _named_recipe(found: Resolved, name: str) -> Resolved:
    """A run is named as its client called the job, which its report is headed by; else after the job."""
    found.tree["name"] = name
    return found


def _source_of(recipe: Mapping[str, Any]) -> str:
    questions = recipe.get("questions")
    source = questions.get("source") if isinstance(questions, Mapping) else None
    return str(source.get("train") if isinstance(source, Mapping) else source)


def _refuse_long(recipe: Mapping[str, Any]) -> None:
    length = len(json.dumps(recipe).encode())
    if length > RECIPE_BYTES:
        told = f"This recipe has {length:,} bytes, and at most {RECIPE_BYTES:,} are taken; bring its data as files."
        raise ApiError(400, told, param="distillation.recipe", code="recipe_too_long")


def _refuse_names(body: CreateJob) -> None:
    """The model of a job with a recipe is a label of the finished student, so it must look like one."""
    if body.model not in PRESETS and not BASE.fullmatch(body.model):
        raise ApiError(
            400, "A base is a word of letters, digits, dots and dashes.", param="model", code="invalid_model"
        )


def _refuse_beside(wanted: Distillation) -> None:
    """What a recipe says itself would go unread beside it. Raises ApiError 400."""
    for name, cure in IN_A_RECIPE.items():
        if getattr(wanted, name) not in (None, False):
            told = f"Beside a recipe, {name} is not read. {cure}."
            raise ApiError(400, told, param=f"distillation.{name}", code="beside_a_recipe")


def _refuse_of_writers(wanted: Distillation | None, task: Task | None) -> None:
    """A student that writes neither knows when to leave a question to its teacher, nor learns how likely each of a few answers
    was. Raises ApiError 400.
    """
    if wanted is None or task != "causal":
        return
    cure = "Leave it out, or take a student that picks one of a few answers, such as small-text-classifier."
    if wanted.cascade is not None:
        told = f"A student that writes has no cascade: it cannot tell how sure it is. {cure}"
        raise ApiError(400, told, param="distillation.cascade", code="no_cascade")
    if wanted.soft_targets:
        told = f"A student that writes learns words, and soft_targets say how likely each of a few answers is. {cure}"
        raise ApiError(400, told, param="distillation.soft_targets", code="not_soft")


def _file_of(body: CreateJob) -> tuple[str, str]:
    """The id of the file with the rows, and the field that it stands in."""
    wanted = body.wanted
    if wanted is not None and wanted.source is not None:
        return str(wanted.source.file), "distillation.source.file"
    if body.training_file in (*NOTHING, None):
        raise ApiError(400, "There is nothing to learn from: name a training_file, or distillation.source.",
                       param="training_file", code="missing_required_parameter")  # fmt: skip
    if body.training_file == STORED_ROWS:
        raise ApiError(400, 'Say which stored completions: distillation.source, such as {"stored_completions": {}} '
                       "for all.", param="distillation.source", code="missing_required_parameter")  # fmt: skip
    return str(body.training_file), "training_file"


def _chat_file(rows: Connection, project_id: str, name: str, param: str) -> Row:
    """A file of conversations. Raises ApiError 404, and 400 for one that was uploaded for something else."""
    if BUILTIN.fullmatch(name):
        raise ApiError(400, "Rows that come with the program are used in a recipe: distillation.recipe.questions.source.",
                       param=param, code="invalid_file")  # fmt: skip
    row = find_file(rows, project_id, name, param)
    if row["purpose"] != "fine-tune":
        told = f"This file was uploaded for {row['purpose']}; conversations are uploaded for fine-tune."
        raise ApiError(400, told, param=param, code="invalid_purpose")
    _refuse_large(row, param)
    return row


def _refuse_large(row: Row, param: str) -> None:
    """A job holds all rows of its files at once, so they are bounded. Raises ApiError 400."""
    if row["bytes"] > talks.MOST_BYTES:
        told = f"This file has {row['bytes']:,} bytes, and a job learns from at most {talks.MOST_BYTES:,}; give a part of it."
        raise ApiError(400, told, param=param, code="file_too_large")


def _is_stored(wanted: Distillation) -> bool:
    return wanted.source is not None and wanted.source.stored_completions is not None


def _teacher(rows: Connection, state: Any, project_id: str, wanted: Distillation | None) -> Row | None:
    if wanted is None or wanted.teacher is None:
        return None
    row = find_teacher(rows, project_id, wanted.teacher, "distillation.teacher")
    refuse_distilling(state, row)
    return row


def _checked_stored(rows: Connection, state: Any, project_id: str, stored: StoredRows, teacher: Row | None) -> Checked:
    said = completion_rows.said_by(rows, project_id, stored.metadata, _said_by(stored, teacher))
    if not said:
        raise ApiError(400, "No stored completion fits.", param=talks.STORED, code="no_rows")
    _refuse_any(rows, state, project_id, said)
    models = sorted({one["model"] for one in said})
    return Checked(STORED_ROWS, teacher["name"] if teacher else models[0])


def _refuse_any(rows: Connection, state: Any, project_id: str, said: Sequence[Row]) -> None:
    """Raise ApiError where one of those who said something may not be learned from: as it is now, and as it was then.

    Deleted teachers too: what they said is still theirs. Of older completions only a name is known.
    """
    models = {one["model"] for one in said}
    named = or_(teachers.c.name.in_(models), teachers.c.model.in_(models))
    named |= teachers.c.id.in_({one["teacher_id"] for one in said} - {None})
    asked = select(teachers).where((teachers.c.project_id == project_id) & named)
    known = {row["id"]: row for row in rows.execute(asked).mappings()}
    for row in known.values():
        refuse_distilling(state, row)
    for one in said:
        if one["teacher_id"] in known:
            then = {"base_url": one["teacher_url"], "model": one["teacher_model"]}
            refuse_distilling(state, {**known[one["teacher_id"]], **then})


def _said_by(stored: StoredRows, teacher: Row | None) -> str | None:
    return stored.model or (None if teacher is None else teacher["name"])


def _drafted(state: Any, job: Row, body: CreateJob, wanted: Distillation, data: Path) -> tuple[Resolved, Drafted]:
    """A recipe for a teacher, a student and a source."""
    preset, project = preset_of(state.settings, body.model, wanted), job["project_id"]
    stored = None if wanted.source is None else wanted.source.stored_completions
    with state.database.reading() as rows:
        teacher = _teacher(rows, state, project, wanted)
        student = _student(rows, state, project, preset)
        names = [] if stored is not None else [_file_of(body)[0], *filter(None, [body.validation_file])]
        for name in names:
            _refuse_large(find_file(rows, project, name, "training_file"), "training_file")
    given, *right = [talks.of_file(state.settings, name) for name in names] or [[]]
    held_out = [talk for one in right for talk in one]
    if stored is not None:
        found, left_out = talks.of_stored(
            state.database, state.settings, project, stored.metadata, _said_by(stored, teacher), wanted.soft_targets
        )
        licence = None if teacher is None else teacher["licence"]
        drafted = drafting.recorded(found, preset, data, licence, left_out, wanted.soft_targets)
    elif teacher is None:
        drafted = drafting.recorded(_answered(given + held_out), preset, data, None)
    else:
        part = recipe_part(teacher) | ({"read": "logprobs"} if wanted.soft_targets else {})
        drafted = drafting.asked(given, held_out, part, wanted.labels, data)
    _refuse_of_writers(wanted, drafted.task)
    return _as_recipe(drafted, preset, body, wanted, teacher, student), drafted


def _student(rows: Connection, state: Any, project_id: str, preset: Preset) -> Resolved:
    """The student with our names for what it names, and the base that is to be linked for it. Raises ApiError 400."""
    base = preset.student.get("from")
    if isinstance(base, str) and base_folder(state.settings, base) is not None:
        return Resolved(dict(preset.student), {}, {base: base})
    return resolved_student(rows, state, project_id, preset.student)


def _as_recipe(
    drafted: Drafted, preset: Preset, body: CreateJob, wanted: Distillation, teacher: Row | None, found: Resolved
) -> Resolved:
    student = found.tree
    if "from" in student:
        student["task"] = drafted.task
    tree = {
        **drafted.sections, "name": "job", "seeds": preset.seeds, "student": student,
        "training": trained(preset, body.knobs),
    }  # fmt: skip
    if body.seed is not None:
        tree["questions"]["seed"] = body.seed
    if wanted.cascade is not None:
        tree["cascade"] = {"risk": wanted.cascade.risk}
    if teacher is not None and teacher["accepted_terms"]:
        tree["accept_terms"] = teacher["accepted_terms"]
    return Resolved(tree, {}, found.bases, [] if teacher is None else [teacher])


def _budget(wanted: Distillation, found: Resolved) -> dict[str, Any]:
    """What is asked of the budget; where nobody is paid, only minutes can run out."""
    asked = {} if wanted.budget is None else wanted.budget.model_dump(exclude_none=True)
    paid = found.tree.get("teacher", {}).get("kind") == "openai_api" or wanted.recipe is not None
    return {
        **found.tree.get("budget", {}),
        **{name: value for name, value in asked.items() if paid or name == "minutes"},
    }


def _answered(found: list[Talk]) -> list[Talk]:
    if any(talk.answer is None for talk in found):
        raise DataError(
            "these are questions, and nobody answers them",
            where="training_file",
            cure="Name a registered teacher in distillation.teacher, or give rows that end with the assistant's answer",
        )
    return found


def _link(settings: Settings, found: Resolved, data: Path) -> None:
    """Put the files and bases that a recipe names into its folder, under the names it has for them."""
    for name, file_id in found.files.items():
        try:
            os.link(file_path(settings, file_id), data / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file_path(settings, file_id), data / name)
    for name, base in found.bases.items():
        folder = base_folder(settings, base)
        if folder is not None:
            (data / name).symlink_to(folder.absolute(), target_is_directory=True)
