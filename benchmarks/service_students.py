"""What serving a student costs over the bare model, and what answering callers together gives.

    overhead(served, bare)   rounds of medians: a call through the service / the same work of the model alone
    overheads(pairs)         the same of several students, whose rounds take turns
    batching(ask)            answers a second of 16 callers at once / of one after the other

The student is a language model that writes: a call of it takes long enough that a server's own milliseconds are its share,
as in use. A classifier's call takes about a millisecond, and HTTP alone takes several; its figures are told beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ROUNDS, CALLS, CALLERS = 9, 5, 16


def overhead(
    served: Callable[[], Any], bare: Callable[[], Any], rounds: int = ROUNDS, calls: int = CALLS
) -> dict[str, Any]:
    """{"ratio", "rounds", "served_ms", "bare_ms"}: medians of alternated rounds. The two take turns call by call, so that
    what else the machine does falls on both.
    """
    return overheads({"it": (served, bare)}, rounds, calls)["it"]


def overheads(
    pairs: Mapping[str, tuple[Callable[[], Any], Callable[[], Any]]], rounds: int = ROUNDS, calls: int = CALLS
) -> dict[str, dict[str, Any]]:
    """What `overhead` gives, of several students: (served, bare) by name. Each has its turn in every round."""
    ratios: dict[str, list[float]] = {name: [] for name in pairs}
    every: dict[tuple[str, str], list[float]] = {(name, way): [] for name in pairs for way in ("served", "bare")}
    for served, bare in pairs.values():
        served(), bare()
    for number in range(rounds):
        for name, (served, bare) in pairs.items():
            took: dict[str, list[float]] = {"served": [], "bare": []}
            for _ in range(calls):
                order = (("served", served), ("bare", bare))
                for way, call in order if number % 2 else reversed(order):
                    took[way].append(_ms(call))
            ratios[name].append(statistics.median(took["served"]) / statistics.median(took["bare"]))
            for way, times in took.items():
                every[name, way] += times
    return {
        name: {
            "ratio": statistics.median(ratios[name]), "rounds": ratios[name],
            "served_ms": statistics.median(every[name, "served"]), "bare_ms": statistics.median(every[name, "bare"]),
        }
        for name in pairs
    }  # fmt: skip


def batching(ask: Callable[[int], Any], calls: int = 64, rounds: int = 5, callers: int = CALLERS) -> dict[str, Any]:
    """{"ratio", "rounds", "together_per_s", "one_by_one_per_s"}: the same calls by `callers` threads and by one."""
    ask(0)
    ratios, fast, slow = [], list[float](), list[float]()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(ask, range(callers)))
        for _ in range(rounds):
            one = _per_s(lambda: [ask(number) for number in range(calls)], calls)
            many = _per_s(lambda: list(pool.map(ask, range(calls))), calls)
            ratios.append(many / one)
            fast.append(many)
            slow.append(one)
    return {
        "ratio": statistics.median(ratios), "rounds": ratios, "together_per_s": statistics.median(fast),
        "one_by_one_per_s": statistics.median(slow),
    }  # fmt: skip


def over_http(client: Any, model: str, words: Sequence[str], most: int) -> Callable[[int], Any]:
    """Asks a served student by an HTTP client of the service: `benchmarks.service_process.Served.http`."""

    def ask(number: int) -> Any:
        body = {
            "model": model, "messages": [{"role": "user", "content": words[number % len(words)]}], "max_tokens": most,
            "seed": number,
        }  # fmt: skip
        answer = client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        return answer.json()

    return ask


def of_model(model: Any, words: Sequence[str], most: int) -> Callable[[], Any]:
    """The bare model at the same work as one call of `over_http`: the chat template, the tokens, the text."""

    def write() -> Any:
        text = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": words[0]}], tokenize=False, add_generation_prompt=True
        )
        ids = model.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return model.generate([ids], most, 1.0, seeds=[0])

    return write


def of_classifier(model: Any, words: Sequence[str]) -> Callable[[], Any]:
    """The bare classifier at the same work as one call of `over_http`: the likeliest label of a text."""
    return lambda: model.classes[model.log_probabilities(model.inputs.as_raw([words[0]]))[0].argmax()]


def _ms(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def _per_s(work: Callable[[], Any], calls: int) -> float:
    started = time.perf_counter()
    work()
    return calls / (time.perf_counter() - started)
