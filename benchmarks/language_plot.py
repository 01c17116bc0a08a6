"""Fidelity against bytes as a drawing that stands by itself, in a light and a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from stillroom.report.svg import Scale, el, frame, group, log_around, mark, path, text
from stillroom.report.words import Role, Shape

WIDTH, HEIGHT, LEGEND = 340.0, 250.0, 26.0
COLOURS: dict[str, tuple[str, str, Shape]] = {
    "student": ("#cc4a00", "#ff9950", "circle"),
    "teacher": ("#0a5591", "#7cc0f7", "square"),
    "hard_teacher": ("#0b8566", "#35b58d", "triangle"),
    "arm1": ("#a23a86", "#e08cc8", "diamond"),
}
PAPER, INK, QUIET, RULE = ("#ffffff", "#1b1f23"), ("#1c2024", "#ebe8e1"), ("#575c62", "#a8adb2"), ("#dfdbd0", "#343a40")
TICKS = (15, 30, 60, 120, 240, 400)


class Curve(NamedTuple):
    """A format, and (bytes, figure) of each size."""

    name: str
    points: Sequence[tuple[float, float]]


class _Scale(Scale):
    """A logarithmic axis with the ticks that bytes and nats are read at."""

    def ticks(self, count: int = 5) -> list[float]:
        wanted = TICKS if self.high > 50 else (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
        return [float(value) for value in wanted if self.low <= value <= self.high]


def _style() -> str:
    names = ("paper", "ink", "quiet", "rule")
    pairs = dict(zip(names, (PAPER, INK, QUIET, RULE), strict=True)) | {key: one[:2] for key, one in COLOURS.items()}
    light, dark = ("".join(f"--{name}:{pair[place]};" for name, pair in pairs.items()) for place in (0, 1))
    rules = "".join(f".c-{name}{{--c:var(--{name})}}" for name in COLOURS)
    return (
        f"svg{{{light}font-family:system-ui,'Segoe UI','Liberation Sans',Arial,sans-serif;font-variant-numeric:tabular-nums}}"
        f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}"
        ".paper{fill:var(--paper)}text{fill:var(--ink);font-size:12px}.tick,.axis-name{fill:var(--quiet);font-size:11.5px}"
        ".grid{stroke:var(--rule)}.axis{stroke:var(--quiet)}.line{fill:none;stroke:var(--c);stroke-width:2}"
        f".mark{{fill:var(--c);stroke:var(--paper)}}{rules}"
    )


def draw(panels: Mapping[str, Sequence[Curve]], target: Path) -> None:
    """Write the drawing: a panel for each figure, both axes logarithmic, one legend."""
    roles: dict[str, Role] = {}
    for curves in panels.values():
        for curve in curves:
            if curve.name not in roles:
                colour = list(COLOURS)[len(roles)]
                roles[curve.name] = Role(colour, curve.name, "", colour, COLOURS[colour][2])
    width, height = len(panels) * (WIDTH + 20) + 10, HEIGHT + LEGEND
    drawn = [
        group(_panel(name, curves, roles), transform=f"translate({place * (WIDTH + 20) + 10:g} {LEGEND:g})")
        for place, (name, curves) in enumerate(panels.items())
    ]
    told = "; ".join(
        f"{panel}, {curve.name}: " + ", ".join(f"{y:.3g} at {x:g} bytes" for x, y in curve.points)
        for panel, curves in panels.items()
        for curve in curves
    )
    whole = el(
        "svg",
        el("title", "How close kept distributions are to the teacher's, by bytes a position", id="t"),
        el("desc", told, id="d"),
        el("style", Markup(_style())),
        el("rect", width=width, height=height, class_="paper"),
        _legend(roles),
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_labelledby="t d",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(str(whole) + "\n")


def _legend(roles: Mapping[str, Role]) -> Markup:
    parts, x = [], 18.0
    for name, role in roles.items():
        parts += [mark(role, x, 14.0), text(x + 10, 18, name, class_="label")]
        x += 30 + 6.3 * len(name)
    return group(*parts)


def _panel(name: str, curves: Sequence[Curve], roles: Mapping[str, Role]) -> Markup:
    x_low, x_high = log_around(x for curve in curves for x, _ in curve.points)
    y_low, y_high = log_around(y for curve in curves for _, y in curve.points)
    x, y = _Scale(x_low, x_high, 44, WIDTH - 8, True), _Scale(y_low, y_high, HEIGHT - 40, 30, True)
    axes = frame(x, y, lambda v: f"{v:g}", lambda v: f"{v:g}", "bytes a position", name)
    drawn = []
    for curve in curves:
        role, points = roles[curve.name], [(x.at(a), y.at(b)) for a, b in curve.points]
        drawn += [path(points, f"line c-{role.colour}"), *(mark(role, a, b, 4.0) for a, b in points)]
    return group(axes, *drawn)
