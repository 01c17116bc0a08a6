"""Requests sent as batches: a file of them is answered within a day at a lower price.

A batch is remembered in the ledger under a mark of ours before it is made, and under its id as soon as it has one; so a run
that was killed finds its batches again, waits for them, and pays for none twice. Results are merged by their requests' keys.
As many requests are sent at once as the budget has room for at their most; when they have cost less, more follow.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from stillroom.budget import Cost, Rates
from stillroom.errors import BudgetReached, ModelError, RunError, StillroomError
from stillroom.ledger import Ledger, Reservation
from stillroom.teachers.api_calls import Reply, Request, Took
from stillroom.teachers.api_faults import Outcome, failed, judge, shortened, usage_of
from stillroom.teachers.api_manners import Patience
from stillroom.teachers.api_wire import Came, Wire

MOST_REQUESTS, MOST_BYTES = 50_000, 150 << 20
"""Of one batch, as endpoints allow."""
ROUNDS = 3
"""A request that came back without an answer is put into another batch this often at most."""
FIRST_POLL_S, LAST_POLL_S = 0.2, 60.0
SETTLED_AT_ONCE = 1000
DOWNLOAD_S = 3600.0
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MARK = "stillroom"
LISTED = 100
"""Batches of one page of an endpoint's list."""
NO_BATCHES = '{"data": []}'
ENDED = ("completed", "failed", "expired", "cancelled")


