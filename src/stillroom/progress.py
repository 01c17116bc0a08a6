"""Telling a person how far long work is: bars on a terminal, a line every few seconds in a pipe, nothing in a library.

Knows no stage; a stage says what it does, how much of it there is, and when some of it is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

LINE_SECONDS = 5.0


class Done(Protocol):
    """What a piece of work is told while it is done."""

    def __call__(self, more: int, before: bool = False) -> None:
        """So much more is done; `before`: by an earlier attempt, so it counts for how far, and not for how fast."""
        ...


class Show(Protocol):
    """Where progress is shown."""

    def stage(self, words: str, total: int, unit: str) -> Any:
        """A context around one piece of work; yields a callable that is told how much was just done."""
        ...


@runtime_checkable
class Telling(Show, Protocol):
    """A Show that passes on what there is to know before the work begins."""

    def note(self, words: str) -> None:
        """One thing to know."""
        ...


@runtime_checkable
class Watching(Show, Protocol):
    """A Show that follows the curves of trainings too, and may end one between two steps, where it can go on later."""

    def point(self, words: str, point: dict[str, float]) -> None:
        """A point of the curve of the training that is called so: step, epoch, loss and what validation gave."""
        ...

    def may_go_on(self) -> None:
        """Raises what is to end the training."""
        ...


class Silent:
    """Shows nothing: what a library does unless told otherwise."""

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[Done]:
        yield lambda more, before=False: None


class Lines:
    """A line every few seconds, and one at the end, on standard error: for pipes and logs."""

    def note(self, words: str) -> None:
        sys.stderr.write(f"note: {words}\n")

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[Done]:
        opened = time.monotonic()
        started, said, first, count, known = 0.0, 0.0, 0, 0, 0

        def done(more: int, before: bool = False) -> None:
            nonlocal started, said, first, count, known
            if before:
                known += more
                return
            now = time.monotonic()
            if not count:  # the first piece includes loading and warming up, so the rate is taken from its end
                started, said, first = now, now, more
            count += more
            if now - said >= LINE_SECONDS:
                said = now
                rate = (count - first) / (now - started)
                left = max(0, total - known - count) / rate if rate else 0
                at = f"{known + count:,} of {total:,} {unit}"
                sys.stderr.write(f"{words}: {at}, {rate:,.0f}/s, {left:,.0f} s left\n")
                sys.stderr.flush()

        yield done
        if count:
            earlier = f", {known:,} already done" if known else ""
            sys.stderr.write(f"{words}: {count:,} {unit} in {time.monotonic() - opened:.1f} s{earlier}\n")
        else:
            sys.stderr.write(f"{words}: done before\n")


class Bars:
    """One bar for each piece of work, with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def note(self, words: str) -> None:
        self._progress.console.print(f"note: {words}", markup=False, highlight=False)

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[Done]:
        started = time.monotonic()
        count = known = 0
        with self._progress:
            task = self._progress.add_task(words, total=total, unit=unit, rate="")

            def done(more: int, before: bool = False) -> None:
                nonlocal count, known
                if before:
                    known += more
                    # Not `update`, which would take it for the fastest piece of work there ever was.
                    self._progress.reset(task, completed=known + count)
                    return
                count += more
                rate = count / max(1e-9, time.monotonic() - started)
                self._progress.update(task, advance=more, rate=f"{rate:,.0f}/s")

            yield done
            self._progress.remove_task(task)


def for_terminal() -> Show:
    """Bars where standard error is a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()
