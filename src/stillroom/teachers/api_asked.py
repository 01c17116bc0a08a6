"""A model behind an API at work: what it is asked, what of that is in the ledger already, and what its answers are.

Every request has a key of all that decides its answer. What the ledger holds under it is read again and costs nothing, so
one row more makes one call more, and reading answers in another way makes none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

import numpy as np

from stillroom.budget import Cost
from stillroom.errors import RecipeError, RunError
from stillroom.ledger import Ledger
from stillroom.rows import Answers, Array, Questions, Raw
from stillroom.rundir import fingerprint
from stillroom.teachers import api_reading as reading
from stillroom.teachers.addresses import is_openai
from stillroom.teachers.api_batches import Batcher
from stillroom.teachers.api_calls import Caller, Reply, Request
from stillroom.teachers.api_faults import same_model, shortened, usage_of
from stillroom.teachers.api_manners import Manners
from stillroom.teachers.api_prompts import (
    Message,
    check_template,
    columns_of,
    filled,
    instruction,
    label_codes,
    label_schema,
    prompts,
)
from stillroom.teachers.api_reading import Refusal, Sample
from stillroom.teachers.api_wire import Wire
from stillroom.teachers.openai_api import OpenAIApi
from stillroom.teachers.probabilities import LEAST_LOG_PROBABILITY

KEY_SCHEMA = "stillroom/1"
"""Changes where the same words would mean another request."""
TEMPLATE_TOKENS, MESSAGE_TOKENS = 256, 16
"""Most tokens that a chat template adds to a request, and to each of its messages; a token has at least one byte of text."""
GIVE_UP = 20
"""So many answers without a single label, and asking on would be a waste."""
Conversation = Sequence[Mapping[str, str]]
Read = Callable[[dict[str, Any], Cost], Any]


def nobody(told: Any) -> None:
    """Tells nobody."""


@dataclass
class _Shared:
    """What all copies of a teacher at work have in common."""

    refused: dict[bytes, Refusal] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    useful: int = 0
    useless: int = 0


@dataclass
class AskedApi:
    """Asks through a ledger; `charge` hands it one."""

    knobs: OpenAIApi
    classes: list[Any]
    caller: Caller
    batcher: Batcher
    ledger: Ledger | None = None
    purpose: str = "label"
    progress: Callable[[int], None] = nobody
    shared: _Shared = field(default_factory=_Shared)
    hidden_width: int | None = None
    by_key: bool = False
    gives: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.gives = frozenset({"answers", "probabilities"}) if self.knobs.soft else frozenset({"answers"})

    @classmethod
    def of(cls, knobs: OpenAIApi, classes: list[Any], key: str | None) -> AskedApi:
        """The teacher that these knobs describe."""
        limits = knobs.limits
        wire = Wire(knobs.base_url, key, knobs.timeout_s, limits.concurrency)
        manners = Manners(limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency, knobs.timeout_s)
        caller = Caller(wire, knobs.model, knobs.rates(), manners, knobs.accept_model)
        batcher = Batcher(wire, knobs.model, knobs.rates(batch=True), manners.patience, knobs.accept_model)
        asked = cls(knobs, classes, caller, batcher)
        asked._words  # noqa: B018 - labels that do not fit are told now
        return asked

    def charge(
        self, ledger: Ledger, purpose: str = "label", progress: Callable[[int], None] = nobody,
        tell: Callable[[str], None] = nobody,
    ) -> AskedApi:  # fmt: skip
        """The same teacher, charging there.

        `progress` is called with the number of requests just answered or found, `tell` with what holds the endpoint up.
        """
        self.caller.tell = tell
        self.knobs.check_budget(ledger.limits)
        ledger.at_close[id(self.caller.wire)] = self.caller.wire.hang_up
        return replace(self, ledger=ledger, purpose=purpose, progress=progress)

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides its answers; not of how fast they are asked for, nor of what they cost."""
        beside = {
            "price", "reserve", "limits", "timeout_s", "api_key_env", "accept_model", "batch", "licence", "labels",
        }  # fmt: skip
        knobs = self.knobs.model_dump(mode="json", exclude=beside)
        labels = self.knobs.meanings(self.classes) if self.knobs.task == "classification" else {}
        return fingerprint(KEY_SCHEMA, knobs, list(labels.items()))

    @property
    def refused(self) -> list[tuple[str, str, str]]:
        """Key, reason and text of every answer that gave no label."""
        return [(key.hex(), one.reason, one.text) for key, one in self.shared.refused.items()]

    def check(self, raw: Raw) -> None:
        """Raise RecipeError where the prompt or the examples do not fit these rows. Asks nothing."""
        columns, template = columns_of(raw), self.template(raw)
        check_template(template, columns, "teacher.prompt")
        for place, example in enumerate(self.knobs.examples):
            check_template(template, example, f"teacher.examples.{place}")
            if self.knobs.task == "classification" and str(example["label"]) not in map(str, self.classes):
                raise RecipeError(
                    f"the example's label {example['label']!r} is none of the classes",
                    where=f"teacher.examples.{place}",
                    cure=f"Give one of {', '.join(map(str, self.classes))}",
                )

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """Log-probabilities [N, C] of these rows; `answered_N` is False where the teacher gave no label.

        Raises BudgetReached, ModelError or RunError; what was bought before is in the ledger.
        """
        count, labels = self.knobs.samples, len(self.classes)
        wanted = self._wanted(self._label_settings, questions.raw, range(count))
        found = self._ask(wanted, self._label)
        rows = len(wanted) // count
        logs_NC = np.full((rows, labels), -np.log(labels), np.float32)
        answered_N = np.zeros(rows, bool)
        for row in range(rows):
            said = found[row * count : (row + 1) * count]
            read = [one for one in said if not isinstance(one, Refusal)]
            if not read:
                self.shared.refused[wanted[row * count].key] = said[0]
                continue
            p_C = read[0] if self._tells_all else reading.shares(read, labels)
            answered_N[row] = True
            with np.errstate(divide="ignore"):
                logs_NC[row] = np.maximum(np.log(p_C), LEAST_LOG_PROBABILITY)
        return Answers(logs_NC, answered_N=answered_N)

    def paid_before(self, questions: Questions) -> Array:
        """True for each question [N] whose answers are all in the ledger already."""
        keys = [one.key for one in self._wanted(self._label_settings, questions.raw, range(self.knobs.samples))]
        kept = self._open_ledger().kept_among(keys)
        known = np.fromiter((key in kept for key in keys), bool, len(keys))
        found: Array = np.logical_and.reduce(known.reshape(len(questions), self.knobs.samples), axis=1)
        return found

    def samples(self, questions: Questions, n: int, purpose: str | None = None, first: int = 0) -> list[list[Sample]]:
        """Samples `first` to `first + n` of each question's answer; one that failed is left out of its row."""
        wanted = self._wanted(self._free_settings, questions.raw, range(first, first + n))
        found = self._ask(wanted, self._sample, purpose)
        rows = [found[start : start + n] for start in range(0, len(wanted), n)]
        return [[one for one in row if isinstance(one, Sample)] for row in rows]

    def chat(
        self,
        conversations: Sequence[Conversation],
        purpose: str | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        sample: int = 0,
    ) -> list[Sample | Refusal]:
        """What it says in conversations of any kind, each a list of {"role", "content"}; a Refusal where it says nothing."""
        heat = self.knobs.heat if temperature is None else temperature
        settings = self._settings(heat, max_tokens or self.knobs.most_tokens)
        wanted = [Wanted(settings, compact(list(one)), len(one), sample) for one in conversations]
        return self._ask(wanted, self._sample, purpose)

    def template(self, raw: Raw) -> str:
        """The question's template; where the recipe has none, all columns by name."""
        if self.knobs.prompt is not None:
            return self.knobs.prompt
        names = list(columns_of(raw))
        return f"{{{names[0]}}}" if len(names) == 1 else "\n".join(f"{name}: {{{name}}}" for name in names)

    def wanted(self, raw: Raw, samples: int | None = None) -> list[Wanted]:
        """What would be asked about these rows; nothing is. `samples`: of each row; none: as the knobs say."""
        settings = self._free_settings if self.knobs.task == "reasoning" else self._label_settings
        return self._wanted(settings, raw, range(samples or self.knobs.samples))

    def most_of(self, one: Wanted) -> Cost:
        """The most that a request can cost."""
        settings = one.settings
        beside = TEMPLATE_TOKENS + MESSAGE_TOKENS * one.count + settings.schema_bytes
        return self._most(len(one.messages) + beside, settings.most_tokens)

    def most_of_talk(self, conversation: Conversation, more_tokens: int = 0) -> Cost:
        """The most that what it says in a conversation can cost, `more_tokens` beside its words read."""
        settings, words = self._free_settings, compact(list(conversation))
        beside = TEMPLATE_TOKENS + MESSAGE_TOKENS * len(conversation)
        return self._most(len(words) + beside + more_tokens, settings.most_tokens)

    def _most(self, read: int, written: int) -> Cost:
        """What is set aside for a call that by its own words takes so many tokens at most."""
        rates = self.batcher.rates if self.knobs.batch else self.caller.rates
        return rates.cost(*(math.ceil(self.knobs.reserve * tokens) for tokens in (read, written)))

    @cached_property
    def _meanings(self) -> dict[str, str]:
        return self.knobs.meanings(self.classes)

    @cached_property
    def _words(self) -> list[str]:
        """What is written for each class."""
        return label_codes(list(self._meanings), self.knobs.read, self.knobs.codes)

    @property
    def _tells_all(self) -> bool:
        """One answer tells a distribution."""
        return self.knobs.read == "logprobs" and self.knobs.estimator != "sampled"

    @cached_property
    def _label_settings(self) -> _Settings:
        knobs = self.knobs
        more: dict[str, Any] = {}
        if knobs.read == "json":
            more = {"response_format": label_schema(list(self._meanings))}
        if self._tells_all:
            more = {"logprobs": True, "top_logprobs": knobs.top_logprobs}
        return self._settings(knobs.heat, knobs.most_tokens, more)

    @cached_property
    def _free_settings(self) -> _Settings:
        return self._settings(self.knobs.heat, self.knobs.most_tokens)

    def _settings(self, heat: float | None, most_tokens: int, more: Mapping[str, Any] | None = None) -> _Settings:
        knobs = self.knobs
        newer = is_openai(knobs.base_url) if knobs.limit_as == "auto" else knobs.limit_as == "max_completion_tokens"
        values = {"model": knobs.model, "max_completion_tokens" if newer else "max_tokens": most_tokens, **(more or {})}
        for name, value in (("temperature", heat), ("top_p", knobs.top_p), ("seed", knobs.seed)):
            if value is not None:
                values[name] = value
        return _Settings(knobs.base_url, values, most_tokens)

    def _wanted(self, settings: _Settings, raw: Raw, samples: Sequence[int]) -> list[Wanted]:
        template = self.template(raw)
        before = self._before(template)
        start = "".join(f"{compact(message)}," for message in before)
        return [
            Wanted(settings, f'[{start}{{"content":{quoted(text)},"role":"user"}}]', len(before) + 1, sample)
            for text in prompts(template, raw)
            for sample in samples
        ]

    def _before(self, template: str) -> list[Message]:
        """What stands before every question: the system message, and the examples with their answers."""
        knobs, labelling = self.knobs, self.knobs.task == "classification"
        system = knobs.system
        if system is None and labelling:
            system = instruction(self._meanings, self._words, knobs.read)
        before = [{"role": "system", "content": system}] if system else []
        for example in knobs.examples:
            said = str(example["label"])
            if labelling:
                code = self._words[list(self._meanings).index(said)]
                said = compact({"label": code}) if knobs.read == "json" else code
            before += [{"role": "user", "content": filled(template, example)}, {"role": "assistant", "content": said}]
        return before

    def _ask(self, wanted: Sequence[Wanted], read: Read, purpose: str | None = None) -> list[Any]:
        """What each request was answered, as `read` has it: from the ledger where it is there, else from the endpoint."""
        ledger = self._open_ledger()
        self.batcher.resume(ledger)
        each = {one.key: one for one in wanted}
        kept = ledger.kept_among(list(each))
        found: dict[bytes, Any] = {}
        self._send([one for key, one in each.items() if key not in kept], read, found, purpose)
        for key, response in ledger.kept_of([key for key in each if key in kept]):
            body = json.loads(response.raw)
            if same_model(str(body.get("model", self.knobs.model)), self.knobs.model, self.knobs.accept_model):
                found[key] = self._noted(read(body, response.cost))
        if kept:
            self.progress(len(kept))
        # What another model answered was paid for once, and is no answer of this one.
        self._send([one for key, one in each.items() if key not in found], read, found, purpose)
        return [found[one.key] for one in wanted]

    def _send(self, wanted: Sequence[Wanted], read: Read, found: dict[bytes, Any], purpose: str | None) -> None:
        def took(place: int, reply: Reply) -> None:
            key = wanted[place].key
            if reply.body is None:
                reason = reason_of(reply.why)
                found[key] = Refusal(reason, reply.why.removeprefix(f"{reason}: "))
                if not self._open_ledger().bought().calls:  # not one was answered, in this run or before
                    self._noted(found[key])
            else:
                found[key] = self._noted(read(reply.body, reply.cost))
                self.shared.models.add(str(reply.body.get("model", self.knobs.model)))
            self.progress(1)

        requests = (Request(one.key, one.body, self.most_of(one)) for one in wanted)
        endpoint = self.batcher if self.knobs.batch else self.caller
        endpoint.ask(requests, self._open_ledger(), purpose or self.purpose, took)

    def _noted(self, said: Any) -> Any:
        """Stop where not one of many answers is of use: asking on would be a waste."""
        shared = self.shared
        shared.useful += not isinstance(said, Refusal)
        shared.useless += isinstance(said, Refusal)
        stop = not shared.useful and shared.useless >= GIVE_UP
        if stop:
            raise RunError(
                f"none of the first {GIVE_UP} answers can be used; one was {said.reason}: {shortened(said.text)!r}",
                where="teacher.prompt",
                cure=f"{said.cure}; what was answered is kept and is read again",
            )
        return said

    def _label(self, body: dict[str, Any], cost: Cost) -> int | list[float] | Refusal:
        knobs = self.knobs
        if self._tells_all:
            return reading.read_distribution(body, self._words, knobs.estimator, knobs.top_logprobs)
        if knobs.read == "json":
            return reading.read_json(body, self._words)
        return reading.read_exact(body, self._words)

    def _sample(self, body: dict[str, Any], cost: Cost) -> Sample | Refusal:
        refusal = reading.refusal_of(body, whole=False)
        if refusal is not None:
            return refusal
        return reading.sample_of(body, usage_of(body) or (cost.tokens_in, cost.tokens_out), cost.usd)

    def _open_ledger(self) -> Ledger:
        if self.ledger is None:
            raise RecipeError(
                "a teacher that is paid for is asked through a ledger alone",
                where="teacher",
                cure="Run it with stillroom distill, or hand it a ledger with charge()",
            )
        return self.ledger


