"""Printing for people: tables and bars on a terminal. Knows how things look, not what they are computed from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stillroom.errors import DataError

ROLES = ("teacher", "student", "control", "hard_teacher")
Form: TypeAlias = Callable[[float], str]
"""How a figure is written."""


def _small(value: float) -> str:
    """Two decimals, or as many as two significant digits take; never in powers of ten."""
    digits = 1 - math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 2
    return f"{value:,.{max(2, digits)}f}"


def _usd(value: float) -> str:
    return f"${_small(value)}"


SHOWN: tuple[tuple[str, str, Form], ...] = (
    ("exact_match", "exact match", "{:.3f}".format),
    ("answer_tokens", "tokens an answer", "{:,.1f}".format),
    ("errors", "errors", "{:,.1f}".format),
    ("bits_per_byte", "bits a byte", "{:.3f}".format),
    ("perplexity", "perplexity", "{:,.1f}".format),
    ("accuracy", "accuracy", "{:.3f}".format),
    ("nll", "nll", "{:.3f}".format),
    ("ece", "ece", "{:.3f}".format),
    ("agreement", "like the teacher", "{:.3f}".format),
    ("latency_ms_p50", "ms a row", _small),
    ("latency_ms_per_token", "ms a token", _small),
    ("usd_per_million_rows", "USD a million", _usd),
)


GAP = "share of the teacher's gain over the control that the student keeps"


def _console() -> Console:
    import sys

    # In a pipe a table keeps its columns whole instead of being folded to 80.
    return Console() if sys.stdout.isatty() else Console(width=240)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", overflow="fold", no_wrap=place == 0)
    return table


def _figure(value: Any, form: Form, between: str = " ") -> str:
    """A figure with its interval; a dash where it was not measured, or is not given."""
    if not isinstance(value, dict) or "mean" not in value:
        return "-"
    text = form(value["mean"])
    if "ci95" in value:
        low, high = (form(end) for end in value["ci95"])
        text += f"{between}{low}–{high}" if between == "\n" else f"{between}[{low}, {high}]"
    return text


def _is_arm(name: str, models: dict[str, Any]) -> bool:
    """A model with a training of its own, beside the four roles."""
    return name not in ROLES and not any(name == f"{one}{end}" for one in models for end in ("_uncorrected", "_oracle"))


def print_scorecard(scorecard: dict[str, Any], heading: str) -> None:
    """The models' table, the gap, and the difference to the control."""
    models = scorecard["models"]
    # What differs only by its class biases stands in the report; here its recalls are told below.
    names = [*(role for role in ROLES if role in models), *(name for name in models if _is_arm(name, models))]
    table = _table(heading, *names)
    for key, title, form in SHOWN:
        cells = [_figure(models[name].get(key), form, "\n") for name in names]
        if any(cell != "-" for cell in cells):
            table.add_row(title, *cells)
    sizes = [models[name].get("parameters") for name in names]
    if any(sizes):
        table.add_row("weights", *(f"{size:,}" if size else "-" for size in sizes))
    console = _console()
    console.print(table)
    for name in scorecard.get("omitted_classes", []):
        recalls = {model: one.get("recall_by_class", {}).get(str(name)) for model, one in models.items()}
        told = ", ".join(f"{model} {_figure(value, '{:.3f}'.format)}" for model, value in recalls.items() if value)
        console.print(Text(f"recall of {name}, never in the transfer set: {told}"))
    gap = scorecard["gap_recovered"]
    told = f"not given: {gap['absent']}" if "absent" in gap else _figure(gap, "{:.2f}".format)
    console.print(Text(f"{GAP}: {told}"))


def print_plan(plan: dict[str, Any]) -> None:
    """What a recipe would do and cost."""
    table = _table(plan["name"], "")
    for name, value in plan["figures"].items():
        table.add_row(name, str(value))
    _console().print(table)
    for note in plan["notes"]:
        _console().print(Text(f"note: {note}"))
    if not plan.get("piloted"):
        _console().print(Text("nothing was spent"))


