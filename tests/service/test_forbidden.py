"""What the operator forbids to learn from stays forbidden, whatever a project calls it later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from stillroom.service.data import completion_rows as completions
from stillroom.service.data.redaction import Redaction
from stillroom.service.door.access import Caller, make_project
from stillroom.service.door.faults import ApiError
from stillroom.service.jobs.asked import CreateJob
from stillroom.service.recipes.sources import checked
from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import projects, teachers
from stillroom.service.settings import Settings

ASKED = {"messages": [{"role": "user", "content": "q"}]}
SAID = {"choices": [{"message": {"role": "assistant", "content": "a"}}]}


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
    with database.writing() as rows:
        completions.store(rows, values)
    yield SimpleNamespace(database=database, project=project, root=tmp_path)
    database.close()


def ask(state: Any, forbidden: str) -> str | None:
    """The code of what comes of a job of its stored answers; None where it may be."""
    settings = Settings(state.root, forbidden_teachers=(forbidden,))
    source = {"source": {"stored_completions": {}}}
    body = CreateJob.model_validate({"model": "tiny-language", "distillation": source})
    try:
        with state.database.reading() as rows:
            checked(rows, SimpleNamespace(settings=settings, database=state.database), state.project, body)
    except ApiError as error:
        return error.code
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
