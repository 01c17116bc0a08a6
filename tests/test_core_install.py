"""What the core installs is enough for classifiers: every command, with the packages of all extras hidden from it.

PyTorch's compiler is hidden too: nothing is compiled, and to import it is a second of every process that trains.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from command_line import recipe, rows_of, write_csv, write_recipe

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
HIDING = """\
import importlib.machinery, sys

real = importlib.machinery.PathFinder


class Finder(real):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name == "torch._dynamo" or name.partition(".")[0] in {hidden!r}
        return None if hidden else real.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(real)] = Finder
"""


def of_extras() -> set[str]:
    """The modules of every distribution that an extra names and the core does not."""
    project = tomllib.loads(PROJECT.read_text())["project"]

    def names(wanted: list[str]) -> set[str]:
        return {re.split(r"[\[<>=;]", one)[0].lower().replace("_", "-") for one in wanted}

    further = set().union(*(names(one) for one in project["optional-dependencies"].values()))
    further -= names(project["dependencies"])
    return {
        module
        for module, distributions in packages_distributions().items()
        if {name.lower().replace("_", "-") for name in distributions} & further
    }


@pytest.fixture
def core(tmp_path: Path) -> dict[str, str]:
    """An environment in which the packages of extras are not found."""
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "sitecustomize.py").write_text(HIDING.format(hidden=of_extras()))
    return os.environ | {"PYTHONPATH": str(tmp_path / "hiding")}


def test_every_command_for_classifiers_works_without_the_extras(tmp_path: Path, core: dict[str, str]) -> None:
    rows = rows_of()
    write_csv(tmp_path / "data.csv", rows)
    write_csv(tmp_path / "new.csv", [{key: row[key] for key in row if key != "label"} for row in rows[:3]])
    write_recipe(tmp_path / "tiny.yaml", recipe())
    for command in (
        "--version", "new ensemble", "kinds", "check tiny.yaml", "distill tiny.yaml", "evaluate runs/tiny",
        "distill data.csv --label label --run runs/data teacher.size=2 teacher.member.epochs=1 seeds=1",
        "predict runs/tiny new.csv", "try runs/tiny --row 1", "runs", "compare runs/tiny runs/data",
        "export-answers runs/tiny --jsonl --out answers.jsonl",
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "stillroom", *command.split()],
            cwd=tmp_path,
            env=core,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    hidden = subprocess.run([sys.executable, "-c", "import transformers"], env=core, capture_output=True, text=True)
    assert "No module named 'transformers'" in hidden.stderr
