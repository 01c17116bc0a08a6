"""What an answer says: a label, a distribution over labels, or why it is neither. Pure functions of a response's JSON.

Labels are read exactly, from JSON, or from log-probabilities of what each label is written as. An answer that is no label
is kept apart with its reason; it is never taken for the label that looks most like it.

From the likeliest tokens of a position, three estimates of the distribution over labels (their bias is measured in
docs/explanation/soft-targets-from-an-api.md):
  renormalised  the labels seen share the whole mass; a label not among the tokens has none. Biased: too sure.
  bucket        the mass of all tokens not seen is one bucket, which the labels not seen share evenly, each at most with the
                rarest token seen: it cannot be likelier, or it would have been seen.
  sampled       shares of labels among several sampled answers. Unbiased, and as coarse as the samples are few.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Estimator = Literal["renormalised", "bucket", "sampled"]
AROUND = " \t\r\n\"'`*_.:;,!()[]"
"""What an answer may have around a label without being another one."""
EXCUSE = re.compile(
    r"^\W*(i'?m sorry|i am sorry|sorry|i apologi[sz]e|i can ?not|i can'?t|i'?m (unable|not able)|i am (unable|not able)|"
    r"i won'?t|as an (ai|assistant|language model)|unfortunately)\b",
    re.IGNORECASE,
)
FENCED = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)
SHORTEST_PIECE = 2
"""Letters of a token that is the beginning of a label; a single one may begin anything."""


CURES = {
    "over the context": "Shorten the prompt, its examples or the texts, or ask a model with a longer context",
    "filtered": "The endpoint's filter does not let them through: look at the prompt and the texts",
    "cut": "Raise teacher.max_tokens",
}
"""How to mend what all answers have in common, by its reason."""


@dataclass(frozen=True)
class Refusal:
    """Why an answer gives no label: refused, filtered, cut, invented, unreadable or failed, and its text."""

    reason: str
    text: str = ""

    @property
    def cure(self) -> str:
        """Where to look when every answer is like this."""
        return CURES.get(self.reason, "Look at the prompt, the labels and teacher.read")


@dataclass(frozen=True)
class Sample:
    """One sampled text with what it cost; `thought` is what some endpoints give apart from the answer."""

    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int
    usd: float
    logprobs: list[dict[str, Any]] | None = None
    thought: str = ""


def choice_of(body: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """Text, finish reason and message of an answer's first choice."""
    choice = body["choices"][0]
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list):  # parts, as some servers give them
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or ""), str(choice.get("finish_reason") or "stop"), message


def refusal_of(body: Mapping[str, Any], whole: bool = True) -> Refusal | None:
    """Why an answer is none, before its words are looked at; `whole`: one that was cut is none either."""
    text, finish, message = choice_of(body)
    if message.get("refusal"):
        return Refusal("refused", str(message["refusal"]))
    if finish == "content_filter":
        return Refusal("filtered", text)
    if whole and finish == "length":
        return Refusal("cut", text)
    return None


def read_exact(body: Mapping[str, Any], words: Sequence[str]) -> int | Refusal:
    """The place of the label that an answer is."""
    refusal = refusal_of(body)
    return refusal if refusal is not None else _place(choice_of(body)[0], words)


def read_json(body: Mapping[str, Any], words: Sequence[str]) -> int | Refusal:
    """The place of the label in an answer such as {"label": "spam"}; a fence of Markdown around it is taken off."""
    refusal = refusal_of(body)
    if refusal is not None:
        return refusal
    text = choice_of(body)[0]
    fenced = FENCED.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return Refusal("refused" if EXCUSE.match(text) else "unreadable", text)
    if isinstance(value, dict) and "label" in value:
        value = value["label"]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return Refusal("unreadable", text)
    return _place(str(value), words)


def _place(said: str, words: Sequence[str]) -> int | Refusal:
    plain = said.strip(AROUND)
    if said.strip() in words:
        return list(words).index(said.strip())
    same = [place for place, word in enumerate(words) if word == plain]
    same = same or [place for place, word in enumerate(words) if word.strip(AROUND).casefold() == plain.casefold()]
    if len(same) == 1:
        return same[0]
    if not plain:
        return Refusal("unreadable", said)
    return Refusal("refused" if EXCUSE.match(said) else "invented", said)


