"""Every kind and its knobs as plain data, read off the classes themselves: for `stillroom kinds` and the reference."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stillroom.errors import RecipeError, did_you_mean
from stillroom.kinds import Knobs, find, table
from stillroom.recipe import METRICS

GROUPS = ("questions", "view", "teacher", "model", "student", "objective", "strategy", "verifier")
PLAIN: dict[Any, str] = {
    bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", Any: "value"
}  # fmt: skip
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "its length at least"}


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
        raise RecipeError(f"there is no kind {kind!r}", where="command line", cure=did_you_mean(kind, {*found, *names}))
    return chosen


def meaning(part: type[Knobs]) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(part) or "").splitlines()[0]


def knobs(part: type[Knobs]) -> list[dict[str, str]]:
    """Name, type, limits, default and meaning of each knob, in words; `kind` itself is left out."""
    meant = meanings(part)
    return [
        {
            "name": field.alias or name,
            "type": ", ".join([type_of(field.annotation), *bounds_of(field)]),
            "default": default_of(field),
            "meaning": meant.get(name, ""),
        }
        for name, field in part.model_fields.items()
        if name != "kind" and not field.exclude
    ]


def meanings(part: type[BaseModel]) -> dict[str, str]:
    """What the docstring below each knob says, those of the classes it comes from included.

    pydantic can read them too (`use_attribute_docstrings`), of each class as it is made: a fifth of a second of every command.
    """
    return {name: words for base in reversed(part.__mro__) for name, words in _written(base).items()}


def _written(part: type) -> dict[str, str]:
    """Attribute -> the docstring below it, of this class's own body."""
    found = {}
    body = _classes(part.__module__).get(part.__qualname__, [])
    for above, below in pairwise(body):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr):
            words = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(words, str):
                found[above.target.id] = " ".join(words.split())
    return found


@cache
def _classes(module: str) -> dict[str, list[ast.stmt]]:
    """The bodies of a module's classes; none where its source is not there."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, KeyError):
        return {}
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def type_of(annotation: Any, named: Callable[[type[BaseModel]], str] = lambda part: "mapping") -> str:
    """A type in words: `float | None` is 'number or none'. `named` says how a part of a recipe is called."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(inner[0], named)
    if origin is Literal:
        return _either([str(value) for value in inner])
    if origin in (Union, types.UnionType):
        return _either(list(dict.fromkeys(type_of(one, named) for one in inner)))
    if origin in (tuple, list, set, frozenset):
        entries = dict.fromkeys(type_of(one, named) for one in inner if one is not ...)
        return f"list of {' and '.join(f'{one}s' if one in PLAIN.values() else one for one in entries)}"
    if origin is dict or annotation is dict:
        return f"mapping of {type_of(inner[0], named)} to {type_of(inner[1], named)}" if inner else "mapping"
    if annotation in (None, type(None)):
        return "none"
    if annotation in PLAIN:
        return PLAIN[annotation]
    return named(annotation) if issubclass(annotation, BaseModel) else str(annotation.__name__)


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def bounds_of(field: FieldInfo) -> list[str]:
    """The limits of a number, in words."""
    limits = [(key, getattr(one, key, None)) for one in field.metadata for key in BOUNDS]
    return [f"{BOUNDS[key]} {value:g}" for key, value in limits if value is not None]


def default_of(field: FieldInfo) -> str:
    """The default as a recipe would write it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "its own defaults"
    return "empty" if value == "" else as_yaml(value)


def as_yaml(value: Any) -> str:
    """A value as a recipe would write it, on one line."""

    def plain(one: Any) -> Any:
        if isinstance(one, dict):
            return {str(key): plain(inner) for key, inner in one.items()}
        if isinstance(one, tuple | list | set | frozenset):
            return [plain(inner) for inner in one]
        return one.model_dump(mode="json", by_alias=True) if isinstance(one, BaseModel) else one

    text: str = yaml.safe_dump(plain(value), default_flow_style=True, width=10_000, sort_keys=False)
    return text.strip().removesuffix("...").strip()
