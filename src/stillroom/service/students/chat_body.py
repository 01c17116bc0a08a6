"""A chat call as a client sends it, looked at before anybody is asked; and answers in the interface's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from stillroom.service.data import conversations
from stillroom.service.door.faults import ApiError
from stillroom.service.door.schemas import NUMBER, Body, Metadata

if TYPE_CHECKING:
    from stillroom.service.students.shelf import Labelled
    from stillroom.service.students.speaking import Token, Wish

MOST_ANSWERS, MOST_TOP, MOST_STOPS = 16, 20, 4
NOT_BY_STUDENTS = ("tools", "functions", "audio", "prediction", "web_search_options")
SHAPES = (("role", str, "a text"), ("content", str | list | None, "a text, a list of parts, or null"))
PENALTIES = ("frequency_penalty", "presence_penalty", "logit_bias")


class StreamOptions(Body):
    """Of a stream."""

    include_usage: StrictBool = False


class ChatCall(Body):
    """A chat call. Fields that are not listed go to a teacher as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str = Field(min_length=1, max_length=300)
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=conversations.MOST_MESSAGES)
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS), NUMBER] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31), NUMBER] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 31), NUMBER] | None = None
    temperature: Annotated[float, Field(ge=0, le=2), NUMBER] | None = None
    top_p: Annotated[float, Field(ge=0, le=1), NUMBER] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63), NUMBER] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP), NUMBER] | None = None
    store: StrictBool | None = None
    metadata: Metadata = None

    def check(self) -> None:
        """Raise ApiError 400 for what has no shape of a call. Which roles and contents there may be a teacher says itself."""
        for place, message in enumerate(self.messages):
            for name, kinds, words in SHAPES:
                if not isinstance(message.get(name), kinds):
                    at = f"messages.{place}.{name}"
                    raise ApiError(400, f"{at}: should be {words}.", param=at, code="invalid_value")
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs.", param="top_logprobs", code="invalid_value")
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream.", param="stream_options", code="invalid_value")
        if len(self.stops) > MOST_STOPS or not all(self.stops):
            raise ApiError(400, f"stop: at most {MOST_STOPS} texts, none empty.", param="stop", code="invalid_value")

    def refuse_for_student(self, kind: str) -> None:
        """Raise ApiError 400 for what a student cannot read or do, rather than leave it out without a word."""
        try:
            answered = conversations.check({"messages": self.messages})
        except conversations.Wrong as error:
            place, _, told = str(error).partition(": ")
            raise ApiError(400, f"{place}: {told}", param=place, code="invalid_value") from error
        if answered:
            raise ApiError(400, "messages: the last one is an answer already.", param="messages", code="invalid_value")
        more = self.model_extra or {}
        asked = [name for name in NOT_BY_STUDENTS if more.get(name)]
        form = more.get("response_format")
        asked += ["response_format"] if form and form != {"type": "text"} else []
        if kind == "language":  # what a classifier says is not drawn, so none of these would change it
            asked += [name for name in PENALTIES if more.get(name)]
            asked += ["top_p"] if self.top_p not in (None, 1.0) else []
        if asked:
            raise ApiError(400, f"A student cannot do {asked[0]}.", param=asked[0], code="unsupported_value")

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts at which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def most(self) -> int | None:
        """Tokens of an answer at most."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    def texts(self) -> list[dict[str, str]]:
        """The messages with roles and plain texts alone."""
        return [{"role": str(one["role"]), "content": _text(one.get("content"))} for one in self.messages]

    def letters(self) -> int:
        """Of all messages."""
        return sum(len(_text(one.get("content"))) for one in self.messages)

    def as_sent(self) -> dict[str, Any]:
        """What the client sent, without what it left out."""
        return self.model_dump(mode="json", exclude_unset=True)

    def wish(self, index: int, seed: int) -> Wish:
        """How a language student should write its answer of this index."""
        from stillroom.service.students.speaking import Wish

        heat = 1.0 if self.temperature is None else self.temperature
        top = (self.top_logprobs or 0) if self.logprobs else None
        return Wish(self.most, heat, abs(seed) + index, self.stops, top)


class Completion(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]


def choice(index: int, text: str, finish: str, logprobs: list[dict[str, Any]] | None) -> dict[str, Any]:
    """One answer of several."""
    return {
        "index": index,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
        "finish_reason": finish,
    }


def delta(
    index: int, what: dict[str, Any], finish: str | None = None, logprobs: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A piece of one answer of several."""
    told = None if logprobs is None else {"content": logprobs, "refusal": None}
    return {"index": index, "delta": what, "logprobs": told, "finish_reason": finish}


def counted(tokens_in: int, tokens_out: int) -> dict[str, int]:
    """Usage."""
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def label_logprobs(said: Labelled, top: int) -> list[dict[str, Any]]:
    """A label as one token, and the likeliest labels beside it: a classifier's own probabilities."""
    logs_C = said.log_probabilities_NC[0].tolist()
    order = sorted(range(len(logs_C)), key=lambda place: -logs_C[place])
    one = _scored(str(said.classes[order[0]]), logs_C[order[0]])
    return [{**one, "top_logprobs": [_scored(str(said.classes[at]), logs_C[at]) for at in order[:top]]}]


def token_logprobs(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Tokens of a language student with its own log-probabilities."""
    return [
        {**_scored(one.text, one.log_p), "top_logprobs": [_scored(text, value) for text, value in one.top]}
        for one in tokens
    ]


def _scored(text: str, log_p: float) -> dict[str, Any]:
    whole = "\ufffd" not in text  # else it is a part of a letter, and its bytes are not known from the text
    return {"token": text, "logprob": max(log_p, -9999.0), "bytes": list(text.encode()) if whole else None}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def cut(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of these."""
    at = min((found for found in map(text.find, stops) if found >= 0), default=len(text))
    return text[:at]
