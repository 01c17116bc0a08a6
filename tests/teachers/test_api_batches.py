"""Batches at an endpoint on this machine: cheaper, merged by key, found again by a run that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stillroom
from stillroom.budget import Limits
from stillroom.errors import BudgetReached, Overbilled, RunError
from stillroom.kinds import parse
from stillroom.ledger import opened
from stillroom.loopback.serving import Loopback
from stillroom.rows import Questions
from stillroom.teachers.api_asked import AskedApi

PRICE = {"input": 1.0, "output": 2.0}
CLASSES = ["bad", "good"]
Served = Callable[..., Loopback]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Starts an endpoint that knows the labels of 60 texts."""
    started: list[Loopback] = []
    lines = [f"text {number},{CLASSES[number % 2]}" for number in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")

    def start(**spec: Any) -> Loopback:
        mind = {"kind": "rule", "source": "rows.csv", "error_rate": 0.0}
        started.append(Loopback({"mind": mind, "api_key": None, "price": PRICE, **spec}, tmp_path))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def teacher(url: str, **knobs: Any) -> AskedApi:
    """Asks by batches."""
    part = parse(
        "teacher", {"kind": "openai_api", "model": "loopback", "base_url": url, "batch": True, "price": PRICE, **knobs}
    )
    built: AskedApi = part.build(Path(), [], CLASSES)
    return built


def texts(count: int, first: int = 0) -> Questions:
    """Questions that the endpoint knows."""
    column = np.empty(count, object)
    column[:] = [f"text {number}" for number in range(first, first + count)]
    return Questions.of({"text": column})


def test_a_batch_answers_all_at_half_the_price_and_once(served: Served, tmp_path: Path) -> None:
    endpoint = served(batches={"wait_s": 0.1})
    with opened(tmp_path / "l.sqlite", "run", Limits()) as ledger:
        asked = teacher(endpoint.url).charge(ledger)
        found = asked.answer(texts(40))
        assert found.log_probabilities_NC.argmax(1).tolist() == [number % 2 for number in range(40)]
        asked.answer(texts(40))
        asked.answer(texts(41))
        bill = endpoint.bill()
        assert (bill["calls"], bill["batch_calls"], bill["duplicates"]) == (41, 41, 0)
        assert ledger.spent().usd == pytest.approx(bill["usd"], rel=1e-6)
        single = teacher(endpoint.url, batch=False).charge(ledger)
        single.answer(texts(41))
        assert endpoint.bill()["calls"] == 41, "an answer is the same, however it was bought"
        assert not ledger.open_batches(f"{endpoint.url} loopback")


def test_a_budget_is_filled_batch_by_batch(served: Served, tmp_path: Path) -> None:
    """At their most only some fit into a batch; what these cost less than that makes room for the next."""
    endpoint = served(batches={"wait_s": 0.05})
    most = teacher(endpoint.url).most_of(teacher(endpoint.url).wanted(texts(1).raw)[0]).usd
    with opened(tmp_path / "usd.sqlite", "run", Limits(usd=15 * most)) as ledger:
        found = teacher(endpoint.url).charge(ledger).answer(texts(60))
        assert found.answered_N is not None
        assert found.answered_N.all()
        assert endpoint.bill()["usd"] == pytest.approx(ledger.spent().usd, rel=1e-6)
        assert ledger.spent().usd <= 15 * most
    with opened(tmp_path / "calls.sqlite", "run", Limits(calls=25)) as ledger:
        with pytest.raises(BudgetReached):
            teacher(endpoint.url, seed=1).charge(ledger).answer(texts(60))
        assert endpoint.bill()["calls"] == 60 + 25 == 60 + ledger.spent().calls


def test_a_batch_that_bills_more_than_was_set_aside_is_the_last(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = served(batches={"wait_s": 0.05})
    monkeypatch.setattr(AskedApi, "_most", lambda self, read, written: self.batcher.rates.cost(10, 1))
    most = teacher(endpoint.url).most_of(teacher(endpoint.url).wanted(texts(1).raw)[0]).usd
    with opened(tmp_path / "usd.sqlite", "run", Limits(usd=8.5 * most)) as ledger:
        with pytest.raises(Overbilled, match="so the budget could be passed"):
            teacher(endpoint.url).charge(ledger).answer(texts(60))
        bill = endpoint.bill()
        assert bill["calls"] == ledger.spent().calls == 7, "one batch alone: half of 15, and half of 60 before"
        assert ledger.spent().usd == pytest.approx(bill["usd"], rel=1e-6)
        assert not ledger.open_batches(f"{endpoint.url} loopback"), "its answers are kept"


def test_what_a_batch_loses_goes_into_the_next(served: Served, tmp_path: Path) -> None:
    endpoint = served(batches={"wait_s": 0.05, "lost": 0.3})
    with opened(tmp_path / "l.sqlite", "run", Limits()) as ledger:
        asked = teacher(endpoint.url).charge(ledger)
        found = asked.answer(texts(60))
        assert found.answered_N is not None
        assert found.answered_N.sum() > 50, "three batches lose about one in forty"
        assert ledger.spent().calls == endpoint.bill()["calls"] == found.answered_N.sum()
        assert {reason for _, reason, _ in asked.refused} <= {"failed"}


def test_a_batch_that_expired_keeps_what_it_answered(served: Served, tmp_path: Path) -> None:
    endpoint = served(batches={"wait_s": 0.05, "expires": True})
    with opened(tmp_path / "l.sqlite", "run", Limits()) as ledger:
        found = teacher(endpoint.url).charge(ledger).answer(texts(40))
        assert found.answered_N is not None
        assert found.answered_N.sum() == 20 + 10 + 5
        assert endpoint.bill()["duplicates"] == 0
        assert ledger.lost().calls == 0


def test_an_endpoint_without_batches_is_told(tmp_path: Path) -> None:
    from scripted_endpoint import Endpoint, failing

    with (
        Endpoint(lambda body, number: failing(404)) as endpoint,
        opened(tmp_path / "l.sqlite", "r", Limits()) as ledger,
    ):
        with pytest.raises(RunError, match="no such model or address") as caught:
            teacher(endpoint.url).charge(ledger).answer(texts(3))
        assert "teacher.batch" in caught.value.where
        assert ledger.spent().calls == 0
        ledger.note_batch("mark", f"{endpoint.url} loopback", None)
        assert teacher(endpoint.url).charge(ledger).batcher.resume(ledger) == 1
        assert ledger.open_batches(f"{endpoint.url} loopback") == {}, (
            "what cannot have been made does not stand in the way"
        )


ASKS = """
import sys
from pathlib import Path
import numpy as np
from stillroom.budget import Limits
from stillroom.kinds import parse
from stillroom.ledger import opened
from stillroom.rows import Questions
url, path = sys.argv[1], Path(sys.argv[2])
column = np.empty(60, object)
column[:] = [f"text {number}" for number in range(60)]
part = parse("teacher", {"kind": "openai_api", "model": "loopback", "base_url": url, "batch": True})
with opened(path, "run", Limits()) as ledger:
    asked = part.build(Path(), [], ["bad", "good"]).charge(ledger)
    print("ready", flush=True)
    print(asked.answer(Questions.of({"text": column})).answered_N.sum(), flush=True)
"""


@pytest.mark.kill
@pytest.mark.parametrize("commit", [0, 5, 7])
def test_a_killed_run_finds_its_batch_again(commit: int, served: Served, tmp_path: Path) -> None:
    """Killed after the reservation, before it knows the batch's id, or while it waits: no batch is made twice."""
    endpoint = served(batches={"wait_s": 1.0})
    command = [sys.executable, "-c", ASKS, endpoint.url, str(tmp_path / "l.sqlite")]
    environment = {**os.environ, "PYTHONPATH": str(Path(stillroom.__file__).parents[1])}
    dying = {**environment, "STILLROOM_KILL_AT": str(commit)} if commit else environment
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=dying, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
        if not commit:
            time.sleep(0.7)
            child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, env=environment, text=True, timeout=60)
    assert done.stdout == "ready\n60\n", done.stderr
    bill = endpoint.bill()
    assert (bill["calls"], bill["duplicates"]) == (60, 0)
    with opened(tmp_path / "l.sqlite", "run", Limits()) as ledger:
        assert (ledger.spent().calls, ledger.lost().calls) == (60, 0)


def test_an_answer_may_hold_what_some_take_for_the_end_of_a_line(served: Served, tmp_path: Path) -> None:
    odd = ["b\u2028ad", "go\u0085od"]
    (tmp_path / "odd.csv").write_text("text,label\n" + "".join(f"text {n},{odd[n % 2]}\n" for n in range(20)))
    endpoint = served(batches={"wait_s": 0.05}, mind={"kind": "rule", "source": "odd.csv", "error_rate": 0.0})
    part = parse("teacher", {"kind": "openai_api", "model": "loopback", "base_url": endpoint.url, "batch": True})
    with opened(tmp_path / "l.sqlite", "run", Limits()) as ledger:
        found = part.build(Path(), [], odd).charge(ledger).answer(texts(20))
        assert found.answered_N.all()
        assert found.log_probabilities_NC.argmax(1).tolist() == [number % 2 for number in range(20)]
        assert endpoint.bill()["calls"] == 20


def test_a_batch_is_found_on_a_later_page_of_the_list(tmp_path: Path) -> None:
    from scripted_endpoint import Endpoint, Reply

    asked: list[int] = []

    def script(body: Any, number: int) -> Reply:
        asked.append(number)
        mark = "mine" if len(asked) == 2 else "another"
        page = [{"id": f"batch_{len(asked)}", "object": "batch", "metadata": {"stillroom": mark}}]
        return Reply({"object": "list", "data": page, "has_more": len(asked) < 4})

    with Endpoint(script) as endpoint:
        batcher = teacher(endpoint.url).batcher
        assert batcher._number_of("mine") == "batch_2"
        asked.clear()
        assert batcher._number_of("nobody's") is None
        assert len(asked) == 4
        batcher.wire.hang_up()
