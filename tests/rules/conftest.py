"""The source as the rules read it: each file's path, text and syntax tree."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Source(NamedTuple):
    """One Python file; `path` is relative to its root, such as training/loop.py for src/stillroom/training/loop.py."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """The source of a file with this text."""
        return cls(path, text, ast.parse(text, path))


def read(folder: Path) -> list[Source]:
    """Every Python file below a folder."""
    return [Source.of(str(path.relative_to(folder)), path.read_text()) for path in sorted(folder.rglob("*.py"))]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def stillroom_sources() -> list[Source]:
    """Every file of src/stillroom."""
    return read(ROOT / "src" / "stillroom")


@pytest.fixture(scope="session")
def other_sources() -> list[Source]:
    """Every Python file of benchmarks and docs."""
    return read(ROOT / "benchmarks") + read(ROOT / "docs")


@pytest.fixture(scope="session")
def source_of() -> type[Source]:
    """Makes a Source from text, for planted faults."""
    return Source


@pytest.fixture(scope="session")
def child_environment() -> dict[str, str]:
    """The environment of a process that imports stillroom, installed or not."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
