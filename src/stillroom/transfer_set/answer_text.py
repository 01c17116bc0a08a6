"""An answer as it was written, without what is only typography: before it is compared as text, number or mathematics.

What `plain` does, in this order; nothing here changes a value:

    superscripts, subscripts and fractions of one sign become ^{2}, _{1} and 1/2, full-width letters and digits plain ones
    every dash and minus sign becomes -, every space one space, and a zero-width sign goes
    **bold**, `code`, $..$, \\(..\\), \\[..\\], \\boxed{..}, \\text{..}, \\mathrm{..}, \\left, \\right and LaTeX's spaces go
    signs become words of LaTeX or ASCII: × and ÷ are * and /, π is \\pi, ≤ is \\le, √ is \\sqrt, ∞ is \\infty
    a full stop, colon or comma at the end goes

This file knows no number and no mathematics.
"""

from __future__ import annotations

import re
import unicodedata

SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
SIGNS = {
    "×": "*", "⋅": "*", "·": "*", "∙": "*", "•": "*", "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "±": r"\pm ", "√": r"\sqrt ", "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "°": r"^\circ ",
    "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "∧": "^", "ℝ": r"\mathbb{R}", "¢": " cents ", "∼": "~",
}  # fmt: skip
DASHES = re.compile("[‐‑‒–—―−﹣－]")
SPACES = re.compile(r"[\s\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
UNSEEN = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
VULGAR = re.compile("[¼½¾⅐-⅞]")
WRAPPED = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|emph|displaystyle|operatorname)\s*\{"
)
LATEX_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:! ]|quad\b|qquad\b|displaystyle\b|limits\b|left(?![a-z])|right(?![a-z]))|(?<!\\)~"
)
LONGEST = 4000
"""Characters; a longer text is an essay and no answer."""


def plain(text: str) -> str:
    """The text without typography."""
    text = UNSEEN.sub("", text)
    text = VULGAR.sub(lambda found: _fraction(found[0]), text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: "^{" + found[0].translate(SUPER) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉₊₋]+", lambda found: "_{" + found[0].translate(SUB) + "}", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = DASHES.sub("-", unicodedata.normalize("NFKC", text))
    text = text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").replace(r"\cfrac", r"\frac")
    text = text.replace(r"\%", "%").replace("{,}", ",").replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}")
    text = re.sub(r"\\(?:times|cdot)(?![a-z])", "*", text).replace(r"\div", "/")
    text = unwrapped(_without_marks(text))
    text = SPACES.sub(" ", LATEX_SPACES.sub(" ", text)).strip()
    return text.rstrip(".,:; ").strip() if not text.endswith(("...", r"\ldots", r"\dots")) else text


def same_text(first: str, second: str, case: bool = False) -> bool:
    """The same after `plain`, spaces beside signs and brackets around all of it aside; capitals too, unless `case`."""
    one, two = (_canonical(text, case) for text in (first, second))
    return bool(one) and one == two


def balanced(text: str) -> bool:
    """Every brace of LaTeX is closed; a half-open interval's brackets need not match."""
    depth = 0
    for sign in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


def group_at(text: str, start: int) -> tuple[str, int]:
    """What stands between the brace at `start` and the one that closes it, and where the text goes on.

    A brace that is never closed holds all the rest.
    """
    depth, place = 0, start
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        place += 1
        if depth == 0:
            return text[start + 1 : place - 1], place
    return text[start + 1 :], len(text)


def unwrapped(text: str) -> str:
    """Without \\boxed, \\text and their like; what they held stays."""
    for _ in range(20):
        found = WRAPPED.search(text)
        if found is None:
            return text
        inner, after = group_at(text, found.end() - 1)
        text = f"{text[: found.start()]} {inner} {text[after:]}"
    return text


def is_words(text: str) -> bool:
    """It holds words alone: no digit, no sign of mathematics, and no letter that stands alone but A and I.

    Two letters are a product, such as ab, but for no.
    """
    if re.search(r"[\d\\^_=+*/<>%(){}\[\]|]|\b(?:infinity|inf|pi)\b", text, re.I):
        return False
    if not re.search(r"[^\W\d_]{3,}|^no$", text, re.I):
        return False
    return not re.search(r"(?<![\w'])[^\W\d_aAI](?![\w'])", text)


def _fraction(sign: str) -> str:
    return f" {unicodedata.normalize('NFKC', sign).replace('⁄', '/')} "


def _without_marks(text: str) -> str:
    text = re.sub(r"(?<![\w)\]}])\*\*(?=\S)(.+?)(?<=\S)\*\*", r" \1 ", text)
    text = re.sub(r"^\s*\*\*|\*\*\s*$", " ", text.strip()).replace("`", " ").strip()
    for start, end in ((r"\(", r"\)"), (r"\[", r"\]")):
        text = text.replace(start, " ").replace(end, " ")
    text = text.replace("$$", " ")
    closed = re.sub(r"(?<!\\)\$([^$]*?)(?<!\\)\$", r" \1 ", text)  # a pair is mathematics, a single one is money
    return closed.replace(r"\$", "$").strip()


def _canonical(text: str, case: bool) -> str:
    text = plain(text)
    if is_words(text.strip("\"'!?. ")):
        text = text.strip("\"'!?. ")
    text = re.sub(r"\s*([^\w\s\\])\s*", r"\1", text).strip('"')
    while text.startswith("(") and text.endswith(")") and "," not in text and text.count("(") == 1:
        text = text[1:-1]
    return text if case else text.casefold()
