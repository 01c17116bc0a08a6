"""Every row of kinds.TABLE: it imports, it is a frozen part that refuses unknown knobs, and a recipe keeps all of it.

A kind that has no default for some knob gets an example in EXAMPLES; that is all a new kind needs here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from stillroom import kinds
from stillroom.errors import RecipeError
from stillroom.recipe import Recipe

HEAVY = ("torch", "transformers", "ray", "accelerate", "pandas", "PIL", "datasets")
ROWS = [(group, kind) for group, table in kinds.TABLE.items() for kind in table]
MLP: dict[str, Any] = {"kind": "mlp", "hidden": [8], "dropout": 0.25}
DATASET: dict[str, Any] = {"kind": "dataset", "source": "builtin:digits"}
TRAINED: dict[str, Any] = {"kind": "trained", "model": MLP, "epochs": 3}
EXAMPLES: dict[tuple[str, str], dict[str, Any]] = {
    ("questions", "dataset"): DATASET,
    ("view", "shift"): {"kind": "shift", "pixels": 2},
    ("view", "noise"): {"kind": "noise", "std": 0.5},
    ("teacher", "trained"): TRAINED,
    ("teacher", "saved"): {"kind": "saved", "model": "runs/other/student"},
    ("teacher", "recorded"): {"kind": "recorded", "source": "answers.csv"},
    ("teacher", "openai_api"): {
        "kind": "openai_api",
        "model": "some-model",
        "base_url": "http://localhost:8000/v1",
        "labels": {"yes": "the text agrees", "no": ""},
        "examples": [{"text": "Indeed.", "label": "yes"}],
        "price": {"input": 0.15, "output": 0.6},
        "limits": {"requests_per_minute": 600},
    },
    ("teacher", "ensemble"): {
        "kind": "ensemble",
        "members": [TRAINED, {"kind": "saved", "model": "a"}],
        "weights": [1, 2],
    },
    ("student", "fresh"): {"kind": "fresh", "model": MLP},
    ("teacher", "transformers"): {"kind": "transformers", "model": "hf:some/model", "licence": "MIT"},
    ("model", "transformers"): {"kind": "transformers", "from": "hf:some/model", "task": "causal"},
    ("student", "pretrained"): {"kind": "pretrained", "from": "hf:some/model"},
    ("student", "shrink"): {"kind": "shrink", "layers": [0, 2], "vocabulary": "cut"},
    ("student", "lora"): {"kind": "lora", "from": "hf:some/model", "rank": 4, "targets": ["q_proj"]},
    ("objective", "hard_label"): {"kind": "hard_label", "from": "teacher", "weight": 0.25},
}


def example(group: str, kind: str) -> dict[str, Any]:
    """The example of a kind, or the kind alone."""
    return EXAMPLES.get((group, kind), {"kind": kind})


def recipe_with(group: str, part: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """A recipe with this part in it, and the path to the part."""
    tree: dict[str, Any] = {
        "name": "every-kind",
        "questions": dict(DATASET),
        "teacher": TRAINED,
        "student": {"kind": "fresh", "model": MLP},
        "objectives": [{"kind": "hard_label"}],
    }
    path: list[Any] = {
        "view": ["questions", "augment", 0],
        "model": ["student", "model"],
        "objective": ["objectives", 0],
        "strategy": ["rounds", "strategy"],
        "verifier": ["transfer_set", "verify"],
    }.get(group, [group])
    tree |= {"strategy": {"rounds": {"budgets": [64]}}, "verifier": {"transfer_set": {}}}.get(group, {})
    if group == "view":
        tree["questions"]["augment"] = [part]
    else:
        at(tree, path[:-1])[path[-1]] = part
    return tree, path


def at(tree: Any, path: list[Any]) -> Any:
    """What stands at a path."""
    for key in path:
        tree = tree[key] if isinstance(key, int) or isinstance(tree, dict) else getattr(tree, key)
    return tree


def every_recipe() -> list[dict[str, Any]]:
    """One recipe for each row of the table."""
    return [recipe_with(group, example(group, kind))[0] for group, kind in ROWS]


@pytest.mark.parametrize(("group", "kind"), ROWS)
def test_a_kind_is_a_frozen_part_that_refuses_unknown_knobs(group: str, kind: str) -> None:
    found = kinds.find(group, kind)
    assert issubclass(found, kinds.BASES[group])
    assert found.model_config.get("frozen") is True
    assert found.model_config.get("extra") == "forbid"
    assert found.model_fields["kind"].default == kind
    assert found.__doc__, f"{found.__name__} has no docstring, and `stillroom kinds` shows it"
    with pytest.raises(ValidationError, match="Extra inputs"):
        found.model_validate({**example(group, kind), "no_such_knob": 1})
    part = found.model_validate(example(group, kind))
    with pytest.raises(ValidationError, match="frozen"):
        part.kind = "another"


@pytest.mark.parametrize(("group", "kind"), ROWS)
def test_what_a_kind_gives_and_needs_is_no_knob(group: str, kind: str) -> None:
    found = kinds.find(group, kind)
    for name in {"gives", "needs"} & set(dir(found)):
        assert name not in found.model_fields


@pytest.mark.parametrize(("group", "kind"), ROWS)
def test_a_recipe_keeps_every_knob_of_a_kind(group: str, kind: str) -> None:
    """A field of a base class is written by its declared type unless it is SerializeAsAny; knobs would be lost."""
    given = example(group, kind)
    tree, path = recipe_with(group, given)
    recipe = Recipe.from_tree(tree)
    written = json.loads(json.dumps(recipe.to_tree()))
    assert Recipe.from_tree(written) == recipe
    part = kinds.parse(group, given)
    assert type(part) is kinds.find(group, kind)
    assert at(recipe, path) == part
    inside = at(written, path)
    assert _within(given, inside), f"given {given}, written {inside}"
    alone = json.loads(part.model_dump_json(by_alias=True, exclude_none=True))
    assert inside == alone, "the recipe writes this part differently from the part itself"


def _within(value: Any, written: Any) -> bool:
    """True where all that was given was written; nested parts are written with their defaults too."""
    if isinstance(value, dict):
        return isinstance(written, dict) and all(_within(inner, written.get(key)) for key, inner in value.items())
    if isinstance(value, list):
        return isinstance(written, list) and len(value) == len(written) and all(map(_within, value, written))
    return bool(value == written)


@pytest.mark.parametrize("group", kinds.TABLE)
def test_an_unknown_kind_or_knob_is_named_with_the_nearest(group: str) -> None:
    kind = next(iter(kinds.TABLE[group]))
    tree, path = recipe_with(group, {**example(group, kind), "kind": kind + "x"})
    with pytest.raises(RecipeError, match=f"Did you mean '{kind}'.*Known: ") as caught:
        Recipe.from_tree(tree)
    assert ".".join(map(str, path)) in caught.value.where
    tree, path = recipe_with(group, {**example(group, kind), "kindd": 1})
    with pytest.raises(RecipeError, match=r"no knob 'kindd'.*Did you mean 'kind'.*Known: ") as caught:
        Recipe.from_tree(tree)
    assert ".".join(map(str, path)) in caught.value.where


WITHOUT_HEAVY = """
import json, sys
sys.modules.update(dict.fromkeys({heavy!r}))
from stillroom import kinds
from stillroom.recipe import Recipe
for group, table in kinds.TABLE.items():
    for kind in table:
        kinds.find(group, kind)
