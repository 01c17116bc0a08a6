"""A recipe that came over the network: every name in it that would be a path, an address or a key is one of ours, or refused.

Its files are ids of files of the project, its teachers are registered ones, its models come from packages or from bases that
the operator put there. What is read as prose (labels, examples, groups) is not looked at, in the very places where it is so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeAlias

from pydantic_core import PydanticCustomError
from sqlalchemy import Connection

from stillroom.errors import RecipeError
from stillroom.kinds import parse
from stillroom.recipe import Recipe
from stillroom.service.data.file_rows import find_file
from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row
from stillroom.service.recipes.presets import base_folder, base_reference
from stillroom.service.rows.ids import is_id
from stillroom.service.teachers.teacher_rows import find_teacher, recipe_part, refuse_distilling

BUILTIN = re.compile(r"builtin:[a-z]+")
TEACHERS = ("teacher", "independent_teacher", "rewrite", "member", "members")
PROSE = ("labels", "examples", "probabilities", "log_probabilities")
"""Knobs of a teacher whose names inside are somebody's labels and columns."""
PROSE_ELSEWHERE = (("evaluation", "groups"), ("questions", "class_weights"))
HOLD_TEACHERS = ("evaluation", "traces")
OURS_ALONE = ("store", "base_url", "api_key_env", "auto_map", "path")
CODE = "trust_"
"""How the names of knobs begin that would let a model bring program code."""
REGISTERED_SAYS = ("kind", "model", "price", "licence")
SUFFIXES = (".jsonl", ".csv", ".tsv", ".json", ".parquet", ".npz", ".txt")
PURPOSES = ("fine-tune", "user_data", "evals")


Way: TypeAlias = tuple[str, ...]
"""The keys that lead to a value of a recipe or of an arm; a place in a list is none."""


@dataclass
class Resolved:
    """A recipe with our names for everything, and what has to be linked into its job's data folder."""

    tree: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    """Name in the folder -> id of the file."""
    bases: dict[str, str] = field(default_factory=dict)
    """Name in the folder -> name of the base."""
    teachers: list[Row] = field(default_factory=list)
    """The registered ones."""

    @property
    def recipe(self) -> Recipe:
        """Raises ApiError 400 for what is no recipe; nothing of its data is looked at."""
        try:
            found = Recipe.from_tree(self.tree)
            found.check()
        except RecipeError as error:
            raise ApiError(400, str(error), param=f"{PARAM}.{error.where}", code="invalid_recipe") from error
        return found


PARAM, STUDENT = "distillation.recipe", "distillation.student"


def resolved(rows: Connection, state: Any, project_id: str, tree: dict[str, Any]) -> Resolved:
    """Go through a recipe. Raises ApiError 400, 403 or 404 with the place of what is refused."""
    found = Resolved({})
    found.tree = _Going(rows, state, project_id, found).recipe(tree)
    accepted = [row["accepted_terms"] for row in found.teachers if row["accepted_terms"]]
    if found.teachers:
        found.tree.pop("accept_terms", None)
    if accepted:
        found.tree["accept_terms"] = accepted[0]
    return found


def teachers_of(rows: Connection, state: Any, project_id: str, tree: dict[str, Any]) -> list[Row]:
    """The registered teachers of a recipe whose files and weights are in its job's folder already: those may be gone by now.

    Raises ApiError as `resolved` does.
    """
    found = Resolved({})
    _Going(rows, state, project_id, found, linked=True).recipe(tree)
    return found.teachers


def resolved_student(rows: Connection, state: Any, project_id: str, student: dict[str, Any]) -> Resolved:
    """The same for a student alone; `tree` is that. Raises ApiError 400."""
    found = Resolved({})
    found.tree = _Going(rows, state, project_id, found).section(student, STUDENT, ("student",))
    try:
        parse("student", found.tree)
    except (RecipeError, PydanticCustomError) as error:
        where = getattr(error, "where", "")
        param = f"{STUDENT}.{where}" if where else STUDENT
        raise ApiError(400, str(error), param=param, code="invalid_student") from error
    return found


