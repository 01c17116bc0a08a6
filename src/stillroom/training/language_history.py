"""The history of a training that went on from another's weights: both as one, with the steps at which one ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def gone_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Both histories as one; `rounds` holds the steps done by the end of each training, the first one's included."""
    steps = before["steps"]
    epochs = before["curve"][-1]["epoch"] if before["curve"] else 0.0
    curve = [{**point, "step": point["step"] + steps, "epoch": point["epoch"] + epochs} for point in now["curve"]]
    terms = [
        *before["gradient_norms"],
        *(term for term in now["gradient_norms"] if term not in before["gradient_norms"]),
    ]
    return {
        **now,
        "curve": [*before["curve"], *curve],
        "gradient_norms": {
            term: [*before["gradient_norms"].get(term, []), *now["gradient_norms"].get(term, [])] for term in terms
        },
        "steps": steps + now["steps"],
        "seconds": before["seconds"] + now["seconds"],
        "rounds": [*before.get("rounds", [steps]), steps + now["steps"]],
    }
