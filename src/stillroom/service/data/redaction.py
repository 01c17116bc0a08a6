"""What must not be kept is blanked before a completion is stored: what matches the operator's regular expressions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from stillroom.errors import InputError
from stillroom.service.settings import Settings

BLANK = "[redacted]"
NAMES = ("id", "object", "model", "created", "system_fingerprint")
"""Fields that are ours or a teacher's, and no one's text."""


class Redaction:
    """Blanks texts. Raises InputError for a pattern that is none."""

    def __init__(self, patterns: tuple[str, ...] = ()) -> None:
        try:
            self._patterns = tuple(re.compile(one) for one in patterns)
        except re.error as error:
            raise InputError(
                f"{error.pattern!r} is no regular expression: {error}",
                where="--redact",
                cure="Mend it; Python's syntax is meant",
            ) from error

    def text(self, text: str) -> str:
        """One text."""
        for one in self._patterns:
            text = one.sub(BLANK, text)
        return text

    def pairs(self, pairs: Mapping[str, str]) -> dict[str, str]:
        """Metadata, keys and values: both are a client's words. Of keys that become one, the last one's value stays."""
        return {self.text(key): self.text(value) for key, value in pairs.items()}

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked."""
        return {key: part if key in NAMES else self._value(part) for key, part in request.items()}

    def answer(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """What was said. Log-probabilities spell the text out piece by piece, so they go where the text was changed."""
        if not self._patterns:
            return dict(response)
        choices = []
        for choice in response.get("choices", []):
            message = self._value(choice.get("message"))
            kept = self._value(choice.get("logprobs")) if message == choice.get("message") else None
            choices.append({**choice, "message": message, "logprobs": kept})
        return {**self.request({key: part for key, part in response.items() if key != "choices"}), "choices": choices}

    def _value(self, value: Any) -> Any:
        """A JSON value with its texts blanked; names of fields stay."""
        if not self._patterns:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(part) for part in value]
        return {key: self._value(part) for key, part in value.items()} if isinstance(value, dict) else value


def redaction_of(settings: Settings) -> Redaction:
    """What the operator wants blanked. Raises InputError."""
    return _made(settings.redact)


_made = lru_cache(maxsize=16)(Redaction)
