"""Random numbers that belong to a row: a hash of its content key, a purpose, a number and the place of the draw.

Nothing is stepped and nothing is kept, so a row rolls the same in any order, batch or process, and whatever stands
beside it. The hash is the finaliser of splitmix64 (Steele, Lea, Flood 2014). This file knows no image and no split.
"""

from __future__ import annotations

import zlib

import numpy as np

from stillroom.rows import Array

GOLDEN = 0x9E3779B97F4A7C15
WORD = 0xFFFFFFFFFFFFFFFF


def seeds(key_N: Array) -> Array:
    """The first 8 bytes of each content key [N, 16] as one number, uint64 [N]."""
    found: Array = np.ascontiguousarray(key_N[:, :8]).view("<u8")[:, 0]
    return found


def mix(word: Array) -> Array:
    """Scatter 64 bits: each bit of the result hangs on every bit of `word`."""
    word = word ^ (word >> np.uint64(30))
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word ^= word >> np.uint64(27)
    word *= np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return word


def draws(seed_N: Array, purpose: str, number: int, count: int) -> Array:
    """`count` draws for each row, uint64 [N, count]; another purpose or number gives unrelated ones."""
    start = np.array([(zlib.crc32(purpose.encode()) << 32 ^ number * GOLDEN) & WORD], np.uint64)
    row_N = mix(seed_N ^ mix(start))
    step = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return mix(row_N[:, None] + step)


def whole_numbers(draw: Array, count: int) -> Array:
    """Each draw as a whole number in 0..count-1, all equally likely (to 1 in 4 billion)."""
    found: Array = ((draw >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)
    return found


def normals(draw_NK: Array) -> Array:
    """Standard normal numbers from an even count K of draws a row (Box and Muller), float64 [N, K]."""
    half = draw_NK.shape[1] // 2
    uniform = ((draw_NK >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2 * np.log(uniform[:, :half]))
    angle = 2 * np.pi * uniform[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
