"""What can be wrong with a recipe for language models, told before anything is spent: tasks, tokenizers, tails, views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stillroom.errors import ModelError, RecipeError
from stillroom.kinds import Model, Objective, Student, Teacher
from stillroom.recipe import TransferSet

if TYPE_CHECKING:
    from stillroom.stages.opening import Run

FOR_CLASSES = ("groups", "independent_teacher")
"""Of the evaluation: what has no meaning without classes."""
EXTRA = ("transformers", "tokenizers", "peft", "gguf")
"""The packages of the extra `language` (see pyproject.toml)."""


@contextmanager
def extra_packages() -> Iterator[None]:
    """Where a package of the extra `language` is missing, say how to get it. Raises ModelError."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA:
            raise
        raise ModelError(
            f"models of the transformers library need the Python package {package!r}, which is not installed",
            where="teacher, student",
            cure="pip install stillroom[language]",
        ) from error


def check_task(run: Run, at: str) -> None:
    """Teacher, student and rows must be for one task. `at`: the arm's place in the recipe, with a dot; or nothing."""
    recipe, classes = run.recipe, run.splits.classes
    task = recipe.teacher.solves()
    if task == "classification" and not classes:
        raise RecipeError(
            "these rows are running text without labels, and a classifier learns classes",
            where=f"{at}questions",
            cure="Name the label column, or set the task of teacher and student to causal or masked",
        )
    for name in FOR_CLASSES if task != "classification" else ():
        if getattr(recipe.evaluation, name) is not None:
            raise RecipeError("this is for classifiers", where=f"evaluation.{name}", cure="Take it out")
    # A student that is shrunk is for whatever its teacher is for.
    theirs = task if recipe.student.kind == "shrink" else recipe.student.architecture().solves()
    if theirs != task:
        raise RecipeError(
            f"the student is for {theirs} and the teacher for {task}",
            where=f"{at}student.{'model.' if recipe.student.kind == 'fresh' else ''}task",
            cure=f"Set task: {task}",
        )


def check_language(run: Run, main: Run, at: str) -> None:
    """See that a student, or an arm's, can learn what its teacher says. Raises RecipeError, ModelError."""
    recipe = run.recipe
    _check_tail(recipe.transfer_set, recipe.objectives, at)
    if recipe.teacher.solves() != main.recipe.teacher.solves():
        raise RecipeError(
            f"this arm's teacher is for {recipe.teacher.solves()}, the run's for {main.recipe.teacher.solves()}",
            where=f"{at}teacher",
            cure="Compare them in two runs",
        )
    first = _network(run, _of(recipe.teacher.each()[0], run))
    if run is not main:
        _same_tokens(_network(main, _of(main.recipe.teacher.each()[0], main)), first, f"{at}teacher", widths=True)
    student = _network(run, recipe.student)
    _same_tokens(first, student, f"{at}student", widths=_needs_distributions(recipe.objectives))
    _check_context(run, student, f"{at}student")


def _check_context(run: Run, student: Any, where: str) -> None:
    """A student must be able to look at a whole window; the teacher's context was looked at when they were made."""
    from stillroom.models.language import context_of

    raw = run.splits.train.raw
    assert isinstance(raw, dict), "windows are named arrays"
    window, context = raw["ids"].shape[1], context_of(student.model)
    if window > context:
        raise ModelError(
            f"the windows have {window:,} tokens, and the student looks at {context:,} at most",
            where=where,
            cure=f"Set questions.window: {context} or less, or a student with more positions",
        )


def _check_tail(knobs: TransferSet, objectives: Sequence[Objective], at: str) -> None:
    for place, objective in enumerate(objectives):
        heat, form = objective.heat(), getattr(objective, "divergence", "forward")
        if knobs.live or knobs.tail == "hidden" or heat is None:
            continue
        if heat != 1 or (knobs.tail == "sample" and form != "forward"):
            what = f"temperature {heat}" if heat != 1 else f"divergence {form}"
            raise RecipeError(
                f"a kept tail of kind {knobs.tail} does not tell the teacher's probabilities at {what}",
                where=f"{at}objectives.{place}",
                cure="Set transfer_set.tail: hidden, or temperature: 1 and divergence: forward",
            )


def _needs_distributions(objectives: Sequence[Objective]) -> bool:
    """Some objective compares probabilities over the vocabulary, or takes tokens that the teacher chose."""
    return any({"probabilities", "answers"} & one.required() for one in objectives)


def _of(teacher: Teacher, run: Run) -> Model:
    """The architecture of a teacher, be it one that the run trains or one that stands somewhere."""
    from stillroom.models.transformers import Transformers
    from stillroom.teachers.trained import Trained

    if isinstance(teacher, Trained):
        return teacher.model
    path = teacher.weights_at(run.dir.path / run.teacher_home, run.folders)
    if path is None:
        raise ModelError(
            f"a teacher of kind {teacher.kind} has no weights that could be looked at",
            where="teacher",
            cure="Use one of kind transformers or trained",
        )
    return Transformers.model_validate({"task": teacher.solves(), "from": str(path.absolute())})


def _network(run: Run, part: Student | Model) -> Any:
    """The network without memory for its weights."""
    import torch

    ground = run.ground(untaught=True)
    learned = run.inputs(part, run.splits.train.raw, ground)
    with torch.device("meta"):
        return part.network(learned, 0, ground)


def _same_tokens(teacher: Any, student: Any, where: str, widths: bool) -> None:
    """Raise ModelError where the two networks read text otherwise or, where that matters, give other numbers of logits."""
    from stillroom.models.tokenizers import compare

    if student.tokenizer is not teacher.tokenizer:
        try:
            compare(teacher.tokenizer, student.tokenizer, teacher.vocabulary, student.vocabulary)
        except ModelError as error:
            raise ModelError(error.what, where=f"{where}, {error.where}", cure=error.cure) from error
    if widths and student.vocabulary != teacher.vocabulary:
        raise ModelError(
            f"it gives {student.vocabulary:,} logits a position and the teacher {teacher.vocabulary:,}, though they read the "
            "same tokens",
            where=where,
            cure=f"Set vocab_size: {teacher.vocabulary} in its config, or choose one of the teacher's width",
        )