class Batcher:
    """The batches of one model at one endpoint."""

    def __init__(
        self, wire: Wire, model: str, rates: Rates, patience: Patience, accepted: tuple[str, ...] = (),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.wire, self.model, self.rates, self._accepted, self._sleep = wire, model, rates, accepted, sleep
        self._patience, self._dice = patience, patience.dice()
        self._asked_of = f"{wire.address} {model}"

    def resume(self, ledger: Ledger) -> int:
        """Wait for this run's batches that were not merged before, and merge them; how many there were."""
        found = ledger.open_batches(self._asked_of)
        for mark, number in found.items():
            number = number or self._number_of(mark)
            if number is None:
                self._forget(mark, ledger)
            else:
                self._merge(ledger, mark, number, {}, lambda place, reply: None)
        return len(found)

    def ask(self, requests: Iterator[Request], ledger: Ledger, purpose: str, took: Took) -> None:
        """See Caller.ask; it returns when all batches are merged."""
        waiting = list(enumerate(requests))
        why: dict[int, str] = {}
        for _ in range(ROUNDS):
            again: list[tuple[int, Request]] = []
            while waiting:
                mark, sent = self._reserve(waiting, ledger, purpose)
                waiting = waiting[len(sent) :]
                number = self._make(mark, sent, ledger)
                places = {request.key: place for place, request in sent}
                failed_here = self._merge(ledger, mark, number, places, took)
                why |= {places[key]: told for key, told in failed_here.items()}
                again += [one for one in sent if one[1].key in failed_here]
            waiting = again
        for place, _ in waiting:
            took(place, Reply(None, Cost(), why=why[place]))

    def _reserve(
        self, waiting: Sequence[tuple[int, Request]], ledger: Ledger, purpose: str
    ) -> tuple[str, Sequence[tuple[int, Request]]]:
        """Set aside the most of as many requests as there is room for, at least one. Raises BudgetReached."""
        size, count = 0, 0
        for _, request in waiting[:MOST_REQUESTS]:
            size += len(request.body) + len(request.key) * 2 + len(ENDPOINT) + 64
            if count and size > MOST_BYTES:
                break
            count += 1
        while True:
            mark, sent = secrets.token_hex(16), waiting[:count]
            try:
                ledger.note_batch(mark, self._asked_of, None)
                ledger.reserve_all([(one.key, purpose, one.most) for _, one in sent], mark)
                return mark, sent
            except BudgetReached:
                ledger.forget_batch(mark)
                if count == 1:
                    raise
                count //= 2

    def _make(self, mark: str, sent: Sequence[tuple[int, Request]], ledger: Ledger) -> str:
        lines = (
            f'{{"custom_id":"{one.key.hex()}","method":"POST","url":"{ENDPOINT}","body":{one.body.decode()}}}\n'
            for _, one in sent
        )
        content, client = "".join(lines).encode(), self.wire.client.with_options(timeout=DOWNLOAD_S)
        try:
            file = self._asked(
                lambda: client.files.with_raw_response.create(file=(f"{mark}.jsonl", content), purpose="batch")
            )
        except StillroomError:
            self._forget(mark, ledger)
            raise
        made = self._asked(
            lambda: client.batches.with_raw_response.create(
                input_file_id=str(file["id"]), endpoint=ENDPOINT, completion_window="24h", metadata={MARK: mark}
            ),
            once=lambda: self._number_of(mark),
        )
        number = str(made["id"])
        ledger.note_batch(mark, self._asked_of, number)
        return number

    def _number_of(self, mark: str) -> str | None:
        """The id of the batch that bears this mark, among all of the endpoint's; None where it was never made."""
        page: dict[str, Any] = {}
        while True:
            told = self._asked(
                lambda: self.wire.client.batches.with_raw_response.list(limit=LISTED, **page),  # noqa: B023 - called now
                absent=NO_BATCHES,
            )
            batches = [one for one in told.get("data") or [] if isinstance(one, dict)]
            for one in batches:
                if (one.get("metadata") or {}).get(MARK) == mark:
                    return str(one["id"])
            last = batches[-1].get("id") if batches else None
            if not told.get("has_more") or last is None or page.get("after") == last:
                return None
            page = {"after": str(last)}

    def _forget(self, mark: str, ledger: Ledger) -> None:
        """A batch that was never made."""
        ledger.release_all(ledger.in_batch(mark), "its batch was not made")
        ledger.forget_batch(mark)

    def _merge(self, ledger: Ledger, mark: str, number: str, places: dict[bytes, int], took: Took) -> dict[bytes, str]:
        """Wait for a batch to end and put its results into the ledger; the keys of those without an answer, and why."""
        batch = self._ended(number)
        if batch["status"] == "failed":
            ledger.release_all(ledger.in_batch(mark), "its batch failed")
            ledger.forget_batch(mark)
            told = shortened(json.dumps(batch.get("errors")))
            raise ModelError(
                f"the endpoint does not take the batch: {told}",
                where=f"teacher.batch, {number}",
                cure="Set batch: false",
            )
        open_here = {one.key: one for one in ledger.in_batch(mark)}
        why: dict[bytes, str] = {}
        stop: Outcome | None = None
        answered: list[tuple[Reservation, str, Cost, float]] = []
        costs: list[tuple[Cost, Cost]] = []
        for key, verdict, raw in self._results(batch):
            one = open_here.pop(key, None)
            if one is None:
                continue
            usage = usage_of(verdict.body)
            cost = one.most if usage is None else self.rates.cost(*usage)
            costs.append((one.most, cost))
            if verdict.what == "answer" or (verdict.what == "stop" and verdict.body is not None):
                answered.append((one, raw, cost, 0.0))
            elif verdict.spoiled:
                ledger.lose(one, verdict.why, cost)
            else:
                ledger.release(one, verdict.why)
            stop = verdict if verdict.what == "stop" else stop
            if verdict.what == "again":
                why[key] = verdict.why
            elif key in places:
                took(places[key], Reply(verdict.body, cost, why=verdict.why))
        for start in range(0, len(answered), SETTLED_AT_ONCE):
            ledger.settle_all(answered[start : start + SETTLED_AT_ONCE])
        why |= {key: f"the batch {batch['status']} without it" for key in open_here}
        ledger.forget_batch(mark)
        for most, cost in costs:
            ledger.limits.refuse_overbilled(most, cost, f"teacher.batch, {number}")
        if stop is not None:
            raise RunError(stop.why, where=f"teacher.batch, {number}", cure=stop.cure)
        return why

    def _ended(self, number: str) -> dict[str, Any]:
        wait_s = FIRST_POLL_S
        while True:
            batch = self._asked(lambda: self.wire.client.batches.with_raw_response.retrieve(number))
            if batch.get("status") in ENDED:
                return batch
            self._sleep(wait_s)
            wait_s = min(LAST_POLL_S, wait_s * 1.5)

    def _results(self, batch: dict[str, Any]) -> Iterator[tuple[bytes, Outcome, str]]:
        """Key, verdict and raw body of each result of a batch.

        Not splitlines(): an answer may hold U+2028 and its like, which JSON leaves as they are.
        """
        client, lines = self.wire.client.with_options(timeout=DOWNLOAD_S), list[str]()
        for file in filter(None, [batch.get("output_file_id"), batch.get("error_file_id")]):
            text = self._text(lambda name=str(file): client.files.with_raw_response.content(name))  # type: ignore[misc]
            lines += text.split("\n")
        for line in filter(str.strip, lines):
            try:
                told = json.loads(line)
                key = bytes.fromhex(told["custom_id"])
            except (ValueError, KeyError, TypeError):
                continue
            response = told.get("response")
            if not isinstance(response, dict):
                message = (told.get("error") or {}).get("message", "no response")
                yield key, Outcome("again", shortened(str(message)), billed=False), ""
                continue
            raw = json.dumps(response.get("body"))
            status = response.get("status_code")
            yield key, judge(status if isinstance(status, int) else 200, {}, raw, self.model, self._accepted), raw

    def _asked(
        self, send: Callable[[], Any], once: Callable[[], Any] | None = None, absent: str | None = None
    ) -> dict[str, Any]:
        """What an endpoint tells about files and batches, as JSON."""
        text = self._text(send, once, absent)
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ModelError(
                "the endpoint knows no batches", where=f"teacher.batch, {self.wire.address}", cure="Set batch: false"
            )
        return told

    def _text(self, send: Callable[[], Any], once: Callable[[], Any] | None = None, absent: str | None = None) -> str:
        """The body of a response; what may pass by itself is tried again. `absent`: what stands for one that is not there.

        Where doing it twice would cost twice, `once` looks whether it was done before it is tried again.
        """
        tries = 0
        while True:
            came, tries = self.wire.sent(lambda: send().http_response), tries + 1
            verdict = failed(came.status, came.headers, came.text) if isinstance(came, Came) else came
            if verdict is None:
                assert isinstance(came, Came)
                return came.text
            if absent is not None and isinstance(came, Came) and came.status in (404, 405):
                return absent
            if verdict.what != "again" or tries >= self._patience.tries:
                raise RunError(verdict.why, where=f"teacher.batch, {self.wire.address}", cure=verdict.cure)
            wait_s = self._patience.wait_s(tries, self._dice.random(), verdict.wait_s)
            self._sleep(wait_s)
            done = once() if once is not None else None
            if done is not None:
                return json.dumps({"id": done})
