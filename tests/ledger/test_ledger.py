"""The ledger: what is kept, what is spent, and limits that nothing passes, from threads, processes and the dead."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stillroom
from stillroom.budget import NANO, Cost, Limits, Rates
from stillroom.errors import BudgetReached, CorruptFile
from stillroom.ledger import Ledger, Reservation, opened

MOST, PAID = Cost(1000, 50, 5), Cost(700, 40, 1)
SOURCE = Path(stillroom.__file__).parents[1]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path / "ledger.sqlite", "run", Limits()) as it:
        yield it


def paid(ledger: Ledger, key: bytes, cost: Cost = PAID, purpose: str = "label") -> None:
    """One request, from its reservation to its settlement."""
    ledger.settle(ledger.reserve(key, purpose, MOST), "{}", cost, 0.25)


def test_what_was_paid_for_is_kept_for_every_run(tmp_path: Path) -> None:
    path = tmp_path / "store" / "ledger.sqlite"
    with opened(path, "first", Limits()) as ledger:
        assert ledger.kept(b"k") is None
        ledger.settle(ledger.reserve(b"k", "label", MOST), '{"é": 1}', Cost(700, 40, 1), 0.25)
    with opened(path, "second", Limits(calls=0)) as ledger:
        kept = ledger.kept(b"k")
        assert kept is not None
        assert (kept.raw, kept.cost, kept.latency_s) == ('{"é": 1}', Cost(700, 40, 1), 0.25)
        assert ledger.kept_among([b"k", b"other"]) == {b"k"}
        assert ledger.spent().calls == 0, "a budget is of a run, and this one spent nothing"


def test_a_reservation_counts_at_its_most_until_it_is_settled_lost_or_given_back(ledger: Ledger) -> None:
    one, two, three = (ledger.reserve(bytes([place]), "label", MOST) for place in range(3))
    assert (ledger.spent().calls, ledger.spent().nano_usd, ledger.spent().tokens) == (3, 3000, 165)
    ledger.settle(one, "{}", Cost(700, 40, 1), 0.5)
    ledger.lose(two, "no answer")
    ledger.release(three, "429")
    assert (ledger.spent().calls, ledger.spent().nano_usd, ledger.spent().tokens) == (2, 1700, 96)
    assert (ledger.lost().calls, ledger.lost().nano_usd) == (1, 1000)
    assert ledger.kept(bytes([1])) is None
    ledger.settle(three, "{}", MOST, 0.1)
    assert ledger.spent().calls == 2, "what ended once does not end again"


def test_a_lost_request_of_known_cost_counts_at_that(ledger: Ledger) -> None:
    ledger.lose(ledger.reserve(b"k", "label", MOST), "empty", Cost(300, 20, 0))
    assert (ledger.spent().nano_usd, ledger.lost().tokens) == (300, 20)


def test_purposes_are_told_apart(ledger: Ledger) -> None:
    paid(ledger, b"a")
    paid(ledger, b"b", purpose="audit")
    paid(ledger, b"c", purpose="audit")
    assert {name: spent.calls for name, spent in ledger.purposes().items()} == {"audit": 2, "label": 1}
    assert ledger.spent("audit").nano_usd == 1400
    assert ledger.spent("audit").seconds == pytest.approx(0.5)
    assert ledger.latencies_s() == [0.25] * 3


@pytest.mark.parametrize(
    ("limits", "name"),
    [(Limits(usd=2.5e-6), "usd"), (Limits(tokens=115), "teacher_tokens"), (Limits(calls=2), "calls")],
)
def test_a_limit_is_not_passed_and_is_named(tmp_path: Path, limits: Limits, name: str) -> None:
    with opened(tmp_path / "ledger.sqlite", "run", limits) as ledger:
        held = [ledger.reserve(bytes([place]), "label", MOST) for place in range(2)]
        with pytest.raises(BudgetReached, match="does not cover the next call") as caught:
            ledger.reserve(b"third", "label", MOST)
        assert caught.value.where == f"budget.{name}"
        ledger.release(held[0], "429")
        ledger.reserve(b"third", "label", MOST)


@pytest.mark.parametrize("limits", [Limits(usd=0), Limits(tokens=0), Limits(calls=0)])
def test_a_budget_of_nothing_buys_nothing(tmp_path: Path, limits: Limits) -> None:
    with opened(tmp_path / "ledger.sqlite", "run", limits) as ledger, pytest.raises(BudgetReached, match="budget of 0"):
        ledger.reserve(b"k", "label", MOST)


def test_all_of_several_are_reserved_or_none(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.sqlite", "run", Limits(calls=3)) as ledger:
        with pytest.raises(BudgetReached):
            ledger.reserve_all([(bytes([place]), "label", MOST) for place in range(4)])
        assert ledger.spent().calls == 0
        assert len(ledger.reserve_all([(bytes([place]), "label", MOST) for place in range(3)])) == 3


def test_sixteen_threads_do_not_pass_a_limit(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.sqlite", "run", Limits(usd=50 * 1000 / NANO)) as ledger:
        bought, highest = [], [0]

        def buy(place: int) -> None:
            for number in range(40):
                try:
                    one = ledger.reserve(f"{place}-{number}".encode(), "label", MOST)
                except BudgetReached:
                    return
                highest[0] = max(highest[0], ledger.spent().nano_usd)
                ledger.settle(one, "{}", Cost(900, 40, 1), 0.0)
                bought.append(one)

        threads = [threading.Thread(target=buy, args=(place,)) for place in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert highest[0] <= 50_000
        assert ledger.spent().nano_usd == 900 * len(bought) <= 50_000
        assert len(bought) >= 50 - 16


def test_writers_that_wait_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "commits"
    monkeypatch.setenv("STILLROOM_COMMIT_LOG", str(log))
    with opened(tmp_path / "ledger.sqlite", "run", Limits()) as ledger:
        before = int(log.read_text())
        threads = [threading.Thread(target=paid, args=(ledger, bytes([place]))) for place in range(64)]
        with ledger._turn:  # all of them come while one is at it
            for thread in threads:
                thread.start()
            while len(ledger._waiting) < 64:
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        # Two commit points a transaction: one that all reservations share, and at most one to settle each.
        assert int(log.read_text()) - before <= 2 + 2 * 64
        assert ledger.spent().nano_usd == 64 * 700


DIES = """
import os, signal, sys
from pathlib import Path
from stillroom.budget import Cost, Limits
from stillroom.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), sys.argv[2], Limits())
held = [ledger.reserve(bytes([place]), "label", Cost(1000, 50, 5)) for place in range(3)]
ledger.settle(held[0], "{}", Cost(700, 40, 1), 0.1)
ledger.reserve_all([(b"batched", "label", Cost(1000, 50, 5))], "mark")
print("ready", flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.kill
def test_what_a_killed_process_had_in_flight_is_lost_and_counts_at_its_most(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", DIES, str(path), "run"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCE)}, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "ready\n"
    with opened(path, "run", Limits()) as ledger:
        assert ledger.lost().calls == 0, "a process that lives may still get its answers"
        assert ledger.spent().nano_usd == 3700
        assert ledger.kept(bytes([0])) is not None, "what another process paid for"
    child.stdin.write("\n")
    child.stdin.close()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    with opened(path, "run", Limits(usd=3700 / NANO)) as ledger:
        assert (ledger.lost().calls, ledger.lost().nano_usd) == (2, 2000)
        assert ledger.spent().nano_usd == 3700, "what may have been billed counts"
        assert [one.key for one in ledger.in_batch("mark")] == [b"batched"], "a batch outlives who sent it"
        with pytest.raises(BudgetReached):
            ledger.reserve(bytes([1]), "label", MOST)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".lock")] == []


