"""What to know of a shared store before a language model is asked: why answers that seem to be there are asked for anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.progress import Telling
from stillroom.rundir import read_json

if TYPE_CHECKING:
    from stillroom.stages.opening import Run
    from stillroom.transfer_set.recording import Recorder

PARTS = {"weights": "weights or configuration", "tokenizer": "tokenizer", "template": "chat template"}
OTHERWISE = "files in its folder"
FORM = ("head", "tail")
"""Of a layout: what a recipe chooses. The size of a vocabulary is the teacher's, and the bytes of a tail may have grown."""


def tell_what_is_asked_anew(run: Run, recorder: Recorder, root: Path) -> None:
    """Say what is not used of a store that has answers, where somebody listens: before the first window is asked."""
    from stillroom.transfer_set.store import HEADER

    kept_before = (root / recorder.fingerprint[:16] / HEADER).is_file()
    # What other members or the run itself asked beside an arm is no surprise.
    alone = not run.arm and len(run.recipe.teacher.each()) == 1
    if kept_before or not alone or run.recipe.transfer_set.live or not isinstance(run.show, Telling):
        return
    if recorder.text is not None:
        run.show.note(
            f"the basis in {root} was fitted on other text and keeps too little of this run's; one is fitted on this run's, and "
            "every window is asked for it"
        )
    for what in _almost_the_same(recorder, root):
        run.show.note(
            f"{root} has answers of a teacher with {what}; they are not this one's, and every window is asked anew"
        )


def _almost_the_same(recorder: Recorder, root: Path) -> list[str]:
    """In what each other teacher in the store differs, whose answers are kept in the same form."""
    from stillroom.transfer_set.store import HEADER

    mine, found = recorder.made_of, []
    for path in sorted(root.glob(f"*/{HEADER}")):
        header = read_json(path)
        if _form(header["layout"], header["hidden_width"]) != _form(recorder.written, recorder.hidden_width):
            continue
        theirs = header.get("made_of")
        if not theirs or theirs["teacher"] == mine["teacher"]:
            continue
        parts = [words for part, words in PARTS.items() if theirs.get(part) != mine.get(part)]
        found.append(" and ".join(f"another {part}" for part in parts) or f"other {OTHERWISE}")
    return sorted(set(found))


def _form(layout: dict[str, Any] | None, hidden_width: int | None) -> list[Any]:
    return [None if layout is None else layout.get(name) for name in FORM] + [hidden_width]
