"""What came back for a request, and what to do: an answer, try again, leave the question unanswered, or stop.

A wrong key or an empty account stops at once: asking again would not mend it. Too many requests, a server's error and a
lost connection wait and try again. A question that the endpoint will not take is left unanswered, and the others go on.
Bodies of errors follow OpenAI's interface; where servers differ, what they say in words is looked at too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Any, Literal

SHOWN = 200
"""Characters of a server's own words that an error repeats."""
DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}$|-\d{4}$|-latest$|:latest$")
"""A model's name with the day of a snapshot after it."""
TOO_LONG = re.compile(
    r"context.{0,8}length|context.{0,12}(size|window)|too long|too many tokens|exceeds? the (available|maximum)|input length",
    re.IGNORECASE,
)
FILTERED = re.compile(r"content.?(filter|policy|management)|responsibleai|flagged|moderation", re.IGNORECASE)
HTML = re.compile(r"^\s*<(!doctype|html|head|body)", re.IGNORECASE)
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance")
PASSING = {408, 409, 425, 429}
"""Statuses below 500 that may be gone the next time."""
NOT_BILLED = {429, 503, 529}
"""Statuses of a request that may be tried again and was certainly not worked on."""


@dataclass(frozen=True)
class Outcome:
    """What to do about a response."""

    what: Literal["answer", "again", "unanswered", "stop"]
    why: str = ""
    cure: str = ""
    wait_s: float | None = None
    """Told by the server."""
    billed: bool = True
    """It was, or may have been."""
    body: Any = None
    """Of an answer: its JSON."""
    spoiled: bool = False
    """An answer came and is of no use; more than a few of them are not paid for."""
    html: bool = False
    """A page for people."""
    too_fast: bool = False
    """Refused for coming too fast."""
    lost: bool = False
    """No response at all."""
    absent: bool = False
    """Nothing takes a connection there."""


def judge(status: int, headers: Mapping[str, str], text: str, model: str, accepted: tuple[str, ...]) -> Outcome:
    """What to do about a response with this status and body."""
    failure = failed(status, headers, text)
    if failure is not None:
        return failure
    body = _json(text)
    if body is None:
        if HTML.match(text):
            return Outcome(
                "again", "the endpoint answers with a page of HTML instead of JSON",
                "Check teacher.base_url: it usually ends in /v1", spoiled=True, html=True,
            )  # fmt: skip
        return Outcome("again", "the answer is cut: it is no whole JSON", "Check the connection", spoiled=True)
    if not isinstance(body, dict):
        return Outcome("again", f"the answer is no object but {text[:40]!r}", "Check teacher.base_url", spoiled=True)
    if body.get("error") and not body.get("choices"):
        error = _error_in(body, text)
        found = error["code"] if isinstance(error["code"], int) and 400 <= error["code"] < 600 else 500
        return _failure(found, error, headers, told="an error in an answer with status 200: ")
    return _answer(body, model, accepted)


def failed(status: int, headers: Mapping[str, str], text: str) -> Outcome | None:
    """What to do about a response whose status is no success; None for one that is."""
    if 300 <= status < 400:
        return Outcome(
            "stop", f"the endpoint redirects to {headers.get('location', 'somewhere else')!r}, and texts go nowhere else",
            "Set teacher.base_url to the address that is meant, or look at the proxy", billed=False,
        )  # fmt: skip
    return None if status < 400 else _failure(status, _error_in(_json(text), text), headers)


def _answer(body: dict[str, Any], model: str, accepted: tuple[str, ...]) -> Outcome:
    """An answer's body, where it is one and from the model that was asked."""
    said = body.get("model")
    if isinstance(said, str) and not same_model(said, model, accepted):
        return Outcome(
            "stop", f"the answer is from the model {said!r}, and {model!r} was asked",
            f"Set teacher.model: {said}, or teacher.accept_model: [{said}] if they are the same", body=body,
        )  # fmt: skip
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or not isinstance(first.get("message"), dict):
        told = f"the answer holds no choice: {shortened(json.dumps(body))}"
        cure = "Check that teacher.base_url is an OpenAI-compatible endpoint, or ask its owner"
        return Outcome("again", told, cure, body=body, spoiled=True)
    return Outcome("answer", body=body)


