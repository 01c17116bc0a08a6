"""Whose answers a student learns from, under which licences and terms: for transfer sets, traces and the student's card."""

from __future__ import annotations

from stillroom.kinds import Teacher
from stillroom.recipe import AcceptedTerms, Recipe
from stillroom.teachers.terms import Terms, known_terms
from stillroom.transfer_set.store import UNKNOWN


def licences_of(recipe: Recipe) -> dict[str, str]:
    """Of the teacher, of members that say their own, of whoever writes traces again, and `terms_of` them all."""
    teacher, members, writer = recipe.teacher, recipe.teacher.each(), recipe.traces.rewrite
    found = {"teacher": teacher.licence or UNKNOWN}
    found |= {f"teacher {place + 1}": member.licence for place, member in enumerate(members) if member.licence}
    if writer is not None:
        found["rewriter"] = f"{writer.licence or UNKNOWN} ({writer.describe()})"
    return found | terms_of(recipe)


def terms_of(recipe: Recipe) -> dict[str, str]:
    """Known terms of those who answer, by name and address, and who accepted which version of them, when."""
    found, writer = dict[str, str](), recipe.traces.rewrite
    answering: dict[str, list[Teacher]] = {"teacher": [*recipe.teacher.each()], "rewriter": [writer] if writer else []}
    for name, several in answering.items():
        known = [one for part in several for one in _known(part, recipe.teacher.licence if name == "teacher" else None)]
        if known:
            found[f"terms of the {name}"] = "; ".join(dict.fromkeys(f"{one.name}, {one.url}" for one in known))
    if recipe.accept_terms is not None:
        found["terms accepted"] = in_words(recipe.accept_terms)
    return found


def in_words(terms: AcceptedTerms) -> str:
    """Who accepted a teacher's terms, and which."""
    return f"{terms.url}, version {terms.version}, by {terms.who} on {terms.when}"


def _known(part: Teacher, licence: str | None) -> list[Terms]:
    model = getattr(part, "model", None)
    named = model if isinstance(model, str) else None
    return known_terms(part.licence or licence, getattr(part, "base_url", None), named)
