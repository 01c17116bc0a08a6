"""What asking is expected to take: a guess that says so, and after a pilot intervals that hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripted_endpoint import MODEL, Endpoint, Reply, said
from stillroom.budget import Limits
from stillroom.errors import DataError
from stillroom.kinds import parse
from stillroom.ledger import opened
from stillroom.rows import Questions
from stillroom.teachers.api_asked import AskedApi
from stillroom.teachers.api_estimates import Pilot, expected, pilot, wanted_by

PRICE = {"input": 1.0, "output": 2.0}


def teacher(url: str = "http://localhost:1/v1", **knobs: Any) -> AskedApi:
    part = parse("teacher", {"kind": "openai_api", "model": MODEL, "base_url": url, "price": PRICE, **knobs})
    built: AskedApi = part.build(Path(), [], ["bad", "good"])
    return built


def texts(count: int, longest: int = 200, seed: int = 0) -> Questions:
    """Texts of different lengths."""
    lengths = np.random.default_rng(seed).integers(5, longest, count)
    column = np.empty(count, object)
    column[:] = [f"{number} " + "word " * int(length) for number, length in enumerate(lengths)]
    return Questions.of({"text": column})


def test_a_guess_is_called_one_and_has_its_ends() -> None:
    asked = teacher()
    found = expected(asked, wanted_by(asked, [texts(100), texts(50, seed=1), texts(50, seed=1)]))
    assert found.calls == 150, "the same question twice is one call"
    assert found.basis.startswith("a guess")
    for one in (found.tokens, found.usd, found.minutes):
        assert one is not None
        assert 0 < one.low < one.middle < one.high
    size = sum(len(one.messages) for one in wanted_by(asked, [texts(100), texts(50, seed=1)]))
    assert found.tokens.middle == pytest.approx(size / 4 + 150 * 2)


def test_limits_decide_how_long_it_takes() -> None:
    questions = [texts(120)]
    slow = teacher(limits={"requests_per_minute": 12})
    assert expected(slow, wanted_by(slow, questions)).minutes.middle == pytest.approx(10)
    few = teacher(limits={"tokens_per_minute": 1000})
    found = expected(few, wanted_by(few, questions))
    assert found.minutes.middle == pytest.approx(found.tokens.middle / 1000)
    one = teacher(limits={"concurrency": 1})
    assert expected(one, wanted_by(one, questions)).minutes.middle == pytest.approx(2)


def test_without_a_price_nothing_is_said_in_usd_and_a_batch_costs_less() -> None:
    free = teacher(price=None)
    assert expected(free, wanted_by(free, [texts(10)])).usd is None
    single, batch = teacher(), teacher(batch=True)
    usd = [expected(asked, wanted_by(asked, [texts(100)])).usd for asked in (single, batch)]
    assert usd[0] is not None
    assert usd[1] is not None
    assert usd[1].middle == pytest.approx(usd[0].middle / 2, rel=1e-6)


def test_a_pilot_is_charged_once_and_narrows_the_interval(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        words = len(str(body["messages"]).split())
        return said("good", tokens=(int(1.3 * words) + number % 3, 1 + number % 2))._replace(wait_s=0.01)

    questions = texts(400)
    with Endpoint(script) as endpoint, opened(tmp_path / "l.sqlite", "run", Limits()) as ledger:
        asked = teacher(endpoint.url).charge(ledger)
        guess = expected(asked, wanted_by(asked, [questions], ledger))
        measured = pilot(asked, questions, 20)
        assert ledger.spent("pilot").calls == 20 == len(endpoint.asked)
        found = expected(asked, wanted_by(asked, [questions], ledger), measured)
        assert found.calls == 380, "what the pilot bought is not bought again"
        assert "pilot of 20 calls" in found.basis
        assert found.tokens.high - found.tokens.low < (guess.tokens.high - guess.tokens.low) / 4
        before = ledger.spent()
        asked.answer(questions)
        after = ledger.spent()
    assert found.usd is not None
    assert found.tokens.low <= after.tokens - before.tokens <= found.tokens.high
    assert found.usd.low <= after.usd - before.usd <= found.usd.high


def test_intervals_of_a_pilot_hold_as_often_as_they_say() -> None:
    asked, wanted = teacher(), wanted_by(teacher(), [texts(500)])
    sizes_N = np.array([len(one.messages) for one in wanted], float)
    chance = np.random.default_rng(5)
    held = []
    for _ in range(300):
        read_N = np.round(sizes_N / 4.5 * chance.normal(1, 0.1, 500))
        written_N = chance.integers(1, 9, 500)
        drawn = chance.permutation(500)
        few, rest = drawn[:20], drawn[20:]
        measured = Pilot(sizes_N[few], read_N[few], written_N[few].astype(float), np.ones(20))
        found = expected(asked, [wanted[place] for place in rest], measured)
        assert found.usd is not None
        usd = (read_N[rest].sum() * 1.0 + written_N[rest].sum() * 2.0) / 1e6
        held.append(found.usd.low <= usd <= found.usd.high)
    assert 0.90 <= np.mean(held) <= 0.99


def test_a_pilot_of_nothing_tells_nothing(tmp_path: Path) -> None:
    with (
        Endpoint(lambda body, number: said("good")) as endpoint,
        opened(tmp_path / "l.sqlite", "run", Limits()) as ledger,
        pytest.raises(DataError, match="a pilot of 2 answered calls tells nothing"),
    ):
        pilot(teacher(endpoint.url).charge(ledger), texts(2), 20)
