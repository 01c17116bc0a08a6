"""Writes the generated parts of docs/reference from the program itself; `--check` only says if they are up to date.

A part stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`. What is outside is written by hand. Knobs,
types and defaults come from the pydantic models, meanings from the docstring under each field in the source.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
from click.testing import CliRunner
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parent))
import service_routes

from stillroom import errors, kinds
from stillroom.catalogue import as_yaml, bounds_of, default_of, meanings, type_of
from stillroom.recipe import Recipe

REFERENCE = Path(__file__).resolve().parent / "reference"
WIDTH = 80
GROUPS = {
    "questions": "Where the questions come from: `questions:`.",
    "view": "Augmentations: the entries of `augment:`.",
    "teacher": "What is asked: `teacher:`, the members of an ensemble, `evaluation.independent_teacher`.",
    "model": "Architectures: `model:` of a student or a teacher.",
    "student": "Where the student's first weights come from: `student:`.",
    "objective": "Terms of the loss: the entries of `objectives:`.",
    "strategy": "Which questions to ask next: `rounds.strategy` and the entries of `rounds.compare`.",
    "verifier": "Is an answer right: `transfer_set.verify`; see [verifying answers](../explanation/verifying-answers.md).",
}


def fresh(page: str, text: str) -> str:
    """The page with each of its generated parts written anew."""
    for name, make in PARTS[page].items():
        start, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, found_start, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not (found_start and found_end):
            raise SystemExit(f"error: docs/reference/{page} lacks the markers of {name}. Put {start} and {end} back.")
        text = f"{before}{start}\n\n{make().strip()}\n\n{end}{after}"
    return text


def commands() -> str:
    """Every command's help, as the terminal shows it."""
    group = command_line()
    return "\n\n".join(
        f"## {' '.join(path)}\n\n```text\n{help_of(path[1:])}\n```" for path in paths(group, ["stillroom"])
    )


def command_line() -> click.Group:
    """The group that holds every command."""
    from stillroom import cli

    return next(one for one in vars(cli).values() if isinstance(one, click.Group))


def help_of(path: list[str]) -> str:
    """The real output of `stillroom PATH --help` on a terminal 80 columns wide."""
    extra = {"prog_name": "stillroom", "terminal_width": WIDTH, "color": False}
    done = CliRunner().invoke(command_line(), [*path, "--help"], catch_exceptions=False, **extra)  # type: ignore[arg-type]
    if done.exit_code:
        raise SystemExit(f"error: stillroom {' '.join(path)} --help failed: {done.output}")
    return "\n".join(line.rstrip() for line in done.output.strip().splitlines())


def paths(command: click.Command, path: list[str]) -> Iterator[list[str]]:
    """The words of every command below this one, itself first."""
    yield path
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            if not command.commands[name].hidden:
                yield from paths(command.commands[name], [*path, name])


def sections() -> str:
    """The recipe and its sections, a table each."""
    least = {
        "name": "x",
        "questions": {"kind": "dataset", "source": "builtin:digits"},
        "teacher": {"kind": "trained", "model": {"kind": "mlp"}},
        "student": {"kind": "fresh", "model": {"kind": "mlp"}},
    }
    defaults = {"objectives": f"`{as_yaml(Recipe.from_tree(least).to_tree()['objectives'])}`"}
    parts = [f"### The whole recipe\n\n{about(Recipe)}\n\n{table_of(Recipe, defaults)}"]
    parts += [_section(path, part) for path, part in _inner_sections(Recipe, "")]
    return "\n\n".join(parts)


def _section(path: str, part: type[BaseModel], depth: int = 3) -> str:
    return f"{'#' * depth} {path}\n\n{about(part)}\n\n{table_of(part)}"


