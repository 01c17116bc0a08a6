"""What a trainer tells, as it is written on its job: how far each phase is, and points of curves that were not there yet.

A trainer that goes on after a kill tells again what it told since its last checkpoint; a point is kept once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillroom.service.work.finishing import metrics

ASKING = ("answers", "windows", "samples", "traces")
TRAINING = ("steps", "rounds")
MERGED = ("merged answers", "merged windows")
"""Each was counted when it was asked."""
PARTS = "parts"


def phase_of(unit: str) -> str:
    """Which phase counts in these units."""
    return "asking" if unit in (*ASKING, *MERGED) else "training" if unit in TRAINING else "evaluation"


def advanced(phases: Mapping[str, Any], line: Mapping[str, Any], models: int | None) -> dict[str, Any]:
    """The phases after a line {"stage", "unit", "done", "total"}. `models`: how many trainings are expected in all.

    Trainings that have not begun are taken to be as long as those that have.
    """
    phase = phase_of(line["unit"])
    before = phases.get(phase, {})
    is_counted = line["unit"] not in MERGED
    counted = [min(line["done"], line["total"]), line["total"]] if is_counted else [0, 0]
    parts = {**before.get(PARTS, {}), line["stage"]: counted}
    done, total = (sum(part[place] for part in parts.values()) for place in (0, 1))
    if phase == "training" and models is not None and models > len(parts):
        total += round((models - len(parts)) * total / len(parts))
    unit = line["unit"] if is_counted else before.get("unit", ASKING[0])
    found = {"done": done, "total": total, "unit": unit, "now": line["stage"], PARTS: parts}
    return {**phases, phase: found}


def is_known(phases: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    """A stage was told of before."""
    return line["stage"] in phases.get(phase_of(line["unit"]), {}).get(PARTS, {})


def new_point(last: Mapping[str, float], line: Mapping[str, Any]) -> dict[str, Any] | None:
    """The data of a metrics event for a line {"of", "point"}; None where that point was told before."""
    point = line["point"]
    if point["step"] <= last.get(line["of"], 0):
        return None
    return {**metrics(point), "epoch": round(point["epoch"], 4), "model": line["of"]}
