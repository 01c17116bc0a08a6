"""Made golds for verifiers: algebra with a right answer written otherwise, and wrong ones, all known by how they were made.

A gold is drawn as numbers (coefficients, ends, entries), and every text is written from numbers: the right one from the same
numbers in another form, the wrong ones from other numbers. So no verifier is asked what is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random


@dataclass(frozen=True)
class Gold:
    """A gold answer, the same written otherwise, and wrong answers by what is wrong with them."""

    family: str
    text: str
    right: str
    wrong: dict[str, str]


def made_golds(count: int, seed: int) -> Iterator[Gold]:
    """`count` golds, the families in turn."""
    dice = Random(seed)
    for place in range(count):
        yield FAMILIES[place % len(FAMILIES)](dice)


def term(factor: int, letter: str, power: int) -> str:
    """3x^{2}, -x, 7."""
    if power == 0:
        return str(factor)
    head = {1: "", -1: "-"}.get(factor, str(factor))
    return head + (letter if power == 1 else f"{letter}^{{{power}}}")


def polynomial(factors: Sequence[int], letter: str, order: Sequence[int] | None = None) -> str:
    """The sum of factors[k] * letter^k, highest first or in the order given; 0 where all are 0."""
    powers = order if order is not None else range(len(factors) - 1, -1, -1)
    terms = [term(factors[power], letter, power) for power in powers if factors[power]]
    return "+".join(terms).replace("+-", "-") or "0"


def as_program(text: str) -> str:
    """LaTeX of a polynomial as program text."""
    text = text.replace("^{", "**").replace("}", "")
    return "".join(
        sign + ("*" if sign.isdigit() and text[place + 1 : place + 2].isalpha() else "")
        for place, sign in enumerate(text)
    )


def fraction(value: Fraction) -> str:
    """LaTeX of a fraction in lowest terms."""
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    return f"{sign}{top}" if bottom == 1 else f"{sign}\\frac{{{top}}}{{{bottom}}}"


def _other(value: int, dice: Random) -> int:
    return value + dice.choice((-2, -1, 1, 2))


def expanded(dice: Random) -> Gold:
    """A polynomial: terms in another order, or as program text."""
    letter = dice.choice("xyntab")
    factors = [dice.randint(-9, 9) for _ in range(dice.randint(2, 4))]
    factors[-1], factors[0] = factors[-1] or 2, factors[0] or 5
    changed, lost, swapped, other = list(factors), list(factors), factors[::-1], [-one for one in factors]
    place = dice.randrange(len(factors))
    changed[place] = _other(changed[place], dice)
    lost[dice.choice([k for k, one in enumerate(factors) if one])] = 0
    wrong = {"a coefficient": changed, "a term lost": lost, "coefficients reversed": swapped, "sign": other}
    order = list(range(len(factors)))
    dice.shuffle(order)
    text = polynomial(factors, letter)
    right = dice.choice([polynomial(factors, letter, order), as_program(text), f"$ {text} $"])
    kept = {how: polynomial(one, letter) for how, one in wrong.items() if one != factors}
    return Gold("polynomial", text, right, _two(kept, dice))


def factored(dice: Random) -> Gold:
    """Two linear factors, and the product written out."""
    a, b = dice.randint(1, 9), dice.choice([-7, -5, -4, -3, -2, -1, 2, 3, 5, 6])
    k = dice.choice([1, 1, 2, 3])

    def product(k: int, a: int, b: int) -> str:
        return polynomial([k * a * b, k * (a + b), k], "x")

    def factors(k: int, a: int, b: int) -> str:
        head = "" if k == 1 else str(k)
        return head + "".join(f"(x{'+' if one > 0 else '-'}{abs(one)})" for one in (a, b))

    wrong = {
        "signs": factors(k, -a, -b), "one factor": factors(k, a, b + 10), "a term lost": polynomial([0, k * (a + b), k], "x"),
        "the factor in front": factors(k + 1, a, b),
    }  # fmt: skip
    if a + b == 0:
        wrong.pop("signs")
    gold, right = (factors(k, a, b), product(k, a, b)) if dice.random() < 0.5 else (product(k, a, b), factors(k, b, a))
    return Gold("factors", gold, right, _two(wrong, dice))


def ratio(dice: Random) -> Gold:
    """A fraction."""
    value = Fraction(dice.choice([-1, 1]) * dice.randint(1, 60), dice.randint(2, 40))
    value = value if value.denominator > 1 else value + Fraction(1, 7)
    k = dice.randint(2, 5)
    right = dice.choice(
        [
            f"{value.numerator}/{value.denominator}", f"\\frac{{{value.numerator * k}}}{{{value.denominator * k}}}",
            f"\\dfrac{{{value.numerator}}}{{{value.denominator}}}", f"{float(value):.9f}",
        ]
    )  # fmt: skip
    wrong = {
        "turned over": fraction(1 / value), "sign": fraction(-value),
        "numerator": fraction(value + Fraction(1, value.denominator)),
        "denominator": fraction(Fraction(value.numerator, value.denominator + 1)),
    }  # fmt: skip
    return Gold(
        "fraction", fraction(value), right, _two({k: v for k, v in wrong.items() if v != fraction(value)}, dice)
    )


def root(dice: Random) -> Gold:
    """(a + b sqrt c) / d, d at the end or in each term."""
    a, b, c, d = dice.randint(1, 9), dice.randint(2, 9), dice.choice([2, 3, 5, 6, 7, 10, 11]), dice.choice([3, 5, 7])

    def whole(a: int, b: int, c: int, d: int) -> str:
        return f"\\frac{{{a}{b:+d}\\sqrt{{{c}}}}}{{{d}}}"

    right = dice.choice(
        [
            f"{fraction(Fraction(a, d))}+{fraction(Fraction(b, d))}\\sqrt{{{c}}}", f"({a} + {b}*sqrt({c}))/{d}",
            f"\\frac{{{b}\\sqrt{{{c}}}+{a}}}{{{d}}}", f"({a}+{b}√{c})/{d}",
        ]
    )  # fmt: skip
    wrong = {
        "sign": whole(a, -b, c, d), "under the root": whole(a, b, c + 2 if c not in (2, 5) else c + 1, d),
        "the whole number": whole(a + 1, b, c, d), "the factor": whole(a, b + 1, c, d), "below": whole(a, b, c, d + 1),
        "the root lost": fraction(Fraction(a + b * c, d)), "swapped": whole(b, a, c, d),
    }  # fmt: skip
    if a == b:
        wrong.pop("swapped")
    return Gold("root", whole(a, b, c, d), right, _two(wrong, dice))


def interval(dice: Random) -> Gold:
    """An interval, or the inequality that it is."""
    low = dice.randint(-9, 8)
    high = low + dice.randint(1, 9)
    left, right = dice.choice("[("), dice.choice("])")

    def written(left: str, low: int, high: int, right: str) -> str:
        return f"{left}{low},{high}{right}"

    turned = {"[": "(", "(": "[", "]": ")", ")": "]"}
    signs = {"[": "\\le ", "(": "<", "]": "\\le ", ")": "<"}
    otherwise = dice.choice([f"\\left{left}{low}, {high}\\right{right}", f"{left} {low} , {high} {right}"])
    if left == "(" and right == ")":
        otherwise = dice.choice([otherwise, f"{low}{signs[left]}x{signs[right]}{high}"])
    wrong = {
        "left end open or closed": written(turned[left], low, high, right),
        "right end open or closed": written(left, low, high, turned[right]),
        "left end": written(left, low - 1, high, right), "right end": written(left, low, high + 1, right),
        "mirrored": written(left, -high, -low, right),
    }  # fmt: skip
    if low == -high:
        wrong.pop("mirrored")
    return Gold("interval", written(left, low, high, right), otherwise, _two(wrong, dice))


def members(dice: Random) -> Gold:
    """A set of numbers, in any order."""
    values = dice.sample(range(-20, 21), dice.randint(2, 4))
    shuffled = dice.sample(values, len(values))
    strange = next(one for one in range(21, 99) if one not in values)

    def written(values: Sequence[int]) -> str:
        return "\\{" + ", ".join(map(str, values)) + "\\}"

    wrong = {
        "one lost": written(values[1:]), "one more": written([*values, strange]), "one changed": written([*values[:-1], strange]),
        "signs": written([-one for one in values]),
    }  # fmt: skip
    if {-one for one in values} == set(values):
        wrong.pop("signs")
    right = dice.choice([written(shuffled), "{" + ", ".join(map(str, shuffled)) + "}"])
    return Gold("set", written(values), right, _two(wrong, dice))


def pair(dice: Random) -> Gold:
    """An ordered pair or triple."""
    values = dice.sample(range(-15, 16), dice.choice([2, 3, 3]))

    def written(values: Sequence[int]) -> str:
        return "(" + ",".join(map(str, values)) + ")"

    changed = [*values]
    place = dice.randrange(len(values))
    changed[place] = next(one for one in range(16, 99) if one not in values)
    wrong = {"turned round": written(values[::-1]), "one changed": written(changed), "one more": written([*values, 17])}
    if len(values) == 2 and values[0] > values[1]:
        wrong.pop("one more")
    right = dice.choice(["(" + ", ".join(map(str, values)) + ")", "\\left(" + ",".join(map(str, values)) + "\\right)"])
    return Gold("pair", written(values), right, _two(wrong, dice))


def line(dice: Random) -> Gold:
    """The equation of a line."""
    a, b, c = (
        dice.choice([2, 3, 4, 5, 6]),
        dice.choice([-7, -5, -3, 1, 3, 5, 7]),
        dice.choice([-9, -4, -2, 1, 4, 8, 11]),
    )
    k = dice.choice([-1, 2, 3])

    def written(a: int, b: int, c: int) -> str:
        return f"{a}x{b:+d}y{c:+d}=0".replace("+1y", "+y").replace("-1y", "-y")

    slope, height = Fraction(-a, b), Fraction(-c, b)
    sign = "+" if height > 0 else ""
    right = dice.choice(
        [written(a * k, b * k, c * k), f"y={fraction(slope)}x{sign}{fraction(height)}", f"{a}x{b:+d}y={-c}"]
    )
    wrong = {
        "the constant": written(a, b, c + 3), "a sign": written(a, -b, c), "the constant's sign": written(a, b, -c),
        "coefficients swapped": written(abs(b), a if b > 0 else -a, c), "one coefficient": written(a + 1, b, c),
    }  # fmt: skip
    if abs(b) == a:
        wrong.pop("coefficients swapped")
    return Gold("line", written(a, b, c), right, _two(wrong, dice))


def matrix(dice: Random) -> Gold:
    """Two rows of two."""
    a, b, c, d = dice.sample(range(-9, 10), 4)

    def written(a: int, b: int, c: int, d: int, kind: str = "pmatrix") -> str:
        return f"\\begin{{{kind}}}{a}&{b}\\\\{c}&{d}\\end{{{kind}}}"

    wrong = {
        "transposed": written(a, c, b, d),
        "an entry": written(a, b, c, d + 1),
        "rows swapped": written(c, d, a, b),
    }
    return Gold("matrix", written(a, b, c, d), written(a, b, c, d, "bmatrix").replace("&", " & "), _two(wrong, dice))


def constant(dice: Random) -> Gold:
    """A multiple of pi, a logarithm or a power of e."""
    a, b = dice.randint(2, 9), dice.choice([3, 5, 7, 11])
    name, program = dice.choice([("\\pi", "pi"), ("\\ln 2", "ln(2)"), ("e^{3}", "e**3"), ("\\sqrt[3]{5}", "5**(1/3)")])
    a = a if a % b else a + 1

    def written(a: int, b: int) -> str:
        return f"\\frac{{{a}{name}}}{{{b}}}"

    bare = {
        "the constant lost": fraction(Fraction(a, b)),
        "upside down": written(b, a),
        "the factor": written(a + 1, b),
    }
    bare |= {"below": written(a, b + 1), "sign": "-" + written(a, b)}
    if a == b:
        bare.pop("upside down")
    right = dice.choice(
        [f"{a}*{program}/{b}", f"{fraction(Fraction(a, b))}{name}", f"\\frac{{{a}}}{{{b}}}\\cdot {name}"]
    )
    return Gold("constant", written(a, b), right, _two(bare, dice))


def _two(wrong: dict[str, str], dice: Random) -> dict[str, str]:
    return {how: wrong[how] for how in dice.sample(sorted(wrong), min(2, len(wrong)))}


FAMILIES = (expanded, factored, ratio, root, interval, members, pair, line, matrix, constant)
