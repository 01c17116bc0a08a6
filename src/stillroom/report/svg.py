"""Escaped SVG elements, scales with round ticks, and one mark for each model.

Colours are never written here: elements carry classes, and page.css gives those a colour in either theme. This file
knows no scorecard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup, escape

from stillroom.report.words import Role

Attribute: TypeAlias = str | float | int | None


def el(name: str, *children: str, **attributes: Attribute) -> Markup:
    """One element, escaped. A `_` in an attribute is `-`, a trailing one is dropped; None is left out."""
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    head, body = f"{name}{''.join(parts)}", "".join(str(escape(child)) for child in children)
    return Markup(f"<{head}>{body}</{name}>" if body else f"<{head}/>")


def group(*children: str, **attributes: Attribute) -> Markup:
    """Several elements as one."""
    return el("g", *children, **attributes)


def text(x: float, y: float, words: str, anchor: str = "start", class_: str = "tick") -> Markup:
    """Words at a place."""
    return el("text", words, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def chart(ident: str, width: float, height: float, title: str, description: str, *children: str) -> Markup:
    """A whole chart, named and described for those who do not see it."""
    return el(
        "svg",
        el("title", title, id=f"{ident}-t"),
        el("desc", description, id=f"{ident}-d"),
        *children,
        class_="chart",
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        role="img",
        aria_labelledby=f"{ident}-t {ident}-d",
    )


def _plain(value: str | float | int) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Scale:
    """A stretch of numbers laid over a stretch of the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where the value lies; what is outside lies on the edge."""
        low, high, here = (
            math.log10(v) if self.log else v for v in (self.low, self.high, max(self.low, min(self.high, value)))
        )
        return self.start + (self.end - self.start) * ((here - low) / (high - low) if high > low else 0.5)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within, about so many."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, count)


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs((high - low) / step - count))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two positive numbers; with 2 and 5 where there is hardly one."""
    span = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**power for power in span if low <= 10.0**power <= high]
    if len(tens) >= 2:
        return tens[:: math.ceil(len(tens) / 6)]
    finer = [factor * 10.0**power for power in span for factor in (1, 2, 5)]
    within = [value for value in finer if low <= value <= high]
    return within[:: max(1, math.ceil(len(within) / 4))]


def around(values: Iterable[float], floor: float | None = None) -> tuple[float, float]:
    """The range of values with some air, not below the floor."""
    found = list(values)
    low, high = min(found), max(found)
    air = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = low - air, high + air
    return (low if floor is None else max(floor, low), high)


def log_around(values: Iterable[float]) -> tuple[float, float]:
    """The range of positive values with air on a logarithmic axis."""
    found = list(values)
    low, high = min(found), max(found)
    air = max((high / low) ** 0.1, 1.3)
    return low / air, high * air


LINE = 13
"""From one line of letters to the next."""


def frame(
    x: Scale,
    y: Scale,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    x_name: str,
    y_name: str,
    count: int = 4,
    x_below: Callable[[float], str] | None = None,
) -> Markup:
    """Grid, tick labels and axis names of a chart; the name of the vertical axis lies flat above it.

    `x_below`: what stands under each label of the horizontal axis, such as what it cost.
    """
    rows = [
        group(
            el("line", x1=x.start, x2=x.end, y1=y.at(value), y2=y.at(value), class_="grid"),
            text(x.start - 6, y.at(value) + 3.5, y_text(value), "end"),
        )
        for value in y.ticks(count)
    ]
    columns = [text(x.at(value), y.start + 15, x_text(value), "middle") for value in x.ticks(count)]
    if x_below is not None:
        columns += [text(x.at(value), y.start + 15 + LINE, x_below(value), "middle") for value in x.ticks(count)]
    name_at = y.start + 30 + (LINE if x_below is not None else 0)
    return group(
        *rows,
        el("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"),
        *columns,
        text(x.end, name_at, x_name, "end", "axis-name"),
        text(2, y.end - 10, y_name, class_="axis-name"),
    )


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A line through points."""
    return el("polyline", points=" ".join(f"{_plain(float(x))},{_plain(float(y))}" for x, y in points), class_=class_)


def css(role: Role) -> str:
    """The class that gives an element the colour of a model."""
    return f"c-{role.colour}"


def mark(role: Role, x: float, y: float, size: float = 4.5) -> Markup:
    """The mark of a model: its shape tells it from the others without colour."""
    class_ = f"mark {css(role)}{' hollow' if role.hollow else ''}"
    if role.shape == "circle":
        return el("circle", cx=x, cy=y, r=size, class_=class_)
    if role.shape == "square":
        return el("rect", x=x - size * 0.9, y=y - size * 0.9, width=size * 1.8, height=size * 1.8, class_=class_)
    corners = {
        "triangle": [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        "down": [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "hexagon": [(-0.6, -1.05), (0.6, -1.05), (1.2, 0), (0.6, 1.05), (-0.6, 1.05), (-1.2, 0)],
        "plus": [(-0.45, -1.2), (0.45, -1.2), (0.45, -0.45), (1.2, -0.45), (1.2, 0.45), (0.45, 0.45), (0.45, 1.2),
                 (-0.45, 1.2), (-0.45, 0.45), (-1.2, 0.45), (-1.2, -0.45), (-0.45, -0.45)],
    }[role.shape]  # fmt: skip
    points = " ".join(f"{_plain(x + size * dx)},{_plain(y + size * dy)}" for dx, dy in corners)
    return el("polygon", points=points, class_=class_)


def swatch(role: Role) -> Markup:
    """The mark of a model beside its name in a legend or a table; silent, for the name stands there."""
    return el("svg", mark(role, 7.0, 7.0, 5.0), class_="swatch", viewBox="0 0 14 14", aria_hidden="true")
