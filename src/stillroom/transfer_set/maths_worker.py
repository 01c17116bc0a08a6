"""The child of `math`: reads two answers with math-verify, compares them both ways round and by value, and says which.

    python -P -m stillroom.transfer_set.maths_worker CPU_S MEMORY_MIB

One JSON line in, {"gold", "answer", "gold_decimal", "answer_decimal", "tolerance"}; one JSON line out, {"outcome",
"reason"}. The first line out is {"ready": true}. It ends when its input ends, and may be killed at any moment. The limits
are the kernel's: of processor time for each comparison, of memory, and no file may be written.

Each answer is read whole: where math-verify would look for a part of it that it can read, this says unsure. Then two
opinions are asked for. The values of both at a few points, to 30 digits, reject whatever differs, however little. And
math-verify compares them, both ways round, since its comparison is not symmetric. Letters, primes or units that its
reader dropped are looked for in the texts.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from contextlib import suppress
from fractions import Fraction
from typing import Any

from stillroom.transfer_set.answer_text import balanced, plain
from stillroom.transfer_set.units import KNOWN

POINTS = (Fraction(7, 5), Fraction(-9, 7), Fraction(17, 6), Fraction(-13, 4), Fraction(23, 9), Fraction(-3, 8))
WHOLE = (Fraction(5), Fraction(8), Fraction(11), Fraction(6), Fraction(13), Fraction(9))
DIGITS, ENOUGH = 30, 20
"""Decimal digits that values are worked out to, and those that must agree."""
UNITS = re.compile(
    r"(?<=[\w)}\s])\s*(?<![A-Za-z\\])(?:"
    + "|".join(sorted((name for name in KNOWN if name.isalpha() and len(name) > 1), key=len, reverse=True))
    + r")s?(?:\s*\^\s*\{?[23]\}?|\s*/\s*[A-Za-z]+|\s+per\s+[A-Za-z]+)?\s*$",
    re.I,
)
"""A unit at the end of an answer."""
COMMAND = re.compile(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+")
UNKNOWN = "they could not be compared, or are the same for some values only"
FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|min|gcd|lcm|"
    "pi|alpha|beta|gamma|theta|lambda|mu|sigma|phi|omega|infty"
)
"""And Greek letters: what stands without a backslash in program text."""


def to_latex(text: str) -> str:
    """An answer as LaTeX, whether a model wrote it as that or as program text: sqrt(2), x**2, pi/2, exp(16)."""
    text = plain(text).replace("**", "^").replace("...", r"\ldots ")
    text = re.sub(r"(?<=\{)\s+|\s+(?=\})", "", re.sub(r"\+\s*-", "- ", text))
    if text.startswith("{") and text.endswith("}"):
        text = rf"\{{{text[1:-1]}\}}"  # a set, as a program writes it
    text = re.sub(r"(?<![\\A-Za-z])inf(?:inity)?(?![A-Za-z])", r"\\infty ", text)
    text = re.sub(rf"(?<![\\A-Za-z])({FUNCTIONS})(?![A-Za-z])", r"\\\1 ", text)
    text = re.sub(r"\\(?:mathbf|mathit)\b", "", text)
    for name, before in ((r"\sqrt", r"\sqrt"), (r"\exp", "e^")):
        text = _braced_argument(text, name, before)
    text = re.sub(r"\\sqrt\s*(\d+|[A-Za-z])(?!\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"[\w.]+(?:\s*\^\s*[\w.]+){2,}", _tower, text)
    text = re.sub(r"(?<=\d)i(?![A-Za-z])", " i", text)
    text = re.sub(r"\^\s*(-?\d+(?:\.\d+)?)", r"^{\1}", text)
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text)
    return re.sub(r"(?<=[\w)}])\s*\*\s*(?=[\w({\\])", r" \\cdot ", text)


def _tower(found: re.Match[str]) -> str:
    """a^b^c is a^{b^{c}}."""
    *levels, top = [level.strip() for level in found[0].split("^")]
    for level in reversed(levels):
        top = f"{level}^{{{top}}}"
    return top


def _braced_argument(text: str, name: str, before: str) -> str:
    """NAME(..) -> BEFORE{..}, brackets inside minded."""
    place = text.find(name)
    while place >= 0:
        start = re.match(rf"{re.escape(name)}\s*\(", text[place:])
        if start is not None:
            depth, at = 1, place + start.end()
            while at < len(text) and depth:
                depth += {"(": 1, ")": -1}.get(text[at], 0)
                at += 1
            if depth:
                return text
            inner = text[place + start.end() : at - 1]
            text = f"{text[:place]}{before}{{{inner}}}{text[at:]}"
        place = text.find(name, place + 1)
    return text


def read(text: str) -> Any:
    """The whole answer as one sympy object; None where math-verify cannot read all of it.

    A unit at the end is left out here, and not by math-verify, to which t and b are units too.
    """
    from math_verify import LatexExtractionConfig, LatexNormalizationConfig, parse

    if not balanced(text):
        return None
    cleaning = LatexNormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    config = [LatexExtractionConfig(False, boxed_match_priority=0, normalization_config=cleaning)]
    latex = "\\boxed{" + UNITS.sub("", to_latex(text)) + "}"
    found = parse(latex, config, "no_fallback", "first_match", parsing_timeout=None)
    return found[0] if found and not isinstance(found[0], str) else None


def letters(text: str) -> set[str]:
    """The letters that stand for something: not those of commands and words."""
    bare = re.sub(r"[A-Za-z]{2,}", " ", COMMAND.sub(" ", to_latex(text)))
    return set(re.findall(r"[A-Za-z]", bare)) - {"e", "i", "d"}


def words(text: str) -> set[str]:
    """The words beside the mathematics, such as units."""
    bare = COMMAND.sub(" ", to_latex(text))
    return {word.lower().rstrip("s") for word in re.findall(r"[A-Za-z]{2,}", bare)} - {"and", "or"}


def _beside(text: str, read_as: Any) -> set[str]:
    """The words that are no product of the letters that were read, such as ab."""
    kept = _symbols(read_as)
    return {word for word in words(text) if not set(word) <= kept}


def _symbols(read_as: Any) -> set[str]:
    atoms = read_as.atoms() if hasattr(read_as, "atoms") else set()
    return {letter.lower() for symbol in atoms for letter in str(symbol)}


def dropped(text: str, read_as: Any) -> set[str]:
    """Letters of the text that are in nothing it was read as."""
    kept = _symbols(read_as)
    return {letter for letter in letters(text) if letter.lower() not in kept and not hasattr(read_as, "shape")}


def exact(thing: Any) -> Any:
    """With every decimal as the fraction that it was written as."""
    from sympy import Float, Rational

    return thing.xreplace({one: Rational(str(one)) for one in thing.atoms(Float)})


def values(thing: Any, names: list[Any], points: tuple[Fraction, ...]) -> list[Any] | None:
    """The values of an expression, a number each; None where some is none."""
    from sympy import Rational

    found = []
    for shift in range(len(points)):
        at = {name: Rational(points[(shift + place) % len(points)]) for place, name in enumerate(names)}
        value = thing.xreplace(at).doit().evalf(DIGITS, maxn=400)
        if not value.is_number or value.is_finite is not True:
            return None
        found.append(value)
        if not names:
            break
    return found


def agree(gold: Any, answer: Any) -> bool | None:
    """Whether two things have the same values; None where that cannot be said, such as of two intervals' union."""
    from sympy import Basic, Expr, FiniteSet, Interval, MatrixBase, Tuple
    from sympy.core.relational import Relational

    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        return gold.shape == answer.shape and _all_agree(list(gold), list(answer))
    if isinstance(gold, Relational) and isinstance(answer, Relational):
        return _same_relation(gold, answer)
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        ends = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return ends and _all_agree([gold.start, gold.end], [answer.start, answer.end])
    if isinstance(gold, FiniteSet) and isinstance(answer, FiniteSet):
        return len(gold) == len(answer) and _match(list(gold.args), list(answer.args))
    if isinstance(gold, Tuple) and isinstance(answer, Tuple):
        return len(gold) == len(answer) and _all_agree(list(gold), list(answer))
    if not (isinstance(gold, Expr) and isinstance(answer, Expr) and isinstance(gold, Basic)):
        return None
    if gold.is_infinite or answer.is_infinite:
        return bool(gold == answer)
    return _same_values(gold, answer)


