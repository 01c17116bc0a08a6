"""A chat request as the interface has it: what is in it, what is wrong with it, and the answer in its form."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.loopback.http import Response
from stillroom.loopback.minds import Asked, Mind, Piece, Said, count_tokens, text_of
from stillroom.loopback.shaping import shaped
from stillroom.loopback.spec import Spec

MOST_ANSWERS, MOST_TOP = 128, 20
LOWEST_LOG_PROBABILITY = -9999.0
"""What the interface gives for a token of next to no probability."""


class Refusal(Exception):
    """A request that is answered with an error, in the interface's own envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.error = {"message": message, "type": kind, "param": param, "code": code}

    def response(self) -> Response:
        """The envelope."""
        return as_json({"error": self.error}, self.status, self.headers)


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as a response."""
    return Response(status, json.dumps(value, ensure_ascii=False).encode(), headers or {})


def digest_of(body: Mapping[str, Any]) -> bytes:
    """What makes two requests the same: all that is in them, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()


@dataclass(frozen=True)
class Chat:
    """A request without a fault in it."""

    messages: Sequence[Mapping[str, Any]]
    n: int
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    top: int | None
    """How many log-probabilities a token gets; None: not asked for."""
    form: Mapping[str, Any]
    prompt_tokens: int
    digest: bytes
    question: str

    @classmethod
    def read(cls, body: Any, spec: Spec) -> Chat:
        """Raises Refusal for what the interface does not take."""
        if not isinstance(body, dict):
            raise Refusal(400, "We could not parse the JSON body of your request.")
        if body.get("model") != spec.model:
            told = f"The model `{body.get('model')}` does not exist or you do not have access to it."
            raise Refusal(404, told, code="model_not_found")
        messages = body.get("messages")
        plain = isinstance(messages, list) and all(isinstance(one, dict) and "role" in one for one in messages)
        if not plain or not messages:
            raise Refusal(400, "messages should be a list with at least one message", param="messages")
        if body.get("stream"):
            raise Refusal(400, "This server does not stream.", param="stream", code="unsupported_value")
        name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        most, top = _number(body, name, None, 1, math.inf, int), _number(body, "top_logprobs", 0, 0, MOST_TOP, int)
        if top and not body.get("logprobs"):
            raise Refusal(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
        prompt_tokens = count_tokens(messages)
        if prompt_tokens + (most or 0) > spec.context:
            told = (
                f"This model's maximum context length is {spec.context} tokens. However, you requested "
                f"{prompt_tokens + (most or 0)} tokens ({prompt_tokens} in the messages, {most or 0} in the completion)."
            )
            raise Refusal(400, told, code="context_length_exceeded", param="messages")
        return cls(
            messages=messages,
            n=_number(body, "n", 1, 1, MOST_ANSWERS, int),
            max_tokens=most,
            temperature=_number(body, "temperature", 1.0, 0, 2, float),
            top_p=_number(body, "top_p", 1.0, 0, 1, float),
            seed=_number(body, "seed", None, -(2**63), 2**63, int),
            top=top if body.get("logprobs") else None,
            form=_form(body),
            prompt_tokens=prompt_tokens,
            digest=digest_of(body),
            question=next((text_of(one.get("content")) for one in reversed(messages) if one["role"] == "user"), ""),
        )

    def asked(self, mind: Mind, before: int) -> list[Asked]:
        """Each of the n answers. Without a seed, the same request again is another draw, as often as it came before."""
        question = mind.found(self.question)
        start = f"again {before}" if self.seed is None else f"seed {self.seed}"
        return [
            Asked(
                messages=self.messages,
                question=question,
                draw="likeliest" if self.temperature <= 0 else f"{start} {index}",
                temperature=self.temperature,
                top_p=self.top_p,
                max_tokens=self.max_tokens,
                top=self.top or 0,
            )
            for index in range(self.n)
        ]

    def answer(self, said: Sequence[Said], model: str, before: int) -> tuple[dict[str, Any], tuple[int, int]]:
        """The response's body, and its tokens in and out."""
        room = math.inf if self.max_tokens is None else self.max_tokens
        choices, written = [], 0
        for index, one in enumerate(said):
            whole = shaped(one, self.form)
            pieces = whole.pieces if len(whole.pieces) <= room else whole.pieces[: int(room)]
            written += len(pieces)
            cut = len(pieces) < len(whole.pieces) or not whole.finished
            choices.append(
                {
                    "index": index,
                    "message": {
                        "role": "assistant",
                        "content": "".join(piece.text for piece in pieces),
                        "refusal": None,
                    },
                    "logprobs": None if self.top is None else {"content": [_scored(one, self.top) for one in pieces]},
                    "finish_reason": "length" if cut else "stop",
                }
            )
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }
        body = {
            "id": f"chatcmpl-{self.digest.hex()[:16]}-{before}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": choices,
            "usage": usage,
        }
        return body, (self.prompt_tokens, written)


def _scored(piece: Piece, top: int) -> dict[str, Any]:
    """A token with its log-probability, and the likeliest that could have stood there."""
    known = piece.distribution or {piece.text: 1.0}
    likeliest = sorted(known, key=lambda word: -known[word])[:top]
    return {
        **_with_log_probability(piece.text, known.get(piece.text, 0.0)),
        "top_logprobs": [_with_log_probability(word, known[word]) for word in likeliest],
    }


def _with_log_probability(word: str, p: float) -> dict[str, Any]:
    return {
        "token": word,
        "logprob": max(LOWEST_LOG_PROBABILITY, math.log(p)) if p > 0 else LOWEST_LOG_PROBABILITY,
        "bytes": list(word.encode()),
    }


def _number(body: Mapping[str, Any], name: str, default: Any, low: float, high: float, kind: type) -> Any:
    value = body.get(name)
    if value is None:
        return default
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits or (kind is int and not isinstance(value, int)):
        told = f"Invalid value for {name}: {json.dumps(value)}. It should be {'a whole' if kind is int else 'a'} number"
        raise Refusal(400, f"{told} from {low:g} to {high:g}.", param=name, code="invalid_value")
    return value


def _form(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The form an answer is to have: {}, {"type": "object"}, or a JSON schema."""
    given = body.get("response_format")
    kind = given.get("type") if isinstance(given, dict) else "text" if given is None else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"type": "object"}
    held = given.get("json_schema") if isinstance(given, dict) and kind == "json_schema" else None
    schema = held.get("schema") if isinstance(held, dict) else None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise Refusal(
            400, "response_format should be text, json_object, or json_schema with the schema of an object",
            param="response_format",
        )  # fmt: skip
    return schema