def print_export(found: dict[str, Any]) -> None:
    """An exported student beside itself in PyTorch."""
    table = _table("", *found["models"])
    for key, title, form in (
        ("bytes", "bytes", "{:,.0f}".format),
        ("latency_ms_p50", "ms a row", _small),
        ("latency_ms_per_token", "ms a token", _small),
        ("accuracy", "accuracy", "{:.4f}".format),
        ("agreement", "like PyTorch", "{:.4f}".format),
        ("largest_difference", "largest difference", "{:.2g}".format),
    ):
        values = [one.get(key) for one in found["models"].values()]
        told = [value["mean"] if isinstance(value, dict) else value for value in values]
        if any(value is not None for value in told):
            table.add_row(title, *("-" if value is None else form(value) for value in told))
    _console().print(table)
    for note in found["notes"]:
        _console().print(Text(f"note: {note}"))
    _console().print(Text(f"written to {found['folder']}"))


def print_runs(found: list[dict[str, Any]], root: Path) -> None:
    """The runs below a folder."""
    if not found:
        _console().print(Text(f"there are no runs in {root}"))
        return
    table = _table("run", "state", "teacher", "student", "control", "seeds")
    for one in found:
        figures = [_figure({"mean": one[role]}, "{:.4f}".format) if role in one else "-" for role in ROLES[:3]]
        table.add_row(one["run"], one["state"], *figures, str(one.get("seeds", "-")))
    _console().print(table)


def print_comparison(found: dict[str, Any]) -> None:
    """Runs side by side, one column each."""
    table = _table("", *found["runs"])
    shown = {key: (title, form) for key, title, form in SHOWN} | {"parameters": ("weights", "{:,}".format)}
    absent = []
    for name, values in found["figures"].items():
        model, _, key = name.rpartition(": ")
        title, form = shown.get(key, (GAP, "{:.2f}".format))
        told = [form(value) if isinstance(value, int) else _figure(value, form) for value in values]
        table.add_row(f"{model}: {title}" if model else title, *told)
        lacking = [(run, one["absent"]) for run, one in zip(found["runs"], values, strict=True) if _is_absent(one)]
        absent += [f"{run}: {title}: not given: {why}" for run, why in lacking]
    _console().print(table)
    for note in [*absent, *found["notes"]]:
        _console().print(Text(f"note: {note}"))


def _is_absent(value: Any) -> bool:
    return isinstance(value, dict) and "absent" in value


def print_catalogue(found: dict[str, Any], brief: bool) -> None:
    """Kinds by group; with their knobs where one was asked for."""
    console = _console()
    for group, kinds in found.items():
        table = _table(group, "")
        table.columns[1].justify = "left"
        for name, one in kinds.items():
            table.add_row(name, one["meaning"])
            if not brief:
                for knob in one["knobs"]:
                    told = f"{knob['type']}, default {knob['default']}. {knob['meaning']}"
                    table.add_row(Text(f"    {knob['name']}"), Text(told))
        console.print(table)


def print_beside(answers: dict[str, Any]) -> None:
    """Student and teacher beside each other on one row."""
    names = list(answers["models"])
    table = _table("class", *names)
    for place, label in enumerate(answers["classes"]):
        shares = [answers["models"][name][place] for name in names]
        table.add_row(Text(str(label)), *(f"{share:6.3f} {'█' * round(20 * share):<20}" for share in shares))
    _console().print(table)
    if answers.get("label") is not None:
        _console().print(Text(f"label in the data: {answers['label']}"))


def ask_value(column: str) -> str:
    """Ask a person for one value of a row."""
    import click

    try:
        value: str = click.prompt(column, type=str)
    except click.Abort as error:
        raise DataError(
            "no value was given", where=column, cure="Give one, or use --row to take a row of the test split"
        ) from error
    return value
