"""The page New distillation: a source, who answers, what learns; then an estimate. A person starts it, nothing else does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection, select

from stillroom.service.data import completion_rows as stored_room
from stillroom.service.data.file_rows import file_path, find_file
from stillroom.service.door.access import Caller, Reads
from stillroom.service.door.creation_rows import BY_KEY, Once, created
from stillroom.service.door.faults import ApiError
from stillroom.service.jobs import jobs
from stillroom.service.jobs.asked import CreateJob
from stillroom.service.pages import data_page, samples, tables
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import Sends
from stillroom.service.pages.typed import LABELS, field_of, number, place_of, said
from stillroom.service.rows.tables import teachers
from stillroom.service.students.model_rows import CLASSIFIER, WRITER, presets, writes_here

router = APIRouter(route_class=PageRoute)
MOST_LETTERS = 18
"""Of the name that a student gets from its table's."""
WAIT_S = 10.0
"""Of a form that is sent again while its job is being made."""
SAMPLE, FILE, TABLE, STORED = "sample:", "file:", "table:", "stored"
STUDENTS = {
    CLASSIFIER: "Small text classifier: picks one of a few answers",
    WRITER: "Tiny language model: writes, letter by letter",
}


class Fields(BaseModel):
    """What stands in the form, as it was chosen and typed."""

    model_config = ConfigDict(extra="ignore")

    form_token: str = ""
    source: str = f"{SAMPLE}texts"
    stored_model: str = ""
    stored_key: str = ""
    stored_value: str = ""
    column: str = ""
    """Of a table: what is to be predicted."""
    teacher: str = ""
    validation: str = ""
    student: str = CLASSIFIER
    name: str = ""
    labels: str = ""
    soft_targets: str = ""
    budget_usd: str = ""
    budget_minutes: str = ""
    seeds: str = ""
    risk: str = ""

    def body(self, request: Request, caller: Caller) -> CreateJob:
        """What the interface takes; the job is held until it is started. Raises ValidationError, ApiError."""
        suffix = {"suffix": self.name.strip()} if self.name.strip() else {}
        if self.source.startswith(SAMPLE):
            chosen = samples.sample(self.source.removeprefix(SAMPLE))
            wanted = {"recipe": chosen.recipe, "hold": True, **self._finer_points()}
            named = suffix or {"suffix": f"first-{chosen.name}"}
            return CreateJob.model_validate({"model": chosen.model, "distillation": wanted, **named})
        if self.source.startswith(TABLE):
            file, columns, _ = table_of(request, caller, self.source.removeprefix(TABLE))
            of_table = tables.body(file, columns, self.column)
            wanted = {"recipe": of_table["recipe"], "hold": True, **self._finer_points()}
            named = suffix or {"suffix": PurePath(file["filename"]).stem[:MOST_LETTERS]}
            return CreateJob.model_validate({"model": of_table["model"], "distillation": wanted, **named})
        teacher = {"teacher": self.teacher} if self.teacher else {}
        wanted = {"source": self._source(), "hold": True, **teacher, **self._finer_points()}
        judged = {"validation_file": self.validation} if self.validation else {}
        return CreateJob.model_validate({"model": self.student, "distillation": wanted, **judged, **suffix})

    def once(self) -> Once:
        """What tells this form from others: each page that is shown has a token of its own."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return Once(f"{BY_KEY}form {digest}", digest, True, False)

    def _source(self) -> dict[str, Any]:
        if self.source.startswith(FILE):
            return {"file": self.source.removeprefix(FILE)}
        if self.source != STORED:
            raise ApiError(400, "Pick what the student learns from.", param="source")
        metadata = {self.stored_key: self.stored_value} if self.stored_key else {}
        return {"stored_completions": {"metadata": metadata, "model": self.stored_model or None}}

    def _finer_points(self) -> dict[str, Any]:
        found: dict[str, Any] = {"soft_targets": bool(self.soft_targets)}
        labels = [line.strip() for line in self.labels.splitlines() if line.strip()]
        if labels:
            found["labels"] = labels
        budget = {"usd": self.budget_usd.strip(), "minutes": self.budget_minutes.strip()}
        if any(budget.values()):
            found["budget"] = {name: number(value) for name, value in budget.items() if value}
        if self.seeds.strip():
            found["seeds"] = number(self.seeds.strip())
        if self.risk.strip():
            found["cascade"] = {"risk": number(self.risk.strip())}
        return found


@router.get("/new")
def choose(
    request: Request,
    caller: Reads,
    source: str = "",
    stored_model: str = "",
    stored_key: str = "",
    stored_value: str = "",
) -> Response:
    """What there is to choose from."""
    given = {"stored_model": stored_model, "stored_key": stored_key, "stored_value": stored_value}
    try:
        return _page(request, caller, Fields(**given, **({"source": source} if source else {})))
    except ApiError as error:  # a table that is gone, where a job that failed leads back to it
        return _page(request, caller, Fields(**given), error.message, "source", error.status)


@router.post("/new")
def create(request: Request, caller: Sends, fields: Annotated[Fields, Form()]) -> Response:
    """Make the job: it is looked at and estimated, and then waits to be started. A form that is sent twice makes one."""
    state = request.app.state

    def make() -> Callable[[Connection], dict[str, Any]]:
        write = jobs.checked_job(state, caller, fields.body(request, caller))
        return lambda rows: {"id": write(rows)["id"]}

    try:
        row, _ = created(state.database, caller, fields.once(), make, WAIT_S)
    except ValidationError as error:
        return _page(request, caller, fields, said(error), place_of(error))
    except ApiError as error:
        return _page(request, caller, fields, error.message, error.param or "", error.status)
    return go_to(f"/jobs/{row['id']}")


def _page(
    request: Request, caller: Caller, fields: Fields, wrong: str | None = None, param: str = "", status: int = 400
) -> Response:
    """The form; `wrong`: what is to be mended in it, `param`: the interface's name for the field that it is about."""
    state = request.app.state
    at = field_of(param)
    with state.database.reading() as rows:
        wanted = (teachers.c.project_id == caller.project_id) & teachers.c.deleted_at.is_(None)
        names = rows.execute(
            select(teachers.c.name, teachers.c.distillable).where(wanted).order_by(teachers.c.name)
        ).all()
        stored, _ = stored_room.latest(rows, caller.project_id, None, None, 0)
        may_train = stored_room.may_train(rows, caller.project_id)
    columns: list[str] = []
    if fields.source.startswith(TABLE):
        _, columns, _ = table_of(request, caller, fields.source.removeprefix(TABLE))
        columns = columns if len(columns) <= tables.MOST_COLUMNS else []  # too many to pick from: it is typed
    if at and wrong is not None and wrong.startswith(f"{param}: "):  # the page has another name for the field
        words = wrong.removeprefix(f"{param}: ")
        wrong = words[:1].upper() + words[1:]
    students = {name: STUDENTS.get(name, name) for name in presets(state.settings)}
    return render(
        request, caller, "new.html", status if wrong else 200, fields=fields, wrong=wrong, at=at, field=LABELS.get(at),
        samples=samples.SAMPLES, students=students, writes=writes_here(), columns=columns,
        tables=list(filter(tables.is_table, data_page.uploaded(request, caller, tables.PURPOSE))),
        files=data_page.uploaded(request, caller, "fine-tune"), stored=stored, may_train=may_train,
        teachers=[name for name, distillable in names if distillable],
    )  # fmt: skip


def table_of(request: Request, caller: Caller, file_id: str) -> tuple[dict[str, Any], list[str], list[list[str]]]:
    """An uploaded table, its columns and its first rows. Raises ApiError 404."""
    state = request.app.state
    with state.database.reading() as rows:
        file = find_file(rows, caller.project_id, file_id, "source")
    return dict(file), *tables.head(file_path(state.settings, file_id), file["filename"])
