"""The rows of finished students, where their files stand, and what a student can begin as."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, bindparam, select

from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.rows.statements import Statement
from stillroom.service.rows.tables import models
from stillroom.service.settings import Settings

CASCADE = ":cascade"
CLASSIFIER, WRITER = "small-text-classifier", "tiny-language"
BASES = "bases"
"""The folder below the root in which the operator puts models to begin from."""
WITH_CODE = "auto_map"
OURS = and_(models.c.project_id == bindparam("project_id"), models.c.deleted_at.is_(None))
_FIND = Statement(select(models).where(OURS, models.c.id == bindparam("id")))


def find_model(rows: Connection, project_id: str, model_id: str, param: str = "model") -> Row:
    """A project's finished student. Raises ApiError 404."""
    found = _FIND.first(rows, project_id=project_id, id=model_id)
    if found is None:
        raise not_found("model", model_id, param)
    return found


def folder_of(settings: Settings, row: Row) -> Path:
    """Where a student's files stand. Raises ApiError 404 where they are gone, 400 for a model that brings code."""
    folder: Path = settings.root / row["folder"]
    config = folder / "config.json"
    if not config.is_file():
        raise ApiError(404, f"The files of '{row['id']}' are gone.", param="model", code="model_not_found")
    refuse_code(folder)
    return folder


def refuse_code(folder: Path) -> None:
    """Raise ApiError 400 where a configuration in a folder names program code that would be run to load it."""
    for path in sorted(folder.glob("*.json")):
        if WITH_CODE in _names(json.loads(path.read_bytes())):
            told = f"{path.name} has an {WITH_CODE}: this model brings program code, which is never run here."
            raise ApiError(400, told, param="model", code="model_with_code")


def _names(value: Any) -> set[str]:
    """Every name in a JSON value."""
    found, left = set[str](), [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            found |= one.keys()
            left += one.values()
        elif isinstance(one, list):
            left += [part for part in one if isinstance(part, dict | list)]
    return found


@cache
def writes_here() -> bool:
    """Students that write can be trained: what they need is installed, or was when it was first asked for."""
    return find_spec("transformers") is not None


def presets(settings: Settings) -> list[str]:
    """Names of what a student can begin as here."""
    folder = settings.root / BASES
    ready = [CLASSIFIER, WRITER] if writes_here() else [CLASSIFIER]
    return [*ready, *(sorted(one.name for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else ())]


def has_cascade(row: Row) -> bool:
    """It knows when to leave a question to its teacher."""
    return bool(row["cascade"]) and bool(row["teacher"])
