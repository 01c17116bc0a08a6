"""The page Teachers: which there are, adding, changing and taking away one. Keys go in and are never shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select

from stillroom.service.door.access import Caller, Reads, SetsTeachers
from stillroom.service.door.faults import ApiError
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import SendsTeachers
from stillroom.service.pages.typed import number, place_of, said
from stillroom.service.rows.tables import teachers
from stillroom.service.teachers import teachers as room

router = APIRouter(route_class=PageRoute)


class Fields(BaseModel):
    """What stands in the form, as it was typed."""

    model_config = ConfigDict(extra="ignore")

    name: str = ""
    base_url: str = ""
    model: str = ""
    key: str = ""
    price_input: str = ""
    price_output: str = ""
    licence: str = ""
    terms_who: str = ""
    terms_when: str = ""
    terms_url: str = ""
    terms_version: str = ""
    not_distillable: str = ""

    @classmethod
    def of(cls, teacher: Mapping[str, Any]) -> Fields:
        """A teacher as it would be typed; its key is not."""
        named = {name: teacher[name] or "" for name in ("name", "base_url", "model", "licence")}
        price = {f"price_{name}": str(usd).removesuffix(".0") for name, usd in (teacher["price"] or {}).items()}
        terms = {f"terms_{name}": said for name, said in (teacher["accepted_terms"] or {}).items()}
        return cls(**named, **price, **terms, not_distillable="" if teacher["distillable"] else "yes")

    def body(self) -> room.CreateTeacher:
        """What the interface takes. Raises ValidationError."""
        return room.CreateTeacher.model_validate(self._plain())

    def changes(self, teacher: Mapping[str, Any]) -> room.UpdateTeacher:
        """What the interface takes to make this teacher what was typed: what is typed as it was is none of it, so that an
        address that nobody could add any more hinders no other change. Raises ValidationError.
        """
        before = Fields.of(teacher)._plain()
        changed = {name: value for name, value in self._plain().items() if value != before.get(name)}
        return room.UpdateTeacher.model_validate(changed)

    def _plain(self) -> dict[str, Any]:
        """Each field of the interface; None where nothing was typed."""
        plain: dict[str, Any] = {name: getattr(self, name).strip() for name in ("name", "base_url", "model")}
        plain |= {"key": self.key.strip() or None, "licence": self.licence.strip() or None}
        price = {"input": self.price_input.strip(), "output": self.price_output.strip()}
        plain["price"] = {name: number(value or "0") for name, value in price.items()} if any(price.values()) else None
        terms = {name: getattr(self, f"terms_{name}").strip() for name in ("who", "when", "url", "version")}
        return {
            **plain,
            "accepted_terms": terms if any(terms.values()) else None,
            "distillable": not self.not_distillable,
        }


@router.get("/teachers")
def show(request: Request, caller: Reads, added: str | None = None, changed: str | None = None) -> Response:
    """The teachers, and a form to add one."""
    told = f"The teacher {added} was added." if added else f"The teacher {changed} was changed." if changed else None
    return _page(request, caller, Fields(), told=told)


@router.post("/teachers")
def add(request: Request, caller: SendsTeachers, fields: Annotated[Fields, Form()]) -> Response:
    """Add a teacher."""
    try:
        row = room.create(request.app.state, caller, fields.body())
    except ValidationError as error:
        return _page(request, caller, fields, said(error), place_of(error), 400)
    except ApiError as error:
        return _page(request, caller, fields, error.message, error.param or "", error.status)
    return go_to(f"/teachers?added={row['name']}")


@router.get("/teachers/{teacher_id}")
def edit(request: Request, caller: SetsTeachers, teacher_id: str) -> Response:
    """A form with a teacher in it."""
    teacher = _found(request, caller, teacher_id)
    return _form(request, caller, "teacher.html", Fields.of(teacher), teacher=teacher)


@router.post("/teachers/{teacher_id}")
def change(request: Request, caller: SendsTeachers, teacher_id: str, fields: Annotated[Fields, Form()]) -> Response:
    """Make a teacher what was typed; where no key was, it keeps its own."""
    teacher = _found(request, caller, teacher_id)
    try:
        row = room.change(request.app.state, caller, teacher_id, fields.changes(teacher))
    except ValidationError as error:
        return _form(request, caller, "teacher.html", fields, said(error), place_of(error), 400, teacher=teacher)
    except ApiError as error:
        told = (error.message, error.param or "", error.status)
        return _form(request, caller, "teacher.html", fields, *told, teacher=teacher)
    return go_to(f"/teachers?changed={row['name']}")


@router.post("/teachers/{teacher_id}/remove")
def remove(request: Request, caller: SendsTeachers, teacher_id: str) -> Response:
    """Forget a teacher and its key."""
    room.remove(request.app.state, caller, teacher_id)
    return go_to("/teachers")


def shown(request: Request, caller: Caller) -> list[Mapping[str, Any]]:
    """A project's teachers, the newest first; their names alone where the caller may not set them."""
    wanted = (teachers.c.project_id == caller.project_id) & teachers.c.deleted_at.is_(None)
    with request.app.state.database.reading() as rows:
        found = rows.execute(select(teachers).where(wanted).order_by(teachers.c.number.desc())).mappings().all()
    if "teachers" not in caller.scopes:
        return [{"name": row["name"]} for row in found]
    return [room.show_teacher(row) for row in found]


def _found(request: Request, caller: Caller, teacher_id: str) -> Mapping[str, Any]:
    """A teacher as it is shown. Raises ApiError 404."""
    with request.app.state.database.reading() as rows:
        return room.show_teacher(room.by_id(rows, caller, teacher_id))


def _page(
    request: Request, caller: Caller, fields: Fields, wrong: str | None = None, param: str = "", status: int = 200,
    told: str | None = None,
) -> Response:  # fmt: skip
    found = shown(request, caller)
    return _form(
        request, caller, "teachers.html", fields, wrong, param, status, teacher=None, teachers=found, told=told
    )


def _form(
    request: Request, caller: Caller, template: str, fields: Fields, wrong: str | None = None, param: str = "",
    status: int = 200, **values: Any,
) -> Response:  # fmt: skip
    """A page with the form; `wrong`: what is to be mended in it, `param`: the interface's name for the field it is about."""
    fields.key = ""  # what was typed comes back for mending, but never the key
    at = param.removeprefix("accepted_").replace(".", "_")  # as accepted_terms.when is typed in terms_when
    return render(request, caller, template, status, fields=fields, wrong=wrong, at=at, **values)
