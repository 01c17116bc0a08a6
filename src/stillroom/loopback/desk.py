"""Who takes requests: checks the key, the limits and the luck, lets the mind answer, makes out the bill.

All on one event loop, without a coroutine: an answer that is due later is a timer.
"""

from __future__ import annotations

import json
import sys
import traceback
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from typing import Any

from stillroom.errors import StillroomError
from stillroom.loopback import faults
from stillroom.loopback.batches import Batches
from stillroom.loopback.chat import Chat, Refusal, as_json
from stillroom.loopback.http import Connection, Request, Response
from stillroom.loopback.meter import Bill, Gate
from stillroom.loopback.minds import Said, Thinker, dice
from stillroom.loopback.spec import Spec

GATHER_S = 0.005
"""How long a mind that answers several at once waits for more of them."""
Then = Callable[[list[Said] | StillroomError], None]


class Desk:
    """A loopback teacher at work."""

    def __init__(self, spec: Spec, thinker: Thinker, loop: AbstractEventLoop) -> None:
        self.spec, self.loop = spec, loop
        self.bill = Bill(spec.price, spec.batches.price_share)
        self.gate = Gate(spec.limits, loop.time())
        self.open: set[Connection] = set()
        self._thinker = thinker
        self._waiting: deque[tuple[Chat, int, Then]] = deque()
        self._thinking = False
        self._batches = Batches(spec.batches, self._answer_of_a_batch, loop)

    def connection(self) -> Connection:
        """A new client's."""
        return Connection(self._take, self.open)

    def _take(self, request: Request, connection: Connection) -> None:
        """One request, to its end or to a timer."""
        try:
            if request.path.startswith("/loopback/"):
                connection.reply(self._about(request))
                return
            self._refuse_wrong_key(request)
            if (request.method, request.path) == ("POST", "/v1/chat/completions"):
                self._chat(request, connection)
                return
            connection.reply(self._route(request))
        except Refusal as refusal:
            if request.path == "/v1/chat/completions":
                self.bill.statuses[f"{refusal.status} {refusal.error['code'] or refusal.error['type']}"] += 1
            connection.reply(refusal.response())
        except Exception as error:  # noqa: BLE001 - one request's failure is that request's answer, not the server's end
            traceback.print_exc(file=sys.stderr)
            connection.reply(Refusal(500, f"{type(error).__name__}: {error}", "server_error").response())

    def _refuse_wrong_key(self, request: Request) -> None:
        key = self.spec.api_key
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if key is not None and given != key:
            shown = f"{given[:4]}****" if given else "none"
            raise Refusal(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")

    def _route(self, request: Request) -> Response:
        """All but chat."""
        method, path = request.method, request.path.rstrip("/")
        if method == "GET" and path == "/v1/models":
            return as_json({"object": "list", "data": [self._model()]})
        if method == "GET" and path == f"/v1/models/{self.spec.model}":
            return as_json(self._model())
        found = self._batches.route(method, path, request)
        if found is None:
            raise Refusal(404, f"Unknown request URL: {method} {request.path}.", code="unknown_url")
        return found

    def _model(self) -> dict[str, Any]:
        return {"id": self.spec.model, "object": "model", "created": 0, "owned_by": "loopback"}

    def _about(self, request: Request) -> Response:
        """What the interface has not: the bill, and what was paid for more than once."""
        if request.path == "/loopback/bill":
            return as_json(self.bill.to_json() | {"waiting": len(self._waiting)})
        if request.path == "/loopback/twice":
            return as_json({"requests": self.bill.twice()})
        return Refusal(404, f"Unknown request URL: {request.path}.", code="unknown_url").response()

    def _chat(self, request: Request, connection: Connection) -> None:
        """Raises Refusal for what is not let through."""
        chat = Chat.read(_json_of(request.body), self.spec)
        quota_usd = self.spec.quota_usd
        if quota_usd is not None and self.bill.usd >= quota_usd:
            raise faults.too_many("You exceeded your current quota.", None, "insufficient_quota")
        now_s = self.loop.time()
        most = chat.prompt_tokens + chat.n * (chat.max_tokens or 0)
        wait_s = self.gate.wait_s(most, now_s)
        if wait_s > 0:
            raise faults.too_many(f"Rate limit reached. Please try again in {wait_s:.3f}s.", wait_s)
        before = self.bill.passes(chat.digest, now_s)
        fault = faults.fault_of(self.spec.faults, chat.digest, before)
        if fault is not None:
            self.bill.statuses[fault] += 1
        if fault == "drop":
            connection.close()
        if fault in faults.SILENT:
            if fault == "drop" or not self.spec.faults.bill_hangs:
                return
        elif fault is not None and fault not in faults.SPOILED:
            self.gate.give_back(most)
            refusal = faults.refused(self.spec.faults, fault, chat.digest, before)
            delay_s = 0.0 if fault == "too_many" else self._latency_s(chat, before)
            self.loop.call_later(delay_s, connection.reply, refusal)
            return
        due_s = now_s + self._latency_s(chat, before)

        def then(said: list[Said] | StillroomError) -> None:
            self.loop.call_at(due_s, self._finish, chat, said, before, fault, connection, most)

        self._queue(chat, before, then)

    def _latency_s(self, chat: Chat, before: int) -> float:
        spread = dice(chat.digest.hex(), before, "latency").random() if self.spec.latency_spread_ms else 0.0
        return (self.spec.latency_ms + spread * self.spec.latency_spread_ms) / 1000

    def _finish(
        self,
        chat: Chat,
        said: list[Said] | StillroomError,
        before: int,
        fault: str | None,
        connection: Connection,
        most: int,
    ) -> None:
        """The answer is due: charge for it and send it, if there is still somebody to send it to."""
        if isinstance(said, StillroomError):
            self.gate.give_back(most)
            connection.reply(Refusal(400, str(said), code="context_length_exceeded").response())
            return
        body, tokens = chat.answer(said, self.spec.model, before)
        self.gate.give_back(most - sum(tokens))
        self.bill.pays(chat.digest, chat.question, tokens, batch=False, spoiled=fault is not None)
        if fault == "hang":
            return
        if fault is None:
            self.bill.statuses["200"] += 1
        if connection.gone:
            self.bill.abandoned += 1
        connection.reply(as_json(body, headers=self.gate.headers()) if fault is None else faults.spoiled(fault, body))

    def _queue(self, chat: Chat, before: int, then: Then) -> None:
        """Have the mind answer, with others where it takes several at once."""
        self._waiting.append((chat, before, then))
        if not self._thinking:
            self._thinking = True
            self.loop.call_later(GATHER_S if self._thinker.rows > 1 else 0.0, self._think)

    def _think(self) -> None:
        """Answer those that wait, as many as the mind takes at once."""
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._thinker.rows))]
        asked = [chat.asked(self.spec.mind, before) for chat, before, _ in taken]
        try:
            said = self._thinker.say([one for several in asked for one in several])
        except StillroomError as error:
            for each in taken if len(taken) == 1 else []:
                each[2](error)
            for each in taken if len(taken) > 1 else []:
                self._one_by_one(*each)
        else:
            start = 0
            for (_, _, then), several in zip(taken, asked, strict=True):
                then(said[start : start + len(several)])
                start += len(several)
        self._thinking = bool(self._waiting)
        if self._waiting:
            self.loop.call_soon(self._think)

    def _one_by_one(self, chat: Chat, before: int, then: Then) -> None:
        """One of several that could not be answered together."""
        try:
            then(self._thinker.say(chat.asked(self.spec.mind, before)))
        except StillroomError as error:
            then(error)

    def _answer_of_a_batch(self, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of one request of a batch, which knows no limits."""
        try:
            chat = Chat.read(body, self.spec)
            before = self.bill.passed[chat.digest]
            self.bill.passed[chat.digest] += 1
            said = self._thinker.say(chat.asked(self.spec.mind, before))
        except Refusal as refusal:
            return refusal.status, {"error": refusal.error}
        except StillroomError as error:
            return 400, {"error": Refusal(400, str(error), code="context_length_exceeded").error}
        answer, tokens = chat.answer(said, self.spec.model, before)
        self.bill.pays(chat.digest, chat.question, tokens, batch=True, spoiled=False)
        return 200, answer


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise Refusal(400, "We could not parse the JSON body of your request.") from None
