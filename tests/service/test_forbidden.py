"""What the operator forbids to learn from stays forbidden, whatever a project calls it later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.service_jobs import body, digits
from sqlalchemy import insert, select, update
from tests.service.test_job_rows import new_job

from stillroom.service.data import completion_rows as completions
from stillroom.service.data import lineage_rows
from stillroom.service.data.redaction import Redaction
from stillroom.service.door.access import Caller, make_project
from stillroom.service.door.faults import ApiError
from stillroom.service.jobs.asked import CreateJob
from stillroom.service.recipes.sources import checked, handed_to
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import projects, teachers
from stillroom.service.settings import Settings

ASKED = {"messages": [{"role": "user", "content": "q"}]}
SAID = {"choices": [{"message": {"role": "assistant", "content": "a"}}]}
WANTED = {"model": "tiny-language", "distillation": {"source": {"stored_completions": {}}}}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Any]:
    """With a project that trains on the answers it stored of its teacher `big`."""
    database = Database(tmp_path)
    database.upgrade()
    project = make_project(database, "a")
    with database.writing() as rows:
        rows.execute(update(projects).values(trains_on_stored=True))
        rows.execute(insert(teachers).values(
            id=f"teacher-{'a' * 24}", project_id=project, name="big", model="big-model", created_at=int(time.time()),
            base_url="https://teacher.example/v1", distillable=True,
        ))  # fmt: skip
        teacher = rows.execute(select(teachers)).mappings().one()
    values = completions.prepared(
        Caller(project, "", frozenset()), model="big", request=ASKED, response=SAID, metadata=None, by="teacher",
        redaction=Redaction(), teacher=teacher,
    )  # fmt: skip
    job = new_job(database, project_id=project, asked=WANTED)
    with database.writing() as rows:
        name = completions.store(rows, values)
        lineage_rows.record(rows, project, job, [(name, 0)])
    yield SimpleNamespace(database=database, project=project, root=tmp_path, stored=name, job=job)
    database.close()


def ask(state: Any, forbidden: str) -> str | None:
    """The code of what comes of a job of its stored answers; None where it may be."""
    refused = refusal(state, forbidden)
    return None if refused is None else refused.code


def refusal(state: Any, forbidden: str) -> ApiError | None:
    """What comes of a new job of its stored answers."""
    service = SimpleNamespace(settings=Settings(state.root, forbidden_teachers=(forbidden,)), database=state.database)
    try:
        with state.database.reading() as rows:
            checked(rows, service, state.project, CreateJob.model_validate(WANTED))
    except ApiError as error:
        return error
    return None


@pytest.mark.parametrize("forbidden", ["big-model", "teacher.example", "*.example"])
@pytest.mark.parametrize(
    "change",
    [
        {"licence": "MIT"},
        {"name": "other", "model": "other"},
        {"name": "other", "base_url": "https://elsewhere.test/v1"},
        {"name": "other", "model": "other", "base_url": "https://elsewhere.test/v1"},
        {"name": "other", "model": "other", "base_url": "https://elsewhere.test/v1", "deleted_at": 1},
    ],
)
def test_another_name_for_a_teacher_changes_nothing(state: Any, change: dict[str, Any], forbidden: str) -> None:
    with state.database.writing() as rows:
        rows.execute(update(teachers).values(**change))
    assert ask(state, forbidden) == "teacher_forbidden"
    assert ask(state, "another") is None


def test_what_is_not_distillable_by_now_is_not(state: Any) -> None:
    with state.database.writing() as rows:
        rows.execute(update(teachers).values(name="other", model="other", distillable=False))
    assert ask(state, "another") == "not_distillable"


@pytest.mark.parametrize(
    ("table", "change", "forbidden", "code"),
    [
        (projects, {"trains_on_stored": False}, "another", "stored_completions_not_for_training"),
        (teachers, {"distillable": False}, "another", "not_distillable"),
        (teachers, {"name": "other"}, "big-model", "teacher_forbidden"),
    ],
)
@pytest.mark.parametrize("deleted", [False, True])
def test_a_job_that_waited_is_refused_as_a_new_one_is(
    state: Any, table: Any, change: dict[str, Any], forbidden: str, code: str, deleted: bool
) -> None:
    """At each attempt: consent may be taken back while a job is held, and what it learned from deleted."""
    job = {"id": state.job, "project_id": state.project, "asked": WANTED}
    service = SimpleNamespace(settings=Settings(state.root, forbidden_teachers=(forbidden,)), database=state.database)
    if forbidden == "another":
        assert handed_to(service, job) == {}
    with state.database.writing() as rows:
        rows.execute(update(table).values(**change))
    new = refusal(state, forbidden)
    assert new is not None
    if deleted:
        with state.database.writing() as rows:
            completions.erase(rows, state.project, [state.stored])
    with pytest.raises(ApiError) as raised:
        handed_to(service, job)
    assert raised.value.code == new.code == code
    assert (raised.value.message, raised.value.param) == (new.message, new.param)


def test_a_recipe_goes_on_without_its_files_and_not_without_its_teachers(state: Any) -> None:
    """Its files are in its folder; the one that they came from may be deleted or expired."""
    service = SimpleNamespace(settings=Settings(state.root), database=state.database)
    questions = {"kind": "dataset", "source": f"file-{'b' * 24}", "label": "label"}
    job = {"id": state.job, "project_id": state.project}
    assert handed_to(service, {**job, "asked": body(digits(questions=questions))}) == {}
    with state.database.writing() as rows:
        rows.execute(update(teachers).values(distillable=False))
    recipe = digits(questions=questions, teacher={"teacher": "big", "prompt": "{text}"})
    with pytest.raises(ApiError) as raised:
        handed_to(service, {**job, "asked": body(recipe)})
    assert raised.value.code == "not_distillable"
