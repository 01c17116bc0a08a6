"""Rows that can hardly teach or test anything: said beside the figures, for nothing is wrong with them in themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stillroom.rows import Array, Questions, Raw

FEW_TESTED = 10
"""Of fewer test rows no figure means anything: one row more or less right moves it by a tenth."""
NAMED = 5
"""So many classes or columns are named; of more it is said how many."""


def note_scarce(rows: Mapping[str, Questions], classes: Sequence[Any], notes: list[str]) -> None:
    """Say of labelled rows where a figure would mean nothing: hardly a test row, untested classes, constant columns."""
    tested, whole = len(rows["test"]), sum(map(len, rows.values()))
    if tested < FEW_TESTED:
        notes.append(f"{_rows(whole)}: {tested} of them to test on, so no figure of this run means anything")
    every_C, test_C = (
        np.bincount(np.concatenate(codes), minlength=len(classes))
        for codes in ([part.label_N[part.labelled_N] for part in rows.values()], [rows["test"].label_N])
    )
    untested = [
        f"{name} ({_rows(count)})" for name, count, there in zip(classes, every_C, test_C, strict=True) if not there
    ]
    if untested:
        notes.append(f"no test row is of class {_listed(untested)}: no figure tells of it")
    constant = _constant(rows["train"].raw)
    if constant:
        notes.append(f"one value in every training row, which says nothing: column {_listed(constant)}")


def _constant(raw: Raw) -> list[str]:
    """Names of the columns with a single value; those of an array are counted from 1. Images have none."""
    if isinstance(raw, dict):
        return [name for name, column in raw.items() if _is_constant(column)]
    return [str(place + 1) for place in range(raw.shape[1]) if _is_constant(raw[:, place])] if raw.ndim == 2 else []


def _is_constant(column: Array) -> bool:
    return bool((column == column[0]).all())


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
