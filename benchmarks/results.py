"""Bars and finished rows of a benchmark, and the two files made of them: docs/results/NAME.json and NAME.md.

    bars.tsv                        what is promised: id, bench, what, op, target, n; fixed before anything was measured
    docs/results/NAME.rows.jsonl    one line for each finished experiment, appended at once; not kept in git
    docs/results/NAME.json          every bar of NAME with what was found, or why there is nothing; and the tables
    docs/results/NAME.md            the same, to be read

A row is found again by its experiment and the fingerprint of its settings, so a second run goes on where the first one
stopped, and a row made under other settings is never taken for this one. Settings know nothing of the program, so each row
keeps the day and the commit it was made with, and the page tells them. This file knows no experiment.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import commit

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "docs" / "results"
BARS = HERE / "bars.tsv"
NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Bar:
    """One promise: `value op target`, for so many `n`."""

    id: str
    what: str
    op: str
    target: float
    n: str

    def met_by(self, value: float) -> bool:
        """True where the value keeps the promise."""
        return value <= self.target if self.op == "<=" else value >= self.target


@dataclass(frozen=True)
class Found:
    """What was measured for a bar; `value` None: it could not be, and `why` says so."""

    value: float | None
    ci95: Sequence[float] | None = None
    n: str = ""
    why: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a result page; cells are text or numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows],
            "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What one finished experiment gives: figures for bars by id, and tables by name."""

    bars: Mapping[str, Found] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    made: str = ""
    """The day; known of what was found again."""
    commit: str = ""
    """What it was made with; empty where nobody knows."""


