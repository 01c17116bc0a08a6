"""THE page: recipe -> teachers -> transfer set -> students -> scorecard -> report, one call a stage.

A stage reads finished folders and writes one, its manifest last; run again, it goes on. What a stage does stands in the
file of its name under stages/. The command line, the service and the cluster run stages only through this page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import InputError, did_you_mean
from stillroom.progress import Show
from stillroom.recipe import Recipe
from stillroom.rundir import read_json
from stillroom.stages.ask import ask
from stillroom.stages.evaluate import evaluate
from stillroom.stages.opening import load, opened, table_recipe
from stillroom.stages.plan import plan
from stillroom.stages.report import report
from stillroom.stages.rounds import choose_questions
from stillroom.stages.teach import teach
from stillroom.stages.train import train

__all__ = ["STAGES", "Finished", "distill", "plan", "table_recipe"]

STAGES = ("teach", "ask", "train", "evaluate", "report")


def distill(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    run: str | Path | None = None,
    *,
    teacher: Any = None,
    show: Show | None = None,
    until: str = "report",
    folder: str | Path | None = None,
) -> Finished:
    """Run every stage up to `until`. Finished stages are kept, so the same call goes on after any stop.

    `recipe`: a Recipe, a mapping, or a file. `run`: the run folder, by default runs/<name>. `teacher`: a torch module that
    gives logits or a callable that gives probabilities, in place of the recipe's. `folder`: where relative paths start,
    by default the recipe file's. Raises StillroomError.
    """
    loaded, base = load(recipe, teacher)
    path = Path(run) if run is not None else Path("runs") / loaded.name
    if until not in STAGES:
        raise InputError(f"there is no stage {until!r}", where="until", cure=did_you_mean(str(until), STAGES))
    last = STAGES.index(until)
    # Everything that can be checked is checked, then the run folder is held.
    with opened(loaded, path, base if folder is None else Path(folder), show) as at_work:
        asked = teach(at_work)  # what must be trained first is trained; now the teacher can be asked
        if last >= 1:
            choose_questions(at_work, asked)  # in rounds, where the recipe says so: those worth asking
            kept = ask(at_work, asked)  # every question once; the answers are the transfer set
        if last >= 2:
            train(at_work, asked, kept)  # student, control, hard_teacher and arms, over seeds
        if last >= 3:
            evaluate(at_work, asked, kept)  # predictions once, then scorecard.json from them
        if last >= 4:
            report(at_work.dir.path)  # scorecard.json -> report.html
    return Finished(path)


@dataclass(frozen=True)
class Finished:
    """A run as far as it went: its folder, and what is made, its scorecard and student. Shows its table in a notebook."""

    path: Path

    @property
    def scorecard(self) -> dict[str, Any]:
        """scorecard.json."""
        found: dict[str, Any] = read_json(self.path / "scorecard.json")
        return found

    @property
    def student(self) -> Any:
        """The first seed's student, ready to predict, or to write."""
        from stillroom.models.loading import load_model

        return load_model(self.path / "student")

    def _repr_html_(self) -> str:
        from stillroom.report.notebook import table, unfinished

        return table(self.scorecard) if (self.path / "scorecard.json").is_file() else unfinished(self.path)
