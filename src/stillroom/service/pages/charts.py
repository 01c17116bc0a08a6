"""The chart of losses as SVG and as a table: few enough points for a small page, however long the training was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from stillroom.service.pages.words import ROLES
from stillroom.service.rows.tables import events

MOST_POINTS, MOST_ROWS, MOST_SERIES = 1200, 12, 16
"""Points of all lines, rows of a table for each line, and lines."""
SIZES = {"wide": (640, 5), "narrow": (300, 3)}
"""How wide each drawing of the chart is, and the most numbers below it: a page shows the one whose letters it need not shrink."""
HIGH, LEFT, RIGHT, TOP, BOTTOM = 280, 46, 12, 26, 38
DASHES = {"student": "", "control": " dashed", "hard_teacher": " dotted", "teacher": ""}


@dataclass(frozen=True)
class Line:
    """One training: its name, whose it is, and its points (step, loss, loss on validation or None)."""

    name: str
    role: str
    points: list[tuple[float, float, float | None]]


def lines(rows: Connection, job_id: str) -> list[Line]:
    """The losses of a job's trainings with two points or more, in the order in which they began, each thinned out evenly."""
    ours = (events.c.job_id == job_id) & (events.c.type == "metrics")
    whose = func.json_extract(events.c.data, "$.model")
    # One row a training: ten thousand of them take longer to come out of the database than to be found.
    told = rows.execute(select(func.group_concat(events.c.number)).where(ours).group_by(whose)).scalars()
    numbers = [sorted(map(int, text.split(","))) for text in told]
    most = max(2, MOST_POINTS // max(1, len(numbers)))
    wanted = [number for all_of in numbers for number in all_of[:: -math.ceil(len(all_of) / most)]]
    kept = select(events.c.data).where(events.c.number.in_(wanted)).order_by(events.c.number)
    found: dict[str, list[tuple[float, float, float | None]]] = {}
    for data in rows.execute(kept).scalars():
        step, loss, checked = (data.get(name) for name in ("step", "train_loss", "valid_loss"))
        if isinstance(step, int | float) and isinstance(loss, int | float) and math.isfinite(loss):
            found.setdefault(str(data.get("model") or "training"), []).append((step, loss, checked))
    return [Line(name, role_of(name), points) for name, points in found.items() if len(points) > 1]


def chosen(found: list[Line]) -> list[Line]:
    """As many as a chart can hold: students before their teachers, and the latest of those."""
    if len(found) <= MOST_SERIES:
        return found
    order = sorted(range(len(found)), key=lambda place: (found[place].role == "teacher", -place))[:MOST_SERIES]
    return [found[place] for place in sorted(order)]


def role_of(name: str) -> str:
    """Whose training it is, by its name: "student, seed 0" is the student's."""
    first = name.replace("/", " ").replace(",", " ").split(" ")[0]
    return first if first in DASHES else "other"


def chart(found: list[Line]) -> dict[str, Any] | None:
    """What the template draws, once in each size; None where there is nothing to draw yet."""
    if not found:
        return None
    now = "; ".join(f"{line.name}: {line.points[-1][1]:.4g} at step {line.points[-1][0]:,.0f}" for line in found)
    drawings = [_drawing(found, size, *SIZES[size]) for size in SIZES]
    told = f"Loss by training step, {len(found)} lines. The last values: {now}."
    return {"drawings": drawings, "legend": _legend(found), "told": told}


def _drawing(found: list[Line], size: str, wide: int, most_numbers: int) -> dict[str, Any]:
    steps = [point[0] for line in found for point in line.points]
    losses = [point[1] for line in found for point in line.points]
    low, high = _round_range(min(losses), max(losses))
    last = max(steps)

    def x(step: float) -> float:
        return LEFT + (wide - LEFT - RIGHT) * step / (last or 1)

    def y(loss: float) -> float:
        return HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * (loss - low) / (high - low)

    drawn = [
        {
            "role": line.role, "name": line.name, "dash": DASHES.get(line.role, " dotted"),
            "points": " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss, _ in line.points),
            "x": round(x(line.points[-1][0]), 1), "y": round(y(line.points[-1][1]), 1),
        }
        for line in found
    ]  # fmt: skip
    across = [(round(x(value), 1), f"{value:,.0f}") for value in ticks(0, last, most_numbers)]
    up = [(round(y(value), 1), f"{value:.4g}") for value in ticks(low, high, 4)]
    return {
        "size": size, "lines": drawn, "across": across, "up": up, "wide": wide, "high": HIGH, "left": LEFT,
        "right": wide - RIGHT, "bottom": HIGH - BOTTOM,
    }  # fmt: skip


def _legend(found: list[Line]) -> list[tuple[str, str]]:
    """Role and words of each kind of line: several seeds look alike, and are named together."""
    several: dict[str, list[Line]] = {}
    for line in found:
        several.setdefault(line.role if line.role in DASHES else line.name, []).append(line)
    return [
        (
            same[0].role,
            same[0].name if len(same) == 1 else f"{ROLES.get(same[0].role, same[0].role)}, {len(same)} trainings",
        )
        for same in several.values()
    ]


def table(found: list[Line]) -> list[dict[str, Any]]:
    """Some points of each line, as rows."""
    return [
        {"name": line.name, "step": step, "loss": loss, "checked": checked}
        for line in found
        for step, loss, checked in spread(line.points, MOST_ROWS)
    ]


def spread(points: list[Any], most: int) -> list[Any]:
    """The first, the last, and evenly some between."""
    if len(points) <= most:
        return points
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers, about so many."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / wanted))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda one: abs((high - low) / one - wanted))
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_range(low: float, high: float) -> tuple[float, float]:
    """A range with some air, that begins at 0 where the values reach down to near it."""
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < 0.4 * high else low - air), high + air
