"""How long a language model takes, and how much memory; models take turns, as in speed.py.

    latency_ms_first_token    from a prompt of 32 tokens to the first one after it, batch 1, greedy; causal only
    latency_ms_per_token      each further one, of 32 in all
    latency_ms_p50            one window: the loss at each of its scored positions
    tokens_per_s              of eight windows at once, all their tokens counted
    peak_memory_mib           growth of a process that loads the model and answers one window

Each round times everything once for every model, on other rows than the round before. Knows no price.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stillroom.evaluation.language_predictions import Architecture, Speaker, Windows, hear, ids_of, losses
from stillroom.evaluation.speed import Timing
from stillroom.models.classifier import to_device
from stillroom.models.device import Device
from stillroom.rows import Array

PROMPT_TOKENS = NEW_TOKENS = 32
BATCH_WINDOWS = 8
LEAST_ROUNDS, MOST_ROUNDS = 3, 9


def measure_language(
    models: Mapping[str, Speaker],
    windows: Windows,
    architecture: Architecture,
    device: Device,
    *,
    seconds: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, dict[str, Any]]]:
    """model -> field -> {"mean", "ci95", "per_seed"}, a value of `per_seed` for each round.

    `seconds` is for everything; three rounds are made however long they take, and nine at most.
    """
    timers = {name: Timer(model, windows, architecture, device, clock) for name, model in models.items()}
    for timer in timers.values():
        timer.round(0)  # loads and compiles, and is no part of an answer
    began = clock()
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in timers}
    names, number = list(timers), 0
    while number < LEAST_ROUNDS or (number < MOST_ROUNDS and (clock() - began) * (number + 1) / number < seconds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            measured[name].append(timers[name].round(number))
        number += 1
    return {name: _timing(rounds).figures() for name, rounds in measured.items()}


class Timer:
    """One model and the rows it is timed on."""

    def __init__(
        self,
        model: Speaker,
        windows: Windows,
        architecture: Architecture,
        device: Device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model, self.windows, self.device, self.clock = model, windows, device, clock
        self.vocabulary = ids_of(model.tokenizer)
        scored = np.flatnonzero(windows.count_N)
        # Whole windows, where there are any: the last one of a document is short and says little.
        self.rows = scored[windows.length_N[scored] == windows.length_N[scored].max()]
        fits = architecture == "causal" and model.context >= PROMPT_TOKENS + NEW_TOKENS
        long = self.rows if fits and windows.length_N[self.rows[0]] >= PROMPT_TOKENS else self.rows[:0]
        self.prompts = [windows.ids_NT[row, :PROMPT_TOKENS].tolist() for row in long[:MOST_ROUNDS]]

    def round(self, number: int) -> dict[str, float]:
        """Every field measured once, on rows that belong to this number."""
        one = self.rows[[number % len(self.rows)]]
        eight = self.rows[(number + np.arange(BATCH_WINDOWS)) % len(self.rows)]
        fields = {"latency_ms_p50": self._took_s(lambda: self._answer(one)) * 1e3}
        fields["tokens_per_s"] = int(self.windows.length_N[eight].sum()) / max(
            self._took_s(lambda: self._answer(eight)), 1e-9
        )
        return fields | (self._generation(self.prompts[number % len(self.prompts)]) if self.prompts else {})

    def _generation(self, prompt_T: list[int]) -> dict[str, float]:
        said: list[Any] = []
        first_s = self._took_s(lambda: said.extend(self._generate(prompt_T, 1)))
        whole_s = self._took_s(lambda: said.extend(self._generate(prompt_T, NEW_TOKENS)))
        fields = {"latency_ms_first_token": first_s * 1e3}
        count = len(said[-1].ids)
        if count > 1:  # a model may end its text before it has to
            fields["latency_ms_per_token"] = max(0.0, whole_s - first_s) / (count - 1) * 1e3
        return fields

    def _generate(self, prompt_T: list[int], count: int) -> list[Any]:
        return list(self.model.generate([prompt_T], max_new_tokens=count, temperature=0.0, seed=0))

    def _answer(self, chosen: Array) -> None:
        """Copying the losses back waits for an accelerator."""
        heard = hear(self.model, self.windows, chosen, self.device, self.vocabulary)
        target_P = self.windows.target_P[self.windows.positions(chosen)]
        losses(heard, to_device(target_P.astype(np.int64), self.device))

    def _took_s(self, job: Callable[[], object]) -> float:
        began = self.clock()
        job()
        return self.clock() - began


def _timing(rounds: list[dict[str, float]]) -> Timing:
    """The fields that every round has."""
    names = [name for name in rounds[0] if all(name in fields for fields in rounds)]
    return Timing({name: np.array([[fields[name] for fields in rounds]]) for name in names})
