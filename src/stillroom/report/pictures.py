"""Matrices as heat maps, soft targets as bars, and pixels as an inline PNG.

This file knows no scorecard; it is handed numbers and names.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from stillroom.report.numbers import number, percent, significant
from stillroom.report.svg import chart, css, el, text
from stillroom.report.words import Role

Matrix = Sequence[Sequence[float]]
MOST_CLASSES = 20
"""A matrix of more classes than this is a grey blur; the classes that are most alike are shown."""
MOST_BARS = 10
MOST_PAIRS = 4


def off_diagonal(matrix: Matrix) -> list[tuple[float, int, int]]:
    """What a matrix says of each pair of different classes, with row and column."""
    return [(value, i, j) for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j]


def shown_classes(matrix: Matrix) -> list[int]:
    """Which classes a heat map shows: all, or those in the most alike pairs, in their order."""
    if len(matrix) <= MOST_CLASSES:
        return list(range(len(matrix)))
    found: dict[int, None] = {}
    for _, i, j in sorted(off_diagonal(matrix), reverse=True):
        for place in (i, j):
            if len(found) < MOST_CLASSES:
                found[place] = None
    return sorted(found)


def alike(matrix: Matrix, names: Sequence[str]) -> list[str]:
    """The most alike pairs of different classes, strongest first; a pair is named once."""
    pairs: dict[frozenset[int], tuple[float, int, int]] = {}
    for value, i, j in sorted(off_diagonal(matrix), reverse=True):
        pairs.setdefault(frozenset((i, j)), (value, i, j))
    return [f"{names[i]} and {names[j]}" for value, i, j in list(pairs.values())[:MOST_PAIRS] if value > 0]


def heat(
    ident: str,
    title: str,
    matrix: Matrix,
    names: Sequence[str],
    classes: Sequence[int],
    ends: tuple[float, float],
) -> Markup:
    """A matrix as shades between two ends; the diagonal is left out, for it would drown the rest."""
    least, most = ends
    count = len(classes)
    longest = max(len(short(names[place])) for place in classes)
    left, top, side = 8.0 + 6.2 * longest, 22.0, 200.0
    cell = side / count
    drawn = []
    for down, i in enumerate(classes):
        middle = top + cell * (down + 0.5)
        drawn.append(text(left - 5, middle + 3.5, short(names[i]), "end"))
        here = left + cell * (down + 0.5)
        if longest <= 2 or count <= 4:
            drawn.append(text(here, top - 6, short(names[i]), "middle"))
        for across, j in enumerate(classes):
            place = {
                "x": left + cell * across + 0.5,
                "y": top + cell * down + 0.5,
                "width": cell - 1,
                "height": cell - 1,
            }
            if i == j:
                drawn.append(el("rect", class_="cell same", **place))
                continue
            shade = math.sqrt(max(0.0, matrix[i][j] - least) / (most - least)) if most > least else 0.0
            hint = el("title", f"{names[i]} taken for {names[j]}: {significant(matrix[i][j], 2)}")
            drawn.append(el("rect", hint, class_="cell", fill_opacity=min(1.0, shade), **place))
    pairs = alike(matrix, names)
    words = f"Most alike: {'; '.join(pairs)}." if pairs else "No two classes are alike."
    back = el("rect", x=left, y=top, width=side, height=side, class_="paper")
    return chart(ident, left + side + 4, top + side + 4, title, words, back, *drawn)


def short(name: str) -> str:
    """A name that fits beside a bar."""
    return name if len(name) <= 11 else f"{name[:10]}…"


def bar_classes(rows: Sequence[Sequence[float]], label: int | None, least: float) -> list[int]:
    """The classes worth a bar: the label, and what any row gives at least `least`; not too many, in their order."""
    ranked = sorted(range(len(rows[0])), key=lambda place: -max(row[place] for row in rows))
    first = [label] if label is not None else ranked[:1]
    others = [place for place in ranked if place not in first and max(row[place] for row in rows) >= least]
    return sorted({*first, *others[: MOST_BARS - len(first)]})


def warmed(row: Sequence[float], temperature: float) -> list[float]:
    """Probabilities at another temperature, as a student that is trained at it sees them."""
    logs = [math.log(value) / temperature if value > 0 else -math.inf for value in row]
    raised = [math.exp(value - max(logs)) for value in logs]
    return [value / sum(raised) for value in raised]


def soft_bars(
    ident: str,
    title: str,
    series: Sequence[tuple[Role, Sequence[float]]],
    names: Sequence[str],
    classes: Sequence[int],
    label: int | None,
    wide: float = 340.0,
    dot: str = "the label",
    letters: int = 0,
) -> Markup:
    """For each class a bar for each model, with its share in figures; the label is marked with a dot.

    Names take the room of the longest, or of so many letters, so that charts side by side have one scale.
    """
    thick = 12.0 if len(series) > 1 else 14.0
    step = thick * len(series) + 8
    left = 20.0 + 7.3 * max(letters, *(len(short(names[place])) for place in classes))
    width = wide - 50.0 - left
    drawn, words = [], []
    for down, place in enumerate(classes):
        top = step * down + 2
        middle = top + thick * len(series) / 2
        right = place == label
        drawn.append(text(left - 6, middle + 4, short(names[place]), "end", "label strong" if right else "label"))
        if right:
            drawn.append(el("circle", el("title", dot), cx=4, cy=middle, r=3, class_="mark c-ink"))
        for across, (role, row) in enumerate(series):
            here, long = top + thick * across, width * max(0.0, min(1.0, row[place]))
            shape = f"bar {css(role)}"
            drawn.append(el("rect", x=left, y=here + 1, width=max(0.8, long), height=thick - 2, rx=1, class_=shape))
            drawn.append(text(left + long + 4, here + thick / 2 + 4, _share(row[place]), class_="tiny"))
        drawn.append(el("line", x1=left, x2=left, y1=top - 2, y2=top + thick * len(series) + 2, class_="axis"))
    for role, row in series:
        best = sorted(((row[place], names[place]) for place in classes), reverse=True)[:3]
        words.append(f"{role.title}: {', '.join(f'{name} {_share(share)}' for share, name in best)}")
    marked = f" {dot[0].upper()}{dot[1:]} is {names[label]}." if label is not None else ""
    return chart(ident, wide, step * len(classes), title, f"{'; '.join(words)}.{marked}", *drawn)


def _share(value: float) -> str:
    if value <= 0:
        return "0"
    if value < 0.001:
        return "<0.1%"
    return percent(value, 0 if value >= 0.0995 else 1)


def png(pixels: Any) -> str | None:
    """Pixels of 0 to 255, [H][W] or [H][W][3], as a data URI; None for what is no picture."""
    rows = [list(row) for row in pixels] if isinstance(pixels, list | tuple) and pixels else []
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        return None
    grey = not isinstance(rows[0][0], list | tuple)
    channels = 1 if grey else 3
    data = bytearray()
    for row in rows:
        data.append(0)
        for pixel in row:
            values = [pixel] if grey else list(pixel)
            if len(values) == 1 and channels == 3:
                values = values * 3
            shades = [number(value) for value in values[:channels]]
            if len(shades) < channels or any(shade is None for shade in shades):
                return None
            data += bytes(max(0, min(255, round(shade))) for shade in shades if shade is not None)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0 if grey else 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(data), 9)), (b"IEND", b"")]
    whole = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)
    return f"data:image/png;base64,{base64.b64encode(whole).decode()}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
