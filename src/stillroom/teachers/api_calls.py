"""Sends requests to an OpenAI-compatible endpoint with good manners: limits, patience, and a ledger. Here are the threads.

Each request is reserved in the ledger, sent by the official `openai` client without its own retries, and settled. What
may pass by itself is tried again after a full-jittered exponential wait, or after what Retry-After says; while a request
waits it holds no thread. Requests and tokens a minute are spread evenly, so that a limit is met rather than run into.
Under a budget requests go one at a time until a first bill is seen, and a bill above its reservation stops all: what may
be passed of a budget is then no more than what was in flight. What an answer says is not known here.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stillroom.budget import Cost, Rates
from stillroom.errors import BudgetReached, ModelError, RunError
from stillroom.ledger import Ledger, Reservation
from stillroom.teachers.api_faults import Outcome, judge, usage_of
from stillroom.teachers.api_manners import Manners, Pace
from stillroom.teachers.api_wire import Came, Wire

LONGEST_WAIT_S = 300.0
"""A server that asks to wait longer is not waited for."""
FEW_TRIES = 3
"""An answer of no use is paid for, and a server that is not there stays away: neither is tried more often."""
CROWDED = 4
"""So many requests in a row refused for coming too fast, and all of them wait."""
HOPELESS = 5
"""So many requests given up with none answered between them, and the endpoint is taken to be out of order."""
USED_AT_FIRST, LEARNING = 0.3, 0.1
"""Share of the most tokens that requests take, before any has; and how fast that is learned."""
TIGHT_S = 0.1
SILENT_S = 10.0
"""After so many seconds without an answer it is told why requests are sent again, and again after as long."""
PATH = "chat/completions"


@dataclass(frozen=True)
class Request:
    """One request: its key in the ledger, its body as JSON, and the most it can cost."""

    key: bytes
    body: bytes
    most: Cost


@dataclass(frozen=True)
class Reply:
    """What became of a request: the JSON of its answer and its cost, or why there is none."""

    body: dict[str, Any] | None
    cost: Cost
    latency_s: float = 0.0
    why: str = ""


Took = Callable[[int, Reply], None]
"""Is given the place of each request and what became of it as soon as that is known; from any thread, one at a time."""


class Caller:
    """Asks one endpoint. Limits hold over all calls of `ask`; the connections stay open between them."""

    def __init__(self, wire: Wire, model: str, rates: Rates, manners: Manners, accepted: tuple[str, ...] = ()) -> None:
        self.wire, self.model, self.rates, self.manners, self._accepted = wire, model, rates, manners, accepted
        self.answered = 0
        """Requests that were, so far."""
        self._requests, self._tokens = Pace(manners.requests_per_minute), Pace(manners.tokens_per_minute)
        self._dice, self._lock = manners.patience.dice(), threading.Lock()
        self._share = USED_AT_FIRST
        self._crowded = self._given_up = 0
        self.tell: Callable[[str], None] = lambda words: None
        """Hears of an endpoint that has not answered for a while."""
        self._heard_s = self._told_s = time.monotonic()

    def ask(self, requests: Iterator[Request], ledger: Ledger, purpose: str, took: Took) -> None:
        """Send all of them; returns when nothing is in flight any more.

        Raises BudgetReached, and ModelError or RunError where the endpoint will not answer; what was answered before
        was handed over and is kept.
        """
        self._heard_s = time.monotonic()
        _Asking(self, requests, ledger, purpose, took).run()

    def judge(self, came: Came) -> Outcome:
        """What to do about a response."""
        return judge(came.status, came.headers, came.text, self.model, self._accepted)

    def slot_s(self, most: Cost) -> float:
        """Take the next slot of both limits; seconds until it begins."""
        return max(self._requests.wait_s(), self._tokens.wait_s(self._share * most.tokens))

    def used(self, most: Cost, cost: Cost | None) -> None:
        """Give back tokens that were set aside and not used, and learn how much of the most is; None: none was."""
        with self._lock:
            expected = self._share * most.tokens
            if cost is not None:
                self._share += LEARNING * (cost.tokens / max(1, most.tokens) - self._share)
        self._tokens.give_back(expected - (0 if cost is None else cost.tokens))

    def chance(self) -> float:
        """The next draw of the waits, from 0 to 1."""
        with self._lock:
            return self._dice.random()

    def came_through(self) -> None:
        """A request was answered."""
        with self._lock:
            self.answered += 1
            self._crowded = self._given_up = 0
            self._heard_s = time.monotonic()

    def came_back(self, too_fast: bool, wait_s: float, why: str = "") -> None:
        """A request is to be sent again; where several in a row came too fast, all wait."""
        with self._lock:
            self._crowded = self._crowded + 1 if too_fast else 0
            all_wait = self._crowded >= CROWDED
            if all_wait:
                self._crowded = 0
            now_s = time.monotonic()
            silent_s = now_s - self._heard_s
            is_news = min(silent_s, now_s - self._told_s) >= SILENT_S
            if is_news:
                self._told_s = now_s
        if all_wait:
            self._requests.pause(wait_s)
        if is_news:
            self.tell(f"the teacher has not answered for {silent_s:.0f} s and is asked again: {why}")

    def is_hopeless(self, verdict: Outcome) -> bool:
        """A request was given up; True where the trouble is the endpoint's and not this request's."""
        with self._lock:
            self._given_up += 1
            general = verdict.lost or verdict.too_fast or verdict.html
            return self._given_up >= HOPELESS or (general and not self.answered)


@dataclass(order=True)
class _Job:
    """A request on its way."""

    ready_s: float
    place: int
    request: Request = field(compare=False)
    tries: int = field(default=0, compare=False)
    spoiled: int = field(default=0, compare=False)
    reservation: Reservation | None = field(default=None, compare=False)


class _Asking:
    """One call of `ask`."""

    def __init__(self, caller: Caller, requests: Iterator[Request], ledger: Ledger, purpose: str, took: Took) -> None:
        self.caller, self.ledger, self.purpose, self.took = caller, ledger, purpose, took
        self._requests = enumerate(requests)
        self._changed, self._telling = threading.Condition(), threading.Lock()
        self._halt = threading.Event()
        self._again: list[_Job] = []
        self._busy = self._reserved = self._ended = 0
        self._tight = False
        """The budget has no room for a new request until one in flight has ended."""
        self._wary = ledger.limits.of_bills
        """A bill above what was set aside would be taken from a budget, so it matters how many are in flight."""
        self._error: BaseException | None = None

    def run(self) -> None:
        """Work in as many threads as are allowed, or in this one where there is one request."""
        first, second = self._new(), self._new()
        self._again = [job for job in (first, second) if job is not None]
        if second is None or self.caller.manners.concurrency == 1:
            self._work()
        else:
            self._in_threads()
        held = [job.reservation for job in self._again if job.reservation is not None]
        if held:
            self.ledger.release_all(held, "not sent again")
        if self._error is not None:
            raise self._error

    def _in_threads(self) -> None:
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.caller.manners.concurrency)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            # Interrupted: what is in flight is paid for, so it is waited for and kept.
            self._stop(error)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise

    def _work(self) -> None:
        """Take one request after another until there is none left, or all is stopped."""
        try:
            while (job := self._next()) is not None:
                try:
                    self._try(job)
                finally:
                    with self._changed:
                        self._busy -= 1
                        if self._error is not None or not self._busy:
                            self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that called ask
            self._stop(error)

    def _next(self) -> _Job | None:
        """The next request whose time has come; waits for it."""
        with self._changed:
            while self._error is None:
                if self._busy and self._wary and not self.caller.answered:
                    self._changed.wait()
                    continue
                now_s = time.monotonic()
                due = self._again and self._again[0].ready_s <= now_s
                job = heapq.heappop(self._again) if due else None if self._tight else self._new()
                if job is not None:
                    self._busy += 1
                    return job
                if not self._again and not self._busy:
                    break
                self._changed.wait(self._again[0].ready_s - now_s if self._again else None)
            self._changed.notify_all()
            return None

    def _new(self) -> _Job | None:
        place, request = next(self._requests, (0, None))
        return None if request is None else _Job(0.0, place, request)

    def _later(self, job: _Job, wait_s: float) -> None:
        job.ready_s = time.monotonic() + wait_s
        with self._changed:
            heapq.heappush(self._again, job)
            self._changed.notify()

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._halt.set()
            self._changed.notify_all()

    def _try(self, job: _Job) -> None:
        """Send a request once, and do what its response asks for."""
        wait_s = self.caller.slot_s(job.request.most)
        if (wait_s > 0 and self._halt.wait(wait_s)) or self._error is not None:
            self._later(job, 0.0)
            return
        if job.reservation is None:
            job.reservation = self._reserve(job)
            if job.reservation is None:
                return
        started_s = time.monotonic()
        job.tries += 1
        came = self.caller.wire.post(PATH, job.request.body)
        latency_s = time.monotonic() - started_s
        verdict = came if isinstance(came, Outcome) else self.caller.judge(came)
        reply = Reply(verdict.body, self._settled(job, came, verdict, latency_s), latency_s)
        if verdict.what == "answer":
            self.caller.came_through()
            self._tell(job, reply)
        else:
            self._follow(job, verdict)

    def _follow(self, job: _Job, verdict: Outcome) -> None:
        """There was no answer: try again, give up this request, or stop."""
        job.spoiled += verdict.spoiled
        if verdict.what == "again" and not self._enough(job, verdict):
            wait_s = self.caller.manners.patience.wait_s(job.tries, self.caller.chance(), verdict.wait_s)
            self.caller.came_back(verdict.too_fast, wait_s, verdict.why)
            self._later(job, wait_s)
            return
        if job.reservation is not None:
            self.ledger.release(job.reservation, verdict.why)
            self._over(job)
        if verdict.what == "stop" or (verdict.what == "again" and self.caller.is_hopeless(verdict)):
            kind = RunError if self.caller.answered else ModelError
            raise kind(verdict.why, where=f"teacher, {self.caller.wire.address}", cure=verdict.cure)
        self._tell(job, Reply(None, Cost(), why=verdict.why))

    def _tell(self, job: _Job, reply: Reply) -> None:
        with self._telling:
            self.took(job.place, reply)

    def _settled(self, job: _Job, came: Came | Outcome, verdict: Outcome, latency_s: float) -> Cost:
        """Put down in the ledger what a try cost; one that was certainly not billed keeps its reservation."""
        assert job.reservation is not None
        most, usage = job.request.most, usage_of(verdict.body)
        cost = most if usage is None else self.caller.rates.cost(*usage)
        is_answer = verdict.what == "answer"
        if isinstance(came, Came) and (is_answer or (verdict.what == "stop" and verdict.body is not None)):
            self.ledger.settle(job.reservation, came.text, cost, latency_s)
        elif verdict.billed:
            self.ledger.lose(job.reservation, verdict.why, cost)
        else:
            self.caller.used(most, None)
            return Cost()
        self.caller.used(most, cost if is_answer else None)
        self._over(job)
        self.ledger.limits.refuse_overbilled(most, cost, f"teacher, {self.caller.wire.address}")
        return cost

    def _enough(self, job: _Job, verdict: Outcome) -> bool:
        """Tried so often that one more time would not help."""
        most = self.caller.manners.patience.tries
        if verdict.absent and not self.caller.answered:
            most = min(most, FEW_TRIES)
        return job.tries >= most or job.spoiled >= FEW_TRIES or (verdict.wait_s or 0.0) > LONGEST_WAIT_S

    def _reserve(self, job: _Job) -> Reservation | None:
        """Set the most it can cost aside; where that is too much now, what is in flight may turn out to cost less."""
        while True:
            with self._changed:
                self._reserved += 1
                ended = self._ended
            try:
                return self.ledger.reserve(job.request.key, self.purpose, job.request.most)
            except BudgetReached:
                with self._changed:
                    self._reserved -= 1
                    if self._error is None and ended != self._ended:
                        continue
                    if self._error is None and not self._reserved:
                        raise
                    self._tight = True
                self._later(job, TIGHT_S)
                return None

    def _over(self, job: _Job) -> None:
        """A reservation has ended, so there may be room for another."""
        job.reservation = None
        with self._changed:
            self._reserved -= 1
            self._ended += 1
            self._tight = False
