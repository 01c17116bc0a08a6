"""Stillroom: knowledge distillation with one recipe, one set of stages and one honest report.

A recipe names teachers that answer questions; the answers are the transfer set; students are trained on it under
objectives, then evaluated beside their teacher and a control, and reported.

    import stillroom
    run = stillroom.distill("recipe.yaml")                    # or a stillroom.Recipe, or a mapping
    run = stillroom.distill(recipe, teacher=model.predict_proba)
    student = stillroom.load_student(run.path / "student")
    student.predict(rows).label

The map; imports only point down:

    __main__  cli                              the command line
    demo  exporting  finished                  the demo; what one does with finished runs
    service/                                   an HTTP interface in OpenAI's shapes, jobs, web pages
    flow                                       THE page: the whole program, one call a stage. Read it first
    loopback/                                  a teacher on this machine, asked as one over the network
    stages/                                    what each line of flow does
    report/  export/                           a page; a student for other programs
    cascade                                    the student where it is sure, else the teacher
    evaluation/  training/                     every figure; the loop
    objectives/  students/  transfer_set/      what is learned, by whom, from which kept answers
    questions/  teachers/  models/             what is asked, of whom; architectures
    catalogue  starters  recipe                kinds as data; recipes to start from; what a recipe holds
    reasoning_knobs                            how a teacher's reasoning is sampled, kept and taught
    inputs  recipe_file  ledger                rows made ready for a model; a recipe as it is written; what a paid teacher costs
    column_kinds  columns  tables  budget      columns of a table, read from files; hard stops
    kinds  rows  rundir  progress  terminal    extension points; what travels; folders that survive a kill; what one sees
    knob_errors                                what is wrong with a recipe's knob, in words, with its line
    errors                                     everything that can go wrong, as one tree
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillroom.flow import distill
    from stillroom.recipe import Recipe

__all__ = ["Recipe", "distill", "load_student"]


def load_student(path: str | Path) -> Any:
    """The model in a student's folder, or of a run: a classifier's `.predict(rows)` gives labels and probabilities, a
    language model's `.generate(prompts, max_new_tokens)` goes on writing."""
    from stillroom.models.loading import load_model

    folder = Path(path)
    return load_model(folder / "student" if (folder / "student" / "config.json").is_file() else folder)


def __getattr__(name: str) -> Any:
    # Imported when first used, so that `import stillroom` and --help cost nothing.
    if name == "Recipe":
        from stillroom.recipe import Recipe

        return Recipe
    if name == "distill":
        from stillroom.flow import distill

        return distill
    if name == "__version__":
        from importlib.metadata import version

        return version("stillroom")
    raise AttributeError(f"module 'stillroom' has no attribute {name!r}")
