"""A scorecard -> who is better than whom: paired differences with their intervals, as pictures. Knows no HTML."""

from __future__ import annotations

from typing import Any

from stillroom.report import numbers as n
from stillroom.report import plots
from stillroom.report.numbers import Tree
from stillroom.report.words import Role, join, roles


def differences(scorecard: Tree, ident: str) -> dict[str, Any] | None:
    """The student against each other model in the deciding metric, and beside accuracy in log loss; better to the right."""
    metric = n.primary(scorecard)
    models = roles(scorecard.get("models", {}))
    share = metric.unit == "share"
    rows = []
    for first, second in _pairs(scorecard, models):
        found = n.gain(scorecard, first, second)
        if not found:
            continue
        factor = 100.0 if share else 1.0
        low, high = (None if bound is None else factor * bound for bound in (found.low, found.high))
        scaled = n.Stat(factor * found.mean, low, high)
        words = n.difference(scorecard, found.mean)
        if found.low is not None and found.high is not None:
            bounds = [n.difference(scorecard, bound) for bound in (found.low, found.high)]
            # The third decimal takes the room of a sign.
            words += f" ({' to '.join(bounds if share else [bound.lstrip('+') for bound in bounds])})"
        rows.append(plots.Bar(_over(models, first, second), words, scaled, models[first]))
    if not rows:
        return None
    unit = f"points of {metric.name.lower()}" if share else metric.name.lower()
    charts = [_who_is_better(f"{ident}-diff", unit, rows)]
    losses = _log_losses(scorecard, models) if metric.key == "accuracy" else []
    if losses:
        charts.append(_who_is_better(f"{ident}-diff-nll", "nats of log loss saved", losses))
    return {"charts": charts, "unit": unit, "others": _other_networks(scorecard, models)}


def _who_is_better(ident: str, unit: str, rows: list[plots.Bar]) -> dict[str, Any]:
    spans = any(row.value.low is not None for row in rows)
    title = f"Who is better, in {unit}" + ("; the bar is the 95% interval" if spans else "")
    chart = plots.intervals(ident, title, rows, f"{unit}, better to the right", n.tick, True)
    return {"title": title, "chart": chart, "spans": spans}


def _log_losses(scorecard: Tree, models: dict[str, Role]) -> list[plots.Bar]:
    """The paired differences in log loss, which tells honest confidence where right answers are as many."""
    rows = []
    for first, second in _pairs(scorecard, models):
        found = n.paired(scorecard, first, second, n.metrics_of(scorecard)["nll"])
        if found:
            ends = [] if found.low is None or found.high is None else [found.low, found.high]
            words = n.signed(found.mean, 3) + (f" ({' to '.join(n.signed(end, 3) for end in ends)})" if ends else "")
            rows.append(plots.Bar(_over(models, first, second), words, found, models[first]))
    return rows


def _over(models: dict[str, Role], first: str, second: str) -> str:
    return f"{models[first].title} over {models[second].title.lower()}"


def _pairs(scorecard: Tree, models: dict[str, Role]) -> list[tuple[str, str]]:
    """The models of each difference, those without variants of other models."""
    found = [_pair(str(pair), models) for pair in scorecard.get("differences") or {}]
    return [pair for pair in found if pair[0] and not any(models[model].variant_of for model in pair)]


def _other_networks(scorecard: Tree, models: dict[str, Role]) -> str:
    """The arms whose network is not the student's, so that more than their teaching sets them apart."""
    own = n.measured(scorecard, "student", "parameters")
    sizes = {name: n.measured(scorecard, name, "parameters") for name in models if name != "teacher"}
    return join([models[name].title for name, size in sizes.items() if own and size and size.mean != own.mean])


def _pair(name: str, models: dict[str, Role]) -> tuple[str, str]:
    """The two models of a difference; an arm's name may hold a dash itself."""
    parts = name.split("-")
    splits = [("-".join(parts[:place]), "-".join(parts[place:])) for place in range(1, len(parts))]
    return next((split for split in splits if split[0] in models and split[1] in models), ("", ""))
