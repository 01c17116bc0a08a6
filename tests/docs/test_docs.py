"""The documents say what the program does: tree, kinds, knobs, errors, help, links, imports, and the recipes in them."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillroom import errors, kinds
from stillroom.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.md")])
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]
REFERENCE = ROOT / "docs" / "reference"
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
BRANCH = re.compile(r"^(?P<indent>(?:[│ ]   )*)[├└]── (?P<name>[\w.]+/?)", re.MULTILINE)
IMPORT = re.compile(r"import \S|from \S+ import \S")
ROWS = [(group, kind) for group, table in kinds.TABLE.items() for kind in table]


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    """The names of docs/regenerate.py."""
    return runpy.run_path(str(ROOT / "docs" / "regenerate.py"), run_name="regenerate")


def drawn_tree(text: str) -> set[str]:
    """The paths that a drawing of src/stillroom names, folders with a slash at the end."""
    found: set[str] = set()
    above: list[str] = []
    for match in BRANCH.finditer(text):
        above = [*above[: len(match["indent"]) // 4], match["name"]]
        found.add("".join(above))
    return found


def real_tree(drawn: set[str]) -> set[str]:
    """The paths there are: those at the top, and those in every folder that the drawing opens."""
    package = ROOT / "src" / "stillroom"
    opened = {package} | {package / path.rpartition("/")[0] for path in drawn if "/" in path.rstrip("/")}
    return {
        str(path.relative_to(package)) + ("/" if path.is_dir() else "")
        for folder in opened
        for path in folder.glob("*")
        if path.name != "__pycache__" and (path.is_dir() or path.suffix == ".py")
        if path.name != "__init__.py" or folder == package
    }


def test_the_tree_in_the_readme_is_the_real_one() -> None:
    fences = [fence["body"] for fence in FENCE.finditer((ROOT / "README.md").read_text())]
    trees = [body for body in fences if body.lstrip().startswith("src/stillroom/")]
    assert len(trees) == 1, "README.md holds one block that starts with src/stillroom/"
    drawn = drawn_tree(trees[0]) - {"py.typed"}
    assert drawn == real_tree(drawn)


def test_the_map_in_the_package_is_the_real_one() -> None:
    import stillroom

    text = stillroom.__doc__ or ""
    top = {path.rstrip("/").removesuffix(".py") for path in real_tree(set())} - {"__init__", "__main__"}
    absent = [name for name in sorted(top) if not re.search(rf"\b{name}\b", text)]
    assert not absent, f"the docstring of src/stillroom/__init__.py does not name {absent}"


def test_reading_a_tree() -> None:
    text = (
        "src/stillroom/\n├── cli.py   every command\n├── models/  mlp\n│   ├── mlp.py\n│   └── deep/\n└── errors.py\n"
    )
    assert drawn_tree(text) == {"cli.py", "models/", "models/mlp.py", "models/deep/", "errors.py"}


@pytest.mark.parametrize("page", ["commands.md", "recipe.md", "errors.md", "service.md"])
def test_a_reference_page_is_what_the_program_says(page: str, generator: dict[str, Any]) -> None:
    text = (REFERENCE / page).read_text()
    assert text == generator["fresh"](page, text), f"docs/reference/{page} is out of date. Run: make docs"


def test_every_help_block_is_the_real_output(generator: dict[str, Any]) -> None:
    text = (REFERENCE / "commands.md").read_text()
    every = [path[1:] for path in generator["paths"](generator["command_line"](), ["stillroom"])]
    absent = [path for path in every if generator["help_of"](path) not in text]
    assert not absent
    headings = set(re.findall(r"^## (stillroom.*)$", text, re.MULTILINE))
    assert headings == {" ".join(["stillroom", *path]) for path in every}


@pytest.mark.parametrize(("group", "kind"), ROWS)
def test_every_kind_and_knob_is_documented(group: str, kind: str) -> None:
    text = (REFERENCE / "recipe.md").read_text()
    _, found, after = text.partition(f"\n#### {group}: {kind}\n")
    assert found, f"docs/reference/recipe.md lacks {group}: {kind}. Run: make docs"
    section = re.split(r"^#{1,4} |<!-- end", after, maxsplit=1, flags=re.MULTILINE)[0]
    linked = re.findall(r"every knob of \[(\w+)\]", section)
    for name in linked:
        section += text.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    knobs = [field.alias or name for name, field in kinds.find(group, kind).model_fields.items() if not field.exclude]
    absent = [knob for knob in knobs if knob != "kind" and f"| `{knob}` |" not in section]
    assert not absent, f"docs/reference/recipe.md lacks the knobs {absent} of {group}: {kind}"


def test_every_knob_of_the_recipe_is_documented() -> None:
    text = (REFERENCE / "recipe.md").read_text()
    absent = [name for name in Recipe.model_fields if f"| `{name}` |" not in text]
    assert not absent


def test_every_error_is_documented() -> None:
    text = (REFERENCE / "errors.md").read_text()
    every = [
        name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, errors.StillroomError)
    ]
    absent = [name for name in every if f"| `{name}` | {vars(errors)[name].exit_status} |" not in text]
    assert not absent


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        missing_anchor = anchor and found.suffix == ".md" and found.is_file() and anchor not in anchors(found)
        if not found.exists() or missing_anchor:
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_and_targets_in_the_documents_exist(page: Path, generator: dict[str, Any]) -> None:
    text = page.read_text()
    code = [fence["body"] for fence in FENCE.finditer(text) if fence["language"] in ("", "bash", "sh", "console")]
    lines = [line.strip() for body in code for line in body.splitlines()] + re.findall(
        r"`([^`\n]+)`", FENCE.sub("", text)
    )
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(generator["command_line"]().commands)
    unknown = []
    for line in lines:
        words = re.sub(r"^(\$ )?(\.venv/bin/)?", "", line).split()
        if len(words) > 1 and words[0] == "stillroom" and re.fullmatch(r"[a-z][a-z-]*", words[1]):
            unknown += [line] if words[1] not in commands else []
        if len(words) > 1 and words[0] == "make" and re.fullmatch(r"[a-z][a-z-]*", words[1]):
            unknown += [line] if words[1] not in targets else []
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_recipes_in_the_documents_load(page: Path) -> None:
    for fence in FENCE.finditer(page.read_text()):
        if fence["language"] in ("yaml", "json") and all(
            f"{key}:" in fence["body"] for key in ("name", "questions", "student")
        ):
            Recipe.from_tree(yaml.safe_load(fence["body"])).check()


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_what_code_in_the_documents_imports_is_there(page: Path) -> None:
    code = [fence["body"] for fence in FENCE.finditer(page.read_text()) if fence["language"] == "python"]
    assert [line for body in code for line in body.splitlines() if IMPORT.match(line) and not is_there(line)] == []


def is_there(line: str) -> bool:
    """What a line imports can be imported."""
    try:
        exec(line, {})
    except ImportError:
        return False
    return True


def test_what_is_not_there_would_be_seen() -> None:
    assert IMPORT.match("import nothing_of_that_name")
    assert not is_there("import nothing_of_that_name")
    assert not is_there("from stillroom.recipe import Nothing")
    assert is_there("import json")


def test_the_index_names_every_page() -> None:
    docs = ROOT / "docs"
    linked = {docs / target for target in re.findall(r"\]\(([^)#\s]+)", (docs / "index.md").read_text())}
    pages = {page for page in docs.rglob("*.md") if page.parent.name != "results" and page.name != "index.md"}
    assert pages <= linked, f"docs/index.md does not link {sorted(str(page) for page in pages - linked)}"


def test_the_bytes_of_a_record_are_as_told() -> None:
    from stillroom.transfer_set.sparse_logits import Layout

    text = (ROOT / "docs" / "how-to" / "distil-a-language-model.md").read_text()
    told = re.findall(r"^\| `(\{head: .*\})`.* \| (\d+) \|$", text, re.MULTILINE)
    assert len(told) == 5
    for knobs, size in told:
        assert Layout.of(49_152, **yaml.safe_load(knobs)).record_bytes == int(size), knobs


def test_shipped_recipes_load() -> None:
    paths = sorted((ROOT / "recipes").glob("*.yaml"))
    assert paths
    for path in paths:
        Recipe.load(path).check()


def test_the_changelog_has_an_entry_for_this_version() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[({re.escape(version)}|Unreleased)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