def test_what_is_open_when_a_ledger_is_closed_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path, "run", Limits()) as ledger:
        ledger.reserve(b"k", "label", MOST)
    with opened(path, "run", Limits()) as ledger:
        assert ledger.lost().calls == 1


def test_a_hundred_thousand_answers_do_not_slow_the_first_look(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path, "run", Limits()) as ledger:
        for start in range(0, 100_000, 10_000):
            wanted = [(number.to_bytes(4), "label", MOST) for number in range(start, start + 10_000)]
            held = ledger.reserve_all(wanted)
            ledger.settle_all([(one, '{"id": 1, "model": "m"}', Cost(700, 40, 1), 0.2) for one in held])
    started = time.process_time()
    with opened(path, "run", Limits(usd=1)) as ledger:
        keys = [number.to_bytes(4) for number in range(100_001)]
        assert set(keys) - ledger.kept_among(keys) == {(100_000).to_bytes(4)}
        ledger.reserve(keys[-1], "label", MOST)
        assert time.process_time() - started < 2
        assert ledger.spent().nano_usd == 100_000 * 700 + 1000


def test_batches_are_remembered_until_they_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path, "run", Limits()) as ledger:
        ledger.note_batch("mark", "there", None)
        held = ledger.reserve_all([(b"a", "label", MOST), (b"b", "label", MOST)], "mark")
    with opened(path, "run", Limits()) as ledger:
        assert ledger.open_batches("there") == {"mark": None}
        assert ledger.open_batches("elsewhere") == {}
        ledger.note_batch("mark", "there", "batch_1")
        assert ledger.open_batches("there") == {"mark": "batch_1"}
        assert ledger.in_batch("mark") == held
        ledger.settle(held[0], "{}", Cost(10, 1, 1), 0.0)
        ledger.forget_batch("mark")
        assert ledger.open_batches("there") == {}
        assert (ledger.spent().nano_usd, ledger.lost().nano_usd) == (1010, 1000)


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("this is no database, and it is long enough to be looked at as one" * 20)
    with pytest.raises(CorruptFile, match="no whole ledger") as caught, opened(path, "run", Limits()):
        pass
    assert str(path) in caught.value.where


def test_a_failed_transaction_leaves_nothing_behind(ledger: Ledger) -> None:
    paid(ledger, b"a")

    def half(at: sqlite3.Connection) -> None:
        at.execute("DELETE FROM requests")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        ledger._write(half)
    assert ledger.spent().calls == 1
    paid(ledger, b"b")
    assert ledger.spent().calls == 2


@given(
    usd_in=st.decimals(0, 100, places=4), usd_out=st.decimals(0, 100, places=4), share=st.sampled_from([1.0, 0.5]),
    read=st.integers(0, 10**7), written=st.integers(0, 10**7),
)  # fmt: skip
def test_money_is_rounded_up_and_by_less_than_two_nano_usd_a_million_tokens(
    usd_in: object, usd_out: object, share: float, read: int, written: int
) -> None:
    rates = Rates.of(float(str(usd_in)), float(str(usd_out)), share)
    exact = (Fraction(str(usd_in)) * read + Fraction(str(usd_out)) * written) * Fraction(str(share)) / 10**6 * NANO
    over = rates.cost(read, written).nano_usd - exact
    assert 0 <= over < 1 + Fraction(read + written, 10**6)


def test_a_budget_in_usd_is_rounded_down() -> None:
    assert Limits(usd=0.1 + 0.2).nano_usd == 300_000_000
    assert Limits(usd=1.9999999999).nano_usd == 1_999_999_999
    assert Limits().nano_usd is None
    assert Reservation(1, b"", Cost(5 * NANO)).most.usd == 5.0
