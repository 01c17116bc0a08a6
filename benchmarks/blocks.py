"""A benchmark of blocks: each is run, written down and found again by itself, and the page is made of what is finished.

A block's figures are found again while the sizes that they depend on, the benchmark's constants and, where they are times,
the machine are the same. That the program is the same is not asked; the page tells which commit each was made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.results import (
    RESULTS,
    Found,
    Row,
    Rows,
    Table,
    bars_of,
    fingerprint,
    found_before,
    origins_of,
    read_bars,
    write,
)

RUNS = Path(__file__).resolve().parent.parent / "runs"
SMOKE = "smoke"


class NotMade(Exception):
    """What a block reads is not there; it says what."""


@dataclass(frozen=True)
class Block:
    """A part of a benchmark."""

    words: str
    run: str
    """`module.function` below benchmarks/, called with the sizes and what `takes` names."""
    depends: tuple[str, ...]
    """The sizes that its figures depend on."""
    timed: bool = False
    """Its figures belong to one machine."""
    takes: tuple[str, ...] = ("base",)
    """`base`: the preset's folder of work; `data`: what $STILLROOM_DATA names."""
    bars: tuple[str, ...] = ()
    """Named where the block may be left out, so that the page says how to run it."""
    wanted: Callable[[Any], bool] = lambda sizes: True
    """Whether a preset's sizes have it run."""
    edition: int = 1
    """Raised where it measures something else than before: what it found then is not found again."""


@dataclass(frozen=True)
class Bench:
    """Its blocks, its presets, the words of its page."""

    name: str
    title: str
    words: str
    preset_words: Mapping[str, str]
    blocks: Mapping[str, Block]
    presets: Mapping[str, Any]
    """Sizes by name; what `smoke` finds stays in its own folder, for it measures nothing."""
    libraries: tuple[str, ...] = ()
    """Whose versions the page tells beside the usual ones."""
    constants: tuple[Any, ...] = ()
    """What all figures depend on beside the sizes."""
    data: Callable[[], Path] = Path
    """The folder that `data` is; ends the program with a message where it is missed."""
    left_out: str = "it was left out or is not finished here"

    def settings_of(self, name: str, sizes: Any) -> str:
        """The fingerprint of all that a block's figures depend on."""
        from benchmarks.machine import machine

        block = self.blocks[name]
        parts = [str(getattr(sizes, one)) for one in block.depends]
        edition = [block.edition] if block.edition > 1 else []
        return fingerprint([name, *self.constants, *parts, machine() if block.timed else None, *edition])

    def run(self, name: str, sizes: Any, base: Path) -> Row:
        """A block to its end; where what it reads is not there, a row that says so."""
        block = self.blocks[name]
        module, _, function = block.run.partition(".")
        call: Callable[..., Row] = getattr(import_module(f"benchmarks.{module}"), function)
        given: dict[str, Callable[[], Path]] = {"base": lambda: base, "data": self.data}
        try:
            return call(sizes, *(given[one]() for one in block.takes))
        except NotMade as error:
            return Row({bar: Found(None, why=f"not run: {error}") for bar in block.bars})

    def write(self, preset: str, rows: Rows, folder: Path) -> list[dict[str, Any]]:
        """The two files from every finished block of a preset; the bars as they are listed there."""
        from benchmarks.machine import machine, versions

        bars: dict[str, Found] = {}
        tables: dict[str, Table] = {}
        reasons: dict[str, str] = {}
        left: list[str] = []
        finished: dict[str, Row] = {}
        line = f"make bench-{self.name} ARGS='--preset {preset}'"
        before = found_before(folder / f"{self.name}.json", line)
        for name, block in self.blocks.items():
            row = rows.find(name, self.settings_of(name, self.presets[preset]))
            if row is None:
                if before.isdisjoint((name, *block.bars)):  # else the page has its figures, and says of when
                    left.append(f"{name} ({block.words})")
                told = f"not run at this preset (`--only {name}` does): {self.left_out}"
                reasons |= {bar: told for bar in block.bars}
                continue
            finished[name] = row
            bars |= row.bars
            tables |= row.tables
        listed = bars_of(read_bars(self.name), bars, reasons)
        words = f"{self.words}{self.preset_words[preset]}".strip()
        words += f" Not finished at this preset: {', '.join(left)}." if left else ""
        made_with = versions() | _versions(self.libraries)
        write(self.name, self.title, words, line, listed, tables, machine(), made_with, folder, origins_of(finished))
        return listed

    def main(self, doc: str | None, given: Sequence[str] | None = None) -> None:
        """The command line: run what is asked for and not finished yet, and write the results after each block."""
        words = {name: block.words for name, block in self.blocks.items()}
        asked = command.parser(doc, self.blocks, self.presets, "full").parse_args(given)
        if asked.list:
            print(command.listed(words))
            return
        sizes, base = self.presets[asked.preset], RUNS / f"bench-{self.name}" / asked.preset
        folder = base / "results" if asked.preset == SMOKE else RESULTS
        rows = Rows(folder / f"{self.name}.rows.jsonl")
        wanted = [name for name in command.wanted(asked, self.blocks) if self.blocks[name].wanted(sizes)]
        if any("data" in self.blocks[name].takes for name in wanted):
            self.data()  # what is missing is told before hours have passed
        if wanted:
            import torch

            torch.set_num_threads(1)
        command.run_each(
            {name: words[name] for name in wanted},
            asked.again,
            rows,
            lambda name: self.settings_of(name, sizes),
            lambda name: self.run(name, sizes, base),
            lambda: self.write(asked.preset, rows, folder),
            is_finished=command.complete,
        )
        print(command.last_word(self.write(asked.preset, rows, folder)))


def _versions(libraries: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
