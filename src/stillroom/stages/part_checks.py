"""What can be wrong with a part of a recipe, told before anything is spent: a training, a network, a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stillroom.errors import DataError, ModelError, RecipeError, WrongAnswer
from stillroom.kinds import AskedTeacher, Ground, Model, Student, Teacher
from stillroom.models.mlp import Mlp
from stillroom.recipe import Recipe, Training
from stillroom.rows import Questions, joined
from stillroom.stages.opening import ASKED, Run
from stillroom.stages.room import TRAINING_BYTES, WEIGHT_BYTES, fits, memory_notes
from stillroom.students.fresh import Fresh
from stillroom.teachers.python import Python
from stillroom.teachers.terms import check_terms
from stillroom.teachers.trained import Trained

SMALLER = "Choose a smaller one, or one that is asked elsewhere (kind: openai_api)"
BESIDE = "stillroom.json"
"""What stands beside the weights of a model of ours (models/classifier.py)."""
TRIED_ROWS = 2
"""A teacher that stands ready is tried on so many rows before anything is spent."""


class Ready:
    """Teachers that stand ready, each built once, however many arms ask it."""

    def __init__(self) -> None:
        self._built: list[tuple[Teacher, list[object], AskedTeacher]] = []

    def of(self, run: Run, member: Teacher, place: int) -> AskedTeacher:
        """This member at work for the run's classes."""
        classes = run.splits.classes
        for known, theirs, built in self._built:
            if known == member and theirs == classes:
                return built
        built = member.build(run.dir.path / "teacher" / str(place), run.folders, classes)
        self._built.append((member, classes, built))
        return built


def check_training(run: Run, knobs: Training, where: str) -> None:
    """What a training's knobs ask of the rows must be there, and what they choose on must not settle a cascade too."""
    from stillroom.stages.deferring import check_cascade

    if knobs is run.recipe.training and not run.arm:
        check_cascade(run.recipe)
    if knobs.mixup and isinstance(run.splits.train.raw, dict):
        raise RecipeError(
            "columns cannot be mixed", where=f"{where}.mixup", cure="Use mixup with images or arrays only"
        )
    if knobs.class_prior == "labels" and not joined(run.splits.train, run.splits.omitted).labelled_N.any():
        raise RecipeError(
            "there is no label to count a class prior from",
            where=f"{where}.class_prior",
            cure="Choose teacher or uniform, or give labels",
        )


def check_model(run: Run, part: Student | Model, where: str) -> int:
    """How many weights the network has, which must take the rows and find room; building it without memory costs nothing."""
    ground = run.ground(untaught=True)
    try:
        weights = _weights(run, part, ground)
    except ModelError as error:
        raise ModelError(error.what, where=_knob_of(part, error.where, where), cure=error.cure) from error
    where = _knob_of(part, "", where)
    memory_notes(TRAINING_BYTES * weights, where, f"training a network of {weights:,} weights", "Choose a smaller one")
    return weights


def _weights(run: Run, part: Student | Model, ground: Ground) -> int:
    """How many weights the network has; a plain one is not built for that, since loading torch takes a second."""
    classes = len(run.splits.classes)
    learned = run.inputs(part, run.splits.train.raw, ground)
    plain = part.architecture() if isinstance(part, Fresh) else part
    if isinstance(plain, Mlp):
        return plain.weights(tuple(learned.shape), classes)
    import torch

    with torch.device("meta"):
        network = part.network(learned, classes, ground)
    return sum(tensor.numel() for tensor in network.parameters())


def _knob_of(part: Student | Model, told: str, where: str) -> str:
    """Where in the recipe a complaint about a network belongs: at the knob it names, or at the architecture."""
    if told in type(part).model_fields:
        return f"{where}.{told}"
    found = f"{where}.model" if isinstance(part, Student) and "model" in type(part).model_fields else where
    return f"{found}, {told}" if "/" in told or ":" in told or Path(told).exists() else found


