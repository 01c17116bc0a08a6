"""Units of answers: which words name the same one, and what one is of another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12, "k": 1000,
}  # fmt: skip
TABLE = """
length  mm 1/1000  millimeter 1/1000  millimetre 1/1000  cm 1/100  centimeter 1/100  centimetre 1/100  m 1  meter 1
length  metre 1  km 1000  kilometer 1000  kilometre 1000  inch 127/5000  inche 127/5000  in 127/5000  foot 381/1250
length  feet 381/1250  ft 381/1250  yard 1143/1250  yd 1143/1250  mile 201168/125
mass    mg 1/1000  milligram 1/1000  g 1  gram 1  kg 1000  kilogram 1000  kilo 1000  tonne 1000000
mass    lb 45359237/100000  pound 45359237/100000  oz 45359237/1600000  ounce 45359237/1600000
time    s 1  sec 1  second 1  min 60  minute 60  h 3600  hr 3600  hour 3600  day 86400  week 604800
months  month 1  year 12
volume  ml 1/1000  milliliter 1/1000  millilitre 1/1000  l 1  liter 1  litre 1
cups    cup 1  pint 2  quart 4  gallon 16
usd     dollar 1  usd 1  us$ 1  $ 1  buck 1  cent 1/100  penny 1/100
angle   degree 1  deg 1
eur     € 1  euro 1  eur 1
gbp     £ 1
jpy     ¥ 1  yen 1
inr     ₹ 1  rupee 1
"""
KNOWN: dict[str, tuple[str, Fraction]] = {}
"""Name of a unit -> what it measures, and how many base units one is."""
for line in TABLE.strip().splitlines():
    kind, *rest = line.split()
    KNOWN |= {name: (kind, Fraction(factor)) for name, factor in zip(rest[::2], rest[1::2], strict=True)}
FIRST: dict[tuple[str, Fraction], str] = {}
for name, of in KNOWN.items():
    FIRST.setdefault(of, name)  # the name under which its other names are compared
SILENT = {"of", "the", "a", "an", "in", "total", "altogether", "each", "left", "more", "now", "all", "is", "are", "was"}
SILENT |= {
    "her",
    "his",
    "its",
    "their",
    "remaining",
    "long",
    "old",
    "away",
    "tall",
    "wide",
    "there",
    "he",
    "she",
    "they",
}


@dataclass(frozen=True)
class Unit:
    """What is counted: a known unit, or the words that stood there."""

    words: tuple[str, ...]
    """Singular, lower case, in order, words that name nothing left out."""

    @property
    def known(self) -> tuple[str, Fraction] | None:
        """What it measures and how many base units one is; None for apples and for miles per hour."""
        return KNOWN.get(self.words[0]) if len(self.words) == 1 else None

    def like(self, other: Unit) -> bool:
        """The same as far as both name it: red apples are apples, and dollars per day are dollars, but km/h is not m/h."""
        (head, tail), (head2, tail2) = self._halves(), other._halves()
        return bool(set(head) & set(head2)) and (not tail or not tail2 or bool(set(tail) & set(tail2)))

    def _halves(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if "per" not in self.words:
            return self.words, ()
        place = self.words.index("per")
        return self.words[:place], self.words[place + 1 :]


def unit_of(money: str, words: str) -> Unit | None:
    """The unit that a sign before a number and the words after it name; None where they name none, or are no words."""
    words = re.sub(r"\^?\{?\\circ\}?|\^\s*\{?\s*\\circ\s*\}?", " degrees ", words)
    words = re.sub(r"\s*\^\s*\{?([23])\}?", r"\1", words).replace("/", " per ")
    words = re.sub(r"\b(?:square|sq\.?) (\w+)", r"\g<1>2", re.sub(r"\bcubic (\w+)", r"\g<1>3", words))
    found = re.findall(r"[^\W_]+|%", words)
    if re.sub(r"[^\W_]+|[\s.,'-]", "", words):
        return None
    named = [_singular(word) for word in found if word.lower() not in SILENT]
    if money:
        named = [word for word in named if KNOWN.get(word, ("",))[0] != KNOWN[money.lower()][0]]
        named.insert(0, FIRST[KNOWN[money.lower()]])
    return Unit(tuple(named))


def _singular(word: str) -> str:
    low = word.lower()
    if low.endswith("ies") and len(low) > 4:
        low = low[:-3] + "y"
    elif low.endswith("s") and not low.endswith("ss") and len(low) > 2:
        low = low[:-1]
    power = low[-1] if low[-1] in "23" else ""
    base = low.removesuffix(power) if power else low
    base = _singular(base) if power and base else base
    return (FIRST[KNOWN[base]] if base in KNOWN else base) + power
