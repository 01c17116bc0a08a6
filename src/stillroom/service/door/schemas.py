"""Pieces that bodies of several routes share, as pydantic has them. What a route alone takes stands with the route."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512


class Body(BaseModel):
    """What a client sends. Fields of the interface that this service does not know are let through and not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Strict(BaseModel):
    """What only this service takes: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number(value: Any) -> Any:
    if isinstance(value, bool | str | bytes):
        raise ValueError("should be a number")
    return value


NUMBER = BeforeValidator(_number)
"""No truth value or text that pydantic would take for a number. It stands behind a number's bounds: before them, pydantic
writes them into the document as `ge` and `le`, which no reader of it knows."""


def _pairs(found: dict[str, str] | None) -> dict[str, str] | None:
    if found is None:
        return None
    if len(found) > MOST_PAIRS:
        raise ValueError(f"at most {MOST_PAIRS} pairs")
    for key, value in found.items():
        if not key or len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE:
            raise ValueError(f"a key has 1 to {LONGEST_KEY} characters, a value at most {LONGEST_VALUE}")
    return found


Metadata = Annotated[
    dict[str, str] | None,
    AfterValidator(_pairs),
    WithJsonSchema({"anyOf": [{
        "type": "object", "maxProperties": MOST_PAIRS,
        "propertyNames": {"minLength": 1, "maxLength": LONGEST_KEY},
        "additionalProperties": {"type": "string", "maxLength": LONGEST_VALUE},
    }, {"type": "null"}]}),
]  # fmt: skip


def never_null(schema: dict[str, Any]) -> None:
    """Say in the document that a field may be left out, and not be null."""
    (kind,) = [one for one in schema.pop("anyOf") if one != {"type": "null"}]
    schema.pop("default", None)
    schema.update(kind)


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """Every answer that is none of success."""

    error: ErrorDetail


class Deleted(BaseModel):
    """Something is gone."""

    id: str
    object: str
    deleted: bool


class Listed(BaseModel):
    """A page of a list."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    has_more: bool
    first_id: str | None
    last_id: str | None


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": words}
    for status, words in {
        400: "What was sent is wrong", 401: "No key, or a wrong one", 403: "The key lacks a scope", 404: "Not found",
        409: "Not as things stand", 413: "Too large", 415: "Compressed, or of another kind", 421: "Another host's name",
        429: "Too many requests", 500: "A fault of the service", 503: "Not now",
    }.items()
}  # fmt: skip
LIMIT = Field(ge=1, le=100)
