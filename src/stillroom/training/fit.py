"""One network from its first weights to its finished folder: what flow asks for once for each teacher, student, seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from stillroom.inputs import Texts
from stillroom.kinds import Model, Objective, Setting
from stillroom.models.classifier import Classifier, autocast, evaluating, showing, to_device
from stillroom.models.device import Device, threads
from stillroom.objectives.fused import fused_cross_entropy
from stillroom.objectives.hidden import layers_of
from stillroom.objectives.weighted_sum import WeightedSum
from stillroom.recipe import Training
from stillroom.rows import Array, Head, Output, Questions, Shown
from stillroom.rundir import read_json, write_json
from stillroom.training.batches import Batches, Source
from stillroom.training.class_prior import match_prior
from stillroom.training.language_batches import WindowBatches, WindowSource, tokens_of
from stillroom.training.language_history import gone_on
from stillroom.training.loop import LOOKS, History, Hooks, Trainer

HISTORY = "history.json"
VALIDATION_ROWS = 256
LOOKED_TEXTS, LOOKED_WINDOWS, LOOKED_AT_ONCE = 1000, 64, 8


@dataclass(frozen=True)
class Prior:
    """What mean predictions on unlabelled questions are to be: a share for each class [C]."""

    questions: Questions
    share_C: Array
    moved: list[int] | None
    """The classes whose biases move: those the student never saw; None: all."""


@dataclass(frozen=True)
class Lesson:
    """All that one training is made of."""

    model: Model
    build: Callable[[], torch.nn.Module]
    """The network with its first weights; torch is seeded before it is called."""
    objectives: Sequence[Objective]
    knobs: Training
    source: Source | WindowSource
    classes: list[object]
    validation: Questions
    seed: int
    steps: int
    device: Device
    dtype: str = "auto"
    prior: Prior | None = None
    """Afterwards the class biases are moved until the mean prediction matches it."""
    compared: bool = False
    """It is trained to be compared on validation rows with others, as temperatures are tried: all of them count."""
    after: Path | None = None
    """The folder of an earlier training that this one goes on from, as its history does."""


def fit(lesson: Lesson, folder: Path, work: Path, hooks: Hooks) -> History:
    """Train, correct for the class prior where asked, and write the model and its history into `folder`."""
    if isinstance(lesson.source, WindowSource):
        return _fit_language(lesson, lesson.source, folder, work, hooks)
    classifier, loss = prepare(lesson)
    device = classifier.device
    batches = Batches(lesson.source, lesson.knobs.batch_size, lesson.seed, device, lesson.knobs.mixup)
    looks = LOOKS if not isinstance(classifier.inputs, Texts) else LOOKS // 2
    hooks = replace(hooks, validate=_validator(lesson, classifier), looks=looks)
    history = _train(lesson, classifier.network, loss, batches, device, work, hooks)
    if hasattr(classifier.network, "adapters"):
        from stillroom.models.text import merged

        classifier.network = merged(classifier.network, "classification")
    if lesson.prior is not None:
        prior = lesson.prior
        bias_C = match_prior(classifier.log_probabilities(prior.questions.raw), prior.share_C, prior.moved)
        classifier.class_bias_C = torch.from_numpy(bias_C.astype(np.float32)).to(classifier.device.name)
    classifier.save(folder)
    write_json(folder / HISTORY, history.__dict__)
    return history


def prepare(lesson: Lesson) -> tuple[Classifier, WeightedSum]:
    """The classifier with its first weights, seeded, and the loss it will be trained under."""
    assert isinstance(lesson.source, Source)
    network, device = _first_weights(lesson)
    if isinstance(lesson.source.inputs, Texts):
        from stillroom.models.text import name_classes

        name_classes(network, lesson.classes)
    classifier = Classifier(lesson.model, network, lesson.source.inputs, list(lesson.classes), device)
    setting = _setting(lesson, len(lesson.classes), classifier.hidden_width, classifier.network)
    return classifier, WeightedSum(lesson.objectives, setting)


def _first_weights(lesson: Lesson) -> tuple[torch.nn.Module, Device]:
    torch.manual_seed(lesson.seed)
    network = lesson.build()
    return network, lesson.device.for_size(sum(weights.numel() for weights in network.parameters()), lesson.dtype)


def _fit_language(lesson: Lesson, source: WindowSource, folder: Path, work: Path, hooks: Hooks) -> History:
    from stillroom.models.language import LanguageModel, LanguageNetwork
    from stillroom.models.text import merged

    made, device = _first_weights(lesson)
    assert isinstance(made, LanguageNetwork), "a language model's recipe builds one"
    model = LanguageModel(made.model, made.tokenizer, made.kind, device)
    batches = WindowBatches(source, lesson.knobs.batch_size, lesson.seed, device)
    setting = _setting(lesson, model.vocabulary, model.network.hidden_width, model.network)
    loss = WeightedSum(lesson.objectives, setting)
    hooks = replace(hooks, validate=language_validator(lesson.validation, device), looks=LOOKS // 2)
    history = _train(lesson, model.network, loss, batches, device, work, hooks)
    plain = merged(made, made.kind)
    assert isinstance(plain, LanguageNetwork), "merging changes no kind"
    if plain is not made:
        model = LanguageModel(plain.model, made.tokenizer, made.kind, device)
    model.save(folder)
    before = None if lesson.after is None else read_json(lesson.after / HISTORY)
    write_json(folder / HISTORY, history.__dict__ if before is None else gone_on(before, history.__dict__))
    return history


def _train(
    lesson: Lesson, network: torch.nn.Module, loss: WeightedSum, batches: Batches | WindowBatches, device: Device,
    work: Path, hooks: Hooks,
) -> History:  # fmt: skip
    work.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(network, loss, batches, lesson.knobs, lesson.steps, device, work, hooks)
    with threads(device.threads), showing(network, layers_of(lesson.objectives)[0]):
        return trainer.train()


def _setting(lesson: Lesson, classes: int, student_hidden: int | None, network: torch.nn.Module) -> Setting:
    source, ours = lesson.source, layers_of(lesson.objectives)[0]
    teacher_hidden = source.live.hidden_width if source.live is not None else None
    if source.readers and source.with_hidden:
        teacher_hidden = source.readers[0].take(np.arange(1), "hidden").shape[1]
    answers = source.readers[0].all() if source.readers and isinstance(source, Source) else None
    # Only models of the transformers library have layers to choose from; stages/layers.py refuses any other.
    width = int(getattr(network, "depth")[1]) if ours else 0  # noqa: B009
    shown = Shown(ours, width, source.layers, source.layer_width) if source.layers else None
    return Setting(classes, student_hidden, teacher_hidden, answers, shown)


def _validator(lesson: Lesson, classifier: Classifier) -> Callable[[torch.nn.Module], dict[str, float]] | None:
    """Looks at the labelled validation rows, which are encoded once."""
    rows = lesson.validation.take(np.flatnonzero(lesson.validation.labelled_N))
    if not len(rows):
        return None
    if isinstance(classifier.inputs, Texts):
        if lesson.knobs.patience is None and not lesson.compared and len(rows) > LOOKED_TEXTS:
            # Nothing depends on it but a curve, and a look at all texts takes as long as a tenth of the training.
            rows = rows.take(np.linspace(0, len(rows) - 1, LOOKED_TEXTS).astype(np.int64))
        length_N = (classifier.inputs.encode(rows.raw) >= 0).sum(1)
        rows = rows.take(np.argsort(length_N, kind="stable"))
    input_N = to_device(classifier.inputs.encode(rows.raw), classifier.device)
    label_N = torch.from_numpy(rows.label_N).to(classifier.device.name)

    def look(network: torch.nn.Module) -> dict[str, float]:
        with evaluating(network):
            logits_NC = torch.cat([network(part).logits_BC.float() for part in torch.split(input_N, VALIDATION_ROWS)])
        loss = float(functional.cross_entropy(logits_NC, label_N))
        return {"validation_loss": loss, "validation_accuracy": float((logits_NC.argmax(1) == label_N).float().mean())}

    return look


def language_validator(validation: Questions, device: Device) -> Callable[[torch.nn.Module], dict[str, float]] | None:
    """Looks at the loss on validation windows, in nats a scored token; at most LOOKED_WINDOWS of them, drawn evenly."""
    if not len(validation):
        return None
    chosen = np.unique(np.linspace(0, len(validation) - 1, min(LOOKED_WINDOWS, len(validation))).astype(np.int64))
    parts = [validation.take(part) for part in np.array_split(chosen, -(-len(chosen) // LOOKED_AT_ONCE))]

    def look(network: torch.nn.Module) -> dict[str, float]:
        total, count = 0.0, 0
        with evaluating(network), autocast(device):
            for part in parts:
                tokens, target_P = tokens_of(part, device)
                output: Output = network(tokens)
                assert output.hidden_BH is not None
                assert isinstance(output.head, Head), "a student is one model"
                total += float(fused_cross_entropy(output.hidden_BH, output.head, target_P))
                count += len(target_P)
        return {"validation_loss": total / count}

    return look