def read_bars(bench: str, path: Path = BARS) -> list[Bar]:
    """The bars of a bench, in the order of the file. Raises ValueError for an operation other than <= and >=."""
    with open(path, newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = [
        Bar(line["id"], line["what"], line["op"], float(line["target"]), line["n"])
        for line in lines
        if line["bench"] == bench
    ]
    odd = [bar.id for bar in found if bar.op not in ("<=", ">=")]
    if odd or not found:
        raise ValueError(f"{path.name}: {'an unknown operation in ' + odd[0] if odd else 'no bar of ' + bench}")
    return found


def fingerprint(settings: Any) -> str:
    """A short digest of JSON-like settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def append_line(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a line of JSON down, durably, and never onto a line that a stop cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write((json.dumps(tree, ensure_ascii=False, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


class Finished:
    """What single parts gave, one JSON line each, appended at once; found again by name, number (such as a seed) and settings."""

    def __init__(self, path: Path, settings: str) -> None:
        self.path, self.settings = path, settings

    def read(self) -> dict[tuple[str, int], dict[str, Any]]:
        """(name, seed) -> what it gave; a line cut short by a stop is passed over."""
        found = {}
        for line in self.path.read_text().splitlines() if self.path.is_file() else ():
            try:
                one = json.loads(line)
            except ValueError:
                continue
            if one["settings"] == self.settings:
                found[one["name"], one["seed"]] = one["found"]
        return found

    def append(self, name: str, seed: int, found: dict[str, Any]) -> None:
        """Write it down, durably."""
        append_line(self.path, {"settings": self.settings, "name": name, "seed": seed, "found": found})


class Rows:
    """The finished experiments of a bench, in an append-only file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.commit = path, commit()

    def find(self, experiment: str, settings: str) -> Row | None:
        """The last row of an experiment under these settings; a line cut short by a stop is passed over."""
        if not self.path.is_file():
            return None
        last: dict[str, Any] | None = None
        for line in self.path.read_text().splitlines():
            try:
                read = json.loads(line)
            except ValueError:
                continue
            if read.get("experiment") == experiment and read.get("settings") == settings:
                last = read
        if last is None:
            return None
        return Row(
            {name: Found(**found) for name, found in last["bars"].items()},
            {name: Table(**table) for name, table in last["tables"].items()},
            last.get("made", ""),
            last.get("commit", ""),
        )

    def append(self, experiment: str, settings: str, row: Row) -> None:
        """Write a finished experiment down, durably; made today with this program, unless the row knows better."""
        now = commit()
        line = {
            "experiment": experiment,
            "settings": settings,
            "made": row.made or date.today().isoformat(),
            # A program that was changed while it ran is none that a commit holds.
            "commit": row.commit if row.made else now if now == self.commit else self.commit.rstrip("+") + "+",
            "bars": {name: found.__dict__ for name, found in row.bars.items()},
            "tables": {name: table.to_json() for name, table in row.tables.items()},
        }
        append_line(self.path, line)


def origins_of(rows: Mapping[str, Row]) -> dict[str, list[dict[str, str]]]:
    """Of each bar and table: the experiments it comes from, with their days and commits."""
    found: dict[str, list[dict[str, str]]] = {}
    for experiment, row in rows.items():
        for name in (*row.bars, *row.tables):
            found.setdefault(name, []).append({"experiment": experiment, "made": row.made, "commit": row.commit})
    return found


def found_before(path: Path, command: str) -> set[str]:
    """Bars, tables and experiments that a result file has figures of which were made by this command."""
    if not path.is_file():
        return set()
    before, names = json.loads(path.read_text()), set[str]()
    listed = [(bar["id"], bar) for bar in before["bars"] if "value" in bar]
    for name, one in [*listed, *before["tables"].items()]:
        if one.get("earlier", before)["command"] == command:
            names |= {name, *(origin["experiment"] for origin in one.get("origins", ()))}
    return names


def bars_of(bars: Sequence[Bar], found: Mapping[str, Found], reasons: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every bar with what was found. `reasons` gives, by id, why a bar was missed or not run.

    A missed bar says by how much, then why; a bar that was not run has no value. Raises KeyError for a figure that no
    bar asks for.
    """
    known = {bar.id for bar in bars}
    for name in found:
        if name not in known:
            raise KeyError(f"there is no bar {name!r}")
    listed = []
    for bar in bars:
        one = found.get(bar.id)
        entry: dict[str, Any] = {"id": bar.id, "what": bar.what, "op": bar.op, "target": bar.target}
        if one is None or one.value is None:
            why = one.why if one is not None and one.why else reasons.get(bar.id, NOT_RUN)
            listed.append(entry | {"n": bar.n, "why": why})
            continue
        entry["value"] = one.value
        if one.ci95 is not None:
            entry["ci95"] = list(one.ci95)
        entry |= {"n": one.n or bar.n, "met": bar.met_by(one.value)}
        if not entry["met"]:
            entry["why"] = ". ".join(
                text for text in (_missed_by(bar, one.value), one.why, reasons.get(bar.id)) if text
            )
        listed.append(entry)
    return listed


def _missed_by(bar: Bar, value: float) -> str:
    wanted = "at most" if bar.op == "<=" else "at least"
    return f"Missed by {shown(abs(value - bar.target))}: {shown(value)}, where {wanted} {shown(bar.target)} is asked"


def shown(value: Any) -> str:
    """A number as a reader wants it: four significant digits, whole where it is whole; text as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def write(
    bench: str,
    title: str,
    words: str,
    command: str,
    bars: list[dict[str, Any]],
    tables: Mapping[str, Table],
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    folder: Path = RESULTS,
    origins: Mapping[str, list[dict[str, str]]] | None = None,
) -> None:
    """Write NAME.json and, from what is in it, NAME.md. What was found earlier and not this time stays, and says when."""
    known = origins or {}
    told = {
        name: table.to_json() | ({"origins": known[name]} if name in known else {}) for name, table in tables.items()
    }
    bars = [bar | ({"origins": known[bar["id"]]} if "value" in bar and bar["id"] in known else {}) for bar in bars]
    bars, told = with_earlier(folder / f"{bench}.json", bars, told)
    result = {
        "name": bench,
        "title": title,
        "words": words,
        "made": date.today().isoformat(),
        "command": command,
        "versions": dict(versions),
        "machine": dict(machine),
        "bars": bars,
        "tables": told,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / f"{bench}.json").write_text(text)
    (folder / f"{bench}.md").write_text(page(json.loads(text)))


def with_earlier(
    path: Path, bars: list[dict[str, Any]], tables: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Bars and tables, and from the file of an earlier run those that this one lacks, each with its day, command and machine."""
    if not path.is_file():
        return bars, tables
    before = json.loads(path.read_text())
    since = {"made": before["made"], "command": before["command"], "machine": before["machine"]}
    found = {bar["id"]: {**bar, "earlier": bar.get("earlier", since)} for bar in before["bars"] if "value" in bar}
    kept = [found.get(bar["id"], bar) if "value" not in bar else bar for bar in bars]
    older = {name: {**table, "earlier": table.get("earlier", since)} for name, table in before["tables"].items()}
    return kept, {**tables, **{name: table for name, table in older.items() if name not in tables}}


def _day(one: Mapping[str, Any]) -> str:
    """Day and commit of a bar or a table; empty where it does not know them."""
    known = {(of["made"], of["commit"]) for of in one.get("origins", ())}
    return ", ".join(f"{day} with {f'commit {of}' if of else 'an unknown commit'}" for day, of in sorted(known))


def _processor(machine: Mapping[str, Any]) -> str:
    """What of a machine its times depend on most."""
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['instructions']}, bfloat16 {machine['bfloat16']}"


def _when(one: Mapping[str, Any], several: bool, here: Mapping[str, Any], made: str = "made") -> str:
    """When, with what and on what it was made, where that is not so of the whole page; `here`: the page's machine."""
    since = one.get("earlier")
    if since:
        there = _processor(since.get("machine", here))
        other = "" if there == _processor(here) else f" on another machine ({there})"
        return f"{made} on {_day(one) or since['made']} by `{since['command']}`{other}"
    return f"{made} on {_day(one)}" if several and _day(one) else ""


def page(result: Mapping[str, Any]) -> str:
    """The readable page of a result: bars first, then the tables."""
    facts = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    shown_here = [one for one in (*result["bars"], *result["tables"].values()) if "earlier" not in one]
    days = sorted({day for one in shown_here if (day := _day(one))})
    several = len(days) > 1
    began = f"Written on {result['made']}" if several else f"Made on {days[0] if days else result['made']}"
    parts = [
        f"# {result['title']}",
        result["words"],
        f"{began} by `{result['command']}`, on {facts['cpu']} ({facts['cores']} cores, "
        f"{facts['memory_gib']} GiB, {facts['os']}, {facts['instructions']}, bfloat16 {facts['bfloat16']}), "
        f"{facts['torch_threads']} torch thread{'s' if facts['torch_threads'] != 1 else ''}; {versions}."
        + (" Figures are of more than one day or commit; each says of which." if several else ""),
        "## What was promised, and what was found",
        _grid(
            ["", "figure", "promised", "found", "95 % interval", "n"],
            [_bar_line(bar, several, facts) for bar in result["bars"]],
        ),
    ]
    whys = [f"- `{bar['id']}`: {bar['why']}" for bar in result["bars"] if "why" in bar]
    if whys:
        parts += ["### Why some were missed or not run", "\n".join(whys)]
    for table in result["tables"].values():
        parts += [f"## {table['title']}", _grid(table["columns"], table["rows"])]
        parts += [table["note"], _when(table, several, facts, "Made")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bar_line(bar: Mapping[str, Any], several: bool, here: Mapping[str, Any]) -> list[str]:
    mark = "not run" if "value" not in bar else "met" if bar["met"] else "**missed**"
    ends = " to ".join(shown(end) for end in bar["ci95"]) if "ci95" in bar else ""
    wanted = "at most" if bar["op"] == "<=" else "at least"
    value = shown(bar["value"]) if "value" in bar else ""
    count = "; ".join(part for part in (str(bar["n"]), _when(bar, several, here)) if part)
    return [mark, f"{bar['what']} (`{bar['id']}`)", f"{wanted} {shown(bar['target'])}", value, ends, count]


def _grid(columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(shown(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(columns), "|" + "---|" * len(columns), *(line(row) for row in rows)])
