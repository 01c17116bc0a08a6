"""What is known of teachers' terms: who may forbid, or bind, a student that learns from their answers.

This is no legal advice and no complete list. It says of a few providers and licences that their terms may matter, and where
they stand; what they say today, and whether a student falls under them, is for whoever runs the recipe to find out. So a
teacher that is known here is asked only where the recipe says who agreed to which version of the terms. An operator can
forbid teachers altogether: STILLROOM_FORBID_TEACHERS names hosts, models or licences, with * for anything, by commas.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from stillroom.errors import RecipeError
from stillroom.recipe import AcceptedTerms
from stillroom.teachers.addresses import host_of, within

FORBIDDEN = "STILLROOM_FORBID_TEACHERS"


@dataclass(frozen=True)
class Terms:
    """Of a provider or of a licence: how they are recognised, where they stand, and why they may matter."""

    name: str
    url: str
    why: str
    hosts: tuple[str, ...] = field(default=(), repr=False)
    words: str = field(default="(?!)", repr=False)
    """A regular expression that finds them in a licence or in a model's name."""


COMPETES = "they may forbid to use answers for developing a model that competes with the provider's"
KNOWN = (
    Terms(
        "OpenAI terms of use", "https://openai.com/policies/", COMPETES, ("openai.com", "openai.azure.com"),
        r"\bopenai terms\b|\b(chat)?gpt-[345]|\bchatgpt\b|(^|/)o[134](-(mini|preview|pro|deep-research)|-\d|$)",
    ),
    Terms(
        "Anthropic commercial terms", "https://www.anthropic.com/legal/commercial-terms", COMPETES, ("anthropic.com",),
        r"\banthropic\b.*\bterms\b|\bclaude\b",
    ),
    Terms(
        "Gemini API additional terms", "https://ai.google.dev/gemini-api/terms", COMPETES,
        ("generativelanguage.googleapis.com",), r"\bgemini\b",
    ),
    Terms(
        "Mistral AI terms", "https://legal.mistral.ai/terms", "they may restrict what models are developed with answers",
        ("mistral.ai",), r"\bmistral\b.*\b(terms|research licen[cs]e|non-production)\b",
    ),
    Terms("xAI terms", "https://x.ai/legal", COMPETES, ("x.ai",), r"\bxai terms\b|\bgrok\b"),
    Terms(
        "Gemma terms of use", "https://ai.google.dev/gemma/terms",
        "a student made to perform like the teacher from its answers may be a derivative model under the same terms",
        words=r"\bgemma",
    ),
    Terms(
        "Llama 2 or Llama 3 community licence", "https://www.llama.com/llama3/license/",
        "it may forbid to improve other language models with answers", words=r"\b(meta-)?llama-?[ _]?[23](?![\d.]*[.]\d)",
    ),
    Terms(
        "Llama community licence, 3.1 and later", "https://www.llama.com/license/",
        "a model improved with answers may have to be named after Llama and to carry its licence",
        words=r"\b(meta-)?llama-?[ _]?(3\.\d|[4-9])|\bllama community licen[cs]e\b",
    ),
    Terms(
        "a licence for non-commercial use", "https://creativecommons.org/licenses/by-nc/4.0/",
        "it may bind what a student is used for", words=r"\bcc[- ]by[- ]nc\b|\bnon-?commercial\b",
    ),
)  # fmt: skip


def known_terms(licence: str | None, base_url: str | None = None, model: str | None = None) -> list[Terms]:
    """What is known of a teacher's terms, by its host, its licence's words, and its model's name."""
    host = host_of(base_url) if base_url else ""
    words = [text.casefold() for text in (licence, model) if text]
    return [
        one
        for one in KNOWN
        if any(within(host, domain) for domain in one.hosts) or any(re.search(one.words, text) for text in words)
    ]


def check_terms(
    licence: str | None,
    base_url: str | None = None,
    accepted: AcceptedTerms | None = None,
    model: str | None = None,
    where: str = "teacher",
) -> dict[str, Any]:
    """{"licence", "terms", "accepted"}: what a transfer set and a student's card say of where their answers are from.

    Raises RecipeError for a teacher that the operator forbids, and for known terms that nobody said to have accepted.
    """
    _refuse_forbidden(licence, base_url, model, where)
    known = known_terms(licence, base_url, model)
    if known and accepted is None:
        told = "; ".join(f"{one.name}, {one.url}: {one.why}" for one in known)
        raise RecipeError(
            f"this teacher's terms may not allow this, or may bind the student ({told})",
            where=where,
            cure="Read them; where they allow it, add accept_terms: {who: .., when: YYYY-MM-DD, url: .., version: ..}",
        )
    return {
        "licence": licence or "unknown",
        "terms": [{key: value for key, value in asdict(one).items() if key in ("name", "url", "why")} for one in known],
        "accepted": None if accepted is None else accepted.model_dump(mode="json"),
    }


def _refuse_forbidden(licence: str | None, base_url: str | None, model: str | None, where: str) -> None:
    host = host_of(base_url) if base_url else ""
    named = [text.casefold() for text in (model, licence) if text]
    for pattern in filter(None, (part.strip().casefold() for part in os.environ.get(FORBIDDEN, "").split(","))):
        is_host = bool(host) and (within(host, pattern) or fnmatchcase(host, pattern))
        if is_host or any(fnmatchcase(text, pattern) for text in named):
            raise RecipeError(
                f"whoever runs this machine forbids this teacher: {pattern} is in {FORBIDDEN}",
                where=where,
                cure="Use another teacher, or ask them",
            )
