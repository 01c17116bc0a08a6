"""Students of the prompts' task: some layers of the teacher, trained on what it wrote by the product's own loop; what they
find surprising in its answers, and what they doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.socratic_sizes import PromptSizes
from benchmarks.socratic_students import NEVER_S, NO_LOOKS, NOWHERE
from stillroom.kinds import Objective, Setting, parse
from stillroom.models.classifier import evaluating
from stillroom.models.language import LanguageModel, logits
from stillroom.models.references import resolve
from stillroom.models.shrinking import evenly_spaced, keep_layers, layer_count
from stillroom.objectives.weighted_sum import WeightedSum
from stillroom.questions.dialogues import dialogues, form_of, prompts
from stillroom.questions.windows import questions_of
from stillroom.recipe import Training
from stillroom.rows import PADDING, Array, Questions
from stillroom.rundir import MANIFEST, fingerprint, is_sealed, seal
from stillroom.training.language_batches import WindowBatches, WindowSource, tokens_of
from stillroom.training.loop import Hooks, Trainer

TRACE: Sequence[Objective] = (parse("objective", {"kind": "trace"}),)
KNOBS = Training(batch_size=8, learning_rate=5e-4, clip=1.0, weight_decay=0.01, checkpoint_seconds=NEVER_S)
ROWS = 16
"""Read at once."""
DOUBTED_TOKENS = 8
"""Of what a student would say itself, so many show how sure it is."""


class Answer(NamedTuple):
    """What the teacher said to a prompt."""

    prompt: str
    text: str
    cut: bool
    """It reached its limit of tokens, so where it ends is not known."""


def untrained(sizes: PromptSizes, home: Path) -> Path:
    """The folder of the student before it has learned anything: the teacher's layers at even distances; made once."""
    made_from = fingerprint(sizes.model, sizes.layers)
    folder = home / f"student-{made_from[:16]}"
    if is_sealed(folder, made_from):
        return folder
    (folder / MANIFEST).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    whole = LanguageModel.load(resolve(sizes.model, []), "causal")
    layers = evenly_spaced(layer_count(whole.network.model), sizes.layers)
    LanguageModel(keep_layers(whole.network.model, layers), whole.tokenizer, "causal").save(folder)
    seal(folder, made_from)
    return folder


def windows_of(model: LanguageModel, answers: Sequence[Answer]) -> Questions:
    """A row for each answer. Where one was cut no end is learned."""
    made = dialogues(model.tokenizer, [(one.prompt, one.text) for one in answers], model.context)
    assert isinstance(made.raw, dict)
    target_NT, ends = made.raw["target"].copy(), form_of(model.tokenizer).scored_after
    for row in (row for row, one in enumerate(answers) if one.cut):
        target_NT[row, np.flatnonzero(target_NT[row] != PADDING)[-ends:]] = PADDING
    return questions_of({"ids": made.raw["ids"], "target": target_NT}, made.row_N)


def trained(folder: Path, answers: Sequence[Answer], steps: int, seed: int) -> LanguageModel:
    """The student in `folder`, gone on from there with these answers."""
    torch.manual_seed(seed)
    model = LanguageModel.load(folder, "causal")
    device = model.device.for_size(model.parameters, "auto")
    windows = windows_of(model, answers)
    assert isinstance(windows.raw, dict)
    windows = windows.take(np.flatnonzero((windows.raw["target"] != PADDING).any(1)))
    batches = WindowBatches(WindowSource(windows), KNOBS.batch_size, seed, device)
    loss = WeightedSum(TRACE, Setting(model.vocabulary, model.network.hidden_width, None, None, None))
    Trainer(model.network, loss, batches, KNOBS, steps, device, NOWHERE, Hooks(looks=NO_LOOKS)).train()
    model.network.eval()
    return model


def surprise(model: LanguageModel, windows: Questions) -> tuple[Array, Array]:
    """Of each row, the bits of all its scored tokens, and how many these are."""
    bits_N, tokens_N = np.zeros(len(windows)), np.zeros(len(windows), np.int64)
    for row_P, logs_PV, target_P in _read(model, windows):
        lost_P = -logs_PV.gather(1, target_P[:, None])[:, 0].double().numpy() / np.log(2)
        np.add.at(bits_N, row_P, lost_P)
        np.add.at(tokens_N, row_P, 1)
    return bits_N, tokens_N


def doubts(model: LanguageModel, texts: Sequence[str]) -> Array:
    """How unsure it is of each of these prompts: its mean entropy, in nats, over the first tokens that it would say [N]."""
    asked = prompts(model.tokenizer, texts)
    said = [one.ids for one in model.generate(asked, DOUBTED_TOKENS, batch=ROWS)]
    shape = (len(asked), max(len(one) + len(ids) for one, ids in zip(asked, said, strict=True)))
    ids_NT, target_NT = np.full(shape, PADDING, np.int32), np.full(shape, PADDING, np.int32)
    for row, (one, ids) in enumerate(zip(asked, said, strict=True)):
        ids_NT[row, : len(one) + len(ids)] = [*one, *ids]
        target_NT[row, len(one) - 1 : len(one) + len(ids) - 1] = ids
    entropy_N, tokens_N = np.zeros(len(asked)), np.zeros(len(asked), np.int64)
    for row_P, logs_PV, _ in _read(model, questions_of({"ids": ids_NT, "target": target_NT}, np.arange(len(asked)))):
        np.add.at(entropy_N, row_P, -(logs_PV.exp() * logs_PV).sum(1).double().numpy())
        np.add.at(tokens_N, row_P, 1)
    return np.asarray(entropy_N / tokens_N)


def _read(model: LanguageModel, windows: Questions) -> Iterator[tuple[Array, torch.Tensor, torch.Tensor]]:
    """Some rows at a time: the row of each scored token, all log-probabilities there [P, V], and the token itself."""
    for start in range(0, len(windows), ROWS):
        place = np.arange(start, min(start + ROWS, len(windows)))
        tokens, target_P = tokens_of(windows.take(place), model.device)
        with evaluating(model.network):
            output: Any = model.network(tokens)
            logs_PV = logits(output.hidden_BH, output.head).log_softmax(1)
        yield start + tokens.scored_BT.nonzero()[:, 0].numpy(), logs_PV, target_P
