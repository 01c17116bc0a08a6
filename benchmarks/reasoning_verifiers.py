"""Verifiers, measured: wrong answers that they accept, right ones that they do not, and what neither of the two can be said of.

    python benchmarks/reasoning_verifiers.py [--golds N] [--made N]

Three sources. The known failures of the field are written by hand (tests/fixtures/verifier_cases.tsv), and the verifiers were
mended until they passed them; so they say that a failure is gone, and not how often others are met. The golds of GSM8K's test
part ($STILLROOM_DATA/gsm8k), and made algebraic ones, are spoiled and rewritten by rule: what is spoiled is wrong, and what
is rewritten is right, by construction and not by a verifier's word.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.reasoning_golds import made_golds
from benchmarks.results import Found, Row, Table
from stillroom.kinds import Verifier, parse

CASES = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "verifier_cases.tsv"
HANGS = "Math-Verify #65"
NOTE = (
    "Each answer has a truth that is known without a verifier. `math-verify alone` is `verify(parse(gold), parse(answer))` with "
    "its defaults, an answer that is no sentence put between dollar signs; the three powers that it never returns from are "
    "left out for it. It knows no third verdict, so what it cannot read counts as rejected. An upper bound is Clopper and "
    "Pearson's, 95 %, one-sided. The written cases were used while the verifiers were made; the other two sources were drawn "
    "anew afterwards."
)


@dataclass(frozen=True)
class Case:
    """One answer whose truth is known."""

    source: str
    truth: str
    """accepted: it is right; rejected: it is wrong; unsure: nobody could say, or there is no answer."""
    gold: str
    answer: str
    about: str
    verifier: str = "math"


def written() -> list[Case]:
    """The known failures of the field."""
    with open(CASES, newline="") as file:
        lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            Case("written", line["expect"], line["gold"], line["answer"], line["about"], line["kind"]) for line in lines
        ]


def spoiled_number(number: int, how: str, dice: Random) -> int | None:
    """Another number near a whole one; None where this way gives the same."""
    digits = list(str(abs(number)))
    place = dice.randrange(len(digits))
    if how == "a digit changed":
        digits[place] = dice.choice([one for one in "0123456789" if one != digits[place]])
    elif how == "off by one":
        return number + dice.choice((-1, 1))
    elif how == "sign":
        return -number if number else None
    elif how == "shuffled":
        dice.shuffle(digits)
    elif how == "a digit lost":
        digits.pop(place)
    elif how == "a digit more":
        digits.insert(place, dice.choice("0123456789"))
    else:
        return number * 10 if number else None
    found = int("".join(digits) or "0") * (-1 if number < 0 else 1)
    return None if found == number else found


SPOILED = ("a digit changed", "off by one", "sign", "shuffled", "a digit lost", "a digit more", "ten times")


def worn(number: int, dice: Random) -> str:
    """A whole number as an answer may say it."""
    plain = f"{number:,}" if dice.random() < 0.5 else str(number)
    sign, bare = ("-", plain[1:]) if number < 0 else ("", plain)
    return dice.choice(
        [
            plain, f"{sign}${bare}", f"{sign}\\${bare}.00", f"**{plain}**", f"\\boxed{{{plain}}}", f"${plain}$", f"{plain}.0",
            f"{plain} apples", f"\\text{{{plain}}}", f"x = {plain}", f"There are {plain} of them.", f"{plain}.",
            plain.replace("-", "−"), f"The answer is {plain}", f"{plain} miles per hour", f"\\frac{{{number * 2}}}{{2}}",
        ]
    )  # fmt: skip


def of_gsm8k(folder: Path, count: int, seed: int = 0) -> list[Case]:
    """Two wrong and one right answer to each of the first `count` golds."""
    dice = Random(seed)
    found: list[Case] = []
    for line in (folder / "test.jsonl").read_text().splitlines()[:count]:
        gold = json.loads(line)["answer"].rpartition("####")[2].strip()
        number = int(gold.replace(",", ""))
        for how in dice.sample(SPOILED, len(SPOILED))[:3]:
            wrong = spoiled_number(number, how, dice)
            if wrong is not None and len(found) % 3 != 2:
                found.append(Case("gsm8k", "rejected", gold, worn(wrong, dice), how))
        while len(found) % 3:
            found.append(Case("gsm8k", "accepted", gold, worn(number, dice), "written otherwise"))
    return found


def of_algebra(count: int, seed: int = 2) -> list[Case]:
    """A right and two wrong answers to each of `count` made golds."""
    found = []
    for gold in made_golds(count, seed):
        found.append(Case("algebra", "accepted", gold.text, gold.right, f"{gold.family}: written otherwise"))
        found += [
            Case("algebra", "rejected", gold.text, wrong, f"{gold.family}: {how}") for how, wrong in gold.wrong.items()
        ]
    return found


def judged(cases: Iterable[Case], told: Callable[[str], None] = lambda line: None) -> list[tuple[Case, str, str]]:
    """Each case with the outcome and its reason; a case of `numeric` is shown to `math` too."""
    verifiers: dict[str, Verifier] = {kind: parse("verifier", {"kind": kind}) for kind in ("exact", "numeric", "math")}
    found = []
    for case in cases:
        for kind in dict.fromkeys((case.verifier, "math" if case.verifier == "numeric" else case.verifier)):
            verdict = verifiers[kind].verify(case.answer, case.gold)
            found.append((case, verdict.outcome, verdict.reason))
            if verdict.outcome != case.truth and "unsure" not in (verdict.outcome, case.truth):
                told(f"{kind}: {case.truth} is {verdict.outcome}: {case.gold!r} and {case.answer!r} ({verdict.reason})")
    return found


def by_the_peer(cases: Iterable[Case]) -> list[tuple[Case, str, str]]:
    """The same by math-verify alone."""
    from math_verify import parse as read
    from math_verify import verify

    def between(text: str) -> str:
        prose = re.search(r"(?<!\\)\b[A-Za-z]{3,}", text) and "\\" not in text
        return text if prose or "$" in text or "\\boxed" in text else f"${text}$"

    return [
        (case, "accepted" if verify(read(between(case.gold)), read(between(case.answer))) else "rejected", "")
        for case in cases
        if not case.about.startswith(HANGS)
    ]


def upper_bound(hits: int, count: int) -> float:
    """The largest rate at which so few hits of `count` still happen in 5 % of draws."""
    from scipy.stats import beta

    return float(beta.ppf(0.95, hits + 1, count - hits)) if hits < count else 1.0


def line_of(who: str, source: str, found: list[tuple[Case, str, str]]) -> list[Any]:
    """One row of the table."""
    counts = Counter((case.truth, outcome) for case, outcome, _ in found)
    right, wrong, open_ones = (sum(n for (truth, _), n in counts.items() if truth == one) for one in TRUTHS)
    return [
        who, source, wrong, counts["rejected", "accepted"], upper_bound(counts["rejected", "accepted"], wrong),
        counts["rejected", "unsure"], right, counts["accepted", "accepted"] / right, counts["accepted", "rejected"],
        counts["accepted", "unsure"], open_ones, counts["unsure", "accepted"],
    ]  # fmt: skip


TRUTHS = ("accepted", "rejected", "unsure")
COLUMNS = [
    "verifier", "answers", "wrong", "of them accepted", "rate at most", "of them unsure", "right", "recall",
    "of them rejected", "of them unsure", "neither", "of them accepted",
]  # fmt: skip


def measure(
    data: Path | None,
    golds: int = 1319,
    made: int = 400,
    every: int = 1,
    told: Callable[[str], None] = lambda line: None,
) -> Row:
    """The bar `verifier-false-accepts`, and the table of what each verifier said.

    `data`: the folder with gsm8k/ in it. `every`: 10 looks at each tenth answer of every source, for a quick run.
    """
    sources: Mapping[str, list[Case]] = {
        "the field's failures": written(),
        "GSM8K golds": of_gsm8k(data / "gsm8k", golds) if data is not None else [],
        "made algebra": of_algebra(made),
    }
    lines: list[list[Any]] = []
    whole: list[tuple[Case, str, str]] = []
    for source, all_cases in sources.items():
        cases = all_cases[::every]
        if not cases:
            continue
        found = judged(cases, told)
        whole += found
        lines.append(line_of("ours", source, found))
        told(f"{source}: {len(found)} judged")
        lines.append(line_of("math-verify alone", source, by_the_peer(cases)))
    wrong = [one for one in whole if one[0].truth == "rejected"]
    accepted = [one for one in wrong if one[1] == "accepted"]
    right = [one for one in whole if one[0].truth == "accepted"]
    recall = Fraction(sum(one[1] == "accepted" for one in right), len(right))
    why = f"recall {float(recall):.4f} of {len(right):,} right answers; " + (
        "; ".join(f"{case.gold} and {case.answer}" for case, *_ in accepted[:5]) or "none was accepted"
    )
    bar = Found(float(len(accepted)), n=f"{len(wrong):,} wrong answers", why=why)
    table = Table("Verifiers: what they say of answers whose truth is known", COLUMNS, lines, NOTE)
    return Row({"verifier-false-accepts": bar}, {"verifiers": table})


def main() -> None:
    """Measure, and print."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--golds", type=int, default=1319)
    reader.add_argument("--made", type=int, default=400)
    chosen = reader.parse_args()
    given = os.environ.get("STILLROOM_DATA")
    row = measure(Path(given) if given else None, chosen.golds, chosen.made, told=lambda line: print(line, flush=True))
    print(row.bars["verifier-false-accepts"])
    for line in [COLUMNS, *row.tables["verifiers"].rows]:
        print(" | ".join(f"{cell:.5f}" if isinstance(cell, float) else str(cell) for cell in line))


if __name__ == "__main__":
    main()
