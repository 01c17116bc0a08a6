"""What a report shows of language models beyond the figures. All of it plain data; knows no page.

Every key may be absent:

    about             teacher, student, licences, recipe_yaml, temperature, notes: what was written, not measured
    curves            model -> seed -> a list of {step, epoch, loss, validation_loss}
    gradient_norms    model -> term of the objective -> norms at a few steps, weight included; of the first seed
    examples          context, next (the token that stands there), why, models: name -> [token, probability] of the top five;
                      with hidden tokens also after: what follows
    samples           prompt, models: name -> the text that follows, greedily; causal models only
    nll_by_position   model -> [tokens before, nats], the mean of all seeds in each of a few ranges of positions
    validation_nll    model -> the mean of all seeds
    fidelity          of what was kept of the teacher's answers, as in the scorecard
    entropy           of the teacher at the sampled positions: {mean, histogram: {edges, counts}}, nats
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillroom.evaluation.intervals import CONTROL, HARD_TEACHER, STUDENT, TEACHER
from stillroom.evaluation.language_predictions import Architecture, Speaker, Windows, hear, ids_of, logits_of
from stillroom.evaluation.language_scores import Spoken, Text
from stillroom.models.device import Device
from stillroom.rows import Array
from stillroom.rundir import read_json

EACH = 2
"""Examples for each reason."""
CHOICES = 5
CONTEXT_TOKENS, AFTER_TOKENS = 64, 16
LEAST_CONTEXT = 8
SAMPLES, PROMPT_TOKENS, NEW_TOKENS = 3, 32, 48
RANGES, BINS = 24, 20
SHOWN = (TEACHER, STUDENT, CONTROL, HARD_TEACHER)
HISTORY = "history.json"


def histories(models: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """`curves` and `gradient_norms`, as far as the models' folders hold a history."""
    known = {
        name: {
            str(seed): read_json(folder / HISTORY)
            for seed, folder in enumerate(folders)
            if (folder / HISTORY).is_file()
        }
        for name, folders in models.items()
    }
    curves = {name: {seed: one["curve"] for seed, one in several.items()} for name, several in known.items() if several}
    norms = {
        name: several["0"]["gradient_norms"]
        for name, several in known.items()
        if several.get("0", {}).get("gradient_norms")
    }
    return {"curves": curves, "gradient_norms": norms}


def nll_by_position(
    said: Mapping[str, Spoken], windows: Windows, architecture: Architecture
) -> dict[str, list[list[float]]]:
    """The loss in ranges of positions that grow with the position, since it falls fastest at first."""
    before_P = windows.place_P + (1 if architecture == "causal" else 0)
    edges = np.unique(np.round(np.geomspace(1, before_P.max() + 1, RANGES + 1)).astype(np.int64))
    range_P = np.digitize(before_P, edges)
    count_R = np.bincount(range_P)
    there_R = np.flatnonzero(count_R)
    mean_R = np.bincount(range_P, weights=before_P)[there_R] / count_R[there_R]
    found = {}
    for name, model in said.items():
        nll_R = np.bincount(range_P, weights=model.nll_SP.mean(0, dtype=np.float64))[there_R] / count_R[there_R]
        found[name] = [[float(position), float(nll)] for position, nll in zip(mean_R, nll_R, strict=True)]
    return found


