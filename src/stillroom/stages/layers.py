"""Which layers of a teacher and of a student an objective pairs, and a teacher that shows them.

A map is settled from how deep the two are, before anything is spent. What is kept of a teacher holds the layers that the
student and all arms with that teacher look at, side by side with its last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillroom.errors import RecipeError
from stillroom.kinds import AskedTeacher, Model, Objective, Student
from stillroom.objectives.hidden import Hidden, layers_of

if TYPE_CHECKING:
    from stillroom.stages.opening import Run


def mapped(run: Run, at: str = "") -> tuple[Objective, ...]:
    """The recipe's objectives, each map of layers settled as pairs. Raises RecipeError; `at`: the arm's place in the recipe."""
    objectives = run.recipe.objectives
    if not any(_chooses(one) for one in objectives):
        return objectives
    student, teacher = _depth(run, run.recipe.student, "student", at), teacher_depth(run, at)
    found: list[Objective] = []
    for place, one in enumerate(objectives):
        if isinstance(one, Hidden) and _chooses(one):
            try:
                one = one.model_copy(update={"layers": one.pairs(student[0], teacher[0])})
            except RecipeError as error:
                raise RecipeError(error.what, where=f"{at}objectives.{place}.layers", cure=error.cure) from error
        found.append(one)
    return tuple(found)


def _chooses(objective: Objective) -> bool:
    return isinstance(objective, Hidden) and objective.layers != "last"


def teacher_depth(run: Run, at: str = "") -> tuple[int, int]:
    """How many layers the teacher has, and their width; its architecture alone is built. Raises RecipeError."""
    from stillroom.stages.language_checks import architecture_of

    members = run.recipe.teacher.each()
    if len(members) > 1:
        raise _without_layers("teacher", at)
    return _depth(run, architecture_of(members[0], run, 0), "teacher", at)


def _depth(run: Run, part: Student | Model, name: str, at: str) -> tuple[int, int]:
    from stillroom.stages.language_checks import built_bare

    found: tuple[int, int] | None = getattr(built_bare(run, part), "depth", None)
    if found is None:
        raise _without_layers(name, at)
    return found


def _without_layers(name: str, at: str) -> RecipeError:
    return RecipeError(
        f"the {name} has no layers to choose from",
        where=f"{at}objectives, kind hidden",
        cure="Use models of the transformers library for both, or layers: last",
    )


def shown_layers(run: Run) -> tuple[int, ...]:
    """The teacher's layers beside its last one that students with its answers look at: of a run, and of its arms."""
    main = run if run.main is None or run.has_own_teacher else run.main
    sharing = [main, *(arm for arm in main.arms.values() if not arm.has_own_teacher)] if not main.arm else [main]
    return layers_of([objective for one in sharing for objective in mapped(one)])[1]


def further_width(run: Run) -> int:
    """Units of all those layers together; 0 where none is shown."""
    layers = shown_layers(run)
    return len(layers) * teacher_depth(run)[1] if layers else 0


def showing_layers(run: Run, asked: AskedTeacher) -> Any:
    """The teacher with the layers that are looked at beside its last one; one of which only the last is, as it is."""
    layers = shown_layers(run)
    return asked.with_layers(layers) if layers and hasattr(asked, "with_layers") else asked


def layer_notes(run: Run) -> list[str]:
    """What keeping further layers costs, for a plan."""
    width = further_width(run)
    if not width or run.recipe.transfer_set.live:
        return []
    layers, what = shown_layers(run), "token" if run.recipe.is_language else "row"
    each = 2 * width // len(layers)
    named = ", ".join(map(str, layers))
    return [f"the teacher's hidden states after layers {named} are kept: {each:,} bytes each for every {what}"]
