"""The demo: two panels on digits that ship with a dependency, one page. No network, no GPU, under a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillroom import flow
from stillroom.progress import Show
from stillroom.recipe import Recipe
from stillroom.rundir import read_json, write_file
from stillroom.starters import few_labels, never_saw_a_three

INTRO = (
    "Ten networks of 64-256-256-10 units answer questions about handwritten digits; what they answer is put into one "
    "network of 64-32-10 units. Both panels use the 1,797 digits that come with scikit-learn, 450 of them for the test."
)
PANELS = (
    (
        "Few labels",
        few_labels,
        "A hundred training rows have a label; the others are questions without an answer until the teacher gives one. "
        "What the student gets right beyond the control comes from those rows: compare it with the hard-teacher student, "
        "which learns from the teacher's top answers alone. What the soft part adds here shows in the log loss.",
    ),
    (
        "What only soft targets carry",
        never_saw_a_three,
        "The student never sees a 3. All it can know of one is what the teacher says of other digits: how much like a 3 "
        "this 8 is. Then the bias of the class it never saw is moved until its mean prediction on unlabelled rows matches "
        "how frequent 3s are, which is known; which rows are 3s is not.",
    ),
)


def run(folder: Path, show: Show) -> tuple[dict[str, dict[str, Any]], Path]:
    """Run both panels below `folder`. Returns the scorecards by heading, and the page that shows both."""
    from stillroom.report.page import render_panels

    panels, scorecards = [], {}
    for heading, recipe, explanation in PANELS:
        loaded = Recipe.from_tree(recipe())
        done = flow.distill(loaded, folder / loaded.name, show=show)
        scorecards[heading] = done.scorecard
        panels.append((heading, explanation, done.scorecard, read_json(done.path / "evaluation" / "details.json")))
    page = folder / "report.html"
    write_file(page, render_panels("Ten networks into one small one", INTRO, panels).encode())
    return scorecards, page
