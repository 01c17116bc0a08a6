"""What can be wrong with a recipe for a teacher that reasons, told before anything is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillroom.errors import ModelError, NotYet, RecipeError

if TYPE_CHECKING:
    from stillroom.recipe import Recipe
    from stillroom.stages.opening import Run


def check_reasoning(run: Run, main: Run, at: str) -> None:
    """See that a student, or an arm's, can be taught by what its teacher says. Raises RecipeError, ModelError."""
    recipe = run.recipe
    if not main.recipe.is_reasoning or not recipe.is_reasoning:
        raise RecipeError(
            "one of the teachers of this run reasons and the other does not",
            where=f"{at}teacher",
            cure="Compare them in two runs",
        )
    _refuse_knobs(recipe, at)
    _check_rewriter(run, at)
    _check_prompts(run, at)


def _refuse_knobs(recipe: Recipe, at: str) -> None:
    knobs = recipe.traces
    if len(recipe.teacher.each()) > 1:
        raise NotYet("an ensemble of teachers that reason", where=f"{at}teacher", cure="Use one of them")
    odd = next((one.kind for one in recipe.objectives if one.required() != {"text"}), None)
    if odd is not None:
        raise RecipeError(
            f"the objective {odd} needs probabilities, and a teacher that reasons gives its text",
            where=f"{at}objectives",
            cure="Set objectives: [{kind: trace}], or take them out",
        )
    for knob, is_set in {
        "training.patience": recipe.training.patience is not None,
        "transfer_set.live": recipe.transfer_set.live,
        "rounds": recipe.rounds is not None,
        "cascade": recipe.cascade is not None,
    }.items():
        if is_set:
            raise RecipeError("this is not for a teacher that reasons", where=f"{at}{knob}", cure="Take it out")
    if knobs.keep > knobs.samples:
        raise RecipeError(
            f"{knobs.keep} accepted traces of a question are wanted, of at most {knobs.samples} samples",
            where=f"{at}traces.keep",
            cure="Raise traces.samples, or lower keep",
        )
    if knobs.rewrite is not None and not knobs.rewrite.costs:
        raise RecipeError(
            f"a teacher of kind {knobs.rewrite.kind} cannot rewrite traces",
            where=f"{at}traces.rewrite",
            cure="Use one of kind openai_api with task: reasoning",
        )
    if knobs.rewrite is not None and not recipe.teacher.costs:
        raise NotYet(
            "traces of a teacher that is not paid by the call, rewritten by one that is",
            where=f"{at}traces.rewrite",
            cure="Take it out, or sample the traces from a teacher of kind openai_api",
        )
    if knobs.keep > 1 and getattr(recipe.teacher, "temperature", None) == 0:
        raise RecipeError(
            "several samples are asked for at temperature 0, where all of them are the same",
            where=f"{at}teacher.temperature",
            cure="Set it above 0, such as 0.8",
        )


def _check_rewriter(run: Run, at: str) -> None:
    """Terms, budget and key of what writes traces again, as of any teacher: it is asked when all traces were paid for."""
    from stillroom.stages.paying import limits_of
    from stillroom.teachers.terms import check_terms

    writer: Any = run.recipe.traces.rewrite
    if writer is None:
        return
    where = f"{at}traces.rewrite"
    check_terms(writer.licence, writer.base_url, run.recipe.accept_terms, writer.model, where)
    try:
        writer.check_budget(limits_of(run.recipe))
        writer.build(run.dir.path, run.folders, [])
    except (ModelError, RecipeError) as error:
        at_fault = error.where.replace("teacher", where, 1)
        raise type(error)(error.what, where=at_fault, cure=error.cure) from error


def _check_prompts(run: Run, at: str) -> None:
    """The longest question and its gold answer must fit what the student can look at, and none may hold a special token."""
    from stillroom.models.tokenizers import refuse_marks, special_tokens
    from stillroom.questions.dialogues import dialogues
    from stillroom.stages.reasoning import asked_of
    from stillroom.stages.reasoning_training import most_tokens, reads
    from stillroom.transfer_set.lessons import answer_alone

    tokenizer, context = reads(run)
    marks = special_tokens(tokenizer)
    gold: dict[str, Any] = {key.hex(): answer for key, answer in (run.splits.gold or {}).items()}
    for part in (run.splits.train, run.splits.test):
        asked = asked_of(part)
        for row, question in enumerate(asked.values()):
            refuse_marks(marks, question, f"{at}questions, question {row + 1:,}: {question[:40]!r}")
        longest = sorted(asked, key=lambda key: len(asked[key]))[-1:]
        pairs = [(asked[key], answer_alone(gold.get(key, "0"))) for key in longest]
        dialogues(tokenizer, pairs, most_tokens(run, context), where=f"{at}questions")
