"""Is an answer right? `exact` compares texts and `numeric` compares numbers; both say accepted, rejected or unsure.

Unsure means that it could not be found out: there is no answer, or it could not be read, or it may be the same in another
unit. What is unsure is not kept, and is not counted as wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from pydantic import Field

from stillroom.errors import StillroomError
from stillroom.kinds import Verifier
from stillroom.rows import Verdict
from stillroom.transfer_set.answer_text import plain, same_text
from stillroom.transfer_set.plain_numbers import Number, read_number, several_numbers

NO_ANSWER = Verdict("unsure", "there is no answer")
NO_GOLD = Verdict("unsure", "there is no gold answer")


class Exact(Verifier):
    """The same text, after a normalisation that leaves meaning alone."""

    kind: Literal["exact"] = "exact"
    case: bool = False
    """Whether capitals matter."""

    def verify(self, answer: str, gold: str | None) -> Verdict:
        missing = absent(answer, gold)
        if missing is not None or gold is None:
            return missing or NO_GOLD
        if same_text(answer, gold, self.case):
            return Verdict("accepted", "the same text")
        return Verdict("rejected", f"{told(answer)} is not {told(gold)}")


class Numeric(Verifier):
    """The same number, however it is written: separators, fractions, percent, words, units."""

    kind: Literal["numeric"] = "numeric"
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Largest difference as a share of the gold answer; 0: none but that of rounding."""
    digits: int = Field(default=5, ge=0, le=100)
    """Significant digits that a rounded decimal needs to count as the number it was rounded from; fewer are unsure."""

    def verify(self, answer: str, gold: str | None) -> Verdict:
        missing = absent(answer, gold)
        if missing is not None or gold is None:
            return missing or NO_GOLD
        wanted, said = read_number(gold), read_number(answer)
        if wanted is None:
            return Verdict("unsure", f"the gold answer {told(gold)} is not one number")
        if said is None:
            if several_numbers(answer):
                return Verdict("rejected", f"{told(answer)} gives several numbers, and one is asked for")
            return Verdict("unsure", f"{told(answer)} is not one number")
        return same_number(said, wanted, self.tolerance, self.digits)


def absent(answer: str, gold: str | None) -> Verdict | None:
    """What there is to say where one of the two is missing; None where both are there."""
    if gold is None or not plain(gold):
        return NO_GOLD
    return None if plain(answer) else NO_ANSWER


def told(text: str, most: int = 60) -> str:
    """A text for a reason, cut to a readable length."""
    short = " ".join(text.split())
    return f"'{short}'" if len(short) <= most else f"'{short[: most - 2]}..'"


def same_number(said: Number, wanted: Number, tolerance: float, digits: int) -> Verdict:
    """Whether two numbers are one; a unit that only one of them has is taken to be meant by the other."""
    if said.name and wanted.name and said.name.lower() != wanted.name.lower():
        return Verdict("unsure", f"it says what {said.name} is, and {wanted.name} is asked for")
    apart = _units_apart(said, wanted)
    if apart is not None:
        return apart
    if said.percent != wanted.percent:
        return _percent(said, wanted, tolerance, digits)
    verdict = _close(_figure(said), _figure(wanted), tolerance, digits)
    if verdict.outcome == "rejected" and _other_scale(said, wanted):
        return Verdict("unsure", "it would be the same on another scale, or in another unit")
    return verdict


def _units_apart(said: Number, wanted: Number) -> Verdict | None:
    """The verdict where both name a unit, and not the same one; None where there is nothing to hold against them."""
    one, two = said.unit, wanted.unit
    if one is None or two is None or not one.words or not two.words or one.words == two.words:
        return None
    names = f"{' '.join(one.words)}, and {' '.join(two.words)} is asked for"
    if one.known and two.known:
        if one.known[0] != two.known[0]:
            return Verdict("rejected", f"it is in {names}")
        equal = said.scaled * one.known[1] == wanted.scaled * two.known[1]
        return Verdict("accepted" if equal else "rejected", f"it is in {names}")
    if one.like(two):
        return None
    open_question = said.scaled == wanted.scaled or "per" in one.words + two.words
    return Verdict("unsure" if open_question else "rejected", f"it counts {names}")


class Figure(NamedTuple):
    """A value, and how many digits of it stand after the point where it is a decimal; below 0 for 5.2 million."""

    value: Fraction
    places: int | None