def _same_values(gold: Any, answer: Any) -> bool | None:
    from sympy import Product, Sum, binomial, factorial

    gold, answer = exact(gold), exact(answer)
    names = sorted(gold.free_symbols | answer.free_symbols, key=str)
    whole = any(thing.has(Sum, Product, factorial, binomial) for thing in (gold, answer))
    left, right = (values(thing, names, WHOLE if whole else POINTS) for thing in (gold, answer))
    if left is not None and right is not None and _near(left, right):
        return True
    if not names or whole:
        return None if left is None or right is None else False
    positive = tuple(abs(point) for point in POINTS)
    above = [values(thing, names, positive) for thing in (gold, answer)]
    if above[0] is None or above[1] is None:
        return None if left is None or right is None else False
    if not _near(above[0], above[1]):
        return False
    return True if left is None and right is None else None  # sqrt(1/n) and 1/sqrt(n) are one where n is above 0


def _near(left: list[Any], right: list[Any]) -> bool:
    return all(abs(one - two) <= 10**-ENOUGH * max(abs(one), abs(two)) for one, two in zip(left, right, strict=True))


def _all_agree(gold: list[Any], answer: list[Any]) -> bool | None:
    found = [agree(one, two) for one, two in zip(gold, answer, strict=True)]
    return False if False in found else None if None in found else True


