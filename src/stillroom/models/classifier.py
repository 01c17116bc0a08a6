"""A trained classifier in its folder: weights, what was learned of the inputs, the classes. Takes raw rows.

model.safetensors (weights only) · config.json (architecture, classes, class bias) · inputs.json (see inputs.py). A model of
the transformers library stands in that library's own format, and what we add is in stillroom.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from stillroom import inputs as inputs_
from stillroom.errors import CorruptFile, DataError, ModelError
from stillroom.inputs import Inputs
from stillroom.kinds import Ground, Model, parse
from stillroom.models.device import Device
from stillroom.models.references import refuse_pickles
from stillroom.models.transformers import Transformers
from stillroom.rows import Answers, Array, Output, Prediction, Questions, Raw, row_count, take_rows
from stillroom.rundir import MANIFEST, fingerprint, read_json, sha256_file, verify, write_file, write_json

WEIGHTS, CONFIG, BESIDE = "model.safetensors", "config.json", "stillroom.json"
FORWARD_ROWS = 1024
FORWARD_TOKENS = 16_384
"""Rows of tokens are answered in batches of so many tokens, the longest rows last."""


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and back to the mode it was in: a student stays in training."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


@contextmanager
def showing(network: torch.nn.Module, layers: tuple[int, ...]) -> Iterator[None]:
    """The network shows the hidden states after these layers while the block runs; most show none, and save the work."""
    before = getattr(network, "shows", ())
    if layers != before:
        network.shows = layers  # type: ignore[assignment]
    try:
        yield
    finally:
        if layers != before:
            network.shows = before  # type: ignore[assignment]


def to_device(encoded: Array, device: Device) -> torch.Tensor:
    """Encoded rows as a tensor where the network is."""
    return torch.from_numpy(encoded).to(device.name)


def autocast(device: Device) -> AbstractContextManager[object]:
    """Matrix products in the device's format; nothing at all in float32, where even a disabled autocast costs time."""
    if device.dtype == "float32":
        return nullcontext()
    return torch.autocast(device.name.partition(":")[0], torch.bfloat16)


def description(folder: Path) -> dict[str, Any]:
    """What Stillroom wrote beside a model's weights: its kind, classes, class biases and number of weights."""
    beside = folder / BESIDE
    found: dict[str, Any] = read_json(beside if beside.is_file() else folder / CONFIG)
    return found


