"""Who answers a chat call, and how: a finished student, a teacher, or a cascade of both; whole, or piece by piece.

In a cascade the student answers where it is sure, and the teacher elsewhere. Of the calls that the student answers, a small
share drawn at random is asked of the teacher too, afterwards: the audit slice, which says how often they agree.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stillroom.service.data import completion_rows
from stillroom.service.data.redaction import redaction_of
from stillroom.service.door.access import Caller
from stillroom.service.door.faults import ApiError, not_found
from stillroom.service.door.lists import Row
from stillroom.service.rows.ids import new_id
from stillroom.service.students import usage
from stillroom.service.students.begun import begun
from stillroom.service.students.chat_body import ChatCall, choice, counted, cut, delta, label_logprobs, token_logprobs
from stillroom.service.students.model_rows import CASCADE, find_model, has_cascade, presets
from stillroom.service.students.shelf import Labelled
from stillroom.service.teachers import proxy
from stillroom.service.teachers.teacher_rows import find_teacher
from stillroom.service.watch.logs import log

if TYPE_CHECKING:
    from stillroom.service.students.speaking import Piece, Token

AUDIT_SHARE = 0.05
STUDENT, TEACHER = "student", "teacher"
SAID = ("messages", "tools", "functions", "metadata", "response_format")
"""Fields of a call in which any name may stand, and asks for nothing."""
AROUND = " \t\r\n.\"'`*"
"""What a teacher may write around a label."""


@dataclass(frozen=True)
class Asked:
    """A call, and who may answer it."""

    state: Any
    caller: Caller
    body: ChatCall
    student: Row | None
    teacher: Row | None
    """Of a student: the one it learned from, where that is registered."""
    is_cascade: bool = False
    id: str = field(default_factory=lambda: new_id("chatcmpl"))
    created: int = field(default_factory=lambda: int(time.time()))

    def shape(self, kind: str, **more: Any) -> dict[str, Any]:
        """What every answer and every piece begins with."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.body.model, **more}


@dataclass
class Reply:
    """What came of it."""

    by: str
    choices: list[dict[str, Any]] = field(default_factory=list)
    tokens_in: int = 0
    tokens_out: int = 0
    nano_usd: int = 0
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of a teacher's answer."""
    label: str | None = None
    """What the student said, where the teacher is to be asked too."""


def find(state: Any, caller: Caller, body: ChatCall) -> Asked:
    """Who is asked. Raises ApiError 404 for a model that there is none of, 400 for one that does not answer."""
    name = body.model
    with state.database.reading() as rows:
        if name.startswith("ft:"):
            row = find_model(rows, caller.project_id, name.removesuffix(CASCADE))
            is_cascade = name.endswith(CASCADE)
            if is_cascade and not has_cascade(row):
                raise not_found("model", name, "model")
            return Asked(state, caller, body, row, _teacher_of(rows, caller, row, is_cascade), is_cascade)
        if name in presets(state.settings):
            told = f"'{name}' is what a student begins as; create a fine-tuning job with it, and ask what that makes."
            raise ApiError(400, told, param="model", code="model_not_served")
        try:
            teacher = find_teacher(rows, caller.project_id, name, "model")
        except ApiError as error:
            raise not_found("model", name, "model") from error
    return Asked(state, caller, body, None, teacher)


def whole(asked: Asked) -> Reply:
    """The whole answer. Raises ApiError or StillroomError."""
    if asked.student is None:
        return _by_teacher(asked)
    asked.body.refuse_for_student(asked.student["kind"])
    if asked.student["kind"] == "language":
        return _written(asked)
    said = asked.state.shelf.label(asked.student, asked.body.texts())
    if asked.is_cascade and not _is_sure(asked.student, said):
        return _by_teacher(asked)
    return _labelled(asked, said)