def _match(gold: list[Any], answer: list[Any]) -> bool | None:
    """Each of one list has its own equal in the other."""
    if len(gold) > 12:
        return None
    left, unknown = list(answer), False
    for one in gold:
        found = [agree(one, two) for two in left]
        if True in found:
            left.pop(found.index(True))
        elif None in found:
            unknown = True
        else:
            return False
    return None if unknown else True


def _same_relation(gold: Any, answer: Any) -> bool | None:
    """The same equation or inequality, moved about and multiplied by a number, at the most."""
    from sympy import Eq, Expr, Ne

    turned = type(answer) is type(gold.reversed)
    same = type(answer) is type(gold)
    if not (same or turned):
        return False
    if not all(isinstance(side, Expr) for side in (gold.lhs, gold.rhs, answer.lhs, answer.rhs)):
        return agree(gold.rhs, answer.rhs) if gold.lhs == answer.lhs else None
    names = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if gold.free_symbols != answer.free_symbols or not names:
        return False if names else None
    left, right = (values(exact(one.lhs - one.rhs), names, POINTS) for one in (gold, answer))
    if left is None or right is None or 0 in left or 0 in right:
        return None
    ratios = [one / two for one, two in zip(left, right, strict=True)]
    if any(abs(ratio - ratios[0]) > 10**-ENOUGH * abs(ratios[0]) for ratio in ratios):
        return False
    return True if isinstance(gold, Eq | Ne) else bool(ratios[0] > 0) == same


def is_the_decimal(thing: Any, decimal: str) -> tuple[str, str] | None:
    """Outcome and reason for a constant against a decimal that may be rounded; None where it is no constant."""
    from sympy import Expr, Rational

    if not isinstance(thing, Expr) or thing.free_symbols:
        return None
    value = thing.doit().evalf(DIGITS, maxn=400)
    if not value.is_Float and not value.is_Rational:
        return None
    if _near([value], [Rational(decimal)]):
        return "accepted", "the same number"
    said, places = Fraction(decimal), len(decimal.partition(".")[2])
    known = len(str(abs(int(said * 10**places))))
    if said == 0 or abs(Fraction(str(value)) - said) * 2 * 10**places > 1:
        return "rejected", f"its value is {value.evalf(8)}, not {decimal}"
    return ("accepted", f"rounded to {known} digits") if known >= 5 else ("unsure", f"the same only to {known} digits")


def judged(asked: dict[str, Any]) -> tuple[str, str]:
    """The verdict on an answer, and why. A sentence is not rejected: its words were read as products of letters."""
    outcome, reason = compare(asked)
    if outcome == "rejected" and any(len(word) > 2 for which in ("gold", "answer") for word in words(asked[which])):
        return "unsure", "it holds words beside the mathematics"
    return outcome, reason


