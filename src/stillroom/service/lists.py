"""Lists as the official clients page through them: newest first, `after` the id of the last one seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from fastapi import Request
from sqlalchemy import ColumnElement, Connection, Select, Table, select

from stillroom.service.faults import ApiError, not_found

Row = Mapping[Any, Any]
Order = Literal["asc", "desc"]


def page(
    rows: Connection, table: Table, wanted: ColumnElement[bool], show: Callable[[Row], dict[str, Any]], *,
    after: str | None, limit: int, order: Order = "desc", what: str = "object",
) -> dict[str, Any]:  # fmt: skip
    """One page of a table's rows for which `wanted` holds. Raises ApiError 404 for an `after` that is not among them."""
    asked: Select[Any] = select(table).where(wanted)
    if after is not None:
        at = rows.execute(select(table.c.number).where(wanted & (table.c.id == after))).scalar()
        if at is None:
            raise not_found(what, after, "after")
        asked = asked.where(table.c.number < at if order == "desc" else table.c.number > at)
    number = table.c.number.desc() if order == "desc" else table.c.number.asc()
    found = rows.execute(asked.order_by(number).limit(limit + 1)).mappings().all()
    return as_list([show(row) for row in found[:limit]], len(found) > limit)


def as_list(data: list[dict[str, Any]], has_more: bool = False) -> dict[str, Any]:
    """Their envelope."""
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": has_more, **ends}


def metadata_filter(request: Request) -> dict[str, str]:
    """What stands in the address as metadata[key]=value. Raises ApiError 400 for more than sixteen."""
    found = {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.multi_items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    if len(found) > 16:
        raise ApiError(400, "At most 16 pairs of metadata.", param="metadata")
    return found
