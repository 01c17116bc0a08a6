"""Lists as the official clients have them: an envelope, and what an address may say about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from stillroom.service.door.faults import ApiError

if TYPE_CHECKING:
    from fastapi import Request

Row = Mapping[Any, Any]
Order = Literal["asc", "desc"]


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


def numbered(pairs: Mapping[str, str]) -> dict[str, str]:
    """Pairs as values of a statement: key_0 and value_0, and so on."""
    keys = {f"key_{place}": key for place, key in enumerate(pairs)}
    return {**keys, **{f"value_{place}": value for place, value in enumerate(pairs.values())}}