def same_model(said: str, asked: str, accepted: tuple[str, ...]) -> bool:
    """True where an answer's model is the one asked, a dated snapshot of it, or a name the recipe accepts."""
    if said == asked or any(fnmatchcase(said, pattern) for pattern in accepted):
        return True
    return said.startswith(asked) and DATED.fullmatch(said[len(asked) :]) is not None


def usage_of(body: Any) -> tuple[int, int] | None:
    """Tokens read and written, as the endpoint counted them; None where it does not say."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts):
        return None
    return counts[0], counts[1]  # type: ignore[return-value]


def _failure(status: int, error: dict[str, Any], headers: Mapping[str, str], told: str = "") -> Outcome:
    """What to do about an error."""
    code, kind, message = str(error["code"] or ""), str(error["type"] or ""), error["message"]
    shown = f"{told}HTTP {status}{f' {code}' if code else ''}: {message}"
    words = f"{code} {kind} {message}"
    if code in NO_MONEY or kind in NO_MONEY or status == 402:
        return Outcome("stop", f"the account has no credit left: {shown}", "Add credit, and run again", billed=False)
    if status == 403 and FILTERED.search(words):
        return Outcome("unanswered", f"filtered: {shown}", billed=False)
    if status in (401, 403):
        return Outcome(
            "stop", f"the endpoint does not take the key: {shown}",
            "Check the environment variable that teacher.api_key_env names; a recipe without that knob sends a key to "
            "OpenAI's own endpoint alone, that of OPENAI_API_KEY", billed=False,
        )  # fmt: skip
    if status >= 500 or status in PASSING:
        wait_s = retry_after_s(headers)
        return Outcome(
            "again", shown, "Try again later", wait_s=wait_s, billed=status not in NOT_BILLED, too_fast=status == 429
        )
    if status in (400, 413, 422) and (code == "context_length_exceeded" or TOO_LONG.search(words)):
        return Outcome("unanswered", f"over the context: {shown}", billed=False)
    if status in (400, 422) and FILTERED.search(words):
        return Outcome("unanswered", f"filtered: {shown}", billed=False)
    if status == 404:
        return Outcome(
            "stop",
            f"there is no such model or address: {shown}",
            "Check teacher.model and teacher.base_url",
            billed=False,
        )
    return Outcome("stop", f"the endpoint does not take the request: {shown}", _cure_of(words), billed=False)


def _cure_of(words: str) -> str:
    """How to mend a request that an endpoint does not take."""
    if "max_completion_tokens" in words or "max_tokens" in words:
        return "Set teacher.limit_as to max_completion_tokens or max_tokens"
    for knob in ("temperature", "top_p", "seed", "logprobs"):
        if knob in words:
            return f"Take teacher.{knob} out, or set it to what the model takes"
    if "response_format" in words or "json_schema" in words:
        return "Set teacher.read: exact"
    return "Check teacher's knobs against what the endpoint takes"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _error_in(body: Any, text: str) -> dict[str, Any]:
    """Code, type and message of an error, wherever a server puts them."""
    found = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, str):
        found = {"message": found}
    if not isinstance(found, dict):
        found = {"message": "a page of HTML" if HTML.match(text) else text}
    message = found.get("message") or found.get("detail") or text
    return {"code": found.get("code"), "type": found.get("type"), "message": shortened(str(message))}


def shortened(words: str) -> str:
    """A server's own words on one line, not too many of them."""
    line = " ".join(words.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a server asks to wait: Retry-After as seconds or as an HTTP date, or OpenAI's retry-after-ms."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        told = headers.get(name)
        if told is None:
            continue
        try:
            wait_s = float(told) * scale
        except ValueError:
            wait_s = _until(told, now or datetime.now(UTC))
        if 0 <= wait_s < float("inf"):
            return wait_s
    return None


def _until(date: str, now: datetime) -> float:
    """Seconds from now to an HTTP date; negative for what is none."""
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return -1.0
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())
