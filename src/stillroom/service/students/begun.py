"""Generators that tidy up in their end: one that never began has no end, so it is brought to its first place at once."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Piece = TypeVar("Piece")


def begun(pieces: Generator[Piece]) -> Generator[Piece]:
    """A generator past its first yield, which says nothing: closed from here on, it does what its `finally` says."""
    next(pieces)
    return pieces
