"""A teacher asked for somebody: the call goes on to its address under its own key, and comes back in this service's name.

Nothing of the caller's but the call goes out, and nothing of the teacher's key comes back. What it answers is looked at
before it is passed on: it must be JSON of a completion, in time, and no redirect.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from stillroom.service.door.bodies import BadJson, read
from stillroom.service.door.faults import ApiError
from stillroom.service.door.lists import Row
from stillroom.service.students import usage
from stillroom.service.students.begun import begun
from stillroom.service.teachers.outward import BROKEN, STREAM_S, Answered
from stillroom.service.teachers.teacher_rows import key_of

PATH = "chat/completions"
OURS = ("model", "store", "metadata", "stream", "stream_options")
"""Fields of a call that are this service's to set or to keep."""
NO_USE = {"x-should-retry": "false"}
SCORES = "logprob"
"""In the names of fields that ask for log-probabilities or hold them: logprobs, top_logprobs, vLLM's prompt_logprobs."""
MOST_PARTS = 8_000_000
"""Of a teacher's answer: with twenty log-probabilities each of its tokens has a hundred, and as many fit into the longest."""
SHOWN = 400
HIDDEN, SHORTEST_HIDDEN = b"[key]", 4
LONGEST_WAIT_S = 120


class NoStream(ApiError):
    """The teacher does not stream; it can be asked for the whole answer."""


def ask(state: Any, row: Row, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's whole answer to a call, as it came. Raises ApiError for an address, a key or an answer that is none."""
    answer = _sent(state, row, {**_plain(asked), "model": row["model"]})
    with _told(row):
        data = answer.read()
    found = _value(_hidden(data, key_of(state, row)), "an answer that is no JSON")
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices or not all(map(_is_choice, choices)):
        raise _bad("an answer without a choice in it")
    return dict(_shown(row, found))


def stream(state: Any, row: Row, asked: Mapping[str, Any]) -> Generator[dict[str, Any]]:
    """The teacher's answer piece by piece, as it comes; usage in the last. To be closed. Raises NoStream before the first
    piece, and ApiError where it breaks off.
    """
    body = {**_plain(asked), "model": row["model"], "stream": True, "stream_options": {"include_usage": True}}
    answer = _sent(state, row, body, STREAM_S)
    if "event-stream" not in answer.headers.get("content-type", ""):
        answer.close()
        raise NoStream(502, "The teacher does not stream.", code="teacher_does_not_stream")
    return begun(_pieces(row, answer, key_of(state, row)))


def _pieces(row: Row, answer: Answered, key: str | None) -> Generator[dict[str, Any]]:
    with _told(row), closing(answer):
        yield {}
        for line in answer.lines():
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            found = _value(_hidden(data, key), "a piece that is no JSON")
            if not isinstance(found, dict) or not isinstance(found.get("choices"), list):
                raise _bad("a piece that is none of an answer")
            yield _shown(row, found)
    raise _bad("an answer without an end")


def cost(row: Row, told: Any, letters_in: int, letters_out: int) -> tuple[int, int, int]:
    """Tokens in, tokens out and billionths of a USD of an answer; estimated where the teacher does not say."""
    counted = told if isinstance(told, dict) else {}
    tokens = [counted.get(name) for name in ("prompt_tokens", "completion_tokens")]
    plain = [
        value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else usage.tokens_of(letters)
        for value, letters in zip(tokens, (letters_in, letters_out), strict=True)
    ]  # fmt: skip
    return plain[0], plain[1], usage.nano_usd(row["price"], *plain)


@contextmanager
def _told(row: Row) -> Iterator[None]:
    """Whatever breaks on the way to a teacher becomes an ApiError."""
    try:
        yield
    except TimeoutError as error:
        raise ApiError(504, f"The teacher '{row['name']}' takes too long.", code="teacher_timeout") from error
    except BROKEN as error:
        told = f"The teacher '{row['name']}' cannot be reached: {type(error).__name__}."
        raise ApiError(502, told, code="teacher_unreachable") from error


def _sent(state: Any, row: Row, body: dict[str, Any], wait_s: float | None = None) -> Answered:
    """Send it; the answer, where it is one of success."""
    key = key_of(state, row)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    data = json.dumps(body, ensure_ascii=False).encode()
    with _told(row):
        waits = {} if wait_s is None else {"wait_s": wait_s}
        answer: Answered = state.outward.post(row["base_url"], PATH, data, headers, **waits)
        if answer.status == 200:
            return answer
        said = answer.read()
    raise _refused(row, answer, said, key, bool(body.get("stream")))


def _refused(row: Row, answer: Answered, said: bytes, key: str | None, streams: bool) -> ApiError:
    """A teacher's error as ours: what the call did wrong is the caller's, what the key or the teacher did is not."""
    error: Any = {}
    with suppress(BadJson):
        found = read(_hidden(said, key))
        error = found.get("error") if isinstance(found, dict) else {}
    error = error if isinstance(error, dict) else {}
    words = str(error.get("message") or f"status {answer.status}")[:SHOWN]
    told = f"The teacher '{row['name']}' says: {words}"
    param = str(error["param"])[:100] if isinstance(error.get("param"), str) else None
    if answer.status in (400, 413, 422):
        code = str(error["code"])[:100] if isinstance(error.get("code"), str) else "teacher_refused"
        if streams and param == "stream":
            return NoStream(400, told, param=param, code=code)
        return ApiError(400, told, param=param, code=code)
    if answer.status == 429:
        wait = answer.headers.get("retry-after", "")
        wait = str(min(int(wait), LONGEST_WAIT_S)) if wait.isdigit() else "1"
        return ApiError(429, told, code="teacher_rate_limit", headers={"retry-after": wait})
    if answer.status >= 500:
        return ApiError(502, told, code="teacher_failed")
    if 300 <= answer.status < 400:
        told = f"The teacher '{row['name']}' leads elsewhere, which is not followed: give the address it should be asked at."
        return ApiError(502, told, code="teacher_redirects", headers=NO_USE)
    return ApiError(502, told, code="teacher_refused", headers=NO_USE)


def scores_asked(value: Any) -> str | None:
    """The first name of a field that asks for log-probabilities, at any depth; None where none does."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            if SCORES in name.casefold() and part is not None and part is not False:  # 0 asks for the likeliest
                return str(name)
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((found for found in map(scores_asked, inside) if found is not None), None)


def _shown(row: Row, value: Any) -> Any:
    """What of an answer may be seen: of a teacher that is not distillable no log-probabilities, whatever they are called."""
    if row["distillable"]:
        return value
    if isinstance(value, list):
        return [_shown(row, part) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: _shown(row, part) for name, part in value.items() if SCORES not in name.casefold()}


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name not in OURS}


def _value(data: bytes, what: str) -> Any:
    try:
        return read(data, most_parts=MOST_PARTS)
    except BadJson as error:
        raise _bad(what) from error


def _is_choice(choice: Any) -> bool:
    message = choice.get("message") if isinstance(choice, dict) else None
    return isinstance(message, dict) and isinstance(message.get("content"), str | None)


def _bad(what: str) -> ApiError:
    return ApiError(502, f"The teacher gave {what}.", code="teacher_bad_answer", headers=NO_USE)


def _hidden(data: bytes, key: str | None) -> bytes:
    """Without the key, should a teacher say it again."""
    return data.replace(key.encode(), HIDDEN) if key and len(key) >= SHORTEST_HIDDEN else data
