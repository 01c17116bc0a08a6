"""The generated part of docs/reference/service.md: every route of the service, from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TAGS = {
    "files": "Files",
    "fine-tuning": "Jobs",
    "models": "Models",
    "chat": "Chat",
    "completions": "Stored completions",
    "teachers": "Teachers",
    "lineage": "Lineage",
    "keys": "Projects and keys",
    "usage": "Usage",
    "native": "What has no OpenAI shape",
    "health": "The service itself",
}
SHAPES = ("application/json", "multipart/form-data")


def document() -> dict[str, Any]:
    """The OpenAPI document of a service that has nothing in it."""
    from stillroom.service.app import create_app
    from stillroom.service.settings import Settings

    with TemporaryDirectory() as root:
        app = create_app(Settings(Path(root)))
        found = app.openapi()
        app.state.database.close()
    return found


def routes() -> str:
    """A section for each tag, with a table of its routes."""
    whole = document()
    tagged: dict[str, list[str]] = {}
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            tag = next(iter(operation.get("tags", ())), "other")
            tagged.setdefault(tag, []).append(_line(whole, method.upper(), path, operation))
    order = [*TAGS, *(tag for tag in tagged if tag not in TAGS)]
    parts = []
    for tag in order:
        if tag in tagged:
            head = "| route | does | in the address | in the body |\n|---|---|---|---|"
            parts.append(f"### {TAGS.get(tag, tag.capitalize())}\n\n{head}\n" + "\n".join(tagged[tag]))
    return "\n\n".join(parts)


def _line(whole: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    words = " ".join(operation.get("description", operation.get("summary", "")).split())
    asked = [
        _marked(one["name"], one.get("required", False))
        for one in operation.get("parameters", ())
        if one["in"] != "path"
    ]
    cells = [f"`{method} {path}`", words, ", ".join(asked), ", ".join(_fields(whole, operation))]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _fields(whole: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """The fields of a body; required ones in bold."""
    content = operation.get("requestBody", {}).get("content", {})
    for shape in SHAPES:
        schema = _resolved(whole, content.get(shape, {}).get("schema", {}))
        for name in schema.get("properties", {}):
            yield _marked(name, name in schema.get("required", ()))


def _resolved(whole: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = whole["components"]["schemas"][name] if name else schema
    return found


def _marked(name: str, required: bool) -> str:
    return f"**`{name}`**" if required else f"`{name}`"
