"""The rows of teachers: found, handed to whoever asks them, and refused where nobody may learn from them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, and_, bindparam, or_, select

from stillroom.errors import RecipeError
from stillroom.recipe import AcceptedTerms
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import teachers
from stillroom.service.teachers import outward
from stillroom.teachers.addresses import host_of, within
from stillroom.teachers.terms import check_terms

VARIABLE = "STILLROOM_TEACHER_"
OURS = and_(teachers.c.project_id == bindparam("project_id"), teachers.c.deleted_at.is_(None))
NAMED = teachers.c.name == bindparam("name")
_FIND = Statement(select(teachers).where(OURS, or_(teachers.c.id == bindparam("name"), NAMED)))


def find_teacher(rows: Connection, project_id: str, name: str, param: str = "teacher") -> Row:
    """A project's teacher, by its id or its name. Raises ApiError 404."""
    found = _FIND.first(rows, project_id=project_id, name=name)
    if found is None:
        raise not_found("teacher", name, param)
    return found


def key_of(state: Any, row: Row) -> str | None:
    """A teacher's key in plain letters: for nobody but the teacher."""
    sealed = row["sealed_key"]
    return None if sealed is None else state.vault.open(sealed, sealed_for(row["project_id"], row["id"])).decode()


def handed(state: Any, row: Row) -> dict[str, dict[str, str]]:
    """What a process that asks this teacher is handed: {"keys": {NAME: key}, "addresses": {"host:port": ip}}.

    Its address is looked at anew. Raises ApiError 400 where it is not allowed any more.
    """
    at, key = outward.pinned(row["base_url"], state.settings), key_of(state, row)
    return {"keys": {} if key is None else {variable(row): key}, "addresses": {at.origin: at.ip}}


def variable(row: Row) -> str:
    """The name under which a teacher's key is handed over: the `api_key_env` of its part of a recipe."""
    return VARIABLE + str(row["id"]).rpartition("-")[2]


def recipe_part(row: Row) -> dict[str, Any]:
    """What a recipe's `openai_api` teacher says of this one; no key."""
    found = {"kind": "openai_api", "model": row["model"], "base_url": row["base_url"]}
    for name in ("price", "licence"):
        found |= {name: row[name]} if row[name] else {}
    return {**found, **({"api_key_env": variable(row)} if row["sealed_key"] is not None else {})}


def refuse_distilling(state: Any, row: Row) -> None:
    """Raise ApiError 403 or 400 for a teacher that nobody may distil from, or whose terms nobody accepted."""
    host, model = host_of(row["base_url"]), str(row["model"]).casefold()
    for pattern in (one.casefold() for one in state.settings.forbidden_teachers):
        if within(host, pattern) or fnmatchcase(host, pattern) or fnmatchcase(model, pattern):
            told = f"Whoever runs this service forbids to distil from this teacher: {pattern}."
            raise ApiError(403, told, param="teacher", code="teacher_forbidden")
    if not row["distillable"]:
        raise ApiError(403, "This teacher is not distillable.", param="teacher", code="not_distillable")
    accepted = None if row["accepted_terms"] is None else AcceptedTerms.model_validate(row["accepted_terms"])
    try:
        check_terms(row["licence"], row["base_url"], accepted, row["model"])
    except RecipeError as error:
        told = f"{error.what}. Read them; where they allow it, set the teacher's accepted_terms."
        raise ApiError(400, told, param="teacher.accepted_terms", code="terms_not_accepted") from error


def sealed_for(project_id: str, teacher_id: str) -> str:
    """What a teacher's key is sealed for: it opens for nothing else."""
    return f"teacher's key {project_id} {teacher_id}"
