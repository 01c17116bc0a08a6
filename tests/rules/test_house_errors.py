"""The tree drawn in the docstring of errors.py is the tree of its classes, exit statuses included."""

from __future__ import annotations

import inspect
import re

import pytest

from stillroom import errors
from stillroom.errors import InputError, StillroomError, did_you_mean

LINE = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?P<rest>.*)$")


def drawn() -> dict[str, tuple[str, int]]:
    """name -> (the name of its parent, its exit status), as the docstring draws it."""
    found: dict[str, tuple[str, int]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines()[1:]:
        match = LINE.match(line)
        if not match or not (match["indent"] or match["name"] == "StillroomError"):
            continue
        depth = len(match["indent"]) // 4
        above = above[:depth] + [match["name"]]
        number = re.match(r"\s+(\d+)\s", match["rest"] + " ")
        parent = above[-2] if depth else "Exception"
        found[match["name"]] = (parent, int(number[1]) if number else found.get(parent, ("", 1))[1])
    return found


def classes() -> dict[str, type[StillroomError]]:
    """Every error class that errors.py defines."""
    members = inspect.getmembers(errors, lambda one: inspect.isclass(one) and issubclass(one, BaseException))
    return {name: one for name, one in members if one.__module__ == "stillroom.errors"}


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {name: (one.__bases__[0].__name__, one.exit_status) for name, one in classes().items()}
    assert drawn() == real


def test_exit_statuses_are_the_promised_ones() -> None:
    assert {one.exit_status for one in classes().values()} == {1, 2, 3, 130}
    assert all(one.exit_status == 2 for one in classes().values() if issubclass(one, InputError))


@pytest.mark.parametrize("name", classes())
def test_every_error_says_what_where_and_cure_in_one_line(name: str) -> None:
    error = classes()[name]("the label column is absent", where="questions.label, line 4", cure="Name a column")
    assert str(error) == "the label column is absent (questions.label, line 4). Name a column."
    assert inspect.getdoc(type(error)), f"{name} has no docstring"


def test_did_you_mean_names_the_nearest_and_lists_all() -> None:
    assert (
        did_you_mean("soft_targt", ["hidden", "soft_target"])
        == "Did you mean 'soft_target'? Known: hidden, soft_target"
    )
    assert did_you_mean("zzz", ["hidden", "soft_target"]) == "Known: hidden, soft_target"


def test_every_error_raised_in_the_source_is_in_the_tree(stillroom_sources: list) -> None:  # type: ignore[type-arg]
    """An error class of our own that stands elsewhere would be missing from the tree."""
    import ast

    strays = [
        f"src/stillroom/{source.path}:{node.lineno}: {node.name}"
        for source in stillroom_sources
        if source.path != "errors.py"
        and not source.path.startswith(("loopback/", "service/"))  # they speak the interface's errors, over HTTP
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
        and any(
            ast.unparse(base).split(".")[-1].endswith(("Error", "Exception")) or ast.unparse(base) in classes()
            for base in node.bases
        )
    ]
    assert not strays
