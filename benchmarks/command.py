"""What the benchmarks' command lines share: options, the folder of data, the loop that goes on after a stop, the last word."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Row, Rows


def parser(doc: str | None, names: Collection[str], presets: Iterable[str], default: str) -> argparse.ArgumentParser:
    """The options that every benchmark of blocks has."""
    found = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    found.add_argument(
        "--preset", choices=list(presets), default=default, help=f"how much patience (default {default})"
    )
    found.add_argument("--only", nargs="+", choices=list(names), metavar="NAME", help="just these")
    found.add_argument("--again", nargs="+", choices=list(names), metavar="NAME", default=[], help="these once more")
    found.add_argument("--list", action="store_true", help="name what there is and stop")
    found.add_argument("--write", action="store_true", help="run nothing, write the results of what is finished")
    return found


def data_folder(needed: str, words: str, cure: str) -> Path:
    """What $STILLROOM_DATA names. Ends the program where the file or folder `needed` is not in it; `words` say what is read."""
    given = os.environ.get("STILLROOM_DATA", "")
    if not given or not (Path(given) / needed).exists():
        told = f"there is no {needed} in it" if given else "it is not set"
        sys.exit(f"error: the benchmark reads {words} from the folder that $STILLROOM_DATA names, and {told}. {cure}.")
    return Path(given)


def listed(words: Mapping[str, str]) -> str:
    """Each name with what it is."""
    wide = max(map(len, words))
    return "\n".join(f"{name:{wide}} {told}" for name, told in words.items())


def wanted(asked: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """What is to be run: what was named, or all there is."""
    return [] if asked.write else list(asked.only or asked.again or names)


def complete(row: Row) -> bool:
    """Every figure of it was found."""
    return all(found.value is not None for found in row.bars.values())


def run_each(
    words: Mapping[str, str],
    again: Collection[str],
    rows: Rows,
    settings_of: Callable[[str], str],
    run: Callable[[str], Row],
    write: Callable[[], Any],
    *,
    is_finished: Callable[[Row], bool] = lambda row: True,
) -> None:
    """Run those that are not finished under these settings; each is written down, and the results with it, at once."""
    for name, told in words.items():
        settings = settings_of(name)
        before = rows.find(name, settings)
        if before is not None and is_finished(before) and name not in again:
            print(f"{name}: finished before")
            continue
        started = time.monotonic()
        print(f"{name}: {told}", flush=True)
        rows.append(name, settings, run(name))
        print(f"{name}: done in {time.monotonic() - started:,.0f} s", flush=True)
        write()


def last_word(bars: Sequence[Mapping[str, Any]]) -> str:
    """A line for each bar: met, missed or not run."""
    lines = []
    for bar in bars:
        state = "not run" if "value" not in bar else "met" if bar["met"] else "missed"
        value, why = str(bar.get("value", "")), str(bar.get("why", ""))[:90]
        lines.append(f"{state:8}{bar['id']:26}{value:22}{bar['op']} {bar['target']:g}   {why}")
    return "\n".join(lines)