for tree in json.load(sys.stdin):
    recipe = Recipe.from_tree(tree)
    assert Recipe.from_tree(json.loads(json.dumps(recipe.to_tree()))) == recipe
"""
HELP_WITHOUT_HEAVY = """
import sys
sys.modules.update(dict.fromkeys({heavy!r}))
from stillroom.cli import stillroom
commands = [[name, "--help"] for name in sorted(stillroom.commands)]
for command in [["--help"], *commands, ["kinds"], ["kinds", "--json"], *(["kinds", kind] for kind in {kinds!r})]:
    stillroom.main(command, prog_name="stillroom", standalone_mode=False)
"""
HELP_AND_MODULES = """
import sys
from stillroom.cli import stillroom
stillroom.main(["--help"], prog_name="stillroom", standalone_mode=False)
sys.stderr.write(" ".join(sys.modules))
"""


def run_python(program: str, environment: dict[str, str], given: str = "") -> str:
    """Run a program in another process; its errors are the test's."""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_recipes_and_kinds_work_without_heavy_libraries(child_environment: dict[str, str]) -> None:
    run_python(WITHOUT_HEAVY.format(heavy=HEAVY), child_environment, json.dumps(every_recipe()))


def test_help_and_kinds_work_without_heavy_libraries(child_environment: dict[str, str]) -> None:
    every = [kind for _, kind in ROWS]
    shown = run_python(HELP_WITHOUT_HEAVY.format(heavy=HEAVY, kinds=every), child_environment)
    assert "Usage: stillroom" in shown
    absent = [kind for _, kind in ROWS if kind not in shown]
    assert not absent, f"`stillroom kinds` does not name {absent}"


def test_help_imports_nothing_slow(child_environment: dict[str, str]) -> None:
    """What keeps `--help` under 0.3 s: none of these is loaded to show it."""
    command = [sys.executable, "-c", HELP_AND_MODULES]
    done = subprocess.run(command, env=child_environment, capture_output=True, text=True, timeout=60)
    loaded = set(done.stderr.split()) & {*HEAVY, "numpy", "scipy", "sklearn", "pyarrow", "safetensors", "jinja2"}
    assert done.returncode == 0, done.stderr
    assert not loaded, f"stillroom --help imports {sorted(loaded)}"
