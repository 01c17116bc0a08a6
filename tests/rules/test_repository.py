"""Rules over the whole repository: imports run one way, and no file names a machine it was written on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillroom import kinds

# Written in pieces, so that this file does not hold what it looks for.
HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "npm" + "js.org", "download.pytorch" + ".org", "deb.debian" + ".org")
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.}$])/(?:work|root)/",
    "a registry's host or setting": "|".join(
        [*map(re.escape, HOSTS), "--index" + "-url", "extra-index" + "-url", "trusted" + "-host"]
    ),
    "words about how the work is organised": "|".join(
        [
            r"\bsub-?" + r"agents?\b",
            r"\bhelper " + r"agents?\b",
            r"\b(?:this|next|earlier|another) " + r"session\b",
            r"\bissues " + r"show\b",
        ]
        + [
            r"(?<![\w/])(?:this )?issue " + r"#?\d+\b",
            r"\bthis " + r"issue\b",
            r"shared/" + r"(?:design|facts|hooks)\b",
            r"\b(?:clau" + r"de|chat" + r"gpt)\b",
        ]
    ),
}
FAULTS = {
    "a path of one machine": ["see /wor" + "k/main/src", "cache=/roo" + "t/.cache"],
    "a registry's host or setting": ["https://pypi" + ".org/simple", "pip install --index" + "-url x"],
    "words about how the work is organised": [
        "done in issue" + " #2",
        "written by a sub" + "agent",
        "an earlier " + "session",
        "This " + "issue builds",
    ],
}
FINE = [
    "RUN/.work/checkpoint",
    "../shared/data",
    "student/work",
    "a tissue 4",
    "numpy/numpy#12",
    "f'{run}/work/x'",
    "squareroot/x",
]


def tracked(root: Path) -> list[Path]:
    """The files git tracks, and those it would: untracked and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"git cannot list the files of {root}: {done.stderr.strip()}")
    return [path for name in done.stdout.split("\0") if name and (path := root / name).is_file()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names_a_machine_or_how_work_is_organised(what: str, root: Path) -> None:
    found = []
    for path in tracked(root):
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # an image or another binary file
        for match in re.finditer(FORBIDDEN[what], text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(root)}:{line}: {match[0]!r}")
    assert not found, f"{what}:\n" + "\n".join(found)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_rule_sees_a_planted_fault(what: str) -> None:
    assert all(re.search(FORBIDDEN[what], text, re.IGNORECASE) for text in FAULTS[what])
    assert not [text for text in FINE if re.search(FORBIDDEN[what], text, re.IGNORECASE)]


def test_imports_run_one_way(root: Path, child_environment: dict[str, str]) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=root, env=child_environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("group", ["teacher", "objective"])
def test_kinds_of_a_group_do_not_import_each_other(group: str, stillroom_sources: list[Any]) -> None:
    modules = {row.partition(":")[0] for row in kinds.TABLE[group].values()}
    files = {f"{module.removeprefix('stillroom.').replace('.', '/')}.py": module for module in modules}
    found = []
    for source in stillroom_sources:
        for node in ast.walk(source.tree) if source.path in files else ():
            if isinstance(node, ast.ImportFrom):
                named = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                named = {alias.name for alias in node.names}
            else:
                continue
            others = named & (modules - {files[source.path]})
            found += [f"src/stillroom/{source.path}:{node.lineno} imports {other}" for other in others]
    assert not found


def test_the_shell_script_is_runnable(root: Path) -> None:
    script = root / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()


def test_constraints_pin_every_dependency(root: Path) -> None:
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = {_plain(line.split("==")[0]) for line in lines if re.fullmatch(r"[\w.-]+==[\w.!]+", line)}
    assert len(pinned) == len(lines), "each line is name==version, without a local version such as +cpu"
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {_plain(re.split(r"[\s<>=!~;\[]", need)[0]) for group in groups for need in group}
    assert wanted <= pinned, f"constraints.txt lacks {sorted(wanted - pinned)}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