def pieces(asked: Asked) -> tuple[Reply, Generator[list[dict[str, Any]]]]:
    """The answer as it comes: lists of choices' deltas. The reply is filled meanwhile, and whole at the end."""
    student = asked.student
    if student is not None:
        asked.body.refuse_for_student(student["kind"])
    if student is not None and student["kind"] == "language":
        return _spoken(asked)
    reply: Reply | None = None
    if student is not None:
        said = asked.state.shelf.label(student, asked.body.texts())
        if not asked.is_cascade or _is_sure(student, said):
            reply = _labelled(asked, said)
    if reply is None:
        _refuse_secrets(asked)
        reply = Reply(TEACHER)
        try:
            coming = proxy.stream(asked.state, asked.teacher or {}, asked.body.as_sent())
            return reply, begun(_relayed(asked, reply, coming))
        except proxy.NoStream:
            reply = _by_teacher(asked)
    return reply, _in_one_piece(reply)


def settle(asked: Asked, reply: Reply, stores: bool = True) -> None:
    """Write down what the call used and, where that is wanted, what was said; half an answer is used and not stored."""
    state, body, caller = asked.state, asked.body, asked.caller
    state.usage.add(
        project_id=caller.project_id, key_id=caller.key_id or None, model=body.model, by=reply.by,
        tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, nano_usd=reply.nano_usd,
        saved_nano_usd=_saved(asked, reply),
    )  # fmt: skip
    if stores and is_stored(asked, reply):
        values = to_store(asked, reply)
        with state.database.writing() as rows:
            completion_rows.store(rows, values)


def is_stored(asked: Asked, reply: Reply) -> bool:
    """What was said is kept: where the call wants that, or leaves it open, a cascade's teacher answered, and the project trains
    on what is stored.
    """
    if not reply.choices or asked.body.store is False:
        return False
    if asked.body.store is True:
        return True
    if not asked.is_cascade or reply.by != TEACHER:
        return False
    with asked.state.database.reading() as rows:
        return completion_rows.may_train(rows, asked.caller.project_id)


def to_store(asked: Asked, reply: Reply) -> dict[str, Any]:
    """What is kept of a call and its answer, redacted."""
    state, body = asked.state, asked.body
    # What a teacher says in a cascade is kept under its own name: its next student learns from that too.
    teacher = asked.teacher if reply.by == TEACHER else None
    model = body.model if teacher is None else teacher["name"]
    return completion_rows.prepared(
        asked.caller, model=model, request=body.as_sent(), response=as_completion(asked, reply), metadata=body.metadata,
        by=reply.by, redaction=redaction_of(state.settings), teacher=teacher,
    )  # fmt: skip


def audit(asked: Asked, reply: Reply) -> None:
    """Ask the teacher what the student has answered, and write down whether they agree; for nobody waits for it."""
    state, body, caller, teacher = asked.state, asked.body, asked.caller, asked.teacher
    if teacher is None or reply.label is None:
        return
    sent = {name: value for name, value in body.as_sent().items() if name not in ("n", "logprobs", "top_logprobs")}
    try:
        found = proxy.ask(state, teacher, sent)
    except ApiError as error:
        log("audit failed", "warning", status=error.status, code=error.code)
        return
    text = found["choices"][0]["message"].get("content") or ""
    tokens_in, tokens_out, paid = proxy.cost(teacher, found.get("usage"), body.letters(), len(text))
    state.usage.add(
        project_id=caller.project_id, key_id=caller.key_id or None, model=body.model, by=usage.AUDIT, nano_usd=paid,
        tokens_in=tokens_in, tokens_out=tokens_out, agreed=_plain(text) == _plain(reply.label),
    )  # fmt: skip


def as_completion(asked: Asked, reply: Reply) -> dict[str, Any]:
    """A whole answer in the interface's form."""
    found = {**reply.more, **asked.shape("chat.completion"), "choices": reply.choices}
    found["usage"] = reply.more.get("usage") or counted(reply.tokens_in, reply.tokens_out)
    return {**found, "metadata": asked.body.metadata} if asked.body.store and asked.body.metadata else found


