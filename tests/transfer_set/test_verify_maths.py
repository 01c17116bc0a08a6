"""The child that compares mathematics: it may hang, run out of memory or die, and the next answer is compared all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from stillroom.errors import RunError
from stillroom.rows import Verdict
from stillroom.transfer_set.verify_maths import Child, Children, Maths, children, end_children

HANGS = "5^5^5^5^5"


@pytest.fixture(autouse=True)
def _no_child_stays() -> Iterator[None]:
    yield
    end_children()


def asked(answer: str, gold: str) -> dict[str, str | None]:
    return {"answer": answer, "gold": gold, "gold_decimal": None, "answer_decimal": None}


def test_a_power_that_never_ends_is_unsure_and_the_next_answer_is_compared() -> None:
    maths = Maths(cpu_s=1)
    start = time.monotonic()
    told = maths.judge([HANGS, "x+1", "1 + x", "x+2"], "x+1")
    assert [one.outcome for one in told] == ["unsure", "accepted", "accepted", "rejected"]
    assert told[0].reason == "it takes more than 1 s of processor time"
    assert time.monotonic() - start < 60


def test_the_clock_ends_what_the_processor_does_not() -> None:
    maths = Maths(cpu_s=100, wall_s=2)
    assert maths.verify(HANGS, "x").reason == "it takes longer than 2 s"
    assert Maths(cpu_s=100).verify("x + 0", "x").accepted


def test_memory_is_limited() -> None:
    child = Child(60, 120, 512)
    child.start()
    assert child.process is not None
    with open(f"/proc/{child.process.pid}/status") as file:
        used_mib = int(next(line for line in file if line.startswith("VmSize")).split()[1]) // 1024
    with open(f"/proc/{child.process.pid}/limits") as file:
        limits = {line[:25].strip(): line[26:].split()[0] for line in file}
    assert limits["Max address space"] == str(512 << 20)
    assert (limits["Max file size"], limits["Max core file size"]) == ("0", "0")
    child.end()
    pool = Children(1, 60, 120, used_mib + 40)
    assert pool.ask([asked("2^{2^{40}}", "x")]) == [Verdict("unsure", "it needs more memory than is allowed")]
    assert pool.ask([asked("x+0", "x")])[0].accepted
    pool.end()


def test_a_warm_child_is_used_again() -> None:
    maths = Maths()
    assert maths.verify("x+1", "1+x").accepted
    (child,) = children(maths).members
    assert child.process is not None
    first = child.process.pid
    assert maths.verify("x+2", "2+x").accepted
    assert children(maths).members[0].process is child.process
    assert child.process.pid == first


def test_a_child_that_died_idle_is_replaced() -> None:
    maths = Maths()
    assert maths.verify("x+1", "1+x").accepted
    (child,) = children(maths).members
    assert child.process is not None
    os.kill(child.process.pid, signal.SIGKILL)
    assert maths.verify("x+1", "1+x").accepted


def test_a_child_that_was_killed_at_work_is_replaced_and_asked_again() -> None:
    pool = Children(1, 2, 60, 2048)
    (child,) = pool.members
    child.start()
    assert child.process is not None
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {child.process.pid}"])
    (told,) = pool.ask([asked(HANGS, "x")])
    assert told.reason == "it takes more than 2 s of processor time"
    killer.wait()
    pool.end()


def test_a_child_that_dies_twice_leaves_that_answer_unsure() -> None:
    pool = Children(1, 2, 60, 2048)
    pool.members[0].command = ["sh", "-c", "echo ready; read line; exit 3"]
    assert pool.ask([asked("x", "x")]) == [Verdict("unsure", "the child that compared it died twice (status 3)")]
    pool.end()


def test_several_children_keep_the_order() -> None:
    pool = Children(workers=2, cpu_s=1, wall_s=60, memory_mib=2048)
    told = pool.ask([asked(answer, "x+1") for answer in (HANGS, "1+x", "x+2", "x-1", "x+1+0")])
    assert [one.outcome for one in told] == ["unsure", "accepted", "rejected", "rejected", "accepted"]
    pool.end()
    assert all(child.process is None for child in pool.members)


def test_the_child_has_no_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    child = Child(5, 30, 2048)
    child.start()
    assert child.process is not None
    with open(f"/proc/{child.process.pid}/environ", "rb") as file:
        assert b"secret" not in file.read()
    child.end()


def test_a_child_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="does not start"):
        Child(5, 30, 2048).start()


def test_symmetric_where_math_verify_is_not() -> None:
    maths = Maths()
    for one, two, expected in [
        ("x<3", "(-\\infty,3)", "accepted"),
        ("(1,2)", "\\{1,2\\}", "unsure"),
        ("x=5", "5x", "rejected"),
        ("\\{1, 2\\}", "2, 1", "accepted"),
    ]:
        assert maths.verify(one, two).outcome == expected
        assert maths.verify(two, one).outcome == expected
