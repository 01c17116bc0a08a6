"""What must not be kept is blanked before a completion is stored: what matches the operator's regular expressions, and
what a function of the operator's takes out.

Where that function fails, the whole text is blanked: nothing it has not seen is kept, and the answer goes out all the same.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from stillroom.errors import InputError
from stillroom.service.settings import Settings
from stillroom.service.watch.logs import log_error

Hook: TypeAlias = Callable[[str], str]

BLANK = "[redacted]"
OPTION, SAMPLE = "--redact-with", "Ann Example, ann@example.org"
NAMES = ("id", "object", "model", "created", "system_fingerprint")
"""Fields that are ours or a teacher's, and no one's text."""


class Redaction:
    """Blanks texts. Raises InputError for a pattern that is none."""

    def __init__(self, patterns: tuple[str, ...] = (), hook: Hook | None = None) -> None:
        self._hook = hook
        try:
            self._patterns = tuple(re.compile(one) for one in patterns)
        except re.error as error:
            raise InputError(
                f"{error.pattern!r} is no regular expression: {error}",
                where="--redact",
                cure="Mend it; Python's syntax is meant",
            ) from error

    @property
    def changes(self) -> bool:
        """There is anything to be blanked."""
        return bool(self._patterns) or self._hook is not None

    def text(self, text: str) -> str:
        """One text."""
        for one in self._patterns:
            text = one.sub(BLANK, text)
        return text if self._hook is None else self._hooked(self._hook, text)

    def _hooked(self, hook: Hook, text: str) -> str:
        try:
            return _as_text(hook(text))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, its text must not be kept
            log_error("redaction failed", error)
            return BLANK

    def pairs(self, pairs: Mapping[str, str]) -> dict[str, str]:
        """Metadata, keys and values: both are a client's words. Of keys that become one, the last one's value stays."""
        return {self.text(key): self.text(value) for key, value in pairs.items()}

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked."""
        return {key: part if key in NAMES else self._value(part) for key, part in request.items()}

    def answer(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """What was said. Log-probabilities spell the text out piece by piece, so they go where the text was changed."""
        if not self.changes:
            return dict(response)
        choices = []
        for choice in response.get("choices", []):
            message = self._value(choice.get("message"))
            kept = self._value(choice.get("logprobs")) if message == choice.get("message") else None
            choices.append({**choice, "message": message, "logprobs": kept})
        return {**self.request({key: part for key, part in response.items() if key != "choices"}), "choices": choices}

    def _value(self, value: Any) -> Any:
        """A JSON value with its texts blanked; names of fields stay."""
        if not self.changes:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(part) for part in value]
        return {key: self._value(part) for key, part in value.items()} if isinstance(value, dict) else value


def redaction_of(settings: Settings) -> Redaction:
    """What the operator wants blanked. Raises InputError."""
    return _made(settings.redact, settings.redact_with)


@lru_cache(maxsize=16)
def _made(patterns: tuple[str, ...], named: str) -> Redaction:
    return Redaction(patterns, loaded(named) if named else None)


def loaded(named: str) -> Hook:
    """The function that `module:function` names, tried on a text. Raises InputError."""
    module, _, name = named.partition(":")
    cure = "Name a function of a module that Python finds, module:function; it takes a text and returns one"
    try:
        hook: Hook = getattr(importlib.import_module(module), name)
        _as_text(hook(SAMPLE))
    except Exception as error:
        raise InputError(f"{named!r} redacts nothing: {error}", where=OPTION, cure=cure) from error
    return hook


def _as_text(found: object) -> str:
    if not isinstance(found, str):
        raise TypeError(f"it returns {type(found).__name__}, and no text")
    return found