def _teacher_of(rows: Any, caller: Caller, row: Row, needed: bool) -> Row | None:
    if not row["teacher"]:
        return None
    try:
        return find_teacher(rows, caller.project_id, row["teacher"], "model")
    except ApiError as error:
        if needed:
            told = f"The teacher '{row['teacher']}' of this cascade is gone; the student answers under its own name."
            raise ApiError(404, told, param="model", code="teacher_not_found") from error
        return None


def _is_sure(row: Row, said: Labelled) -> bool:
    from stillroom.cascade import is_sure

    return bool(is_sure(row["cascade"], said.log_probabilities_NC)[0])


def _labelled(asked: Asked, said: Labelled) -> Reply:
    """A classifier's likeliest label, whatever temperature is asked for; drawn to be audited in a cascade."""
    body, label = asked.body, str(said.names()[0])
    told = label_logprobs(said, body.top_logprobs or 0) if body.logprobs else None
    count = body.n or 1
    choices = [choice(index, cut(label, body.stops), "stop", told) for index in range(count)]
    drawn = asked.is_cascade and secrets.randbelow(10_000) < 10_000 * AUDIT_SHARE
    return Reply(STUDENT, choices, usage.tokens_of(body.letters()), count, label=label if drawn else None)


def _written(asked: Asked) -> Reply:
    """What a language student writes."""
    body, student, reply = asked.body, asked.student, Reply(STUDENT)
    seed = secrets.randbelow(1 << 31) if body.seed is None else body.seed
    for index in range(body.n or 1):
        said = asked.state.shelf.say(student, body.texts(), body.wish(index, seed))
        told = None if said.tokens is None else token_logprobs(said.tokens)
        reply.choices.append(choice(index, said.text, said.finish, told))
        reply.tokens_in, reply.tokens_out = said.tokens_in, reply.tokens_out + said.tokens_out
    return reply


def _spoken(asked: Asked) -> tuple[Reply, Generator[list[dict[str, Any]]]]:
    """What a language student writes, as it comes."""
    body, shelf, student, reply = asked.body, asked.state.shelf, asked.student, Reply(STUDENT)
    seed = secrets.randbelow(1 << 31) if body.seed is None else body.seed
    reply.tokens_in, first = shelf.pieces(student, body.texts(), body.wish(0, seed))

    def going() -> Generator[list[dict[str, Any]]]:
        for index in range(body.n or 1):
            yield [delta(index, {"role": "assistant", "content": "", "refusal": None})]
            text, finish = "", None
            tokens: list[Token] = []
            source: Iterator[Piece] = (
                first if not index else shelf.pieces(student, body.texts(), body.wish(index, seed))[1]
            )
            for piece in source:
                text, tokens, finish = text + piece.text, tokens + piece.tokens, piece.finish
                reply.tokens_out += len(piece.tokens)
                told = token_logprobs(piece.tokens) if body.logprobs else None
                if piece.text or told:
                    yield [delta(index, {"content": piece.text}, None, told)]
            reply.choices.append(
                choice(index, text, finish or "stop", token_logprobs(tokens) if body.logprobs else None)
            )
            yield [delta(index, {}, finish or "stop")]

    return reply, going()


def _by_teacher(asked: Asked) -> Reply:
    """What the teacher says."""
    _refuse_secrets(asked)
    teacher, body = asked.teacher or {}, asked.body
    found = proxy.ask(asked.state, teacher, body.as_sent())
    reply = Reply(TEACHER, more={name: value for name, value in found.items() if name != "choices"})
    for index, one in enumerate(found["choices"]):
        plain = {"index": index, "logprobs": None, "finish_reason": "stop", **one}
        plain["message"] = {"role": "assistant", "content": None, "refusal": None, **one["message"]}
        reply.choices.append(plain)
    _count(asked, reply, found.get("usage"))
    return reply


