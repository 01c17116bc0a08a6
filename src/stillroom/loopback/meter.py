"""What a loopback teacher was asked and paid for, and how much it lets through."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from stillroom.loopback.spec import Limits, Price

MILLION = 1_000_000


class Bucket:
    """So many a minute: fills evenly up to what `burst_s` seconds give, and is emptied by what is let through."""

    def __init__(self, per_minute: float, burst_s: float, now_s: float) -> None:
        self.per_s = per_minute / 60
        self.most = max(1.0, self.per_s * burst_s)
        self.left, self._at_s = self.most, now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until so much is let through; 0: now. More than the bucket holds is let through when it is full."""
        self.left = min(self.most, self.left + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        return max(0.0, (min(amount, self.most) - self.left) / self.per_s)

    def take(self, amount: float) -> None:
        """Let so much through; less than nothing gives back what was not used."""
        self.left = min(self.most, self.left - amount)


class Gate:
    """The limits of requests and of tokens a minute."""

    def __init__(self, limits: Limits, now_s: float) -> None:
        given = (limits.requests_per_minute, limits.tokens_per_minute)
        self.requests, self.tokens = (
            None if per_minute is None else Bucket(per_minute, limits.burst_s, now_s) for per_minute in given
        )

    def wait_s(self, tokens: int, now_s: float) -> float:
        """0, and the request is let through; else how long to wait."""
        waits = [(self.requests, 1.0), (self.tokens, float(tokens))]
        wait_s = max((bucket.wait_s(amount, now_s) for bucket, amount in waits if bucket is not None), default=0.0)
        if wait_s <= 0:
            for bucket, amount in waits:
                if bucket is not None:
                    bucket.take(amount)
        return wait_s

    def give_back(self, tokens: int) -> None:
        """Tokens that a request might have used and did not."""
        if self.tokens is not None:
            self.tokens.take(-tokens)

    def headers(self) -> dict[str, str]:
        """What is left, as the interface tells it."""
        told = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                told[f"x-ratelimit-limit-{name}"] = str(int(bucket.per_s * 60))
                told[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.left)))
        return told


@dataclass
class Bill:
    """What was served. A request is its body: the same body again is the same request."""

    price: Price
    batch_share: float
    calls: int = 0
    """Paid for."""
    tokens_in: int = 0
    tokens_out: int = 0
    batch_calls: int = 0
    batch_tokens_in: int = 0
    batch_tokens_out: int = 0
    spoiled: int = 0
    """Paid for, with an answer that was of no use: cut, empty, or of another model."""
    abandoned: int = 0
    """Whose connection was gone before the answer was sent; paid for like all others."""
    passed: Counter[bytes] = field(default_factory=Counter)
    """How often the limits let each request through."""
    served: Counter[bytes] = field(default_factory=Counter)
    """How often each was given a whole answer."""
    questions: dict[bytes, str] = field(default_factory=dict)
    """The last message of each request that was given an answer."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Chat requests by how they ended."""
    let_through_while_new: int = 0
    """Until the last request came that had never come before."""
    let_through: int = 0
    first_s: float | None = None
    """When the first was let through, by this machine's monotonic clock."""
    last_new_s: float = 0.0
    last_s: float = 0.0

    def passes(self, digest: bytes, now_s: float) -> int:
        """Note that the limits let a request through; how often they had done so before."""
        before = self.passed[digest]
        self.passed[digest] = before + 1
        self.first_s = now_s if self.first_s is None else self.first_s
        self.let_through += 1
        self.last_s = now_s
        if not before:
            self.let_through_while_new, self.last_new_s = self.let_through, now_s
        return before

    def pays(self, digest: bytes, question: str, tokens: tuple[int, int], batch: bool, spoiled: bool) -> None:
        """Note an answer with its tokens, in and out."""
        if batch:
            self.batch_calls += 1
            self.batch_tokens_in += tokens[0]
            self.batch_tokens_out += tokens[1]
        else:
            self.calls += 1
            self.tokens_in += tokens[0]
            self.tokens_out += tokens[1]
        if spoiled:
            self.spoiled += 1
        else:
            self.served[digest] += 1
            self.questions[digest] = question

    @property
    def usd(self) -> float:
        """All that was paid."""
        single = self.tokens_in * self.price.input + self.tokens_out * self.price.output
        batch = self.batch_tokens_in * self.price.input + self.batch_tokens_out * self.price.output
        return (single + batch * self.batch_share) / MILLION

    def to_json(self) -> dict[str, Any]:
        """The bill as GET /loopback/bill gives it."""
        start_s = self.first_s or 0.0
        return {
            "calls": self.calls + self.batch_calls,
            "batch_calls": self.batch_calls,
            "tokens_in": self.tokens_in + self.batch_tokens_in,
            "tokens_out": self.tokens_out + self.batch_tokens_out,
            "usd": self.usd,
            "different": len(self.served),
            "duplicates": sum(self.served.values()) - len(self.served),
            "spoiled": self.spoiled,
            "abandoned": self.abandoned,
            "let_through": self.let_through,
            "let_through_while_new": self.let_through_while_new,
            "first_at_s": self.first_s,
            "while_new_s": max(0.0, self.last_new_s - start_s),
            "open_s": max(0.0, self.last_s - start_s),
            "statuses": dict(sorted(self.statuses.items())),
        }

    def twice(self) -> list[dict[str, Any]]:
        """Each request that was served more than once: its last message, and how often."""
        return [
            {"question": self.questions[digest], "served": count} for digest, count in self.served.items() if count > 1
        ]
