"""Figures and times as a page writes them, and words for what the rows call by short names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

ABSENT = "–"
STATES = {
    "validating_files": "Being checked", "queued": "Waiting", "running": "Running", "pausing": "Pausing", "paused": "Paused",
    "ready": "Ready to start", "succeeded": "Finished", "failed": "Failed", "cancelled": "Cancelled",
}  # fmt: skip
OVER = ("succeeded", "failed", "cancelled")
ROLES = {
    "teacher": "Teacher",
    "student": "Student",
    "control": "Control",
    "hard_teacher": "Taught by top answers alone",
}
UNITS = ("bytes", "KB", "MB", "GB", "TB")
SCOPES = {
    "read": "Read: see everything in this project",
    "write": "Write: upload, start and stop jobs, call models",
    "teachers": "Teachers: set addresses and keys of teachers",
    "admin": "Administer: make and revoke keys, change settings",
}


def when(seconds: float | None) -> str:
    """A Unix time as a date and a time of day, in UTC."""
    return ABSENT if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def machine_time(seconds: float | None) -> str:
    """The same for a `datetime` attribute."""
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def count(value: float | None) -> str:
    """A whole number with commas."""
    return ABSENT if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return ABSENT if value is None else f"{100 * value:.1f} %"


def figure(value: float | None) -> str:
    """A number to three digits."""
    return ABSENT if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def usd(value: float | None) -> str:
    """Dollars, with as many digits as small sums need."""
    if value is None:
        return ABSENT
    return (
        "$0"
        if value == 0
        else f"${value:,.2f}"
        if abs(value) >= 1
        else f"${value:.2g}"
        if value > 1e-4
        else "< $0.0001"
    )


def span(ends: tuple[float, float] | None, form: str) -> str:
    """An interval, its ends written as a filter of this name writes a figure; one figure where they look the same."""
    if ends is None:
        return ABSENT
    low, high = (FILTERS[form](value) for value in ends)
    return low if low == high else f"{low} to {high}"


def size(value: float | None) -> str:
    """Bytes, in a unit that fits."""
    if value is None:
        return ABSENT
    left, place = float(value), 0
    while left >= 1000 and place < len(UNITS) - 1:
        left, place = left / 1000, place + 1
    return f"{left:,.0f} bytes" if place == 0 else f"{left:.1f} {UNITS[place]}"


def minutes(value: float | None) -> str:
    """Minutes, in words that fit."""
    if value is None:
        return ABSENT
    if value < 1:
        return "under a minute"
    return f"about {value:.0f} min" if value < 90 else f"about {value / 60:.1f} h"


def lasted(seconds: float | None) -> str:
    """A stretch of time."""
    if seconds is None:
        return ABSENT
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 5400 else f"{whole // 3600} h {whole % 3600 // 60} min"


def mean(model: Mapping[str, Any], key: str) -> float | None:
    """A figure of one model of a scorecard; None where it was not measured."""
    found = model.get(key)
    if isinstance(found, Mapping):
        found = found.get("mean")
    return float(found) if isinstance(found, int | float) else None


FILTERS: dict[str, Callable[..., str]] = {
    "when": when, "machine_time": machine_time, "count": count, "share": share, "figure": figure, "usd": usd, "size": size,
    "minutes": minutes, "lasted": lasted, "span": span,
}  # fmt: skip