class Classifier:
    """A network with its inputs and classes, that answers raw rows and can be saved and loaded."""

    gives = frozenset({"answers", "probabilities", "hidden"})
    by_key = False

    def __init__(
        self, model: Model, network: torch.nn.Module, inputs: Inputs, classes: list[Any], device: Device
    ) -> None:
        self.model, self.inputs, self.classes, self.device = model, inputs, classes, device
        self.network = network.to(device.name)
        self.class_bias_C = torch.zeros(len(classes), device=device.name)
        """Added to every logit vector: the label-free correction for classes the student never saw."""
        self.fingerprint = ""
        self.hidden_width: int | None = getattr(network, "hidden_width", None)
        self.layers: tuple[int, ...] = ()

    def with_layers(self, layers: tuple[int, ...]) -> Classifier:
        """The same teacher, whose hidden layer has those after these layers beside it; kept apart from one without."""
        if not layers:
            return self
        found = copy(self)
        found.layers = layers
        assert isinstance(self.hidden_width, int), "who has layers has a last one"
        found.hidden_width = self.hidden_width + len(layers) * int(getattr(self.network, "depth")[1])  # noqa: B009
        found.fingerprint = fingerprint(self.fingerprint, "layers", list(layers))
        return found

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return sum(weights.numel() for weights in self.network.parameters())

    def save(self, folder: Path) -> None:
        """Write the three files durably. The weights' file holds no time and no path."""
        own = isinstance(self.model, Transformers)
        if own:
            from stillroom.models import pretrained

            pretrained.save(self.network.model, self.network.tokenizer, folder)
        else:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
            write_file(folder / WEIGHTS, save(weights, {"format": "pt"}))
        inputs_.write(self.inputs, folder)
        config = {
            "format": 1,
            "model": self.model.kept().model_dump(mode="json", by_alias=True, exclude_none=own),
            "classes": self.classes,
            "class_bias": self.class_bias_C.tolist(),
            "parameters": self.parameters,
        }
        write_json(folder / (BESIDE if own else CONFIG), config)

    @classmethod
    def load(cls, folder: Path, device: Device | None = None) -> Classifier:
        """Read a folder written by `save`.

        Raises ModelError for what is none, or holds a pickle; CorruptFile where it is damaged.
        """
        device = device or Device()
        missing = [name for name in (CONFIG, WEIGHTS, inputs_.INPUTS) if not (folder / name).is_file()]
        if missing:
            raise ModelError(
                f"this is no folder of a Stillroom student or teacher: it has no {missing[0]}",
                where=str(folder),
                cure="Name the folder that holds config.json and model.safetensors, such as runs/NAME/student",
            )
        refuse_pickles(folder)
        if (folder / MANIFEST).is_file():
            verify(folder)
        config, inputs = description(folder), inputs_.read(folder)
        try:
            model: Model = parse("model", config["model"])
            network = model.network(inputs, len(config["classes"]), Ground([folder]))
            if not isinstance(model, Transformers):
                network.load_state_dict(load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise CorruptFile(
                "the weights do not fit the model's description", where=str(folder), cure="Copy the whole folder again"
            ) from error
        found = cls(model, network, inputs, config["classes"], device)
        found.class_bias_C = torch.tensor(config["class_bias"], device=device.name)
        files = [
            name for name in (CONFIG, WEIGHTS, inputs_.INPUTS, BESIDE, inputs_.TOKENIZER) if (folder / name).is_file()
        ]
        found.fingerprint = fingerprint([sha256_file(folder / name) for name in files])
        found.network.eval()
        return found

    def forward(self, raw: Raw) -> Output:
        """Logits [N, C], class bias included, and hidden layer [N, H] of raw rows, in evaluation mode."""
        if not row_count(raw):
            raise DataError("there are no rows", where="predict", cure="Give at least one row")
        if isinstance(self.inputs, inputs_.Texts):
            return self._forward_texts(raw)
        logits, hidden = [], []
        with evaluating(self.network), autocast(self.device):
            for start in range(0, row_count(raw), FORWARD_ROWS):
                rows = take_rows(raw, slice(start, start + FORWARD_ROWS))  # type: ignore[arg-type]
                output = self.network(to_device(self.inputs.encode(rows), self.device))
                logits.append(output.logits_BC.float())
                hidden += [] if output.hidden_BH is None else [output.hidden_BH.float()]
        return Output(torch.cat(logits) + self.class_bias_C, torch.cat(hidden) if hidden else None)

    def _forward_texts(self, raw: Raw) -> Output:
        """Rows of tokens by length, so that short ones are not padded to the longest; given back in their order."""
        ids_NT = to_device(self.inputs.encode(raw), self.device)
        length_N = (ids_NT >= 0).sum(1)
        order_N = length_N.argsort(stable=True)
        logits, hidden, layers, start = [], [], list[tuple[torch.Tensor, ...]](), 0
        with evaluating(self.network), autocast(self.device):
            while start < len(order_N):
                rows = max(1, FORWARD_TOKENS // max(1, int(length_N[order_N[start]])))
                rows = max(1, min(rows, FORWARD_TOKENS // max(1, int(length_N[order_N[start : start + rows][-1]]))))
                output = self.network(ids_NT[order_N[start : start + rows]])
                logits.append(output.logits_BC.float())
                hidden.append(output.hidden_BH.float())
                layers.append(output.layers)
                start += rows
        back_N = order_N.argsort()
        further = tuple(torch.cat([one.float() for one in layer])[back_N] for layer in zip(*layers, strict=True))
        return Output(torch.cat(logits)[back_N] + self.class_bias_C, torch.cat(hidden)[back_N], layers=further)

    def log_probabilities(self, raw: Raw) -> Array:
        """Log-probabilities [N, C] float32 of raw rows."""
        return self._log_softmax(self.forward(raw))

    @staticmethod
    def _log_softmax(output: Output) -> Array:
        assert output.logits_BC is not None
        return output.logits_BC.log_softmax(1).cpu().numpy()

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        """As a teacher: log-probabilities and hidden layer, further ones beside it (see kinds.AskedTeacher)."""
        with showing(self.network, self.layers):
            output = self.forward(questions.raw)
        hidden_NH = None if output.hidden_BH is None else torch.cat([output.hidden_BH, *output.layers], 1).cpu().numpy()
        return Answers(self._log_softmax(output), hidden_NH)

    def predict(self, rows: Any) -> Prediction:
        """Classify a 2-D array in training column order, a DataFrame, a list of dicts, texts or images."""
        probabilities_NC = np.exp(self.log_probabilities(self.inputs.as_raw(rows))).astype(np.float32)
        labels = np.empty(len(self.classes), dtype=object)
        labels[:] = self.classes
        chosen = labels[probabilities_NC.argmax(1)]
        same_type = len({type(name) for name in self.classes}) == 1 and not isinstance(self.classes[0], str)
        return Prediction(np.array(chosen.tolist()) if same_type else chosen, probabilities_NC, self.classes)

    def __repr__(self) -> str:
        return f"<{self.model.describe()}: {self.parameters:,} weights, {len(self.classes)} classes>"

    def _repr_html_(self) -> str:
        from html import escape

        what = escape(str(self.model.model_dump(mode="json")))
        return f"<p><b>{self.parameters:,}</b> weights, {len(self.classes)} classes, <code>{what}</code></p>"
