"""Names in a recipe that came over the network: none leads out, whatever the names around it are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.service_jobs import digits

from stillroom.recipe import Recipe
from stillroom.service.door.access import first_project
from stillroom.service.door.faults import ApiError
from stillroom.service.recipes.references import resolved, resolved_student
from stillroom.service.rows.database import Database
from stillroom.service.settings import Settings

FREE = ("labels", "examples", "notes", "groups", "class_weights", "probabilities", "log_probabilities", "prompt", "system",
        "source", "from", "model", "rewrite", "arms of one", "a.b")  # fmt: skip
"""What an arm may be called, among it all that is prose somewhere."""
MLP = {"kind": "mlp", "hidden": [8]}
INSIDE = {
    "kind": "openai_api",
    "base_url": "http://169.254.169.254/v1",
    "model": "m",
    "api_key_env": "AWS_SECRET_ACCESS_KEY",
}
FORBIDDEN: dict[str, dict[str, Any]] = {
    "an address": {"teacher": INSIDE},
    "an address of a member": {"teacher": {"kind": "ensemble", "members": [{"kind": "trained", "model": MLP}, INSIDE]}},
    "a saved teacher": {"teacher": {"kind": "saved", "model": "/models/x"}},
    "a path": {"questions": {"kind": "dataset", "source": "/etc/passwd"}},
    "a path by split": {"questions": {"kind": "dataset", "source": {"train": "../../secret"}}},
    "recorded in a path": {"teacher": {"kind": "recorded", "source": "/etc/shadow"}},
    "weights of a path": {"student": {"kind": "pretrained", "from": "/models/x"}},
    "code": {"student": {"kind": "fresh", "model": {"kind": "transformers", "config": {"auto_map": {"a": "b"}}}}},
    "trust": {"student": {"kind": "fresh", "model": {"kind": "transformers", "config": {"trust_remote_code": True}}}},
    "a tokenizer": {"student": {"kind": "fresh", "model": {"kind": "transformers", "config": {}, "tokenizer": "/x"}}},
    "a key": {"training": {"api_key_env": "STILLROOM_SECRET"}},
    "a store": {"transfer_set": {"store": "/tmp/x"}},
}


class Asked:
    """A database without files and teachers, and what it makes of recipes."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder)
        self.database.upgrade()
        self.state = SimpleNamespace(settings=Settings(folder))
        self.project = first_project(self.database)

    def recipe(self, tree: dict[str, Any]) -> Recipe:
        with self.database.reading() as rows:
            return resolved(rows, self.state, self.project, {"name": "x", **tree}).recipe

    def refused(self, tree: dict[str, Any]) -> str:
        with pytest.raises(ApiError) as error:
            self.recipe(tree)
        assert error.value.status in (400, 404)
        return str(error.value.param)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    found = Asked(tmp_path_factory.mktemp("asked"))
    yield found
    found.database.close()


@pytest.mark.parametrize("words", FORBIDDEN)
@pytest.mark.parametrize("name", FREE)
def test_no_name_of_an_arm_hides_what_is_in_it(asked: Asked, name: str, words: str) -> None:
    assert asked.refused(digits(arms={name: FORBIDDEN[words]})).startswith(f"distillation.recipe.arms.{name}.")


@pytest.mark.parametrize("words", FORBIDDEN)
@pytest.mark.parametrize("name", FREE)
def test_no_other_name_hides_it_either(asked: Asked, name: str, words: str) -> None:
    hidden = FORBIDDEN[words]
    config = {"kind": "transformers", "config": {name: hidden}}
    for tree in (
        digits(student={"kind": "fresh", "model": config}),
        digits(teacher={"kind": "trained", "model": config}),
        digits(teacher={"kind": "trained", "model": MLP, name: hidden}),
        digits(teacher={"kind": "trained", "model": MLP, name: [hidden]}),
        digits(evaluation={name: hidden}),
        digits(questions={"kind": "dataset", "source": "builtin:digits", name: hidden}),
        digits(**{name: hidden}),
        digits(arms={"a": {name: hidden}}),
        digits(arms={"a": {"student": {"kind": "fresh", "model": config}}}),
    ):
        asked.refused(tree)
    with pytest.raises(ApiError), asked.database.reading() as rows:
        resolved_student(rows, asked.state, asked.project, {"kind": "fresh", "model": config})


@pytest.mark.parametrize("name", ["labels", "prompt"])
@pytest.mark.parametrize("inner", [{"auto_map": {}}, {"path": "/x"}, {"trust_me": True}])
def test_what_is_prose_in_one_place_is_none_in_another(asked: Asked, name: str, inner: dict[str, Any]) -> None:
    config = {"kind": "transformers", "config": {name: inner}}
    assert f".{name}." in asked.refused(digits(student={"kind": "fresh", "model": config}))
    assert f".{name}." in asked.refused(digits(arms={name: {"student": {"kind": "fresh", "model": config}}}))


@pytest.mark.parametrize("arms", [[{"teacher": INSIDE}], {"prompt": [{"teacher": INSIDE}]}, {"a": "teacher"}, "x"])
def test_arms_are_sections_by_name(asked: Asked, arms: Any) -> None:
    assert asked.refused(digits(arms=arms)) == "distillation.recipe.arms"


def test_prose_is_left_as_it_is(asked: Asked) -> None:
    groups = {"model": ["0", "1"], "from": ["2"]}
    found = asked.recipe(digits(
        evaluation={"groups": groups}, notes=["from /etc/passwd"],
        questions={"kind": "dataset", "source": "builtin:digits", "class_weights": {"source": 2.0, "path": 1.0}},
        arms={name: {"training": {"epochs": 2}} for name in FREE},
    ))  # fmt: skip
    assert {name: list(classes) for name, classes in (found.evaluation.groups or {}).items()} == groups
    assert set(found.arms) == set(FREE)
    assert found.notes == ("from /etc/passwd",)
