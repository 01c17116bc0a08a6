"""Asking over real HTTP on this machine: limits, patience, faults of every kind, and a budget that is never passed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from scripted_endpoint import MODEL, Endpoint, Reply, Script, failing, said
from stillroom.budget import NANO, Cost, Limits, Rates
from stillroom.errors import BudgetReached, ModelError, Overbilled, RunError
from stillroom.ledger import Ledger, opened
from stillroom.teachers import api_calls
from stillroom.teachers.api_calls import Caller, Request
from stillroom.teachers.api_calls import Reply as Became
from stillroom.teachers.api_faults import judge, retry_after_s, same_model
from stillroom.teachers.api_manners import TOGETHER_S, Manners, Pace, Patience
from stillroom.teachers.api_wire import Wire

RATES = Rates.of(1.0, 2.0)
QUICK = Patience(base_s=0.01, cap_s=0.05, tries=4, seed=1)
HTML = "<!DOCTYPE html><html><body>Sign in</body></html>"
Ask = Callable[..., dict[int, Became]]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path / "ledger.sqlite", "run", Limits()) as it:
        yield it


def caller_of(url: str, accepted: tuple[str, ...] = (), key: str | None = None, **manners: Any) -> Caller:
    """Asks the scripted endpoint."""
    manners = {"timeout_s": 5.0, "patience": QUICK, "concurrency": 4, **manners}
    wire = Wire(url, key, manners["timeout_s"], manners["concurrency"])
    return Caller(wire, MODEL, RATES, Manners(**manners), accepted)


def requests(count: int, first: int = 0, most: tuple[int, int] = (60, 8)) -> list[Request]:
    """Requests that ask `question N`."""
    found = []
    for number in range(first, first + count):
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"question {number}"}]}
        found.append(Request(b"key %d" % number, json.dumps(body).encode(), RATES.cost(*most)))
    return found


def ask(url: str, ledger: Ledger, count: int = 1, **manners: Any) -> dict[int, Became]:
    """What became of each of so many requests."""
    became: dict[int, Became] = {}
    caller = caller_of(url, **manners)
    try:
        caller.ask(iter(requests(count)), ledger, "label", became.__setitem__)
    finally:
        caller.wire.hang_up()
    return became


def first_then(first: Reply | list[Reply], then: Reply) -> Script:
    """These replies to the first requests, and this one to all others."""
    replies = first if isinstance(first, list) else [first]
    return lambda body, number: replies[number] if number < len(replies) else then


def test_an_answer_is_kept_with_what_it_cost(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes", tokens=(30, 3))) as endpoint:
        became = ask(endpoint.url, ledger, 3)
    assert [became[place].body["choices"][0]["message"]["content"] for place in range(3)] == ["yes"] * 3  # type: ignore[index]
    assert {one.cost for one in became.values()} == {Cost(36_000, 30, 3)}
    assert (ledger.spent().calls, ledger.spent().nano_usd, ledger.spent().tokens) == (3, 3 * 36_000, 99)
    kept = ledger.kept(b"key 1")
    assert kept is not None
    assert json.loads(kept.raw)["model"] == MODEL
    assert endpoint.questions == {f"question {number}": 1 for number in range(3)}


def test_an_answer_that_does_not_tell_its_tokens_counts_at_its_most(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes", tokens=None)) as endpoint:
        ask(endpoint.url, ledger)
    assert ledger.spent().nano_usd == requests(1)[0].most.nano_usd


PASSING: list[tuple[str, Reply, int]] = [
    ("429", failing(429, "rate_limit_exceeded"), 0),
    ("500", failing(500), 1),
    ("502 in HTML", Reply(HTML, 502, {"content-type": "text/html"}), 1),
    ("503", failing(503), 0),
    ("cut JSON", Reply('{"choices": [{"mess'), 1),
    ("a cut connection", said("yes")._replace(cut=True), 1),
    ("no choice", Reply({"model": MODEL, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 0}}), 1),
    ("an error in a 200", Reply({"error": {"message": "upstream", "code": 502}}), 1),
    ("a 429 in a 200", Reply({"error": {"message": "slow down", "code": 429}}), 0),
    ("a list", Reply("[1, 2]"), 1),
]


@pytest.mark.parametrize(("fault", "lost"), [row[1:] for row in PASSING], ids=[row[0] for row in PASSING])
def test_what_may_pass_by_itself_is_tried_again(fault: Reply, lost: int, ledger: Ledger) -> None:
    with Endpoint(first_then(fault, said("yes"))) as endpoint:
        became = ask(endpoint.url, ledger)
    assert became[0].body is not None
    assert len(endpoint.asked) == 2
    assert ledger.lost().calls == lost, "what may have been billed counts"
    assert ledger.spent().calls == 1 + lost


def test_an_empty_answer_costs_what_it_says(ledger: Ledger) -> None:
    empty = Reply({"model": MODEL, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 0}})
    with Endpoint(first_then(empty, said("yes"))) as endpoint:
        ask(endpoint.url, ledger)
    assert ledger.lost().tokens == 7


STOPPING: list[tuple[str, Reply, str, str]] = [
    ("a wrong key", failing(401, "invalid_api_key"), "does not take the key", "api_key_env"),
    ("no access", failing(403), "does not take the key", "api_key_env"),
    ("an unknown model", failing(404, "model_not_found"), "no such model", "teacher.model"),
    ("an exhausted quota", failing(429, "insufficient_quota"), "no credit left", "credit"),
    ("no balance", failing(402, None, "Insufficient Balance"), "no credit left", "credit"),
    ("a redirect", Reply("", 307, {"location": "http://127.0.0.1:9/v1"}), "redirects to 'http://127.0.0.1:9/v1'", "base_url"),
    ("another model", said("yes", "another-model"), "from the model 'another-model'", "accept_model"),
    ("a knob", failing(400, "unsupported_value", "temperature does not support 0"), "does not take the request", "temperature"),
    ("a limit", failing(400, "unsupported_parameter", "Use max_completion_tokens"), "does not take", "limit_as"),
    ("a schema", failing(400, None, "response_format is not supported"), "does not take the request", "read: exact"),
    ("an error in a 200", Reply({"error": {"code": "insufficient_quota"}}), "no credit left", "credit"),
    ("HTML", Reply(HTML), "a page of HTML instead of JSON", "/v1"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "what", "cure"), [row[1:] for row in STOPPING], ids=[row[0] for row in STOPPING])
def test_what_will_not_pass_stops_at_once(fault: Reply, what: str, cure: str, ledger: Ledger) -> None:
    with Endpoint(lambda body, number: fault) as endpoint:
        with pytest.raises(ModelError, match=what) as caught:
            ask(endpoint.url, ledger, 50, concurrency=1)
        assert cure in caught.value.cure
        assert endpoint.url in caught.value.where
    # A page of HTML is tried again in case it came from a proxy in passing, and while it waits a slow machine may send
    # others; it ends long before all 50 were asked. All else is not tried again.
    assert len(endpoint.asked) <= (25 if fault.body == HTML else 1)


def _behind(proxy: Endpoint, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an endpoint outside, to which this machine's requests go by a proxy."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
    return "http://teacher.example/v1"


def test_a_proxy_passes_requests_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with Endpoint(lambda body, number: said("yes")) as proxy:
        became = ask(_behind(proxy, monkeypatch), ledger, 3)
    assert all(one.body is not None for one in became.values())
    assert {one["host"] for one in proxy.headers} == {"teacher.example"}, "none was sent but by the proxy"


@pytest.mark.parametrize("status", [302, 307])
def test_a_proxy_that_redirects_elsewhere_stops_at_once_and_nothing_goes_there(
    status: int, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Endpoint(lambda body, number: said("yes")) as elsewhere:
        sent_to = f"{elsewhere.url}/chat/completions"
        with Endpoint(lambda body, number: Reply("", status, {"location": sent_to})) as proxy:
            with pytest.raises(ModelError, match=r"redirects to 'http://127\.0\.0\.1") as caught:
                ask(_behind(proxy, monkeypatch), ledger, 50, concurrency=1)
            assert "look at the proxy" in caught.value.cure
            assert len(proxy.asked) == 1
            assert proxy.headers[0]["host"] == "teacher.example"
        assert not elsewhere.headers
    assert ledger.spent().calls == 0, "it was not billed"


def test_a_wrong_key_in_the_middle_is_a_failure_of_the_run_and_keeps_what_was_bought(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes") if number < 5 else failing(401)) as endpoint:
        with pytest.raises(RunError, match="does not take the key"):
            ask(endpoint.url, ledger, 50)
        assert ledger.spent().calls == 5
        assert len(endpoint.asked) <= 5 + 4, "those in flight, and no more"


def test_nothing_is_there(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes")) as endpoint:
        pass
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"nothing answers at http://127\.0\.0\.1") as caught:
        ask(endpoint.url, ledger, 20)
    assert "Start the server" in caught.value.cure
    assert time.monotonic() - started < 2
    assert ledger.spent().calls == 0, "what was never sent was not billed"


UNANSWERED: list[tuple[Reply, str]] = [
    (failing(400, "context_length_exceeded"), "over the context"),
    (failing(400, None, "This model's maximum context length is 8 tokens"), "over the context"),
    (failing(400, "content_filter"), "filtered"),
    (failing(403, None, "Your input was flagged"), "filtered"),
]


@pytest.mark.parametrize(("fault", "why"), UNANSWERED)
def test_a_question_that_is_not_taken_is_left_out_and_the_others_go_on(fault: Reply, why: str, ledger: Ledger) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        return fault if body["messages"][-1]["content"] == "question 3" else said("yes")

    with Endpoint(script) as endpoint:
        became = ask(endpoint.url, ledger, 8)
    assert [place for place, one in became.items() if one.body is None] == [3]
    assert became[3].why.startswith(why)
    assert endpoint.questions["question 3"] == 1
    assert ledger.spent().calls == 7


def test_one_question_that_always_fails_does_not_stop_the_others(ledger: Ledger) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        return failing(500) if body["messages"][-1]["content"] == "question 3" else said("yes")

    with Endpoint(script) as endpoint:
        became = ask(endpoint.url, ledger, 8, concurrency=1)
    assert [place for place, one in became.items() if one.body is None] == [3]
    assert endpoint.questions["question 3"] == QUICK.tries


def test_an_endpoint_that_fails_every_time_is_given_up(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: failing(500, None, "out of order")) as endpoint:
        with pytest.raises(ModelError, match="out of order"):
            ask(endpoint.url, ledger, 1000)
        assert len(endpoint.asked) < 100


def test_an_answer_of_no_use_is_paid_for_three_times_and_no_more(ledger: Ledger) -> None:
    def script(body: dict[str, Any], number: int) -> Reply:
        return Reply({"choices": []}) if body["messages"][-1]["content"] == "question 0" else said("yes")

    with Endpoint(script) as endpoint:
        became = ask(endpoint.url, ledger, 3, patience=Patience(0.01, 0.05, tries=20))
    assert became[0].body is None
    assert endpoint.questions["question 0"] == 3


def test_a_hung_request_is_cut_and_counted(ledger: Ledger) -> None:
    with Endpoint(first_then(said("yes")._replace(wait_s=2), said("yes"))) as endpoint:
        started = time.monotonic()
        became = ask(endpoint.url, ledger, timeout_s=0.3)
        assert time.monotonic() - started < 1.5
    assert became[0].body is not None
    assert ledger.lost().calls == 1


def test_an_answer_that_drips_is_cut(ledger: Ledger) -> None:
    with Endpoint(first_then(said("yes")._replace(drip_s=0.05), said("yes"))) as endpoint:
        started = time.monotonic()
        became = ask(endpoint.url, ledger, timeout_s=0.4)
        assert time.monotonic() - started < 1.5
    assert became[0].body is not None
    assert ledger.lost().calls == 1


def test_the_key_is_sent_and_never_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret-0123"
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "of-this-machine")
    with Endpoint(lambda body, number: said(f"your key is {secret}")) as endpoint:
        ask(endpoint.url, ledger, key=secret)
        assert endpoint.keys == [f"Bearer {secret}"]
    kept = ledger.kept(b"key 0")
    assert kept is not None
    assert secret not in kept.raw
    with Endpoint(lambda body, number: failing(401, None, f"wrong key {secret}")) as endpoint:
        with pytest.raises(ModelError) as caught:
            ask(endpoint.url, ledger, key=secret)
        assert secret not in str(caught.value)
        assert "[key]" in str(caught.value)
        (sent,) = endpoint.headers
        assert sent["authorization"] == f"Bearer {secret}"
        assert not [name for name in sent if name.startswith("openai-")]
        assert "of-this-machine" not in str(sent)


def test_retry_after_is_waited_for(ledger: Ledger) -> None:
    slow = failing(429, None, "slow down", **{"retry-after": "0.4"})
    with Endpoint(first_then(slow, said("yes"))) as endpoint:
        started = time.monotonic()
        ask(endpoint.url, ledger)
        assert 0.4 <= time.monotonic() - started < 1.5
    with Endpoint(lambda body, number: failing(429, None, "tomorrow", **{"retry-after": "86400"})) as endpoint:
        with pytest.raises(ModelError, match="tomorrow"):
            ask(endpoint.url, ledger)
        assert len(endpoint.asked) == 1, "nobody waits for a day"


def test_retry_after_as_seconds_milliseconds_and_a_date() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert retry_after_s({"retry-after": "7"}) == 7
    assert retry_after_s({"retry-after": date}, now) == 90
    assert retry_after_s({"retry-after": format_datetime(now - timedelta(days=1))}, now) == 0
    assert retry_after_s({"retry-after": "60", "retry-after-ms": "250"}) == 0.25
    for told in ("soon", "-3", "nan", "inf", ""):
        assert retry_after_s({"retry-after": told}) is None


def test_waits_grow_are_jittered_and_follow_their_seed() -> None:
    patience = Patience(base_s=1, cap_s=60, seed=5)
    drawn = [
        [patience.wait_s(tries, dice.random()) for tries in range(1, 9)] for dice in (patience.dice(), patience.dice())
    ]
    assert drawn[0] == drawn[1]
    assert all(0 <= wait_s <= min(60, 2**tries) for tries, wait_s in enumerate(drawn[0], 1))
    assert patience.wait_s(3, 1.0) == 8
    assert patience.wait_s(20, 1.0) == 60
    assert 10 <= patience.wait_s(1, 0.5, told_s=10) <= 11
    assert Patience().dice().random() != Patience().dice().random()


def test_an_endpoint_that_does_not_answer_is_told_of_once_in_a_while(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_calls, "SILENT_S", 0.15)
    with Endpoint(lambda body, number: failing(503) if number < 12 else said("yes")) as endpoint:
        told, caller = list[str](), caller_of(endpoint.url, concurrency=1, patience=Patience(0.1, 0.1, 20, seed=1))
        caller.tell = told.append
        caller.ask(iter(requests(2)), ledger, "label", lambda place, reply: None)
        caller.wire.hang_up()
    assert 1 <= len(told) <= 6
    assert told[0].startswith("the teacher has not answered for ")
    assert "503" in told[0]


def test_slots_are_evenly_spread_and_little_is_caught_up() -> None:
    now = [100.0]
    pace = Pace(600, lambda: now[0])
    assert [round(pace.wait_s(), 3) for _ in range(4)] == [0, 0.1, 0.2, 0.3]
    now[0] = 200.0
    waits = [pace.wait_s() for _ in range(10)]
    assert sum(wait == 0 for wait in waits) == 3, "what was unused for a quarter of a second, and the slot that is due"
    pace.pause(5)
    assert pace.wait_s() == pytest.approx(5)
    now[0] += 0.03
    assert Pace(None, lambda: now[0]).wait_s() == 0


def test_slots_of_one_moment_begin_together() -> None:
    now = [100.0]
    pace = Pace(6000, lambda: now[0])
    waits = [pace.wait_s() for _ in range(101)]
    assert waits[0] == 0, "nobody waits for a slot that is due"
    assert all(-1e-6 < wait - slot / 100 < TOGETHER_S + 1e-6 for slot, wait in enumerate(waits)), (
        "never before its slot"
    )
    assert len({round(wait, 6) for wait in waits}) <= 22, "a second has twenty moments"
    now[0] = 100.99
    assert pace.wait_s() == pytest.approx(0.06), "at 101.01 by itself, and so at 101.05"


def test_tokens_that_were_not_used_are_free_again() -> None:
    now = [100.0]
    pace = Pace(6000, lambda: now[0])
    pace.wait_s(600)
    pace.give_back(500)
    assert pace.wait_s(1) == pytest.approx(1.0)


def test_a_limit_of_requests_is_met_and_not_passed(ledger: Ledger) -> None:
    came: list[float] = []

    def script(body: dict[str, Any], number: int) -> Reply:
        came.append(time.monotonic())
        return said("yes")._replace(wait_s=0.1)

    with Endpoint(script) as endpoint:
        started = time.monotonic()
        ask(endpoint.url, ledger, 60, requests_per_minute=2400, concurrency=16)
    rate = 59 / (max(came) - min(came))
    assert 0.9 * 40 < rate <= 1.2 * 40
    assert max(came) - started > 59 / 40 - 0.3


def test_a_limit_of_tokens_is_kept(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes", tokens=(50, 10))) as endpoint:
        started = time.monotonic()
        ask(endpoint.url, ledger, 40, tokens_per_minute=60 * 2000)
        assert time.monotonic() - started > 40 * 60 / 2000 - 0.4


def test_as_many_at_once_as_allowed(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes")._replace(wait_s=0.05)) as endpoint:
        ask(endpoint.url, ledger, 30, concurrency=5)
    assert endpoint.most_at_once == 5


def test_many_refusals_in_a_row_make_all_wait(ledger: Ledger) -> None:
    caller = caller_of("http://127.0.0.1:9/v1", requests_per_minute=600)
    for _ in range(api_calls.CROWDED):
        caller.came_back(True, 3.0)
    assert caller.slot_s(Cost()) == pytest.approx(3.0, abs=0.1)
    caller = caller_of("http://127.0.0.1:9/v1", requests_per_minute=600)
    for _ in range(api_calls.CROWDED - 1):
        caller.came_back(True, 10.0)
    caller.came_through()  # so they are no longer in a row
    caller.came_back(True, 10.0)
    assert caller.slot_s(Cost()) < 1


def test_a_budget_is_not_passed_by_sixteen_requests_in_flight(tmp_path: Path) -> None:
    """At the endpoint, which knows what it charged; requests differ in what they cost and in how long they take."""
    charged, lock = [0], threading.Lock()

    def script(body: dict[str, Any], number: int) -> Reply:
        tokens = (20 + number % 37, 1 + number % 7)
        with lock:
            charged[0] += RATES.cost(*tokens).nano_usd
        return said("yes", tokens=tokens)._replace(wait_s=0.002 * (number % 11))

    most = requests(1)[0].most.nano_usd
    for run, usd in enumerate((most / NANO, 0.001, 0.0030001)):
        charged[0] = 0
        with Endpoint(script) as endpoint, opened(tmp_path / f"{run}.sqlite", "run", Limits(usd=usd)) as ledger:
            with pytest.raises(BudgetReached):
                ask(endpoint.url, ledger, 400, concurrency=16)
            assert charged[0] == ledger.spent().nano_usd <= usd * NANO
            assert charged[0] + most > usd * NANO, "a request that was sure to fit was not asked"


def test_faults_do_not_carry_a_budget_away(tmp_path: Path) -> None:
    """Requests that fail after they were charged count too, so what the endpoint charged stays within the budget."""
    charged, lock = [0], threading.Lock()

    def script(body: dict[str, Any], number: int) -> Reply:
        if number % 5 == 1:
            return failing(429)
        with lock:
            charged[0] += RATES.cost(40, 4).nano_usd
        if number % 5 == 2:
            return said("yes", tokens=(40, 4))._replace(cut=True)
        return said("yes", tokens=(40, 4))

    with Endpoint(script) as endpoint, opened(tmp_path / "l.sqlite", "run", Limits(usd=0.002)) as ledger:
        with pytest.raises(BudgetReached):
            ask(endpoint.url, ledger, 400, concurrency=16)
        assert 0 < charged[0] <= ledger.spent().nano_usd <= 0.002 * NANO


HIDDEN = said("yes", tokens=(20, 20_000))
"""Billed for thoughts that nobody asked for and nobody sees."""


@pytest.mark.parametrize("limits", [Limits(usd=0.001), Limits(tokens=1_000)], ids=["usd", "tokens"])
def test_an_endpoint_that_bills_more_than_was_set_aside_is_asked_once(limits: Limits, tmp_path: Path) -> None:
    slowly = HIDDEN._replace(wait_s=0.05)
    with Endpoint(lambda body, number: slowly) as endpoint, opened(tmp_path / "l.sqlite", "run", limits) as ledger:
        with pytest.raises(Overbilled, match=r"billed at 20,020 tokens, 0\.04002 USD.* 68 tokens.*reserve 527 times"):
            ask(endpoint.url, ledger, 100, concurrency=16)
        assert len(endpoint.asked) == endpoint.most_at_once == 1, "none is in flight beside the first"
        assert ledger.spent().tokens == 20_020, "what was billed is counted"
        assert ledger.kept(b"key 0") is not None, "and what it bought is kept"
        with pytest.raises(BudgetReached):
            ask(endpoint.url, ledger, 100, concurrency=16)
        assert len(endpoint.asked) == 1


def test_a_bill_that_is_too_high_later_costs_no_more_than_what_is_in_flight(tmp_path: Path) -> None:
    honest = said("yes", tokens=(20, 2))._replace(wait_s=0.02)
    with (
        Endpoint(first_then([honest] * 10, HIDDEN)) as endpoint,
        opened(tmp_path / "l.sqlite", "run", Limits(usd=1.0)) as ledger,
    ):
        with pytest.raises(Overbilled):
            ask(endpoint.url, ledger, 100, concurrency=4)
        assert 2 <= endpoint.most_at_once <= 4, "after a first bill all go at once"
        assert len(endpoint.asked) <= 10 + 4


def test_without_a_budget_that_bills_use_up_nothing_is_held_back(ledger: Ledger, tmp_path: Path) -> None:
    with Endpoint(lambda body, number: HIDDEN._replace(wait_s=0.05)) as endpoint:
        ask(endpoint.url, ledger, 8, concurrency=4)
        with opened(tmp_path / "calls.sqlite", "run", Limits(calls=8)) as by_calls:
            ask(endpoint.url, by_calls, 8, concurrency=4)
    assert endpoint.most_at_once == 4
    assert len(endpoint.asked) == 16


def test_a_first_request_that_is_refused_holds_no_other_back(tmp_path: Path) -> None:
    """Until a bill is seen they go one by one; a request that waits for its next try is not in flight."""
    refused = failing(429, **{"retry-after": "1"})

    def script(body: dict[str, Any], number: int) -> Reply:
        return refused if number == 0 else said("yes", tokens=(20, 2))

    with Endpoint(script) as endpoint, opened(tmp_path / "l.sqlite", "run", Limits(usd=1.0)) as ledger:
        became = ask(endpoint.url, ledger, 20)
    assert all(one.body is not None for one in became.values())
    assert endpoint.questions[endpoint.asked[0]["messages"][-1]["content"]] == 2
    assert endpoint.asked[-1] == endpoint.asked[0], "it is asked again when its time has come, after all others"


def test_an_error_of_whoever_takes_the_answers_stops_all(ledger: Ledger) -> None:
    def took(place: int, reply: Became) -> None:
        raise RunError("enough")

    with Endpoint(lambda body, number: said("yes")) as endpoint:
        caller = caller_of(endpoint.url)
        with pytest.raises(RunError, match="enough"):
            caller.ask(iter(requests(100)), ledger, "label", took)
        caller.wire.hang_up()
        assert ledger.spent().calls == len(endpoint.asked) <= 8, "what was in flight is kept, nothing more is sent"


def test_a_connection_that_the_server_closed_is_not_used_again(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes")._replace(hang_up=True)) as endpoint:
        caller = caller_of(endpoint.url)
        for number in range(3):
            caller.ask(iter(requests(1, first=number)), ledger, "label", lambda place, reply: None)
            time.sleep(0.05)
        caller.wire.hang_up()
    assert (len(endpoint.asked), ledger.lost().calls, ledger.spent().calls) == (3, 0, 3)


@pytest.mark.parametrize(
    ("name", "accepted", "same"),
    [
        (MODEL, (), True), (f"{MODEL}-2026-01-31", (), True), (f"{MODEL}-20260131", (), True),
        (f"{MODEL}-mini", (), False), (f"{MODEL}-mini-2026-01-31", (), False), ("other", (), False),
        ("other", ("other",), True), (f"org/{MODEL}", (f"*/{MODEL}",), True), (MODEL[:-1], (), False),
    ],
)  # fmt: skip
def test_which_names_are_the_same_model(name: str, accepted: tuple[str, ...], same: bool) -> None:
    assert same_model(name, MODEL, accepted) is same


def test_a_model_that_is_accepted_answers(ledger: Ledger) -> None:
    with Endpoint(lambda body, number: said("yes", "org/alias")) as endpoint:
        assert ask(endpoint.url, ledger, accepted=("org/*",))[0].body is not None


@pytest.mark.parametrize(
    "text", ["", "null", "7", '"yes"', "{}", '{"choices": null}', '{"choices": [null]}', '{"choices": [{}]}']
)
def test_no_body_is_an_answer_that_is_none(text: str) -> None:
    verdict = judge(200, {}, text, MODEL, ())
    assert (verdict.what, verdict.spoiled) == ("again", True)