class _Settings:
    """All of a request but its messages."""

    def __init__(self, base_url: str, values: Mapping[str, Any], most_tokens: int) -> None:
        self.values, self.most_tokens = values, most_tokens
        self.begun = hashlib.sha256(f"[{compact([KEY_SCHEMA, base_url, values])},".encode())
        self.schema_bytes = len(compact(values["response_format"])) if "response_format" in values else 0
        self._tails: dict[int, str] = {}

    def tail(self, sample: int) -> str:
        """The rest of the body of a sample's request, after its messages."""
        if sample not in self._tails:
            seed = {"seed": self.values["seed"] + sample} if "seed" in self.values else {}
            self._tails[sample] = compact({**self.values, **seed})[1:]
        return self._tails[sample]


class Wanted:
    """A request that may be in the ledger already."""

    __slots__ = ("count", "key", "messages", "sample", "settings")

    def __init__(self, settings: _Settings, messages: str, count: int, sample: int) -> None:
        self.settings, self.messages, self.count, self.sample = settings, messages, count, sample
        hashed = settings.begun.copy()
        hashed.update(f"{messages},{sample}]".encode())
        self.key = hashed.digest()

    @property
    def body(self) -> bytes:
        """As it is sent."""
        return f'{{"messages":{self.messages},{self.settings.tail(self.sample)}'.encode()


def compact(value: Any) -> str:
    """Canonical JSON: keys sorted, no spaces, plain ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def reason_of(why: str) -> str:
    """The reason of a question that was left unanswered."""
    return next((reason for reason in ("filtered", "over the context") if why.startswith(reason)), "failed")
