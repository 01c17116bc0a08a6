"""Rows of small unsigned numbers, each in as many bits as it needs.

Field after field, each from its lowest bit, into bytes filled from their lowest bit: the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillroom.errors import WrongAnswer
from stillroom.rows import Array

MOST_BITS = 25
"""Of one field: with up to 7 bits before it, it still lies within one 32-bit word that starts at a byte."""


def packed_bytes(widths: Sequence[int]) -> int:
    """How many bytes a row of fields of these widths, in bits, takes."""
    return -(-sum(widths) // 8)


def pack(values_PF: Array, widths: Sequence[int]) -> Array:
    """Rows of unsigned numbers [P, F], field i below 2 ** widths[i], as bytes uint8 [P, R]; the last byte's rest is 0."""
    width_F = np.asarray(widths, np.int64)
    if len(width_F) and width_F.max() > MOST_BITS:
        raise WrongAnswer(f"a field of {width_F.max()} bits", where="bits.pack", cure=f"At most {MOST_BITS} fit")
    if not len(values_PF) or not width_F.sum():
        return np.zeros((len(values_PF), packed_bytes(widths)), np.uint8)
    value_PF = np.ascontiguousarray(values_PF, np.uint32)
    if (value_PF >> width_F.astype(np.uint32)).any():
        raise WrongAnswer("a number is too large for its field", where="bits.pack", cure="Check the layout's widths")
    owner_J = np.repeat(np.arange(len(width_F)), width_F)
    place_J = (np.arange(len(owner_J)) - np.repeat(np.cumsum(width_F) - width_F, width_F)).astype(np.uint32)
    bit_PJ = ((value_PF[:, owner_J] >> place_J) & np.uint32(1)).astype(np.uint8)
    return np.packbits(bit_PJ, axis=1, bitorder="little")


def unpack(packed_PR: Array, widths: Sequence[int]) -> Array:
    """What `pack` packed, uint32 [P, F]."""
    width_F = np.asarray(widths, np.int64)
    count, size = packed_PR.shape
    if size != packed_bytes(widths):
        raise WrongAnswer(
            f"records of {size} bytes where the layout has {packed_bytes(widths)}",
            where="bits.unpack",
            cure="Read them with the layout that wrote them",
        )
    start_F = np.cumsum(width_F) - width_F
    room_PR = np.zeros((count, size + 4), np.uint8)
    room_PR[:, :size] = packed_PR
    # A 32-bit word at every byte, as a view: a field is one of them, shifted and cut.
    word_PR = np.ndarray((count, size + 1), "<u4", room_PR, strides=(size + 4, 1))
    field_PF = word_PR[:, start_F // 8].astype(np.uint32, copy=False)
    field_PF >>= (start_F % 8).astype(np.uint32)
    field_PF &= ((np.int64(1) << width_F) - 1).astype(np.uint32)
    return field_PF
