"""Lines and bars: how far, how fast, how much longer; what an earlier attempt did counts for the first alone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command_line import recipe, rows_of, write_csv
from stillroom import flow, progress


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def lines(capsys: pytest.CaptureFixture[str], work: Callable[[progress.Done], None], total: int) -> list[str]:
    with progress.Lines().stage("student, seed 0", total, "steps") as done:
        work(done)
    return capsys.readouterr().err.splitlines()


def at_10_a_second(done: progress.Done, clock: Clock, steps: int) -> None:
    for _ in range(steps):
        clock.now += 0.1
        done(1)


def test_a_line_says_how_far_how_fast_and_how_much_longer(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    said = lines(capsys, lambda done: at_10_a_second(done, clock, 60), 100)
    assert said[0].startswith("student, seed 0: 52 of 100 steps, 10/s, 5 s left")
    assert said[-1] == "student, seed 0: 60 steps in 6.0 s"


def test_a_resumed_training_starts_where_the_last_one_was(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def work(done: progress.Done) -> None:
        done(9_000, before=True)
        at_10_a_second(done, clock, 60)

    said = lines(capsys, work, 10_000)
    # 1,000 were left, 52 of them done at 10 a second.
    assert said[0].startswith("student, seed 0: 9,052 of 10,000 steps, 10/s, 95 s left")
    assert said[-1] == "student, seed 0: 60 steps in 6.0 s, 9,000 already done"


def test_pieces_of_different_size_do_not_bend_the_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def work(done: progress.Done) -> None:
        done(500)  # with loading and warming up
        for more in (10, 20, 30):
            clock.now += more / 5
            done(more)

    assert "560 of 1,000 steps, 5/s, 88 s left" in lines(capsys, work, 1_000)[-2]


def test_work_done_before_says_so(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, lambda done: done(100, before=True), 100) == ["student, seed 0: done before"]
    assert lines(capsys, lambda done: None, 100) == ["student, seed 0: done before"]


def test_a_bar_takes_earlier_steps_for_no_speed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    bars = progress.Bars()
    bars._progress.live.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bars._progress.get_time = clock.monotonic
    with bars.stage("student, seed 0", 10_000, "steps") as done:
        task = bars._progress.tasks[0]
        clock.now += 3
        done(9_000, before=True)
        assert (task.completed, task.speed) == (9_000, None)
        at_10_a_second(done, clock, 50)
        assert task.completed == 9_050
        assert task.speed == pytest.approx(10)
        assert task.time_remaining == pytest.approx(95)


class Impatient(progress.Lines):
    """Somebody presses ctrl-c in the student's 21st step."""

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[progress.Done]:
        with progress.Lines.stage(self, words, total, unit) as done:
            steps = 0

            def counted(more: int, before: bool = False) -> None:
                nonlocal steps
                steps += more
                if words == "student, seed 0" and steps == 21:
                    raise KeyboardInterrupt
                done(more, before)

            yield counted


def test_a_stopped_run_counts_on_from_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "data.csv", rows_of())
    training = {"epochs": 20, "batch_size": 32, "checkpoint_seconds": 0.0}
    tree = recipe(training=training, questions={"kind": "dataset", "source": str(tmp_path / "data.csv")})
    with pytest.raises(KeyboardInterrupt):
        flow.distill(tree, tmp_path / "run", show=Impatient())
    assert "student, seed 0: " not in capsys.readouterr().err
    flow.distill(tree, tmp_path / "run", show=progress.Lines(), until="train")
    said = [line for line in capsys.readouterr().err.splitlines() if "seed 0" in line]
    # Of 40 steps 20 were done and saved when the 21st was broken off.
    assert re.fullmatch(r"student, seed 0: 20 steps in [\d.]+ s, 20 already done", said[0])
    assert re.fullmatch(r"control, seed 0: 40 steps in [\d.]+ s", said[1])