def _inner_sections(part: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in part.model_fields.items():
        for inner in _classes(field.annotation):
            if issubclass(inner, kinds.Knobs) and not issubclass(inner, kinds.Part):
                place = f"{path}.{name}" if path else name
                yield place, inner
                yield from _inner_sections(inner, place)


def all_kinds() -> str:
    """Every kind of every group, a table each."""
    parts = []
    for group, rows in kinds.TABLE.items():
        parts.append(f"### {group}\n\n{GROUPS.get(group, about(kinds.BASES[group]))}")
        for kind in rows:
            found = kinds.find(group, kind)
            parts.append(f"#### {group}: {kind}\n\n{about(found)}{_gives(found)}\n\n{table_of(found)}")
            parts += [_section(path, part, 5) for path, part in _inner_sections(found, kind)]
    return "\n\n".join(parts)


def _gives(part: Any) -> str:
    words = [(word, getattr(part, word, frozenset())) for word in ("gives", "needs")]
    said = [f"{word.capitalize()}: {', '.join(sorted(values))}." for word, values in words if values]
    return "\n\n" + " ".join(said) if said else ""


def table_of(part: type[BaseModel], defaults: dict[str, str] | None = None) -> str:
    """The knobs of a part; those it has from a section of the recipe are named by a link."""
    section = next((base for base in part.__mro__[1:] if base in _section_names()), None)
    meant = meanings(part)
    lines = ["| knob | type | default | meaning |", "|---|---|---|---|"]
    for name, field in part.model_fields.items():
        inherited = section is not None and name in section.model_fields and name not in part.__annotations__
        if name == "kind" or field.exclude or inherited:
            continue
        default = (defaults or {}).get(name) or _marked(default_of(field))
        words = [type_of(field.annotation, named), *bounds_of(field)]
        cells = [f"`{field.alias or name}`", ", ".join(words), default, meant.get(name, "")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    text = "\n".join(lines) if len(lines) > 2 else "No knobs of its own."
    if section is not None:
        place = _section_names()[section]
        text += (
            f"\n\nAnd every knob of [{place}](#{slug(place)}), with the same defaults unless the table says otherwise."
        )
    return text


@functools.cache
def _section_names() -> dict[type[BaseModel], str]:
    return {part: path for path, part in _inner_sections(Recipe, "")}


def about(part: type[BaseModel]) -> str:
    """The docstring of a part, on one line."""
    return " ".join((inspect.getdoc(part) or "").split())


def _marked(default: str) -> str:
    return default if default in ("required", "none", "empty", "its own defaults") else f"`{default}`"


def named(part: type[BaseModel]) -> str:
    """A part of a recipe as a link to where its knobs stand."""
    group = next((group for group, base in kinds.BASES.items() if part is base), None)
    if group:
        return f"[{group}](#{group})"
    if part in _section_names():
        place = _section_names()[part]
        return f"[{place}](#{slug(place)})"
    return "mapping, see below"


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _classes(inner)


def error_tree() -> str:
    """The tree of errors.py, then a table of every class."""
    tree = inspect.cleandoc((errors.__doc__ or "").partition("\n")[2])
    lines = ["| error | exit status | what it says |", "|---|---|---|"]
    for name, one in vars(errors).items():
        if inspect.isclass(one) and issubclass(one, errors.StillroomError):
            lines.append(f"| `{name}` | {one.exit_status} | {' '.join((inspect.getdoc(one) or '').split())} |")
    return f"```text\n{tree}\n```\n\n" + "\n".join(lines)


def slug(heading: str) -> str:
    """The anchor that Markdown gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "commands.md": {"commands": commands},
    "recipe.md": {"sections": sections, "kinds": all_kinds},
    "errors.md": {"errors": error_tree},
    "service.md": {"routes": service_routes.routes},
}


def main() -> None:
    """Write the pages, or with --check name those that are out of date."""
    check, stale = "--check" in sys.argv[1:], []
    for page in PARTS:
        path = REFERENCE / page
        old = path.read_text()
        new = fresh(page, old)
        if new != old:
            stale.append(f"docs/reference/{page}")
            if not check:
                path.write_text(new)
    if stale and check:
        raise SystemExit(f"error: {', '.join(stale)} out of date. Run: make docs")
    sys.stdout.write(f"wrote {', '.join(stale)}\n" if stale else "docs/reference is up to date\n")


if __name__ == "__main__":
    main()