def _figure(number: Number, share: int = 1) -> Figure:
    places = number.places
    if places is not None:
        places += {1: 0, 100: 2}[share] - (len(str(number.scale)) - 1)
        if str(number.scale).strip("0") != "1":
            places = None
    return Figure(number.scaled / share, places)


def _percent(said: Number, wanted: Number, tolerance: float, digits: int) -> Verdict:
    """50 % is 50 to one who asks how many percent, and 1/2 to one who asks for a share."""
    for share in (1, 100):
        left, right = (_figure(number, share if number.percent else 1) for number in (said, wanted))
        verdict = _close(left, right, tolerance, digits)
        if verdict.accepted:
            return Verdict("accepted", "percent, and the same figure" if share == 1 else "percent, as a share")
    return verdict


def _other_scale(said: Number, wanted: Number) -> bool:
    """Unequal as they stand, but equal if the one that names no scale or unit was meant in the other's."""
    if said.scale != wanted.scale and 1 in (said.scale, wanted.scale) and said.value == wanted.value:
        return True
    known = [number.unit.known if number.unit else None for number in (said, wanted)]
    bare = [number.unit is None or not number.unit.words for number in (said, wanted)]
    for own, other, number, rest in ((known[0], bare[1], said, wanted), (known[1], bare[0], wanted, said)):
        if own is not None and other and own[1] != 1 and number.scaled * own[1] == rest.scaled:
            return True
    return False


def _close(left: Figure, right: Figure, tolerance: float, digits: int) -> Verdict:
    if left.value == right.value:
        return Verdict("accepted", "the same number")
    if tolerance and abs(left.value - right.value) <= Fraction(tolerance) * abs(right.value):
        return Verdict("accepted", f"within {tolerance:g} of the gold answer")
    for one, other in ((left, right), (right, left)):
        if one.places is None or (other.places is not None and other.places <= one.places):
            continue
        if is_rounding(one.value, other.value, one.places):
            known = significant(one.value, one.places)
            if digits and known >= digits:
                return Verdict("accepted", f"the same number, rounded to {known} digits")
            return Verdict("unsure", f"the same number only to {known} digits")
    return Verdict("rejected", f"{shown(left.value)} is not {shown(right.value)}")


def is_rounding(rounded: Fraction, exact: Fraction, places: int) -> bool:
    """True where `rounded` is `exact` at that many decimal places, rounded either way at a tie, and not just to 0."""
    return rounded != 0 and abs(rounded - exact) * 2 * Fraction(10) ** places <= 1


def significant(value: Fraction, places: int) -> int:
    """Significant digits of a decimal of so many places."""
    return len(str(abs(int(value * Fraction(10) ** places))))


def shown(value: Fraction) -> str:
    """A number for a reason."""
    if value.denominator == 1 and abs(value) < 10**15:
        return str(value.numerator)
    return f"{float(value):g}" if abs(value) < 10**300 else "a very large number"


def judged(verifier: Verifier, answers: Sequence[str | None], gold: str | None) -> list[Verdict]:
    """What a verifier says of all answers to a question. One that breaks down on an answer has not found it wrong: unsure."""
    try:
        return verifier.judge(answers, gold)
    except StillroomError:
        raise
    except Exception as error:  # noqa: BLE001 - of another package's verifier anything may come
        if len(answers) > 1 and verifier.needs_gold:
            return [verdict for answer in answers for verdict in judged(verifier, [answer], gold)]
        return [_broken(error)] * len(answers)


def judged_gold(verifier: Verifier, gold: str) -> Verdict:
    """What a verifier says of a gold answer by itself; one that breaks down on it cannot judge others by it: unsure."""
    try:
        return verifier.check_gold(gold)
    except StillroomError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return _broken(error)


def _broken(error: Exception) -> Verdict:
    return Verdict("unsure", f"the verifier broke down: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class BadGold:
    """A question whose gold answer cannot judge others; `gold` is empty where there is none."""

    row: int
    gold: str
    reason: str


def bad_golds(verifier: Verifier, golds: Iterable[str | None]) -> list[BadGold]:
    """The gold answers that are missing where the verifier needs one, that it cannot read, or that do not equal themselves.

    They are looked for before anything is bought.
    """
    found = []
    for row, gold in enumerate(golds):
        if gold is None and not verifier.needs_gold:
            continue
        verdict = NO_GOLD if gold is None else judged_gold(verifier, gold)
        if not verdict.accepted:
            found.append(BadGold(row, gold or "", verdict.reason))
    return found
