"""The charts of the report: curves, intervals, bars, size, calibration, entropy. Each gives one inline SVG.

A chart is 340 units wide, so its letters stay readable on a telephone. This file knows no scorecard; it is handed
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from stillroom.report import svg
from stillroom.report.numbers import Stat, percent, significant
from stillroom.report.svg import Scale, chart, css, el, frame, group, mark, path, text
from stillroom.report.words import Role, join

WIDTH = 340.0
Point = tuple[float, float]
MOST_POINTS = 120
"""More points than this on one line cannot be told apart; the line keeps its ends and shape."""
LOG_FROM = 30.0
"""A positive range of more than this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Runs:
    """The lines of one model, one for each seed."""

    role: Role
    runs: Sequence[Sequence[Point]]
    intervals: Sequence[tuple[float, float, float]] = ()
    """Where something is known to lie at a place: the place, and both ends."""


def _thin(points: Sequence[Point]) -> list[Point]:
    if len(points) <= MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(place * step)] for place in range(MOST_POINTS)]


def _middle(runs: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of runs that were measured at the same steps; empty for others."""
    steps = [[x for x, _ in run] for run in runs]
    if any(found != steps[0] for found in steps):
        return []
    return [(x, fmean(run[place][1] for run in runs)) for place, x in enumerate(steps[0])]


def curves(
    ident: str,
    title: str,
    lines: Sequence[Runs],
    y_name: str,
    y_text: Callable[[float], str],
    x_name: str = "training steps",
    x_below: Callable[[float], str] | None = None,
) -> Markup:
    """Lines over training steps, or what `x_name` says: a thin one for each seed, a thick one for their mean; upright: intervals.

    `x_below`: what stands under each label of the horizontal axis.
    """
    values = [y for line in lines for run in line.runs for _, y in run]
    values += [end for line in lines for _, *ends in line.intervals for end in ends]
    log = min(values) > 0 and max(values) / min(values) > LOG_FROM
    low, high = svg.log_around(values) if log else svg.around(values, floor=0.0 if min(values) >= 0 else None)
    x = Scale(0, max(x for line in lines for run in line.runs for x, _ in run), 48, WIDTH - 8)
    y = Scale(low, high, 200, 26, log)
    drawn, ends = [], []
    for number, line in enumerate(lines):
        aside = 3.0 * (number - (len(lines) - 1) / 2)  # intervals at the same place would cover each other
        drawn += [
            el(
                "line",
                x1=x.at(a) + aside,
                x2=x.at(a) + aside,
                y1=y.at(one),
                y2=y.at(other),
                class_=f"seed {css(line.role)}",
            )
            for a, one, other in line.intervals
        ]
        thin = [_thin(run) for run in line.runs]
        middle = _thin(_middle(line.runs)) if len(thin) > 1 else thin[0]
        drawn += [path([(x.at(a), y.at(b)) for a, b in run], f"seed {css(line.role)}") for run in thin if len(thin) > 1]
        if middle:
            drawn.append(path([(x.at(a), y.at(b)) for a, b in middle], f"line {css(line.role)}"))
            drawn.append(mark(line.role, x.at(middle[-1][0]), y.at(middle[-1][1]), 3.5))
        last = fmean(run[-1][1] for run in line.runs)
        ends.append(f"{line.role.title} ends at {y_text(last)}")
    name = f"{y_name} (logarithmic)" if log else y_name
    axes = frame(x, y, lambda v: f"{v:,.0f}", y_text, x_name, name, x_below=x_below)
    height = 234 + (svg.LINE if x_below is not None else 0)
    return chart(ident, WIDTH, height, title, f"{'; '.join(ends)}.", axes, *drawn)


@dataclass(frozen=True)
class Bar:
    """One line of a bar or interval chart: whose it is, its name, its value in words, and the numbers."""

    name: str
    words: str
    value: Stat
    role: Role | None = None


def _described(rows: Sequence[Bar]) -> str:
    return f"{'; '.join(f'{row.name}: {row.words}' for row in rows)}."


LETTER, BOLD = 6.4, 7.2
"""About how wide a letter of a name and of a value is."""


def _head(row: Bar, top: float) -> list[Markup]:
    """The name of a row and its value at the other end; a long name is cut, and stands whole in the description."""
    room = _room(row)
    name = row.name if len(row.name) <= room else f"{row.name[: max(1, room - 1)]}…"
    return [text(0, top + 13, name, class_="label"), text(WIDTH, top + 13, row.words, "end", "value")]


def _room(row: Bar) -> int:
    """How many letters of a name stand beside the value."""
    return int((WIDTH - BOLD * len(row.words) - 8) / LETTER)


def _two_lines(row: Bar, top: float) -> list[Markup]:
    """A long name on a line of its own, above the value."""
    whole = int(WIDTH / LETTER)
    name = row.name if len(row.name) <= whole else f"{row.name[: whole - 1]}…"
    return [text(0, top + 13, name, class_="label"), text(WIDTH, top + 28, row.words, "end", "value")]


def bars(ident: str, title: str, rows: Sequence[Bar], whole: float = 0.0) -> Markup:
    """Lying bars from 0, each under its name and value; the longest fills the width, or `whole` does if that is more."""
    most = max(whole, *(row.value.mean for row in rows)) or 1.0
    drawn = []
    for place, row in enumerate(rows):
        top = 38.0 * place
        width = max(1.5, (WIDTH - 2) * row.value.mean / most)
        drawn += [
            *_head(row, top),
            el(
                "rect",
                x=0,
                y=top + 19,
                width=width,
                height=9,
                rx=1.5,
                class_=f"bar {css(row.role) if row.role else ''}",
            ),
        ]
    return chart(ident, WIDTH, 38.0 * len(rows), title, _described(rows), *drawn)


def intervals(
    ident: str,
    title: str,
    rows: Sequence[Bar],
    axis: str,
    tick: Callable[[float], str],
    zero: bool,
    ends: tuple[float, float] | None = None,
) -> Markup:
    """A mark with its 95 % interval on each line; dots are seeds. With `zero`, a line where the difference is none."""
    spread = [
        v for row in rows for v in (row.value.mean, row.value.low, row.value.high, *row.value.seeds) if v is not None
    ]
    low, high = ends or svg.around([*spread, 0.0] if zero else spread)
    x = Scale(low, high, 6, WIDTH - 6)
    foot, drawn = 0.0, list[Markup]()
    for row in rows:
        long, colour = len(row.name) > _room(row), css(row.role) if row.role else "c-ink"
        drawn += _two_lines(row, foot) if long else _head(row, foot)
        top = foot + 15 * long
        foot = top + 42
        drawn += [el("line", x1=x.at(v), x2=x.at(v), y1=top + 20, y2=top + 36, class_="grid") for v in x.ticks(4)]
        if zero:
            drawn.append(el("line", x1=x.at(0), x2=x.at(0), y1=top + 19, y2=top + 37, class_="zero"))
        drawn += [
            el("circle", cx=x.at(v), cy=top + 28, r=2.2, class_=f"dot {colour}")
            for v in row.value.seeds
            if len(row.value.seeds) > 1
        ]
        if row.value.low is not None and row.value.high is not None:
            drawn.append(
                el(
                    "line",
                    x1=x.at(row.value.low),
                    x2=x.at(row.value.high),
                    y1=top + 28,
                    y2=top + 28,
                    class_=f"whisker {colour}",
                )
            )
        here = x.at(row.value.mean)
        drawn.append(
            mark(row.role, here, top + 28) if row.role else el("circle", cx=here, cy=top + 28, r=4, class_="mark c-ink")
        )
    ticks = [text(x.at(v), foot + 14, tick(v), "middle") for v in x.ticks(4)]
    return chart(
        ident,
        WIDTH,
        foot + 34,
        title,
        _described(rows),
        *drawn,
        *ticks,
        text(WIDTH, foot + 30, axis, "end", "axis-name"),
    )


def gap(ident: str, recovered: Stat, words: str, control: Role, teacher: Role, student: Role) -> Markup:
    """A ruler from the control (0 %) to the teacher (100 %) with the student on it."""
    reach = [v for v in (recovered.mean, recovered.low, recovered.high, 0.0, 1.0) if v is not None]
    x = Scale(max(-1.0, min(reach) - 0.08), min(2.0, max(reach) + 0.08), 8, WIDTH - 8)
    drawn = [el("line", x1=x.start, x2=x.end, y1=44, y2=44, class_="axis")]
    if recovered.low is not None and recovered.high is not None:
        drawn.append(
            el(
                "line",
                x1=x.at(recovered.low),
                x2=x.at(recovered.high),
                y1=44,
                y2=44,
                class_=f"whisker wide {css(student)}",
            )
        )
    for role, place, below in ((control, 0.0, "0%"), (teacher, 1.0, "100%")):
        here = x.at(place)
        anchor = "start" if here < 40 else "end" if here > WIDTH - 40 else "middle"
        drawn += [mark(role, here, 44), text(here, 64, role.title, anchor, "label"), text(here, 78, below, anchor)]
    here = x.at(recovered.mean)
    anchor = "start" if here < 60 else "end" if here > WIDTH - 60 else "middle"
    drawn += [
        mark(student, here, 44, 5.5),
        text(here, 26, f"{student.title} {percent(recovered.mean, 0)}", anchor, "label strong"),
    ]
    return chart(ident, WIDTH, 86, "How much of the way from control to teacher the student went", words, *drawn)


def sizes(
    ident: str,
    title: str,
    models: Sequence[tuple[Role, float, Stat]],
    x_name: str,
    x_text: Callable[[float], str],
    y_name: str,
    y_text: Callable[[float], str],
) -> Markup:
    """Each model at its size (logarithmic) and quality, with the interval; names are moved apart."""
    spread = [v for _, _, s in models for v in (s.mean, s.low, s.high) if v is not None]
    low, high = svg.around(spread, floor=0.0)
    x = Scale(*svg.log_around([size for _, size, _ in models]), 48, WIDTH - 10, True)
    y = Scale(low, high, 214, 30)
    drawn = []
    for cluster in _clusters([(x.at(size), role, found) for role, size, found in models]):
        middle = cluster[0][0]
        side = 1.0 if middle <= WIDTH * 0.55 else -1.0
        marks = []
        for place, (_, role, found) in enumerate(cluster):
            here = middle + 8.0 * (place - (len(cluster) - 1) / 2)
            if found.low is not None and found.high is not None:
                drawn.append(
                    el("line", x1=here, x2=here, y1=y.at(found.low), y2=y.at(found.high), class_=f"whisker {css(role)}")
                )
            drawn.append(mark(role, here, y.at(found.mean)))
            marks.append((role, here, y.at(found.mean)))
        drawn += _apart(marks, side, middle + side * (4.0 * len(cluster) + 14), y)
    axes = frame(x, y, x_text, y_text, f"{x_name} (logarithmic)", y_name)
    words = [f"{role.title}: {y_text(found.mean)} at {x_text(size)}" for role, size, found in models]
    return chart(ident, WIDTH, 248, title, f"{'; '.join(words)}.", axes, *drawn)


def _clusters(models: list[tuple[float, Role, Stat]]) -> list[list[tuple[float, Role, Stat]]]:
    """Models of nearly the same size, which would cover each other."""
    found: list[list[tuple[float, Role, Stat]]] = []
    for model in sorted(models, key=lambda model: model[0]):
        if found and model[0] - found[-1][0][0] < 12:
            found[-1].append(model)
        else:
            found.append([model])
    return found


def _apart(marks: list[tuple[Role, float, float]], side: float, edge: float, y: Scale) -> list[Markup]:
    """Names at one edge of their marks, pushed apart until none covers another, each with a thread to its mark."""
    ordered = sorted(marks, key=lambda found: found[2])
    places: list[float] = []
    for _, _, here in ordered:
        places.append(max(here, places[-1] + 14) if places else here)
    over = max(0.0, places[-1] - (y.start - 6)) if places else 0.0
    for place in range(len(places) - 1, -1, -1):
        limit = places[place + 1] - 14 if place + 1 < len(places) else places[place] - over
        places[place] = min(places[place], limit)
    drawn = []
    for (role, across, here), there in zip(ordered, places, strict=True):
        if len(marks) > 1:
            drawn.append(path([(across + side * 6, here), (edge - side * 3, there)], "thread"))
        drawn.append(text(edge, there + 4, role.title, "start" if side > 0 else "end", "label boxed"))
    return drawn


def reliability(ident: str, role: Role, bins: Sequence[tuple[float, float, float]], note: str) -> Markup:
    """Confidence against the share that is right; a mark's area is how many rows it stands for."""
    x, y = Scale(0, 1, 34, 180), Scale(0, 1, 174, 24)
    most = max(count for _, _, count in bins)
    line = path([(x.at(c), y.at(a)) for c, a, _ in bins], f"line faint {css(role)}")
    drawn = [mark(role, x.at(c), y.at(a), 2.0 + 4.5 * math.sqrt(count / most)) for c, a, count in bins]
    diagonal = el("line", x1=x.at(0), y1=y.at(0), x2=x.at(1), y2=y.at(1), class_="diagonal")
    axes = frame(x, y, lambda v: percent(v, 0), lambda v: percent(v, 0), "says it is sure", "is right", 2)
    sure = max(bins, key=lambda found: found[2])
    words = f"{note} Most rows fall where it is {percent(sure[0], 0)} sure; of those {percent(sure[1], 0)} are right."
    return chart(ident, 196, 208, f"Calibration of the {role.title.lower()}", words, axes, diagonal, line, *drawn)


def histogram(
    ident: str,
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    mean: float | None,
    x_name: str,
    of: str = "rows",
) -> Markup:
    """How many rows, or what `of` says, fall into each stretch, with a line at the mean."""
    x = Scale(edges[0], edges[-1], 44, WIDTH - 10)
    y = Scale(0, max(counts) * 1.08 or 1.0, 150, 30)
    drawn: list[Markup] = []
    for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
        width = max(0.5, x.at(right) - x.at(left) - 1)
        hint = el(
            "title", f"{significant(left)} to {significant(right)}: {count:,.0f} {of if count != 1 else of.rstrip('s')}"
        )
        drawn.append(
            el(
                "rect",
                hint,
                x=x.at(left),
                y=y.at(count),
                width=width,
                height=y.start - y.at(count),
                class_="bar c-teacher",
            )
        )
    if mean is not None:
        here = x.at(mean)
        drawn.append(el("line", x1=here, x2=here, y1=24, y2=150, class_="zero"))
        end = here > WIDTH * 0.6
        drawn.append(
            text(
                here - 5 if end else here + 5, 32, f"mean {significant(mean)}", "end" if end else "start", "label boxed"
            )
        )
    axes = frame(x, y, lambda v: f"{v:g}", lambda v: f"{v:,.0f}", x_name, of)
    total = f"{sum(counts):,.0f} {of} from {significant(edges[0])} to {significant(edges[-1])}"
    words = join([total, f"mean {significant(mean)}"] if mean is not None else [total])
    return chart(ident, WIDTH, 184, title, f"{words}.", group(axes), *drawn)