def _relayed(asked: Asked, reply: Reply, coming: Generator[dict[str, Any]]) -> Generator[list[dict[str, Any]]]:
    """A teacher's pieces, passed on; put together for the one that stores them."""
    said: dict[int, dict[str, Any]] = {}
    told: Any = None
    try:
        yield []
        for piece in coming:
            told = piece.get("usage") or told
            passed = []
            for one in piece["choices"]:
                if not isinstance(one, dict) or not isinstance(one.get("delta"), dict):
                    continue
                one = {"index": 0, "finish_reason": None, "logprobs": None, **one}
                whole = said.setdefault(one["index"], choice(one["index"], "", "stop", None))
                _gather(whole["message"], one["delta"])
                _gather_scores(whole, one["logprobs"])
                whole["finish_reason"] = one["finish_reason"] or whole["finish_reason"]
                passed.append(one)
            if passed:
                yield passed
    finally:
        coming.close()
        reply.choices = [said[index] for index in sorted(said)]
        _count(asked, reply, told)


def _gather(message: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece's texts and its tool calls to the message that they belong to; what has no such form is not kept."""
    for name in ("content", "refusal"):
        if isinstance(piece.get(name), str):
            message[name] = (message[name] or "") + piece[name]
    told = piece.get("tool_calls")
    for one in told if isinstance(told, list) else ():
        place = one.get("index", 0) if isinstance(one, dict) else None
        calls = message.get("tool_calls", [])
        if not isinstance(place, int) or not 0 <= place <= len(calls):
            continue
        message["tool_calls"] = calls
        message["content"] = message["content"] or None  # as in an answer that is made of calls alone
        if place == len(calls):
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        whole, function = calls[place], one.get("function")
        whole |= {name: one[name] for name in ("id", "type") if isinstance(one.get(name), str)}
        for name in ("name", "arguments") if isinstance(function, dict) else ():
            if isinstance(function.get(name), str):
                whole["function"][name] += function[name]


def _gather_scores(whole: dict[str, Any], piece: Any) -> None:
    """Add a piece's log-probabilities to those of its answer."""
    for name in ("content", "refusal") if isinstance(piece, dict) else ():
        if isinstance(piece.get(name), list):
            kept = whole["logprobs"] = whole["logprobs"] or {"content": None, "refusal": None}
            kept[name] = kept[name] or []
            kept[name].extend(piece[name])


def _count(asked: Asked, reply: Reply, told: Any) -> None:
    written = sum(len(one["message"].get("content") or "") for one in reply.choices)
    counts = proxy.cost(asked.teacher or {}, told, asked.body.letters(), written)
    reply.tokens_in, reply.tokens_out, reply.nano_usd = counts


def _in_one_piece(reply: Reply) -> Generator[list[dict[str, Any]]]:
    """An answer that is there already."""
    for one in reply.choices:
        yield [delta(one["index"], {"role": "assistant", "content": "", "refusal": None})]
        told = one["logprobs"] or {}
        what = {name: value for name, value in one["message"].items() if name != "role" and value is not None}
        yield [delta(one["index"], what, None, told.get("content"))]
        yield [delta(one["index"], {}, one["finish_reason"])]


def _refuse_secrets(asked: Asked) -> None:
    """Raise ApiError 403 where log-probabilities are asked of a teacher that shall not be distilled, by whatever name."""
    if asked.teacher is None or asked.teacher["distillable"]:
        return
    sent = {name: value for name, value in asked.body.as_sent().items() if name not in SAID}
    name = proxy.scores_asked(sent)
    if name is not None:
        told = f"The teacher '{asked.teacher['name']}' is not distillable: it gives no log-probabilities."
        raise ApiError(403, told, param=name, code="not_distillable")


def _saved(asked: Asked, reply: Reply) -> int:
    """What the teacher would have cost, in billionths of a USD: an estimate from the letters."""
    if reply.by == TEACHER or asked.teacher is None:
        return 0
    written = sum(usage.tokens_of(len(one["message"]["content"] or "")) for one in reply.choices)
    return usage.nano_usd(asked.teacher["price"], usage.tokens_of(asked.body.letters()), written)


def _plain(text: str) -> str:
    return text.strip(AROUND).casefold()
