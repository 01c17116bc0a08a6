"""Traces that nobody should learn from, right or wrong: those that repeat another, and those that give a test question away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stillroom.transfer_set.decontaminate import overlaps, repeats
from stillroom.transfer_set.sampling import Sampled

REPEATS, GIVES_AWAY = "it repeats another trace", "it shares its words with a test question"


def leave_out(
    samples: Sequence[Sampled], asked: Mapping[str, str], tests: Sequence[str], overlap: int
) -> list[Sampled]:
    """The same samples, marked where thought and solution share `overlap` words in a row with a test question, or repeat.

    A repeat is the same text after a question that is the same but for spaces, case and the like, over all questions; or a
    text that is nearly the same after the same question. Its first stays. `asked`: the questions' words by their keys.
    """
    there = [place for place, one in enumerate(samples) if one.trace.complete and one.key in asked and not one.left_out]
    traces = [f"{samples[place].trace.thought}\n{samples[place].trace.solution}" for place in there]
    given_away = {found.row for found in overlaps(traces, tests, overlap)}
    left = [row for row in range(len(there)) if row not in given_away]
    several = [samples[there[row]] for row in left]
    whole = [f"{one.outcome}\n{asked[one.key]}\n{traces[row]}" for row, one in zip(left, several, strict=True)]
    again = {left[found.row] for found in repeats(whole, [f"{one.key} {one.outcome}" for one in several])}
    why = {there[row]: GIVES_AWAY if row in given_away else REPEATS for row in given_away | again}
    return [replace(one, left_out=why.get(place, one.left_out)) for place, one in enumerate(samples)]
