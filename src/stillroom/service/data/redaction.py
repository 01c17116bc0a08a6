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
METADATA = "metadata"
SPELLING = ("logprob", "probabilities", "token_ids", "output_ids", "input_ids")
"""In the names of fields that hold a text in pieces: logprobs, vLLM's prompt_logprobs, prompt_token_ids and token_ids, SGLang's
output_ids, llama.cpp's completion_probabilities.
"""
PIECES = "tokens"
"""The name of another such field; within a name it counts them."""


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

    def pairs(self, pairs: Mapping[str, Any]) -> dict[str, Any]:
        """Metadata, keys and values: both are a client's words. Of keys that become one, the last one's value stays."""
        return {self.text(key): self._value(value) for key, value in pairs.items()}

    def completion(
        self, request: Mapping[str, Any], response: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was asked and what was said. Log-probabilities and ids of tokens spell texts out piece by piece, so they go
        where anything but metadata was changed: a server may give those of the prompt too.
        """
        if not self.changes:
            return dict(request), dict(response)
        asked, said = self._fields(request), self._fields(response)
        both = ((request, asked), (response, said))
        if any({**one, METADATA: None} != {**kept, METADATA: None} for one, kept in both):
            asked, said = _without_spelling(asked), _without_spelling(said)
        return asked, said

    def _fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: part if key in NAMES else self._value(part) for key, part in given.items() if key != METADATA}
        pairs = given.get(METADATA)
        told = {METADATA: self.pairs(pairs) if isinstance(pairs, dict) else self._value(pairs)}
        return {**kept, **told} if METADATA in given else kept

    def _value(self, value: Any) -> Any:
        """A JSON value with its texts blanked; names of fields stay."""
        if not self.changes:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(part) for part in value]
        return {key: self._value(part) for key, part in value.items()} if isinstance(value, dict) else value


def _without_spelling(value: Any) -> Any:
    """A JSON value without the fields that hold a text in pieces, at any depth; a number or a switch is none."""
    if isinstance(value, list):
        return [_without_spelling(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        name: None if isinstance(part, dict | list | str) and _spells(name.casefold()) else _without_spelling(part)
        for name, part in value.items()
    }  # fmt: skip


def _spells(name: str) -> bool:
    return name == PIECES or any(word in name for word in SPELLING)


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