def check_teacher(run: Run, teacher: Teacher, where: str, ready: Ready, student: int = 0) -> list[str]:
    """Each member must be able to learn from the rows, or to answer them; all find room beside a student of so many weights.

    Returns what to say of the room.
    """
    from stillroom.stages.paying import check_paid

    members = teacher.each()
    places = [where if len(members) == 1 else f"{where}.{place}" for place in range(len(members))]
    sizes = [_size(run, member, at) for member, at in zip(members, places, strict=True)]
    notes = _room_notes(run, sizes, student, where)
    gives = teacher.gives
    for place, (member, at) in enumerate(zip(members, places, strict=True)):
        if isinstance(member, Trained):
            gives = gives & member.gives
            continue
        if isinstance(member, Python) and member.given is None and (run.dir.path / ASKED).is_file():
            continue  # its answers are kept, and are all that is read of it
        licence = member.licence or teacher.licence
        url, model = getattr(member, "base_url", None), getattr(member, "model", None)
        check_terms(licence, url, run.recipe.accept_terms, model if isinstance(model, str) else None, at)
        with _named(at):
            built = ready.of(run, member, place)
            if member.costs:
                check_paid(run, member, built)
        gives = gives & built.gives
        if member.costs:  # not even a few rows are asked here
            continue
        if run.recipe.is_reasoning:
            continue  # recorded traces may lack some questions, which are then not learned from
        if built.by_key and teacher is run.recipe.teacher:
            _check_views(run.recipe, at)
        # An independent teacher is asked about the rows that students are judged on, any other about those they learn from.
        own = teacher is run.recipe.teacher
        for questions in [run.splits.train] if own else [run.splits.validation, run.splits.test]:
            _check_answers(built, questions, at, len(run.splits.classes))
    if teacher is run.recipe.teacher:
        run.recipe.check(gives)
    return notes


def _size(run: Run, member: Teacher, at: str) -> int:
    """Weights of a teacher, found without reading any; 0 where none stand in this process, or their number is not told."""
    from stillroom.models.transformers import Transformers as Architecture
    from stillroom.rundir import read_json
    from stillroom.teachers.saved import Saved
    from stillroom.teachers.transformers import Transformers

    if isinstance(member, Trained):
        check_training(run, member.training(), at)
        return check_model(run, member.model, f"{at}.model")
    if isinstance(member, Saved):
        folder = member.weights_at(run.dir.path, run.folders)
        beside = folder and folder / BESIDE
        return int(read_json(beside).get("parameters", 0)) if beside and beside.is_file() else 0
    if not isinstance(member, Transformers):
        return 0
    import torch

    design = Architecture.model_validate({"task": member.task, "from": member.model})
    with _named(at), torch.device("meta"):
        model, _ = design.model_and_tokenizer(len(run.splits.classes) or 2, run.ground(untaught=True))
    return sum(weights.numel() for weights in model.parameters())


def _room_notes(run: Run, sizes: list[int], student: int, where: str) -> list[str]:
    """What to say of the room for teachers that answer, and for a student that is trained while they stand ready."""
    answering, trained = WEIGHT_BYTES * sum(sizes), TRAINING_BYTES * student
    if not answering or fits(answering + trained):
        return []
    if run.device.name != "cpu":  # weights pass through memory, one model after the other
        return memory_notes(WEIGHT_BYTES * max(sizes), where, f"reading a teacher of {max(sizes):,} weights", SMALLER)
    told = f"a teacher of {sum(sizes):,} weights, beside a student of {student:,} that is trained,"
    return memory_notes(answering + trained, where, told, SMALLER)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name a teacher as the recipe does in what it says about its knobs: it knows not which member it is."""
    try:
        yield
    except RecipeError as error:
        own = error.where.removeprefix("teacher")
        if own == error.where:
            raise
        raise RecipeError(error.what, where=where + own, cure=error.cure) from error


def _check_views(recipe: Recipe, where: str) -> None:
    """Answers looked up by a question's key are to the row as it was, and would pass for those to a mixed or moved one."""
    knob = {"transfer_set.live": recipe.transfer_set.live, "questions.augment": bool(recipe.questions.augment)}
    wrong = next((name for name, is_set in knob.items() if is_set), None)
    if wrong is not None:
        raise RecipeError(
            "recorded answers are to the rows as they are, and to no others",
            where=f"{where}, {wrong}",
            cure=f"Take {wrong} out, or use a teacher that can be asked",
        )


def _check_answers(teacher: AskedTeacher, questions: Questions, where: str, classes: int) -> None:
    """Recorded answers must cover the questions; any other teacher is tried on a few rows. Both cost nothing."""
    tried = TRIED_ROWS + (classes == TRIED_ROWS)  # as many rows as classes would not show that an answer is transposed
    count = len(questions) if teacher.by_key else min(tried, len(questions))
    try:
        said_NC = teacher.answer(questions.take(np.arange(count))).log_probabilities_NC
    except WrongAnswer as error:
        raise DataError(error.what, where=error.where, cure=error.cure) from error
    if not np.isfinite(said_NC).all():
        raise ModelError(
            "the teacher's answer to the first rows is not finite", where=where, cure="Look at its weights"
        )
