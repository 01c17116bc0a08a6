"""What a teacher behind an API is asked: a row's columns in a template, labels with what they mean, a few examples.

A template names columns in braces, `{text}`; `{{` and `}}` are braces. Rows that are one array have a single column:
`text` where they are texts, `input` where they are numbers, written one after another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stillroom.errors import RecipeError, did_you_mean
from stillroom.rows import Array, Raw

FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
"""Codes of labels, in their order; each is one token in every vocabulary that texts are written in."""
Message = dict[str, str]


def columns_of(raw: Raw) -> dict[str, Array]:
    """The columns that a template may name."""
    if isinstance(raw, dict):
        return raw
    return {"text" if raw.ndim == 1 and raw.dtype.kind in "OU" else "input": raw}


def fields_of(template: str) -> list[str]:
    """The columns that a template names, in order."""
    return [found[1] for found in FIELD.finditer(template) if found[1] is not None]


def check_template(template: str, columns: Mapping[str, Any], where: str) -> None:
    """Raise RecipeError where a template names a column that is not there, or names none."""
    named = fields_of(template)
    if not named:
        raise RecipeError(
            "the prompt names no column, so every question would be the same",
            where=where,
            cure=f"Write a column in braces, such as {{{next(iter(columns))}}}",
        )
    wrong = next((name for name in named if name not in columns), None)
    if wrong is not None:
        raise RecipeError(f"the prompt names a column {wrong!r}", where=where, cure=did_you_mean(wrong, columns))


def filled(template: str, row: Mapping[str, Any]) -> str:
    """The template with the row's values in it."""
    return FIELD.sub(lambda found: found[0][0] if found[1] is None else told(row[found[1]]), template)


def prompts(template: str, raw: Raw) -> Iterator[str]:
    """One filled template a row, in order."""
    columns = columns_of(raw)
    named = list(dict.fromkeys(fields_of(template)))
    pieces = FIELD.split(template)  # literals, with the columns between them; None for a brace
    if all(piece is not None for piece in pieces):
        for values in zip(*(map(told, columns[name]) for name in pieces[1::2]), strict=True):
            pieces[1::2] = values
            yield "".join(pieces)
        return
    for values in zip(*(columns[name] for name in named), strict=True):
        yield filled(template, dict(zip(named, values, strict=True)))


def told(value: Any) -> str:
    """A value as a person would write it; whole numbers without a point, rows of numbers one after another."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return " ".join(told(one) for one in value.ravel().tolist())
    if isinstance(value, float | np.floating):
        number = float(value)
        if number != number:
            return ""
        if number.is_integer() and abs(number) < 1e15:
            return str(int(number))
        return f"{number:.7g}" if isinstance(value, np.float32) else repr(number)
    return "" if value is None else str(value)


def label_codes(labels: Sequence[str], read: str, codes: str) -> list[str]:
    """What the teacher is to write for each label: the label itself or, where log-probabilities are read, a letter."""
    if read != "logprobs" or codes == "words":
        return list(labels)
    if len(labels) > len(LETTERS):
        raise RecipeError(
            f"there is a letter for each of {len(LETTERS)} labels, and there are {len(labels)}",
            where="teacher.codes",
            cure="Set codes: words, or read: json",
        )
    return list(LETTERS[: len(labels)])


def instruction(labels: Mapping[str, str], codes: Sequence[str], read: str) -> str:
    """The system message that a recipe without one gets: the labels, what they mean, and how to answer."""
    lines = ["Choose the one label that fits best."]
    for (label, meaning), code in zip(labels.items(), codes, strict=True):
        named = label if code == label else f"{code} = {label}"
        lines.append(f"- {named}: {meaning}" if meaning else f"- {named}")
    how = "the label alone, exactly as it is written above"
    if read == "json":
        how = 'JSON alone: {"label": "..."}, with a label exactly as it is written above'
    elif list(codes) != list(labels):
        how = "its letter alone"
    return "\n".join([*lines, f"Answer with {how}."])


def label_schema(labels: Sequence[str]) -> dict[str, Any]:
    """`response_format` for an answer that is one of the labels."""
    label = {"type": "string", "enum": list(labels)}
    schema = {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}
