"""What docs/reference/run-folder.md names, held against the folder of a run that was made."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from stillroom.rundir import read_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "run-folder.md"
CODE = re.compile(r"`([^`]+)`")
OF_A_TEACHER = re.compile(r"[0-9a-f]{16}$")


def unnamed(run: Path) -> list[str]:
    """What stands in a run folder, in its transfer set, in its models' folders or in its scorecard, and not on the page."""
    text = PAGE.read_text()
    found = _beyond(run, _first_column(text, "| file or folder |"))
    found += _beyond(run / "transfer_set", _first_column(text, "| in `transfer_set/` |"))
    model = _first_column(text, "In a model's folder") | _first_column(text, "A student or teacher that is a model of")
    for place in ("student", "control", "teacher"):
        found += _beyond(run / place, model | {"0", "1"}) if (run / place / "config.json").is_file() else []
    if (run / "scorecard.json").is_file():
        told = _first_column(text, "| field | meaning |")
        found += [f"scorecard.json: {key}" for key in read_json(run / "scorecard.json") if key not in told]
    return found


def _first_column(text: str, start: str) -> set[str]:
    """Every name in the first column of the table that follows these words, of a path its first part."""
    _, found, after = text.partition(start)
    assert found, f"the page has no {start!r}"
    table = re.search(r"(?:^\|.*\n?)+", after, re.MULTILINE)
    assert table is not None, f"no table follows {start!r}"
    return {name.split("/")[0] for line in table[0].splitlines() for name in CODE.findall(line.split("|")[1])}


def _beyond(folder: Path, named: set[str]) -> list[str]:
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    patterns = [name.replace("ARM", "*") for name in named]
    strange = [name for name in there if not OF_A_TEACHER.match(name)]
    return [f"{folder.name}/{name}" for name in sorted(strange) if not any(fnmatch(name, one) for one in patterns)]