def read_distribution(
    body: Mapping[str, Any], words: Sequence[str], estimator: Estimator, top: int, least: float = 0.0
) -> list[float] | Refusal:
    """Probabilities over the labels from the likeliest tokens of an answer, by an estimator; their sum is 1. Of the mass of the
    tokens told, labels have more than the share `least`, or the answer is none.
    """
    refusal = refusal_of(body, whole=False)
    if refusal is not None:
        return refusal
    text = choice_of(body)[0]
    found = (body["choices"][0].get("logprobs") or {}).get("content")
    if not isinstance(found, list) or not found:
        return Refusal("unreadable", "the endpoint gives no log-probabilities")
    seen, rest, rarest = _masses(found, words, top)
    if not sum(seen.values()) > least * (1.0 - rest):
        return Refusal("refused" if EXCUSE.match(text) else "invented", text)
    return estimate(seen, rest, rarest, len(words), estimator)


def estimate(seen: Mapping[int, float], rest: float, rarest: float, labels: int, estimator: Estimator) -> list[float]:
    """Probabilities [C] from the masses of the labels seen, that of all tokens not seen, and that of the rarest seen."""
    share = 0.0
    if estimator == "bucket" and len(seen) < labels:
        share = min(max(0.0, rest) / (labels - len(seen)), rarest)
    masses = [seen.get(place, share) for place in range(labels)]
    total = sum(masses)
    return [mass / total for mass in masses]


def _masses(
    found: Sequence[Mapping[str, Any]], words: Sequence[str], top: int
) -> tuple[dict[int, float], float, float]:
    """The mass of each label that is seen, of all tokens that are not, and of the rarest token seen.

    A token stands for the labels that it is the beginning of. Where the answer itself goes on from one that several labels
    begin with, the next position parts them. Of any other such token nobody knows the next position, and its mass is shared
    evenly among its labels: left out, it would go to the label that won.
    """
    seen: dict[int, float] = {}
    open_to, before, reached = list(range(len(words))), "", 1.0
    first_rest, first_rarest = 0.0, 0.0
    for position, one in enumerate(found):
        tokens, chosen = _tokens(one, top), str(one.get("token", ""))
        if position == 0:
            first_rest, first_rarest = 1.0 - sum(tokens.values()), min(tokens.values(), default=0.0)
        for token, p in tokens.items():
            places = _begun(before + token, words, open_to)
            if len(places) == 1 or token != chosen:
                _share(seen, places, before + token, reached * p)
        before, open_to = before + chosen, _begun(before + chosen, words, open_to)
        reached *= tokens.get(chosen, 0.0)
        if len(open_to) < 2:
            break
    if seen and len(open_to) > 1:  # the answer ends before they part
        _share(seen, open_to, before, reached)
    return seen, first_rest, first_rarest


def _share(seen: dict[int, float], places: Sequence[int], text: str, mass: float) -> None:
    """Add a mass evenly to the labels that a text begins; blanks and quotes may begin any, and say nothing."""
    for place in places if text.strip(AROUND) else ():
        seen[place] = seen.get(place, 0.0) + mass / len(places)


def _begun(text: str, words: Sequence[str], places: Sequence[int]) -> list[int]:
    """The labels that a text is, or is the beginning of."""
    plain = text.lstrip(AROUND)
    whole = [place for place in places if words[place] == plain.rstrip(AROUND)]
    if whole or not plain:
        return whole or list(places)
    folded = plain.casefold()
    # Not of a single letter: an answer that begins with the word "a" is not the letter A.
    whole = [place for place in places if len(words[place]) > 1 and words[place].casefold() == folded.rstrip(AROUND)]
    if len(plain) < SHORTEST_PIECE:
        return whole
    return whole or [place for place in places if words[place].casefold().startswith(folded)]


def _tokens(one: Mapping[str, Any], top: int) -> dict[str, float]:
    """Probability of each token that a position tells, the one chosen among them."""
    told = one.get("top_logprobs")
    listed = list(told)[:top] if isinstance(told, list) else []
    found: dict[str, float] = {}
    for each in [*listed, one]:
        log_p, token = each.get("logprob"), each.get("token")
        if isinstance(log_p, int | float) and isinstance(token, str) and token not in found:
            found[token] = math.exp(min(0.0, log_p))
    return found


def shares(places: Sequence[int], labels: int) -> list[float]:
    """The sampled estimate: each label's share among the answers that were one; their sum is 1."""
    counts = Counter(places)
    return [counts[place] / len(places) for place in range(labels)]


def sample_of(body: Mapping[str, Any], tokens: tuple[int, int], usd: float) -> Sample:
    """A sampled text as it came."""
    text, finish, message = choice_of(body)
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    found = (body["choices"][0].get("logprobs") or {}).get("content")
    return Sample(text, finish, *tokens, usd, found if isinstance(found, list) else None, str(thought))
