"""Fields of a few bits each come back as they were, from the same bytes on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from stillroom.errors import WrongAnswer
from stillroom.rows import Array
from stillroom.transfer_set.bits import MOST_BITS, pack, packed_bytes, unpack


def naive(values: list[int], widths: list[int]) -> bytes:
    """One whole number, each field above those before it, written from its lowest byte."""
    number, place = 0, 0
    for value, width in zip(values, widths, strict=True):
        number |= value << place
        place += width
    return number.to_bytes(-(-place // 8), "little")


def drawn(rows: int, widths: list[int], seed: int) -> Array:
    roll = np.random.default_rng(seed)
    return np.stack([roll.integers(0, 1 << width, rows) for width in widths], 1)


@pytest.mark.parametrize("seed", range(20))
def test_any_widths_come_back_and_equal_whole_number_arithmetic(seed: int) -> None:
    roll = np.random.default_rng(100 + seed)
    widths = roll.integers(0, MOST_BITS + 1, roll.integers(1, 60)).tolist()
    values = drawn(7, widths, seed)
    packed = pack(values, widths)
    assert packed.shape == (7, packed_bytes(widths))
    assert [row.tobytes() for row in packed] == [naive(row.tolist(), widths) for row in values]
    np.testing.assert_array_equal(unpack(packed, widths), values)


def test_the_largest_numbers_fit_at_every_place_in_a_byte() -> None:
    for first in range(1, 9):
        widths = [first, MOST_BITS, 1, MOST_BITS]
        values = np.array([[(1 << width) - 1 for width in widths], [0, (1 << MOST_BITS) - 1, 0, 1]])
        np.testing.assert_array_equal(unpack(pack(values, widths), widths), values)


def test_known_bytes() -> None:
    assert pack(np.array([[1, 0b101, 0x1234]]), [1, 3, 16])[0].tolist() == [0x4B, 0x23, 0x01]


def test_rows_of_a_map_that_are_not_contiguous() -> None:
    widths = [3, 16, 5]
    values = drawn(6, widths, 1)
    wide = np.zeros((6, 11), np.uint8)
    wide[:, 4:7] = pack(values, widths)
    np.testing.assert_array_equal(unpack(wide[::2, 4:7], widths), values[::2])


def test_no_rows_and_no_fields() -> None:
    assert pack(np.zeros((0, 2), int), [3, 9]).shape == (0, 2)
    assert unpack(np.zeros((0, 2), np.uint8), [3, 9]).shape == (0, 2)
    assert pack(np.zeros((4, 0), int), []).shape == (4, 0)
    assert unpack(np.zeros((4, 0), np.uint8), []).shape == (4, 0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(WrongAnswer, match="too large"):
        pack(np.array([[8]]), [3])
    with pytest.raises(WrongAnswer, match="too large"):
        pack(np.array([[-1]]), [3])
    with pytest.raises(WrongAnswer, match="26 bits"):
        pack(np.array([[0]]), [26])
    with pytest.raises(WrongAnswer, match="2 bytes"):
        unpack(np.zeros((1, 2), np.uint8), [3])
