"""A recipe as it is written: YAML or JSON -> plain data whose every mapping knows its place and its keys' lines.

And one knob set from the command line. What the knobs mean is not known here.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from stillroom.errors import RecipeError
from stillroom.knob_errors import Located


def locate(value: Any, path: str = "", lines: dict[str, dict[str, int]] | None = None) -> Any:
    """Copy plain data so that each mapping knows its dotted path and, from a file, its keys' lines."""
    if isinstance(value, dict):
        found = Located(
            {key: locate(inner, f"{path}.{key}" if path else str(key), lines) for key, inner in value.items()}
        )
        found.path = path
        found.lines = (lines or {}).get(path, {})  # type: ignore[misc]
        return found
    if isinstance(value, list | tuple):
        return [locate(inner, f"{path}.{place}", lines) for place, inner in enumerate(value)]
    return value


def read_tree(path: Path) -> Located:
    """A recipe file as a located mapping. Raises RecipeError for what is no YAML or JSON, or no mapping."""
    if not path.is_file():
        raise RecipeError(
            "there is no such recipe", where=str(path), cure="Check the path, or make one: stillroom new ensemble"
        )
    lines: dict[str, dict[str, int]] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        # JSON that is indented by tabs is no YAML; its errors then have no line.
        with suppress(*([yaml.YAMLError] if path.suffix == ".json" else [])):
            lines = _lines(yaml.compose(text, yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = (
            f", line {mark.line + 1}"
            if mark
            else f", line {error.lineno}"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise RecipeError(
            "this is not well-formed YAML or JSON", where=f"{path}{line}", cure="Correct the syntax there"
        ) from error
    if not isinstance(tree, dict):
        raise RecipeError(
            "a recipe is a mapping of sections", where=str(path), cure="Start with `name: ...`; see stillroom new"
        )
    return locate(tree, "", lines)  # type: ignore[no-any-return]


def _lines(node: Any, path: str = "") -> dict[str, dict[str, int]]:
    """For each mapping of a YAML document, by dotted path: the line of each of its keys."""
    found: dict[str, dict[str, int]] = {}
    if isinstance(node, yaml.MappingNode):
        found[path] = {}
        for key, inner in node.value:
            line, before = key.start_mark.line + 1, found[path].get(key.value)
            if before is not None:
                raise RecipeError(
                    f"the knob {key.value!r} stands here a second time",
                    where=f"{f'{path}.' if path else ''}{key.value}, lines {before} and {line}",
                    cure="Keep one of them",
                )
            found[path][key.value] = line
            found |= _lines(inner, f"{path}.{key.value}" if path else key.value)
    elif isinstance(node, yaml.SequenceNode):
        for place, inner in enumerate(node.value):
            found |= _lines(inner, f"{path}.{place}")
    return found


def _place_in(listed: list[Any], key: str, path: str) -> int:
    """Where a list has what an override names. Raises RecipeError for a place that it has not."""
    if key.isdigit() and int(key) < len(listed):
        return int(key)
    longer = "To make a list longer, give it whole, such as objectives='[{kind: soft_target}, {kind: hidden}]'"
    raise RecipeError(
        f"there is no {key!r} in this list", where=path, cure=f"Count from 0 to {len(listed) - 1}. {longer}"
    )


def _section(tree: Any, key: str) -> Any:
    """What stands there, made where there is nothing: a section may be named and left empty. Raises TypeError."""
    if not isinstance(tree, dict):
        raise TypeError
    if tree.get(key) is None:
        tree[key] = Located()
    return tree[key]


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one knob by `section.key=value`; the value is read as YAML, a number in the path is a place in a list."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RecipeError(
            f"{override!r} is no override", where="command line", cure="Write section.key=value, such as seeds=3"
        )
    *parents, last = path.split(".")
    target: Any = tree
    for key in parents:
        try:
            target = target[_place_in(target, key, path)] if isinstance(target, list) else _section(target, key)
        except TypeError:
            raise RecipeError(f"{key!r} stands in no section", where=path, cure="Name a section's knob") from None
    try:
        value = locate(yaml.safe_load(text), path)
        if isinstance(target, list):
            target[_place_in(target, last, path)] = value
        elif isinstance(target, dict):
            target[last] = value
            if isinstance(target, Located):  # it stands in no line of the file any more
                target.lines = {key: line for key, line in target.lines.items() if key != last}  # type: ignore[misc]
        else:
            raise RecipeError(f"{'.'.join(parents)} is no section", where=path, cure="Name a section's knob")
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(
            f"{override!r} cannot be read", where="command line", cure="Write section.key=value, and quote it"
        ) from error
