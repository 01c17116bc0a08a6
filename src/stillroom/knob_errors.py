"""What holds knobs, and what is wrong with one of them: in plain words, and where it stands in the recipe, with its line.

Pydantic finds the errors; this file tells the first of them to a person. It knows no kind and no section.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from stillroom.errors import RecipeError, StillroomError, did_you_mean

PLAIN = {
    "greater_than_equal": "should be at least {ge:g}",
    "greater_than": "should be above {gt:g}",
    "less_than_equal": "should be at most {le:g}",
    "less_than": "should be below {lt:g}",
    "too_short": "should have at least {min_length} of them",
    "finite_number": "should be a finite number",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "string_type": "should be a text (quote it)",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "dict_type": "should be a mapping",
    "model_type": "should be a mapping",
    "path_type": "should be a path",
    "literal_error": "should be {expected}",
}
"""Type of a pydantic error -> what to say; its limits are filled in."""


class Knobs(BaseModel):
    """A part of a recipe: frozen, and a knob it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_as_a_number(cls, value: Any) -> Any:
        """Python counts true as 1; a recipe that says it means something else."""
        given = value if isinstance(value, Mapping) else {}
        for name, field in cls.model_fields.items():
            if isinstance(given.get(name), bool) and field.annotation in (int, float, int | None, float | None):
                told = f"should be a number, not {str(given[name]).lower()}"
                raise PydanticCustomError("truth", "{told}", {"told": told, "below": name})
        return value


class Located(dict[str, Any]):
    """A mapping that knows its place in the recipe, so that an error inside it can say where."""

    path: str = ""
    lines: ClassVar[dict[str, int]] = {}


def place_of(value: Any, *keys: Any) -> str:
    """Dotted path and line of a key below a located mapping, as far as they are known."""
    path, line = (value.path if isinstance(value, Located) else ""), 0
    for key in keys:
        if isinstance(value, Located):
            line = value.lines.get(str(key), 0)  # 0: from Python, or from the command line
        path = f"{path}.{key}" if path else str(key)
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            break
    return f"{path}, line {line}" if line else path


def first_error(error: ValidationError, value: Any, path: str) -> RecipeError:
    """The first of pydantic's errors as one of ours: what, where with its line, and the cure."""
    found = error.errors()
    # A misspelt knob is often the missing one, so it is told first.
    first = min(found, key=lambda one: {"extra_forbidden": 0, "missing": 2}.get(one["type"], 1))
    keys = [*_keys_in(value, first["loc"]), *filter(None, [first.get("ctx", {}).get("below")])]
    where = place_of(value, *keys)
    name = ".".join(map(str, keys[-2:] if keys and isinstance(keys[-1], int) else keys[-1:])) or path
    if first["type"] == "extra_forbidden":
        holder = _fields_at(error, value, keys[:-1])
        return RecipeError(f"there is no knob {name!r} here", where=where, cure=did_you_mean(name, holder))
    if first["type"] == "missing":
        return RecipeError(
            f"the knob {name!r} is missing", where=place_of(value, *keys[:-1]) or name, cure=f"Add {name}:"
        )
    given = first["input"]
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    # A knob of several types has an error for each, all of them at its place.
    there = [one for one in found if one is first or _keys_in(value, one["loc"]) == keys]
    told = list(dict.fromkeys(_in_words(one) for one in there))
    whole = " or ".join([told[0], *(one.removeprefix("should be ") for one in told[1:])])
    return RecipeError(f"{name}: {whole}{shown}" if name else f"{whole}{shown}", where=where, cure="Correct this knob")


def _keys_in(value: Any, loc: tuple[int | str, ...]) -> list[Any]:
    """The keys of pydantic's path that stand in the recipe; between them it names types and validators."""
    keys: list[Any] = []
    for place, key in enumerate(loc):
        if isinstance(value, Mapping):
            known = key in value or place == 0
        else:
            known = isinstance(value, list | tuple) and isinstance(key, int)
        if known:
            keys.append(key)
            try:
                value = value[key]
            except (KeyError, IndexError):
                value = None
        elif isinstance(value, Mapping) and place == len(loc) - 1:
            keys.append(key)  # a knob that is missing
    return keys


def _in_words(error: Any) -> str:
    """One of pydantic's errors in plain words."""
    limits = error.get("ctx", {})
    if error["type"] in PLAIN:
        return PLAIN[error["type"]].format(**limits)
    message: str = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _fields_at(error: ValidationError, value: Any, keys: list[Any]) -> list[str]:
    """The knobs known where an unknown one was given."""
    model: Any = _models().get(error.title)
    for key in keys:
        annotation = model.model_fields[key].annotation if model and str(key) in model.model_fields else None
        model = next((part for part in _classes_in(annotation)), None)
    if model is None:
        raise StillroomError(f"unknown part of a recipe: {keys}")
    return [field.alias or name for name, field in model.model_fields.items()]


def _classes_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _classes_in(inner)]


def _models() -> dict[str, Any]:
    """Every knob class by name."""
    found: dict[str, Any] = {}
    queue: list[Any] = [BaseModel]
    while queue:
        for child in queue.pop().__subclasses__():
            found[child.__name__] = child
            queue.append(child)
    return found
