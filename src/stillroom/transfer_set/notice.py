"""Whose answers these are and what else is in them: a text that goes with the answers of a language model wherever they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NOTICE = "NOTICE.txt"
BASIS = (
    "The file basis.safetensors beside kept answers is a projection of the teacher's weights: its output matrix in a few "
    "directions, with which the tails of the answers are decoded. Whoever passes it on passes on a part of those weights in "
    "another form, so the licence of the weights holds for it too."
)


def notice(what: str, teachers: Sequence[str], licences: Mapping[str, str], basis: bool) -> str:
    """The text. `what`: the answers that it is about. `licences`: whose, and as the recipe gave it, or "unknown"."""
    told = [f"{what} were given by {' and '.join(teachers)}.", "Licences, as the recipe names them:"]
    told += [f"- {whose}: {licence}" for whose, licence in sorted(licences.items())]
    told.append(
        "A licence that is unknown was named by nobody; that it is unknown allows nothing. Some licences and terms of use say "
        "what may be trained on a model's answers."
    )
    return "\n".join([*told, *([BASIS] if basis else [])]) + "\n"
