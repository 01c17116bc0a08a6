"""What each way of keeping a teacher's answers teaches: a fresh student's held-out loss, the same bytes, paired seeds.

Every arm of a seed begins with the same weights and sees the same windows in the same order. The live teacher is its
last hidden states in float32, computed once and read back: the very numbers that asking it in each step would give.
Finished students are kept, so that a stop costs one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import language_tiny
from benchmarks.language_fidelity import DEFAULT, DRAWS, HIDDEN, MEAN, SAMPLES, UNIFORM, Formats, interval, shaped_tail
from benchmarks.language_fidelity import _drawn as drawn
from benchmarks.language_sizes import Sizes
from benchmarks.language_states import States, Teacher
from benchmarks.results import Found, Row, Table, fingerprint
from stillroom.models.language import LanguageNetwork
from stillroom.objectives.fused import fused_cross_entropy, fused_dense, fused_sparse
from stillroom.rows import PADDING, Array, Head, Tokens
from stillroom.transfer_set.basis import fit_basis
from stillroom.transfer_set.output_layer import mean_distribution
from stillroom.transfer_set.sparse_logits import Layout, decode, encode

LIVE, TEXT = "live teacher", "text alone"
PEAK, WARMUP = 2e-3, 0.1


class Given(NamedTuple):
    """A batch of windows beside the student's own output: whose they are, the teacher's states [P, G], the tokens [P]."""

    chosen_B: Array
    count_B: Array
    teacher_PG: torch.Tensor
    target_P: torch.Tensor


Loss = Callable[[torch.Tensor, Head, Given], torch.Tensor]
"""(student hidden [P, H], its head, what is given) -> the sum over positions."""


def losses(teacher: Teacher, train: States, count: int) -> dict[str, Loss]:
    """The loss of every arm."""
    head = teacher.head
    formats = Formats(len(head.weight_VH), *DEFAULT)
    hidden_NG = drawn(train, count)
    fitted = fit_basis(hidden_NG, *head, tail_bytes=DEFAULT[1])
    mean_V = mean_distribution(hidden_NG[:4096], head).float()
    flat_V = torch.full_like(mean_V, 1 / len(mean_V))

    def kept(layout: Layout, shape_V: torch.Tensor | None) -> Loss:
        known: dict[int, Array] = {}  # a window's records are made once, as a run keeps them

        def records(given: Given) -> Array:
            start = np.cumsum(given.count_B) - given.count_B
            for window, first, count in zip(given.chosen_B.tolist(), start, given.count_B, strict=True):
                if window not in known:
                    rows = slice(first, first + count)
                    seed_P = np.random.default_rng(window).integers(0, 1 << 62, count).astype(np.uint64)
                    known[window] = encode(layout, basis, given.teacher_PG[rows], head, given.target_P[rows], seed_P)
            return np.concatenate([known[window] for window in given.chosen_B.tolist()])

        basis = fitted if layout.tail == "hidden" else None

        def loss(hidden_PH: torch.Tensor, own: Head, given: Given) -> torch.Tensor:
            found = decode(layout, basis, records(given))
            return fused_sparse(hidden_PH, own, found if shape_V is None else shaped_tail(found, shape_V))

        return loss

    return {
        LIVE: lambda hidden_PH, own, given: fused_dense(hidden_PH, own, given.teacher_PG, head),
        HIDDEN: kept(formats.hidden, None),
        UNIFORM: kept(formats.bucket, flat_V),
        SAMPLES: kept(formats.sample, None),
        MEAN: kept(formats.bucket, mean_V),
        TEXT: lambda hidden_PH, own, given: fused_cross_entropy(hidden_PH, own, given.target_P),
    }


def train_one(train: States, vocabulary: int, loss: Loss, seed: int, sizes: Sizes) -> LanguageNetwork:
    """A fresh student after `sizes.quality_steps` steps, one warm-up and a half cosine down."""
    shape = sizes.shape
    network = LanguageNetwork(
        language_tiny.llama(vocabulary, shape.width, shape.layers, train.ids_NT.shape[1], seed), "causal"
    )
    optimiser = torch.optim.AdamW(network.parameters(), PEAK, fused=True)
    generator, order = np.random.default_rng(seed), np.empty(0, np.int64)
    for step in range(sizes.quality_steps):
        done = step / sizes.quality_steps
        rate = done / WARMUP if done < WARMUP else (1 + np.cos(np.pi * (done - WARMUP) / (1 - WARMUP))) / 2
        for part in optimiser.param_groups:
            part["lr"] = PEAK * max(rate, 0.02)
        if len(order) < sizes.quality_rows:
            order = np.concatenate([order, generator.permutation(len(train.ids_NT))])
        chosen, order = order[: sizes.quality_rows], order[sizes.quality_rows :]
        tokens, target_P, scored_BT = _batch(train, chosen)
        teacher_PG = torch.from_numpy(np.array(train.hidden_NTG[chosen])[scored_BT])
        _, hidden_PH, head, _ = network(tokens)
        found = loss(hidden_PH, head, Given(chosen, scored_BT.sum(1), teacher_PG, target_P)) / len(target_P)
        optimiser.zero_grad(set_to_none=True)
        found.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return network.eval()


def _batch(states: States, chosen: Array) -> tuple[Tokens, torch.Tensor, Array]:
    target_BT = states.target_NT[chosen]
    scored_BT = target_BT != PADDING
    tokens = Tokens(torch.from_numpy(states.ids_NT[chosen]).long(), torch.from_numpy(scored_BT))
    return tokens, torch.from_numpy(target_BT[scored_BT]).long(), scored_BT


def held_out(network: LanguageNetwork, test: States) -> list[float]:
    """The summed loss on text of each test window, nats."""
    found = []
    with torch.inference_mode():
        for place in range(len(test.ids_NT)):
            tokens, target_P, _ = _batch(test, np.array([place]))
            _, hidden_PH, head, _ = network(tokens)
            found.append(float(fused_cross_entropy(hidden_PH, head, target_P)))
    return found


def quality(sizes: Sizes, base: Path, data: Path) -> Row:
    """All arms of one seed, then the next seed."""
    teacher = Teacher(sizes, base, data)
    train, test = teacher.train(), teacher.test()
    key = fingerprint(
        [sizes.teacher, sizes.calibration_windows, sizes.quality_steps, sizes.quality_rows, str(sizes.shape)]
    )
    kept = base / f"quality-{key}.json"
    known: dict[str, list[float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    arms = losses(teacher, train, sizes.calibration_positions)
    arms = {name: arms[name] for name in list(arms)[: sizes.quality_arms]}
    for seed in range(sizes.quality_seeds):
        for name, loss in arms.items():
            if f"{name}/{seed}" in known:
                continue
            network = train_one(train, len(teacher.head.weight_VH), loss, seed, sizes)
            known[f"{name}/{seed}"] = held_out(network, test)
            kept.write_text(json.dumps(known))
            mean = sum(known[f"{name}/{seed}"]) / (test.target_NT != PADDING).sum()
            print(f"  seed {seed}, {name}: {mean:.4f}", flush=True)
    return _row(known, list(arms), test, sizes)


def _row(known: dict[str, list[float]], arms: list[str], test: States, sizes: Sizes) -> Row:
    count_N = (test.target_NT != PADDING).sum(1)
    loss = {name: np.array([known[f"{name}/{seed}"] for seed in range(sizes.quality_seeds)]) for name in arms}
    draws = partial(_draws, count_N=count_N, document_N=test.document_N)
    rows: list[list[Any]] = []
    for name in arms:
        mean = float(loss[name].sum(1).mean() / count_N.sum())
        difference = loss[name] - loss[LIVE]
        low, high = interval(draws(difference))
        seeds = ", ".join(f"{value:+.4f}" for value in difference.sum(1) / count_N.sum())
        off = float(difference.sum(1).mean() / count_N.sum())
        ends = "" if name == LIVE else f"{low:+.4f} to {high:+.4f}"
        rows.append([name, round(mean, 4), f"{off:+.4f}", ends, seeds])
    ends_of_tail = interval(draws(loss[HIDDEN] - loss[LIVE]))
    n = f"{sizes.quality_seeds} seeds of {sizes.quality_steps:,} steps, {sizes.quality_rows} x {test.ids_NT.shape[1]} tokens"
    note = (
        f"A fresh student {sizes.shape.width} wide with {sizes.shape.layers} layers, {n}; {int(count_N.sum()):,} held-out "
        f"positions of {len(set(test.document_N.tolist()))} documents. Every stored format has the bytes of the default "
        "record. Intervals are paired, over seeds and documents together."
    )
    columns = ["learned from", "held-out loss, nats", "against live", "95 % interval", "by seed"]
    table = Table("What a student learns from each format", columns, rows, note)
    return Row({"lm-stored-quality": Found(ends_of_tail[1], ends_of_tail, n)}, {"quality": table})


def _draws(difference_SN: Array, count_N: Array, document_N: Array) -> Array:
    """The mean difference in draws of seeds and whole documents together."""
    generator = np.random.default_rng(0)
    _, place_N = np.unique(document_N, return_inverse=True)
    total_SD = np.stack([np.bincount(place_N, one) for one in difference_SN])
    count_D = np.bincount(place_N, count_N)
    seeds, documents = total_SD.shape
    seed_BS = generator.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS) / seeds
    document_BD = generator.multinomial(documents, np.full(documents, 1 / documents), DRAWS)
    found: Array = ((seed_BS @ total_SD) * document_BD).sum(1) / (document_BD @ count_D)
    return found
