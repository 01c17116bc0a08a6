"""Every kind and its knobs as plain data, read off the classes themselves: for `stillroom kinds` and the reference."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic_core import PydanticUndefined

from stillroom.errors import RecipeError, did_you_mean
from stillroom.kinds import Knobs, find, table
from stillroom.recipe import METRICS, Budget, Evaluation, Price, Recipe, Training, TransferSet

GROUPS = ("questions", "view", "teacher", "model", "student", "objective")
SECTIONS: tuple[type[Knobs], ...] = (Recipe, Training, TransferSet, Evaluation, Price, Budget)


def catalogue(kind: str | None = None) -> dict[str, Any]:
    """group -> kind -> {"meaning", "knobs"}, and the metrics; only the kind or group asked for, where one is."""
    found: dict[str, Any] = {}
    for group in GROUPS:
        found[group] = {
            name: {"meaning": meaning(find(group, name)), "knobs": knobs(find(group, name))} for name in table(group)
        }
    found["metric"] = {name: {"meaning": "", "knobs": []} for name in METRICS}
    if kind is None:
        return found
    if kind in found:
        return {kind: found[kind]}
    chosen = {group: {kind: kinds[kind]} for group, kinds in found.items() if kind in kinds}
    if not chosen:
        names = [name for kinds in found.values() for name in kinds]
        raise RecipeError(f"there is no kind {kind!r}", where="command line", cure=did_you_mean(kind, [*found, *names]))
    return chosen


def meaning(part: type[Knobs]) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(part) or "").splitlines()[0]


def knobs(part: type[Knobs]) -> list[dict[str, str]]:
    """Name, type, default and meaning of each knob; `kind` itself is left out."""
    return [
        {
            "name": field.alias or name,
            "type": _type(field.annotation),
            "default": _default(field.get_default(call_default_factory=True)),
            "meaning": field.description or "",
        }
        for name, field in part.model_fields.items()
        if name != "kind" and not field.exclude
    ]


def _type(annotation: Any) -> str:
    text = str(annotation) if hasattr(annotation, "__args__") else getattr(annotation, "__name__", str(annotation))
    for noise in ("typing.", "stillroom.kinds.", "stillroom.recipe.", "pathlib."):
        text = text.replace(noise, "")
    text = text.replace("NoneType", "None")
    if text.startswith("Literal["):
        return " or ".join(str(choice) for choice in annotation.__args__)
    return (
        text.split(", BeforeValidator")[0]
        .split(", AfterValidator")[0]
        .replace("Annotated[", "")
        .replace("SerializeAsAny[", "")
    )


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Knobs):
        return "its defaults"
    return "none" if value is None else str(value)