def compare(asked: dict[str, Any]) -> tuple[str, str]:
    """The verdict where all of both was read as mathematics."""
    from sympy import nan, zoo

    gold, answer = read(asked["gold"]), read(asked["answer"])
    for thing, who in ((gold, "the gold answer"), (answer, "the answer")):
        if thing is None or thing in (nan, zoo):
            return "unsure", f"{who} could not be read as mathematics"
    for thing, decimal in ((answer, asked.get("gold_decimal")), (gold, asked.get("answer_decimal"))):
        found = is_the_decimal(thing, decimal) if decimal is not None else None
        if found is not None:
            return found
    same = _agreed(gold, answer)
    if same is False:
        return "rejected", "not the same mathematics"
    both = [_verified(gold, answer), _verified(answer, gold)]
    if both == [False, False] and same is None:
        return ("unsure", UNKNOWN) if _have_values(gold, answer) else ("rejected", "not the same mathematics")
    if both != [True, True] and not (same is True and (True in both or _have_values(gold, answer))):
        return "unsure", "the same one way round only" if True in both else UNKNOWN
    return _unread(asked, gold, answer) or ("accepted", "the same mathematics")


def _have_values(gold: Any, answer: Any) -> bool:
    """Two expressions, or two equations: where their values at every point agree, that is the better opinion."""
    from sympy import Expr
    from sympy.core.relational import Relational

    return any(isinstance(gold, kind) and isinstance(answer, kind) for kind in (Expr, Relational))


def _unread(asked: dict[str, Any], gold: Any, answer: Any) -> tuple[str, str] | None:
    """What the texts say beside what was read and found equal, where that may make a difference."""
    lost = dropped(asked["gold"], gold) ^ dropped(asked["answer"], answer)
    one, two = (set(re.findall(r"[A-Za-z]", COMMAND.sub(" ", to_latex(asked[which])))) for which in ("gold", "answer"))
    lost |= {letter for letter in one ^ two if letter.swapcase() in (two if letter in one else one)}
    if lost:
        return "unsure", f"{', '.join(sorted(lost))} was not read, or not as a capital"
    if plain(asked["gold"]).count("'") != plain(asked["answer"]).count("'"):
        return "unsure", "one has more primes than the other"
    sets = [to_latex(asked[which]).startswith(r"\{") for which in ("gold", "answer")]
    pairs = [to_latex(asked[which]).startswith(("(", "[")) for which in ("gold", "answer")]
    if (sets[0] and pairs[1]) or (sets[1] and pairs[0]):
        return "unsure", "one is a set, and the other a pair or an interval"
    beside = [_beside(asked["gold"], gold), _beside(asked["answer"], answer)]
    if beside[0] and beside[1] and not beside[0] & beside[1]:
        return "unsure", f"it says {' '.join(sorted(beside[1]))}, and {' '.join(sorted(beside[0]))} is asked for"
    return None


def _agreed(gold: Any, answer: Any) -> bool | None:
    """Whether their values agree; None where sympy cannot work them out."""
    try:
        return agree(gold, answer)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - as below
        return None


def _verified(gold: Any, answer: Any) -> bool | None:
    """What math-verify says, this way round; None where it fails."""
    from math_verify import verify

    try:
        return bool(verify(gold, answer, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - sympy raises whatever its rules run into; that is no verdict on the answer
        return None


def answered(line: str) -> dict[str, str]:
    """The reply to one line; whatever goes wrong is a reason to be unsure."""
    try:
        outcome, reason = judged(json.loads(line))
    except MemoryError:
        outcome, reason = "unsure", "it needs more memory than is allowed"
    except RecursionError:
        outcome, reason = "unsure", "it is nested too deeply"
    except Exception as error:  # noqa: BLE001 - one answer's failure is that answer's verdict, not the child's end
        outcome, reason = "unsure", f"it could not be compared ({type(error).__name__})"
    return {"outcome": outcome, "reason": reason}


def serve(cpu_s: int, memory_mib: int) -> None:
    """Answer lines until there are no more."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no reply
    import logging

    import math_verify  # noqa: F401 - before the limit on memory, so that what it needs itself does not count as an answer's
    import sympy  # noqa: F401

    logging.disable(logging.CRITICAL)
    for what, limit in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_AS, memory_mib << 20)):
        with suppress(ValueError, OSError):  # macOS knows no limit of address space
            resource.setrlimit(what, (limit, limit))
    replies.write('{"ready": true}\n')
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        allowed = int(used.ru_utime + used.ru_stime) + 1 + cpu_s
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))
        replies.write(json.dumps(answered(line)) + "\n")


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
