"""The page Teachers: which there are, adding one, taking one away. Keys go in and are never shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select

from stillroom.service.door.access import Caller, Reads
from stillroom.service.door.faults import ApiError
from stillroom.service.pages.rendering import PageRoute, go_to, render
from stillroom.service.pages.tokens import SendsTeachers
from stillroom.service.pages.typed import number, said
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

    def body(self) -> room.CreateTeacher:
        """What the interface takes. Raises ValidationError."""
        plain: dict[str, Any] = {name: getattr(self, name).strip() for name in ("name", "base_url", "model")}
        optional = {"key": self.key.strip(), "licence": self.licence.strip()}
        plain |= {name: value for name, value in optional.items() if value}
        price = {"input": self.price_input.strip(), "output": self.price_output.strip()}
        if any(price.values()):
            plain["price"] = {name: number(value or "0") for name, value in price.items()}
        terms = {name: getattr(self, f"terms_{name}").strip() for name in ("who", "when", "url", "version")}
        if any(terms.values()):
            plain["accepted_terms"] = terms
        return room.CreateTeacher.model_validate({**plain, "distillable": not self.not_distillable})


@router.get("/teachers")
def show(request: Request, caller: Reads, added: str | None = None) -> Response:
    """The teachers, and a form to add one."""
    told = f"The teacher {added} was added." if added else None
    return _page(request, caller, Fields(), None, told)


@router.post("/teachers")
def add(request: Request, caller: SendsTeachers, fields: Annotated[Fields, Form()]) -> Response:
    """Add a teacher."""
    try:
        row = room.create(request.app.state, caller, fields.body())
    except ValidationError as error:
        return _page(request, caller, fields, said(error), None, 400)
    except ApiError as error:
        return _page(request, caller, fields, error.message, None, error.status)
    return go_to(f"/teachers?added={row['name']}")


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


def _page(
    request: Request, caller: Caller, fields: Fields, wrong: str | None, told: str | None, status: int = 200
) -> Response:
    fields.key = ""  # what was typed comes back for mending, but never the key
    return render(
        request, caller, "teachers.html", status, teachers=shown(request, caller), fields=fields, wrong=wrong, told=told
    )
