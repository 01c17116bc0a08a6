"""Predict once: every model's log-probabilities on validation and test, written down before anything is computed.

    FOLDER/<model>.<seed>.<split>.f32    raw float32 [N, C]
    FOLDER/<split>.keys.u8               content keys, 16 bytes a row
    FOLDER/<split>.labels.i64            places among the classes, -1 for none
    FOLDER/predictions.json              models, seeds, classes, numbers of rows

Everything the scorecard says of quality is computed from these files and the labels. Knows no figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import NotFinite
from stillroom.evaluation.processes import give_back
from stillroom.evaluation.scores import Said
from stillroom.models.classifier import Classifier
from stillroom.models.device import Device
from stillroom.rows import KEY_BYTES, Array, Splits
from stillroom.rundir import read_json, write_file, write_json
from stillroom.training.class_prior import oracle_bias


@dataclass
class Predictions:
    """model -> what its seeds said; and each model's class biases [S, C], where any is not 0."""

    said: dict[str, Said] = field(default_factory=dict)
    bias_SC: dict[str, Array] = field(default_factory=dict)


def predict(models: Mapping[str, list[Path]], splits: Splits, device: Device) -> Predictions:
    """Every seed of every model on the validation and test rows."""
    found = Predictions()
    for name, folders in models.items():
        test, validation, biases = [], [], []
        for folder in folders:
            classifier = Classifier.load(folder, device)
            test.append(_finite(classifier.log_probabilities(splits.test.raw), folder))
            validation.append(_finite(classifier.log_probabilities(splits.validation.raw), folder))
            biases.append(classifier.class_bias_C.cpu().numpy())
            del classifier
            give_back()
        found.said[name] = Said(np.stack(test), np.stack(validation))
        if np.any(biases):
            found.bias_SC[name] = np.stack(biases)
    return found


def _finite(log_probabilities_NC: Array, folder: Path) -> Array:
    if not np.isfinite(log_probabilities_NC).all():
        raise NotFinite(
            "a prediction is not finite", where=str(folder), cure="Train again with a smaller learning rate"
        )
    return log_probabilities_NC


def add_bias_variants(predictions: Predictions, splits: Splits, unseen: list[int]) -> None:
    """Beside each corrected model: as it was before the class prior was matched, and with the oracle's offset."""
    for name, bias_SC in predictions.bias_SC.items():
        said = predictions.said[name]
        assert said.validation_SNC is not None
        plain = Said(_moved(said.test_SNC, -bias_SC), _moved(said.validation_SNC, -bias_SC))
        predictions.said[f"{name}_uncorrected"] = plain
        if name == "student" and unseen:
            oracle_SC = np.stack([oracle_bias(one_NC, splits.test.label_N, unseen) for one_NC in plain.test_SNC])
            assert plain.validation_SNC is not None
            oracle = Said(_moved(plain.test_SNC, oracle_SC), _moved(plain.validation_SNC, oracle_SC))
            predictions.said["student_oracle"] = oracle


def _moved(said_SNC: Array, bias_SC: Array) -> Array:
    """Log-probabilities after a bias is added to the logits."""
    moved = said_SNC.astype(np.float64) + bias_SC[:, None, :]
    top = moved.max(2, keepdims=True)
    found: Array = (moved - top - np.log(np.exp(moved - top).sum(2, keepdims=True))).astype(np.float32)
    return found


def write(predictions: Predictions, folder: Path, splits: Splits) -> None:
    """Write every prediction as raw float32, the rows' keys and labels, then the list of what there is."""
    listed: dict[str, Any] = {"classes": splits.classes, "models": {}}
    for split, questions in (("test", splits.test), ("validation", splits.validation)):
        write_file(folder / f"{split}.keys.u8", questions.key_N.tobytes())
        write_file(folder / f"{split}.labels.i64", questions.label_N.astype(np.int64).tobytes())
    for name, said in predictions.said.items():
        listed["models"][name] = {"seeds": said.seeds, "test_rows": said.test_SNC.shape[1]}
        for split, said_SNC in (("test", said.test_SNC), ("validation", said.validation_SNC)):
            if said_SNC is None:
                continue
            for seed, said_NC in enumerate(said_SNC):
                write_file(folder / f"{name}.{seed}.{split}.f32", said_NC.astype(np.float32).tobytes())
    write_json(folder / "predictions.json", listed)


@dataclass(frozen=True)
class Written:
    """What one seed of one model said of the test rows, as it was written."""

    key_N: Array
    label_N: Array
    log_probabilities_NC: Array

    @property
    def right_N(self) -> Array:
        """True where the model is right."""
        found: Array = self.log_probabilities_NC.argmax(1) == self.label_N
        return found


def read_test(folder: Path, model: str, seed: int = 0) -> Written:
    """Predictions of the test rows from what `write` wrote."""
    classes = len(read_json(folder / "predictions.json")["classes"])
    return Written(
        np.fromfile(folder / "test.keys.u8", np.uint8).reshape(-1, KEY_BYTES),
        np.fromfile(folder / "test.labels.i64", np.int64),
        np.fromfile(folder / f"{model}.{seed}.test.f32", np.float32).reshape(-1, classes),
    )