def entropy_shown(entropy_Q: Array) -> dict[str, Any]:
    """The teacher's entropy in bins of equal width."""
    counts, edges = np.histogram(entropy_Q, BINS, (0.0, max(1e-3, float(entropy_Q.max()))))
    return {"mean": float(entropy_Q.mean()), "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}


def chosen_positions(
    said: Mapping[str, Spoken], text: Text, windows: Windows, entropy_Q: Array
) -> list[tuple[int, str]]:
    """Telling positions of the sample and why each is shown; no window twice, and some text before each."""
    known = {name: said[name].kl_SQ for name in (STUDENT, CONTROL) if name in said}
    apart = {name: kl_SQ[0] for name, kl_SQ in known.items() if kl_SQ is not None}
    right_Q = (said[TEACHER].top_SP[0] == text.target_P)[text.sample_Q]
    reasons: dict[str, Array] = {}
    if CONTROL in apart:
        reasons["teacher and control differ most"] = apart[CONTROL]
    if len(apart) == 2:
        reasons["the student learned what the control did not"] = apart[CONTROL] - apart[STUDENT]
    if STUDENT in apart:
        reasons["teacher and student differ most"] = apart[STUDENT]
    reasons["the teacher hesitates, and is right"] = np.where(right_Q, entropy_Q, -np.inf)
    early_Q = windows.place_P[text.sample_Q] < LEAST_CONTEXT
    found: list[tuple[int, str]] = []
    taken: set[int] = set()
    for why, value_Q in reasons.items():
        telling_Q = np.where(early_Q, -np.inf, value_Q)
        left = EACH
        for place in np.argsort(-telling_Q, kind="stable").tolist():
            position = int(text.sample_Q[place])
            window = int(windows.window_P[position])
            if not left or telling_Q[place] == -np.inf:
                break
            if window not in taken:
                taken.add(window)
                found.append((position, why))
                left -= 1
    return found


def examples(
    chosen: Sequence[tuple[int, str]],
    speakers: Mapping[str, Speaker],
    windows: Windows,
    architecture: Architecture,
    device: Device,
) -> list[dict[str, Any]]:
    """Each position with the text before it and the five most probable tokens of every shown model."""
    found = []
    tokenizer = speakers[TEACHER].tokenizer
    for position, why in chosen:
        window, place = int(windows.window_P[position]), int(windows.place_P[position])
        ids_T = windows.ids_NT[window, : windows.length_N[window]]
        end = place + 1 if architecture == "causal" else place
        one = {
            "context": tokenizer.decode(ids_T[max(0, end - CONTEXT_TOKENS) : end].tolist()),
            "next": tokenizer.decode([int(windows.target_P[position])]),
            "why": why,
        }
        if architecture == "masked":
            one["after"] = tokenizer.decode(ids_T[place + 1 : place + 1 + AFTER_TOKENS].tolist())
        one["models"] = {
            name: _top(speakers[name], tokenizer, windows, position, device) for name in SHOWN if name in speakers
        }
        found.append(one)
    return found


@torch.inference_mode()
def _top(speaker: Speaker, tokenizer: Any, windows: Windows, position: int, device: Device) -> list[list[Any]]:
    """The five most probable tokens there: [text, probability]."""
    window = windows.window_P[position]
    heard = hear(speaker, windows, np.array([window]), device, ids_of(tokenizer))
    own = int(position - windows.start_N[window])
    p_V = logits_of(heard.hidden_PH[own : own + 1], heard.head)[0].softmax(0)
    top = p_V.topk(min(CHOICES, len(p_V)))
    return [[tokenizer.decode([token]), p] for p, token in zip(top.values.tolist(), top.indices.tolist(), strict=True)]


def samples(speakers: Mapping[str, Speaker], windows: Windows) -> list[dict[str, Any]]:
    """How each shown model goes on, greedily, from the beginnings of windows of several documents."""
    shown = {name: speakers[name] for name in SHOWN if name in speakers}
    room = min(NEW_TOKENS, min(speaker.context for speaker in shown.values()) - PROMPT_TOKENS)
    whole = np.flatnonzero(windows.length_N > PROMPT_TOKENS)
    if not len(whole) or room < 1:
        return []
    first = whole[np.unique(windows.document_N[whole], return_index=True)[1]]
    rows = first if len(first) >= SAMPLES else whole
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLES).round().astype(int))]
    prompts = [windows.ids_NT[row, :PROMPT_TOKENS].tolist() for row in rows]
    said = {
        name: speaker.generate(prompts, max_new_tokens=room, temperature=0.0, seed=0) for name, speaker in shown.items()
    }
    decode = next(iter(shown.values())).tokenizer.decode
    return [
        {
            "prompt": decode(prompt, skip_special_tokens=True),
            "models": {name: one[place].text for name, one in said.items()},
        }
        for place, prompt in enumerate(prompts)
    ]
