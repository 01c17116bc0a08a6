"""What can be wrong with a recipe for language models, told before anything is spent: tasks, tokenizers, tails, views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stillroom.errors import ModelError, RecipeError
from stillroom.kinds import Model, Objective, Student, Teacher
from stillroom.recipe import TransferSet
from stillroom.stages.language_text import is_recorded

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
    task = "causal" if recipe.is_reasoning else recipe.teacher.solves()
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
    recipe, members = run.recipe, run.recipe.teacher.each()
    if is_recorded(recipe.teacher):
        return _check_words(run, main, at)
    _check_tail(recipe.transfer_set, recipe.objectives, recipe.teacher, at)
    if recipe.transfer_set.live and recipe.budget.teacher_tokens is not None:
        raise RecipeError(
            "a live teacher is asked in each step anew, and its tokens are not counted",
            where="budget.teacher_tokens",
            cure="Take it out, or set transfer_set.live: false",
        )
    if recipe.teacher.solves() != main.recipe.teacher.solves():
        raise RecipeError(
            f"this arm's teacher is for {recipe.teacher.solves()}, the run's for {main.recipe.teacher.solves()}",
            where=f"{at}teacher",
            cure="Compare them in two runs",
        )
    first = built_bare(run, architecture_of(members[0], run, 0))
    if run is not main:
        _same_tokens(_first_reader(main), first, f"{at}teacher", widths=not is_recorded(main.recipe.teacher))
    for place, member in enumerate(members[1:], 1):
        where, network = f"{at}teacher.members.{place}", built_bare(run, architecture_of(member, run, place))
        _same_tokens(first, network, where, True, ("the first teacher", "this one"))
        _check_context(run, network, where, "this teacher")
    student = built_bare(run, recipe.student)
    _same_tokens(first, student, f"{at}student", widths=_needs_distributions(recipe.objectives))
    _check_context(run, student, f"{at}student", "the student")


def _first_reader(run: Run) -> Any:
    """The network whose tokens the windows are made of: the first teacher's, or the student's of a recorded one."""
    recorded = is_recorded(run.recipe.teacher)
    return built_bare(run, run.recipe.student if recorded else architecture_of(run.recipe.teacher.each()[0], run, 0))


def _check_words(run: Run, main: Run, at: str) -> None:
    """A recorded teacher's words are read by the student's own tokenizer, and so by those of all arms."""
    student = built_bare(run, run.recipe.student)
    if run is not main:
        _same_tokens(_first_reader(main), student, f"{at}student", widths=False, called=("the run's", "this arm's"))
    _check_context(run, student, f"{at}student", "the student")


def _check_context(run: Run, network: Any, where: str, who: str) -> None:
    """A model must be able to look at a whole window."""
    from stillroom.models.language import context_of

    raw = run.splits.train.raw
    assert isinstance(raw, dict), "windows are named arrays"
    window, context = raw["ids"].shape[1], context_of(network.model)
    if window > context:
        raise ModelError(
            f"the windows have {window:,} tokens, and {who} looks at {context:,} at most",
            where=where,
            cure=f"Set questions.window: {context} or less, or choose a model with more positions",
        )


def _check_tail(knobs: TransferSet, objectives: Sequence[Objective], teacher: Teacher, at: str) -> None:
    """What is kept must tell what an objective asks of it. The mean of several hidden tails is kept as a sample."""
    several = len(teacher.each()) > 1
    tail = "sample" if several and knobs.tail == "hidden" else knobs.tail
    if several and knobs.tail == "sample" and not knobs.live and getattr(teacher, "mean", "") == "geometric":
        raise RecipeError(
            "a geometric mean of samples: a token that one teacher's sample left out would have no probability",
            where=f"{at}teacher.mean",
            cure="Set mean: arithmetic, or transfer_set.tail: hidden or bucket",
        )
    for place, objective in enumerate(objectives):
        heat, form = objective.heat(), getattr(objective, "divergence", "forward")
        if knobs.live or tail == "hidden" or heat is None:
            continue
        if heat != 1 or (tail == "sample" and form != "forward"):
            what = f"temperature {heat}" if heat != 1 else f"divergence {form}"
            told = f"a kept tail of kind {tail} does not tell the teacher's probabilities at {what}"
            other = "transfer_set.live: true" if several else "transfer_set.tail: hidden"
            raise RecipeError(
                f"of several teachers' mean the tail is kept as a {tail}, and {told}" if several else told,
                where=f"{at}objectives.{place}",
                cure=f"Set {other}, or temperature: 1 and divergence: forward",
            )


def _needs_distributions(objectives: Sequence[Objective]) -> bool:
    """Some objective compares probabilities over the vocabulary, or takes tokens that the teacher chose."""
    return any({"probabilities", "answers"} & one.required() for one in objectives)


def architecture_of(teacher: Teacher, run: Run, place: int) -> Model:
    """The architecture of a run's teacher of that place, be it one that the run trains or one that stands somewhere."""
    from stillroom.models.transformers import Transformers
    from stillroom.teachers.trained import Trained

    if isinstance(teacher, Trained):
        return teacher.model
    path = teacher.weights_at(run.dir.path / run.teacher_home / str(place), run.folders)
    if path is None:
        raise ModelError(
            f"a teacher of kind {teacher.kind} has no weights that could be looked at",
            where="teacher",
            cure="Use one of kind transformers or trained",
        )
    return Transformers.model_validate({"task": teacher.solves(), "from": str(path.absolute())})


def built_bare(run: Run, part: Student | Model) -> Any:
    """The network without memory for its weights."""
    import torch

    ground = run.ground(untaught=True)
    learned = run.inputs(part, run.splits.train.raw, ground)
    with torch.device("meta"):
        return part.network(learned, len(run.splits.classes), ground)


def _same_tokens(
    teacher: Any, student: Any, where: str, widths: bool, called: tuple[str, str] = ("the teacher", "the student")
) -> None:
    """Raise ModelError where the two networks read text otherwise or, where that matters, give other numbers of logits."""
    from stillroom.models.tokenizers import compare

    if student.tokenizer is not teacher.tokenizer:
        try:
            compare(teacher.tokenizer, student.tokenizer, teacher.vocabulary, student.vocabulary, called)
        except ModelError as error:
            raise ModelError(error.what, where=f"{where}, {error.where}", cure=error.cure) from error
    if widths and student.vocabulary != teacher.vocabulary:
        raise ModelError(
            f"it gives {student.vocabulary:,} logits a position and {called[0]} {teacher.vocabulary:,}, though they read the "
            "same tokens",
            where=where,
            cure=f"Set vocab_size: {teacher.vocabulary} in its config, or choose one of the teacher's width",
        )
