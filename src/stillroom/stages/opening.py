"""A recipe at work: read, checked against its data and models, and holding its run folder. Before any stage.

Nothing is spent here: what can be found wrong is found wrong before the first stage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stillroom import inputs
from stillroom.budget import Clock
from stillroom.errors import RecipeError
from stillroom.evaluation.dark_knowledge import group_similarity
from stillroom.kinds import Ground, Model, NetworkTask, Student, Teacher, View
from stillroom.progress import Show, Silent, Telling, Watching
from stillroom.recipe import Recipe
from stillroom.recipe_file import locate, read_tree
from stillroom.rows import PLAIN_VIEW, Questions, Raw, Splits
from stillroom.rundir import FOLDER, RunDir, paths_start, write_file
from stillroom.teachers.python import Python
from stillroom.teachers.trained import Trained

if TYPE_CHECKING:
    from stillroom.inputs import Inputs
    from stillroom.ledger import Ledger
    from stillroom.models.device import Device
    from stillroom.training.loop import Hooks
    from stillroom.transfer_set.store import Store

ASKED = "transfer_set/asked.json"
"""Which answers are a run's, wherever its store is."""


@dataclass
class Run:
    """A recipe at work in its folder. An arm is a Run too: the same folder under the arm's recipe."""

    recipe: Recipe
    dir: RunDir
    folders: list[Path]
    show: Show
    clock: Clock
    arm: str = ""
    main: Run | None = None
    """Of an arm: the run it belongs to."""
    ledger: Ledger | None = None
    """Of a run whose teacher is paid by the call, while it is at work."""
    closing: ExitStack | None = None
    """Of a run at work: what ends with it."""

    @cached_property
    def splits(self) -> Splits:
        """The questions, read and split; for a language model as windows of its tokens, for one that reasons as problems."""
        from stillroom.stages.language import windows_of
        from stillroom.stages.reasoning import problems_of

        if self.recipe.is_reasoning:
            return problems_of(self)
        found = self.recipe.questions.build(self.folders)
        return windows_of(self, found) if self.recipe.is_language else found

    @cached_property
    def own_words(self) -> Questions | None:
        """Training windows for a control, where a recorded teacher's words are not the questions' own; None elsewhere."""
        from stillroom.stages.language import own_words_of

        return own_words_of(self) if self.recipe.is_language else None

    @cached_property
    def device(self) -> Device:
        """Where tensors live; a run at work computes with its number of threads from the first look at it on."""
        from stillroom.models.device import choose, threads

        found = choose(self.recipe.device, self.recipe.threads, (self.main or self).most_threads)
        if self.main is not None:
            self.main.device  # noqa: B018 - an arm computes with the threads of its run
        elif self.closing is not None:
            self.closing.enter_context(threads(found.threads))
        return found

    @cached_property
    def most_threads(self) -> int:
        """As many as torch takes by itself; looked at before a run at work makes them fewer."""
        import torch

        return torch.get_num_threads()

    @cached_property
    def arms(self) -> dict[str, Run]:
        """The runs of the named arms."""
        return {name: self._as_arm(name) for name in self.recipe.arms}

    def _as_arm(self, name: str) -> Run:
        from stillroom.stages.language_text import words_of

        recipe = self.recipe.arm(name)
        if isinstance(recipe.teacher, Python):  # what was given from Python stands in no tree that an arm is laid over
            recipe = recipe.model_copy(update={"teacher": self.recipe.teacher})
        arm = Run(recipe, self.dir, self.folders, self.show, self.clock, name, self)
        same_words = words_of(recipe.teacher) == words_of(self.recipe.teacher)
        if recipe.questions == self.recipe.questions and same_words:
            arm.__dict__["splits"] = self.splits
        return arm

    def ground(self, untaught: bool = False) -> Ground:
        """What this run's networks stand on; `untaught`: with the teacher's weights as they were before this run."""
        teacher = self.recipe.teacher
        place = teacher.untaught if untaught else teacher.weights_at
        one = len(teacher.each()) == 1
        weights = place(self.dir.path / self.teacher_home, self.folders) if one else None
        design = teacher.model if isinstance(teacher, Trained) else None
        # Absolute, since it is read as a reference, and those start from the recipe's folder.
        solves = teacher.solves()
        task: NetworkTask = "causal" if solves == "reasoning" else solves
        return Ground(self.folders, task, weights and weights.absolute(), design, self._texts)

    def seen_as(self, augment: Sequence[View]) -> Callable[[Questions, int], Questions]:
        """Shows questions as a view has them; the view by its id, or by its number where nothing is kept of it."""
        from stillroom.questions.views import Mask, apply_views, view_number
        from stillroom.stages.language import tokenizer

        bound = [view.for_tokenizer(tokenizer(self)) if isinstance(view, Mask) else view for view in augment]

        def seen(questions: Questions, view: int) -> Questions:
            if view == 0 or not bound:
                return questions
            return replace(questions, raw=apply_views(bound, questions.raw, questions.key_N, view_number(view)))

        return seen

    def _texts(self) -> list[str]:
        """The training texts, those that a student must not see left out."""
        raw = self.splits.train.raw
        columns = [column for column in raw.values() if column.dtype.kind == "O"] if isinstance(raw, dict) else []
        return [str(value) for column in columns for value in column.tolist()]

    def inputs(self, part: Student | Model, raw: Raw, ground: Ground) -> Inputs:
        """What a network must know of raw rows, learned from these."""
        questions = self.recipe.questions
        return part.inputs(raw, ground) or inputs.learn(raw, questions.scale, texts=questions.texts)

    @property
    def teacher_home(self) -> str:
        """Where, in the run folder, this run's trained teacher stands."""
        return f"arms/{self.arm}/teacher" if self.has_own_teacher else "teacher"

    @property
    def has_own_teacher(self) -> bool:
        """An arm with another teacher, or other questions, has its own asked."""
        main = None if self.main is None else self.main.recipe
        return main is not None and (self.recipe.teacher, self.recipe.questions) != (main.teacher, main.questions)