@dataclass(frozen=True)
class _Going:
    rows: Connection
    state: Any
    project_id: str
    found: Resolved
    linked: bool = False
    """Files and weights were looked up before."""

    def recipe(self, given: dict[str, Any]) -> dict[str, Any]:
        """A whole recipe. The names of its arms are free, so each is gone through by itself, and its name means nothing."""
        tree = self.section({key: value for key, value in given.items() if key != "arms"}, PARAM, ())
        if "arms" not in given:
            return tree
        arms = given["arms"]
        if not isinstance(arms, dict) or not all(isinstance(arm, dict) for arm in arms.values()):
            _refuse("arms are sections by the name of an arm", f"{PARAM}.arms")
        return tree | {"arms": {name: self.section(arm, f"{PARAM}.arms.{name}", ()) for name, arm in arms.items()}}

    def section(self, given: dict[str, Any], at: str, way: Way) -> dict[str, Any]:
        return {key: self.value(key, value, f"{at}.{key}", (*way, key)) for key, value in given.items()}

    def value(self, key: str, value: Any, at: str, way: Way) -> Any:
        if key in OURS_ALONE or key.startswith(CODE):
            _refuse(f"{key} is not for recipes that are sent here", at)
        if _is_prose(way) and _is_flat(value):
            return value
        if key in TEACHERS and not isinstance(value, list):
            return self.teacher(value, at, way)
        if key == "source" and isinstance(value, dict):
            return {role: self.source(one, f"{at}.{role}") for role, one in value.items()}
        if isinstance(value, dict):
            return self.section(value, at, way)
        if isinstance(value, list):
            return [self.value(key, one, f"{at}.{place}", way) for place, one in enumerate(value)]
        if key == "source":
            return self.source(value, at)
        if key in ("from", "tokenizer"):
            return self.weights(value, at)
        if key == "model" and isinstance(value, str):
            _refuse("a model is described here, not named", at)
        return value

    def source(self, name: Any, at: str) -> Any:
        """A file of the project, or rows that come with the program."""
        if self.linked or not isinstance(name, str) or BUILTIN.fullmatch(name):
            return name
        if not is_id(name, "file"):
            _refuse(f"'{name[:100]}' is neither the id of a file nor a builtin: name", at)
        row = find_file(self.rows, self.project_id, name, at)
        if row["purpose"] not in PURPOSES:
            _refuse(f"this file was uploaded for {row['purpose']}", at, "invalid_purpose")
        suffix = PurePath(row["filename"]).suffix.lower()
        linked = name + (suffix if suffix in SUFFIXES and row["purpose"] != "fine-tune" else ".jsonl")
        self.found.files[linked] = name
        return linked

    def weights(self, name: Any, at: str) -> Any:
        """Weights or a tokenizer: the teacher's, of a package, of a base, or letters."""
        if self.linked or not isinstance(name, str) or name in ("teacher", "characters"):
            return name
        reference = base_reference(self.state.settings, name, at)
        if base_folder(self.state.settings, reference) is not None:
            self.found.bases[reference] = reference
        return reference

    def teacher(self, given: Any, at: str, way: Way) -> Any:
        """A registered teacher by its name, or one that needs no address."""
        if isinstance(given, dict) and "teacher" not in given:
            if given.get("kind") not in ("trained", "recorded", "ensemble"):
                _refuse("a teacher is registered first, and then named: {teacher: NAME}", at, "unregistered_teacher")
            return self.section(given, at, way)
        knobs = given if isinstance(given, dict) else {"teacher": given}
        if not isinstance(knobs["teacher"], str):
            _refuse("a teacher's name is a text", at)
        own = [name for name in knobs if name in (*OURS_ALONE, *REGISTERED_SAYS)]
        if own:
            _refuse(f"a registered teacher says its {own[0]} itself", f"{at}.{own[0]}")
        row = find_teacher(self.rows, self.project_id, knobs["teacher"], at)
        refuse_distilling(self.state, row)
        self.found.teachers.append(row)
        return {**recipe_part(row), **{name: value for name, value in knobs.items() if name != "teacher"}}


def _is_prose(way: Way) -> bool:
    """The names inside are free there, and no name of ours."""
    *above, key = way
    of_a_teacher = key in PROSE and bool(above) and above[-1] in TEACHERS
    return way in PROSE_ELSEWHERE or (of_a_teacher and all(one in (*TEACHERS, *HOLD_TEACHERS) for one in above))


def _is_flat(value: Any) -> bool:
    """Words, lists of them, or words by name, and lists of these: no section could be in it."""
    if isinstance(value, list):
        return all(_is_flat(one) for one in value)
    return not isinstance(value, dict) or all(_is_words(one) for one in value.values())


def _is_words(value: Any) -> bool:
    return all(_is_words(one) for one in value) if isinstance(value, list) else not isinstance(value, dict)


def _refuse(told: str, at: str, code: str = "invalid_recipe") -> None:
    raise ApiError(400, f"{told[0].upper()}{told[1:]}.", param=at, code=code)
