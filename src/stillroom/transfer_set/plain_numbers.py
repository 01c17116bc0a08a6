"""One number out of a text: digits, fractions, percent, words, powers of ten, with its unit. Exact, as a Fraction.

    1,234.5   1.234,5   1 234   1'234   12,34,567    separators of thousands: groups of three (or, in India, two)
    -3/4   1 1/2   \\frac{3}{4}   .5   0.\\overline{3}   2.5e3   2.5 * 10^{3}
    50%   $5   5 km   5 apples   3 dozen   two million   twenty-one   three quarters
    x = 5   3 + 4 = 7   about 5                       the last side of an equation, a name or a hedge aside

A text that holds several numbers, an unknown, a comparison or a power is no number, and None says so. Nor is 1,5: it may
be a list or, where the comma is the decimal sign, a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from stillroom.transfer_set.answer_text import LONGEST, plain
from stillroom.transfer_set.units import SCALES, Unit, unit_of

DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+|\d+)"
DECIMAL = rf"(?:\d{{1,3}}(?:\.\d{{3}})+,\d+|\d{{1,3}}(?:\.\d{{3}}){{2,}}|{DIGITS}(?:\.\d+)?|\.\d+)(?!,?\d)\.?(?!\d)"
POWER = r"(?:\s*\*\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|\(([+-]?\d{1,3})\)|([+-]?\d{1,3}))|[eE]([+-]?\d{1,3}))"
NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<money>US\$|\$|€|£|¥|₹)?\s*(?P<sign2>-?)"
    rf"(?:\\frac\s*(?:\{{\s*(?P<top>-?{DECIMAL})\s*\}}|(?P<top1>\d))\s*(?:\{{\s*(?P<bottom>-?{DECIMAL})\s*\}}|(?P<bottom1>\d))"
    rf"|(?P<whole>\d+)\s*\\frac\s*(?:\{{(?P<wtop>\d+)\}}|(?P<wtop1>\d))\s*(?:\{{(?P<wbottom>\d+)\}}|(?P<wbottom1>\d))"
    rf"|(?P<mixed>\d+) (?P<mtop>\d+) ?/ ?(?P<mbottom>\d+)"
    rf"|(?P<repeated>\d*\.\d*)\\overline\s*\{{(?P<period>\d+)\}}"
    rf"|(?P<ratio>{DECIMAL})\s*/\s*(?P<by>-?{DECIMAL})"
    rf"|10\s*\^\s*(?:\{{\s*(?P<ten>[+-]?\d{{1,3}})\s*\}}|(?P<ten1>[+-]?\d{{1,3}}))"
    rf"|(?P<decimal>{DECIMAL})(?P<power>{POWER})?)"
)
HEDGES = re.compile(
    r"^(?:\\approx|about|approximately|roughly|around|exactly|a total of|total of|only|just|~|=|:)+\s*", re.I
)
LIMITS = re.compile(
    r"\b(?:not|never|isn't|cannot|except|without|least|most|more than|less than|fewer|under|over|above|below|between|up to"
    r"|at|or|and|to|than|but|if|squared|cubed|plus|minus|divided|multiplied|factorial|half|halves|thirds?|quarters?|fourths?"
    r"|fifths?|sixths?|eighths?|tenths?|hundredths?)\b",
    re.I,
)
"""Words that say more than a number, or not this one."""
NAME = re.compile(r"(?:[A-Za-z](?:_\{?\w+\}?|'|\([a-z]\))?|\\[a-z]+|[A-Za-z]{2,}(?: [A-Za-z]+)*)$")
ARITHMETIC = re.compile(r"(?:[\d\s.+*/()^$%{}-]|,\d{3}|\\frac)+$")
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = {word: n for n, word in enumerate(ONES)} | {word: 20 + 10 * n for n, word in enumerate(TENS)}
PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
TOO_LARGE = 400
"""Digits; a longer number is not an answer but an attack on the reader."""


@dataclass(frozen=True)
class Number:
    """A number and how it was written."""

    value: Fraction
    """As written: 50 of 50 %, and 5 of 5 million."""
    places: int | None = None
    """Digits after the point, where it is a decimal; None where it is whole, a fraction or a word."""
    percent: bool = False
    scale: int = 1
    """What a word such as million multiplies it by."""
    unit: Unit | None = None
    name: str = ""
    """The unknown that it is said to be."""

    @property
    def scaled(self) -> Fraction:
        """The value with its scale."""
        return self.value * self.scale


def read_number(text: str) -> Number | None:
    """The one number that a text says; None where it says none, several, or more than a number."""
    if len(text) > LONGEST:
        return None
    sides = [side.strip() for side in re.split(r"(?<![<>!\\])=(?!=)", plain(text))]
    name, number = "", None
    if len(sides) > 1:
        sides = [side for side in sides if side]
        found = [_side(side) for side in sides]
        if len(sides) == 2 and found[1] is None and found[0] is not None and NAME.match(sides[1]):
            sides, found = sides[::-1], found[::-1]  # 5 = x
        said = [one for one in found if one is not None]
        if not found or found[-1] is None or any(one.scaled != said[-1].scaled for one in said):
            return None
        if not all(one or NAME.match(side) or ARITHMETIC.match(side) for one, side in zip(found, sides, strict=True)):
            return None  # x = 5 or x = 6; 2x + 3y + 1 = 0
        name = sides[0] if found[0] is None and NAME.match(sides[0]) else ""
        number = found[-1]
    else:
        number = _side(sides[0])
    if number is None:
        return None
    return Number(number.value, number.places, number.percent, number.scale, number.unit, name)


def several_numbers(text: str) -> bool:
    """True where a text that is no sentence offers alternatives or lists more than one number: 5 or 6; 3, 4."""
    if re.search(r"(?<!\\)\b(?!and\b)[A-Za-z]{3,}", plain(text)):
        return False
    parts = re.split(r"\s*(?:,(?!\d{3}\b)|;|\bor\b|\band\b|\\pm)\s*", plain(text))
    return sum(bool(re.search(r"\d", part)) for part in parts) > 1 or bool(re.search(r"\\pm|\+/-|\+-", plain(text)))


def _side(text: str) -> Number | None:
    """A number with what stands around it, no equation."""
    text = re.sub(r"^(?:minus|negative)\s+(?=[\d$.])", "-", text.strip(), flags=re.I)
    text = HEDGES.sub("", text).strip().strip("()") if text.count("(") <= 1 else text.strip()
    found = NUMBER.match(text)
    if found is not None:
        number = _number(found, text[found.end() :])
        if number is not None:
            return number
    return _spelled(text) or _in_words(text)


def _number(found: re.Match[str], rest: str) -> Number | None:
    read = _value(found)
    if read is None or (found["sign"] and found["sign2"]):
        return None
    value, places = read
    if "-" in (found["sign"], found["sign2"]):
        value = -value
    attached = rest[:1].isalpha()
    rest = rest.strip()
    percent = re.match(r"(?:%|percent(?:age)?(?: points?)?\b|pct\b)", rest, re.I)
    if percent is not None:
        rest = rest[percent.end() :].strip()
    word, _, after = rest.partition(" ")
    scale = SCALES.get(word.lower().rstrip("s"), 1)
    rest = after if scale != 1 else rest
    if re.search(r"[\d^+*/<>|=&]|\\(?!circ\b)[a-z]", _powers_of_units(rest)) or LIMITS.search(rest):
        return None
    if re.match(r"[A-Za-z](?![A-Za-z])", rest) and (attached or rest[0].lower() not in "mglshkv"):
        return None  # 5x and 5 x are products, 5 m is a length
    unit = unit_of(found["money"] or "", rest)
    if rest and unit is None:
        return None
    return Number(value, places, percent is not None, scale, unit)


def _powers_of_units(rest: str) -> str:
    """Without what a unit may hold: squares and cubes, a slash between two words, degrees."""
    rest = re.sub(r"\^\\circ|\^\{\\circ\}|\\circ", "degrees", rest)
    rest = re.sub(r"(?<=[A-Za-z])\s*\^\s*\{?[23]\}?", "", rest)
    return re.sub(r"(?<=[A-Za-z])\s*/\s*(?=[A-Za-z])", " per ", rest)


def _value(found: re.Match[str]) -> tuple[Fraction, int | None] | None:
    """The value without its sign, and its decimal places."""
    top, bottom = found["top"] or found["top1"], found["bottom"] or found["bottom1"]
    whole = found["whole"] or found["mixed"]
    if whole is not None:
        top = found["wtop"] or found["wtop1"] or found["mtop"]
        bottom = found["wbottom"] or found["wbottom1"] or found["mbottom"]
        part = _over(top, bottom)
        return None if part is None or part >= 1 else (int(whole[:TOO_LARGE]) + part, None)
    if top is not None and bottom is not None:
        part = _over(top, bottom)
        return None if part is None else (part, None)
    if found["period"] is not None:
        period, before = found["period"], found["repeated"]
        places = len(before.partition(".")[2])
        step = Fraction(1, 10**places)
        return Fraction(before.strip(".") or "0") + step * Fraction(int(period), 10 ** len(period) - 1), None
    if found["ratio"] is not None:
        part = _over(found["ratio"], found["by"])
        return None if part is None else (part, None)
    if found["decimal"] is None:
        return Fraction(10) ** int(found["ten"] or found["ten1"]), None
    value, places = _decimal(found["decimal"])
    if found["power"] is not None:
        exponent = int(next(one for one in found.groups()[-4:] if one is not None))
        return value * Fraction(10) ** exponent, max(places - exponent, 0) or None
    return (value, places or None) if len(found["decimal"]) <= TOO_LARGE else None


def _over(top: str, bottom: str) -> Fraction | None:
    below = _decimal(bottom)[0]
    return _decimal(top)[0] / below if below else None


def _decimal(text: str) -> tuple[Fraction, int]:
    """A decimal with separators, and how many digits stand after its point."""
    text = text.rstrip(".").replace(" ", "").replace("'", "")
    commas, points = text.count(","), text.count(".")
    if commas and points and text.rfind(",") > text.rfind("."):
        text = text.replace(".", "").replace(",", ".")  # 1.234,5
    elif points > 1:
        text = text.replace(".", "")  # 1.234.567
    elif commas == 1 and not points and not re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", text):
        text = text.replace(",", ".")  # 0,5
    text = text.replace(",", "")
    return Fraction(text), len(text.partition(".")[2])


def _spelled(text: str) -> Number | None:
    """A number in words, with a unit after it: twenty-one apples, one and a half, three quarters."""
    words = re.findall(r"[a-z]+", text.lower())
    if not words or re.search(r"[^A-Za-z\s,'-]", text):
        return None
    negative = words[0] in ("minus", "negative")
    total, current, used, seen = Fraction(0), Fraction(0), int(negative), False
    for word in words[used:]:
        following = words[used + 1] if used + 1 < len(words) else ""
        part = PARTS.get(word.removesuffix("s") if word != "halves" else word)
        if word in WORDS:
            current, seen = current + WORDS[word], True
        elif word == "hundred" and seen:
            current *= 100
        elif word in ("thousand", "million", "billion") and seen:
            total, current = total + current * SCALES[word], Fraction(0)
        elif part is not None and (seen or word == "half"):
            current = (
                Fraction(current or 1) / part if not (seen and words[used - 1] == "a") else current + Fraction(1, part)
            )
            seen = True
        elif word == "a" and following == "dozen":
            current, seen = current + 1, True
        elif not ((word == "a" and following == "half") or (word == "and" and seen)):
            break
        used += 1
    if not seen:
        return None
    rest = " ".join(words[used:])
    scale = SCALES.get(words[used].rstrip("s"), 1) if rest else 1
    rest = " ".join(words[used + 1 :]) if scale != 1 else rest
    if LIMITS.search(rest) or WORDS.keys() & set(rest.split()):
        return None
    value = total + current
    unit = unit_of("", rest)
    if rest and unit is None:
        return None
    return Number(
        -value if negative else value,
        None,
        rest.startswith("percent"),
        scale,
        None if rest.startswith("percent") else unit,
    )


def _in_words(text: str) -> Number | None:
    """The only number of a sentence that is words beside it: there are 5 apples left."""
    numbers = [found for found in NUMBER.finditer(text) if found.end() > found.start()]
    if len(numbers) != 1 or LIMITS.search(text):
        return None
    found = numbers[0]
    before, after = text[: found.start()].strip(), text[found.end() :].strip()
    if not before or not re.fullmatch(
        r"(?:[A-Za-z]{2,}|a|I)(?:['-][A-Za-z]+)?(?:[ ,:]+(?:[A-Za-z]{2,}|a|I)(?:['-][A-Za-z]+)?)*[,:]?", before
    ):
        return None
    return _number(found, after)