def load(recipe: Recipe | Mapping[str, Any] | str | Path, teacher: Any = None) -> tuple[Recipe, Path]:
    """The recipe, with a Python teacher in it if one is given, and the folder its relative paths start from."""
    folder = Path()
    if isinstance(recipe, Recipe):
        loaded = recipe
    else:
        if isinstance(recipe, str | Path):
            tree, folder = read_tree(Path(recipe)), paths_start(Path(recipe))
        else:
            tree = locate(dict(recipe))
        if teacher is not None:
            tree.setdefault("teacher", {"kind": "python"})
        loaded = Recipe.from_tree(tree)
    if teacher is not None:
        given = teacher if isinstance(teacher, Teacher) else Python.of(teacher)
        loaded = loaded.model_copy(update={"teacher": given})
    return loaded, folder


def table_recipe(data: Path, label: str | None, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of `distill DATA --label COLUMN`, or of arrays, which need no label; its paths start at the data's folder."""
    from stillroom.recipe_file import apply_override
    from stillroom.starters import for_table

    tree = for_table(data.stem, data.name, label)
    for override in overrides:
        apply_override(tree, override)
    return Recipe.from_tree(tree)


@contextmanager
def opened(recipe: Recipe, path: Path, folder: Path, show: Show | None = None) -> Iterator[Run]:
    """Check all that can be checked, then hold the run folder and write the resolved recipe into it."""
    from stillroom.stages.footprint import answers_at
    from stillroom.stages.paying import paying
    from stillroom.stages.room import refuse_full_disks

    recipe.check()
    run = Run(recipe, RunDir(path), look_in(folder), show or Silent(), clock_of(recipe, path))
    with ExitStack() as run.closing:
        room = check_data(run)
        refuse_full_disks(answers_at(run))
        run.closing.enter_context(run.dir.hold(recipe.name))
        run.closing.enter_context(run.clock.running())
        run.closing.enter_context(paying(run))
        head = "".join(f"# {name} {version}\n" for name, version in versions().items())
        body = yaml.safe_dump(recipe.to_tree(), sort_keys=False, allow_unicode=True)
        for name, text in (("recipe.yaml", head + body), (FOLDER, str(folder.resolve()))):
            known = path / name
            if not known.is_file() or known.read_text() != text:
                if name == "recipe.yaml":
                    _tell_notes(run)
                write_file(known, text.encode())
        _tell(run, room)  # each time, since what is free differs
        yield run


def _tell_notes(run: Run) -> None:
    """Say what there is to know of the data: once for a recipe, not each time it goes on."""
    from stillroom.stages.notes import data_notes

    _tell(run, data_notes(run))


def _tell(run: Run, notes: list[str]) -> None:
    if isinstance(run.show, Telling):
        for note in notes:
            run.show.note(note)


def look_in(folder: Path) -> list[Path]:
    """Where relative paths are looked for: the recipe's folder, then $STILLROOM_DATA."""
    data = os.environ.get("STILLROOM_DATA")
    return [folder, *([Path(data)] if data else [])]


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    import platform
    from importlib.metadata import version
    from importlib.util import find_spec

    names = ["stillroom", "torch", "numpy", "pyarrow", "scikit-learn"]
    names += [name for name in ("transformers", "tokenizers") if find_spec(name) is not None]
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def clock_of(recipe: Recipe, path: Path) -> Clock:
    """The tighter of the budgets in minutes and in USD; a teacher on this machine costs machine time, and no tokens.

    Of a teacher that is paid by the call the ledger keeps the budget in USD.
    """
    limits = {"budget.minutes": recipe.budget.minutes}
    paid = any(teacher.costs for teacher in recipe.teacher.each())
    if recipe.budget.usd is not None and recipe.evaluation.price is not None and not paid:
        limits["budget.usd"] = 60 * recipe.budget.usd / recipe.evaluation.price.usd_per_hour
    known = {named: limit for named, limit in limits.items() if limit is not None}
    named = min(known, key=lambda name: known[name]) if known else ""
    return Clock(known.get(named), named, path)


def check_data(run: Run) -> list[str]:
    """Read the questions and see that teacher, controls and arms can work on them, before anything is spent.

    Returns what to say of the memory that is free.
    """
    from stillroom.stages.language_checks import extra_packages

    with extra_packages():
        return _check_data(run)


def _check_data(run: Run) -> list[str]:
    from stillroom.stages.language_checks import check_language, check_task
    from stillroom.stages.layers import mapped
    from stillroom.stages.part_checks import Ready, check_model, check_teacher, check_training
    from stillroom.stages.reasoning_checks import check_reasoning
    from stillroom.stages.rounds import check_rounds

    splits, ready, notes = run.splits, Ready(), list[str]()
    check_task(run, "")
    untaught = any(member.trains for member in run.recipe.teacher.each()) and not run.recipe.is_language
    if untaught and not splits.train.labelled_N.any():
        raise RecipeError(
            "the teacher is to be trained, and no training row has a label",
            where="teacher",
            cure="Give labels, or a teacher of kind saved or recorded",
        )
    store = run.recipe.transfer_set.store
    if store is not None and (run.folders[0] / store).is_file():
        raise RecipeError("this is a file", where=f"transfer_set.store, {store}", cure="Name a folder")
    if run.recipe.evaluation.groups is not None:
        group_similarity(run.recipe.evaluation.groups, splits.classes)
    independent = run.recipe.evaluation.independent_teacher
    if independent is not None:
        if any(member.costs for member in independent.each()):
            raise RecipeError(
                "a teacher that is paid by the call cannot be the independent one",
                where="evaluation.independent_teacher",
                cure="Use one of kind saved or trained, or record its answers first (teacher.kind: recorded)",
            )
        check_teacher(run, independent, "evaluation.independent_teacher", ready)
    for checked in [run, *run.arms.values()]:
        at = f"arms.{checked.arm}." if checked.arm else ""
        if checked.recipe.device not in ("auto", "cpu"):
            checked.device  # noqa: B018 - a device that is not there is told now
        check_task(checked, at)
        check_training(checked, checked.recipe.training, f"{at}training")
        student = check_model(checked, checked.recipe.student, f"{at}student")
        same_test = checked.splits.test.fingerprint() == splits.test.fingerprint()
        if checked.splits is not splits and not (same_test and checked.splits.classes == splits.classes):
            told = "with other classes" if same_test else "on other rows"
            raise RecipeError(
                f"this arm would be tested {told} than the student",
                where=f"arms.{checked.arm}.questions",
                cure="An arm may change the training side of the questions only",
            )
        notes += check_teacher(checked, checked.recipe.teacher, f"{at}teacher", ready, student)
        mapped(checked, at)
        if checked.recipe.is_language:
            check_language(checked, run, at)
        if checked.recipe.is_reasoning or run.recipe.is_reasoning:
            check_reasoning(checked, run, at)
    check_rounds(run)
    return list(dict.fromkeys(notes))  # arms share a teacher


def tell_done_before(run: Run, words: str, steps: int) -> None:
    """Say of a training that an earlier attempt finished it."""
    with run.show.stage(words, steps, "steps"):
        pass


@contextmanager
def working(run: Run, name: str, made_from: str, words: str, steps: int) -> Iterator[tuple[Path, Hooks]]:
    """A training's own working folder, for its checkpoints, and what its loop is to tell and ask."""
    from stillroom.training.loop import Hooks

    with run.show.stage(words, steps, "steps") as done:
        hooks = Hooks(stepped=done, resumed=lambda steps: done(steps, before=True), may_go_on=run.clock.check)
        if isinstance(run.show, Watching):
            hooks = replace(hooks, may_go_on=_both(run.clock, run.show), looked=partial(run.show.point, words))
        yield run.dir.work_of(name, made_from), hooks


def _both(clock: Clock, show: Watching) -> Callable[[], None]:
    def may_go_on() -> None:
        clock.check()
        show.may_go_on()

    return may_go_on


def store_of(run: Run) -> Store:
    """Where a run's answers are kept."""
    from stillroom.transfer_set.store import Store

    shared = run.recipe.transfer_set.store
    return Store(run.dir.path / "transfer_set" if shared is None else run.folders[0] / shared)


def views_of(recipe: Recipe) -> list[int]:
    """The views that students learn from, as their answers are kept under: one to `views`, or the rows as they are."""
    from stillroom.questions.views import view_id

    augment, numbers = recipe.questions.augment, range(1, recipe.questions.views + 1)
    if not augment:
        return [PLAIN_VIEW]
    # A language model's answers stand in a folder of their augmentation already (recording.py), so a number will do.
    return list(numbers) if recipe.is_language else [view_id(augment, number) for number in numbers]
