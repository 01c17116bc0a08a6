"""Two small distillations on the digits of scikit-learn, in NumPy: every number the tests render was measured.

`few_labels`: 100 labelled rows, the others unlabelled. `unseen_three`: no student ever sees a 3. Both as the scorecard
and details that the report is given.
"""

from __future__ import annotations

import itertools
import platform
import time
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

SEEDS = (0, 1, 2)
TEMPERATURE = 4.0
USD_PER_HOUR = 0.1
CLASSES = 10
SMALL = ("student", "control")
Nets = list["Net"]


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    raised = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


class Net:
    """A ReLU network, trained by Adam on any target distribution."""

    def __init__(self, widths: list[int], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        pairs = list(itertools.pairwise(widths))
        self.weights = [self.random.normal(0, np.sqrt(2 / a), (a, b)).astype(np.float32) for a, b in pairs]
        self.biases = [np.zeros(b, np.float32) for _, b in pairs]
        self.curve: list[dict[str, float]] = []

    def layers(self, x: np.ndarray) -> list[np.ndarray]:
        found = [x]
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = found[-1] @ weight + bias
            found.append(z if place == len(self.weights) - 1 else np.maximum(z, 0))
        return found

    def logits(self, x: np.ndarray) -> np.ndarray:
        return self.layers(x)[-1]

    def train(self, x, target, validation, *, epochs: int, temperature: float = 1.0, batch: int = 64) -> Net:
        parts = self.weights + self.biases
        first, second = [np.zeros_like(p) for p in parts], [np.zeros_like(p) for p in parts]
        step = 0
        for epoch in range(epochs):
            losses = []
            for rows in np.array_split(self.random.permutation(len(x)), max(1, len(x) // batch)):
                step += 1
                layers = self.layers(x[rows])
                p = softmax(layers[-1] / temperature)
                losses.append(-(target[rows] * np.log(p + 1e-12)).sum(axis=1).mean())
                d = temperature * (p - target[rows]) / len(rows)
                weight_grads, bias_grads = [], []
                for place in range(len(self.weights) - 1, -1, -1):
                    weight_grads.insert(0, layers[place].T @ d)
                    bias_grads.insert(0, d.sum(axis=0))
                    d = (d @ self.weights[place].T) * (layers[place] > 0)
                rate = 3e-3 * (1 - 0.99 * (epoch / epochs))
                for place, grad in enumerate(weight_grads + bias_grads):
                    first[place] = 0.9 * first[place] + 0.1 * grad
                    second[place] = 0.999 * second[place] + 0.001 * grad**2
                    size = np.sqrt(second[place] / (1 - 0.999**step)) + 1e-8
                    parts[place] -= rate * first[place] / (1 - 0.9**step) / size
            right = (self.logits(validation[0]).argmax(axis=1) == validation[1]).mean()
            self.curve.append(
                {"step": step, "epoch": epoch + 1, "loss": float(np.mean(losses)), "validation_accuracy": float(right)}
            )
        return self

    @property
    def parameters(self) -> int:
        return sum(part.size for part in self.weights + self.biases)


def one_hot(label: np.ndarray) -> np.ndarray:
    return np.eye(CLASSES, dtype=np.float32)[label]


def field(values_SN: np.ndarray, draws: int = 200, scale: float = 1.0) -> dict[str, Any]:
    """Mean, bootstrap interval over seeds and rows, and the value of each seed."""
    random = np.random.default_rng(0)
    seeds, rows = values_SN.shape
    means = [
        values_SN[random.integers(0, seeds, seeds)][:, random.integers(0, rows, rows)].mean() * scale
        for _ in range(draws)
    ]
    bounds = [float(bound) for bound in np.quantile(means, [0.025, 0.975])]
    return {
        "mean": float(values_SN.mean() * scale),
        "ci95": bounds,
        "per_seed": (values_SN.mean(axis=1) * scale).tolist(),
    }


def reliability(p_SNC: np.ndarray, label: np.ndarray) -> tuple[float, dict[str, list[float]]]:
    sure, right = p_SNC.max(axis=2).ravel(), (p_SNC.argmax(axis=2) == label).ravel()
    bins = np.minimum((sure * 15).astype(int), 14)
    count = np.bincount(bins, minlength=15)
    full = count > 0
    mean_sure = np.bincount(bins, sure, 15)[full] / count[full]
    mean_right = np.bincount(bins, right, 15)[full] / count[full]
    ece = float((np.abs(mean_sure - mean_right) * count[full]).sum() / count.sum())
    return ece, {"confidence": mean_sure.tolist(), "accuracy": mean_right.tolist(), "count": count[full].tolist()}


def confusion(p_SNC: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.stack([p_SNC[:, label == c].mean(axis=(0, 1)) for c in range(CLASSES)])


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    away = ~np.eye(CLASSES, dtype=bool)
    ranks = [found[away].argsort().argsort() for found in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def milliseconds(nets: Nets, x: np.ndarray) -> float:
    taken = []
    for _ in range(30):
        start = time.perf_counter()
        for net in nets:
            net.logits(x[:1])
        taken.append(time.perf_counter() - start)
    return float(np.median(taken) * 1000)


class Lab:
    """One distillation: the nets, what they say of the test rows, and what the report is told."""

    def __init__(self, labelled: int, omit: int | None) -> None:
        data = load_digits()
        pixels = (data.data / 16).astype(np.float32)
        order = np.random.default_rng(7).permutation(len(data.target))
        test, validation, train = order[:450], order[450:600], order[600:]
        self.omit, self.images = omit, data.images[test]
        self.x, self.y = pixels[test], data.target[test]
        self.validation = (pixels[validation], data.target[validation])
        x, y = pixels[train], data.target[train]
        teacher_rows = np.arange(len(x))[:labelled]
        rows = np.arange(len(x)) if omit is None else np.flatnonzero(y != omit)
        own = np.intersect1d(teacher_rows, rows)
        patience, known = 16 * len(x) // len(teacher_rows), one_hot(y[teacher_rows])
        self.teacher = [
            Net([64, 96, 96, 10], 100 + k).train(x[teacher_rows], known, self.validation, epochs=patience)
            for k in range(2)
        ]
        asked = time.perf_counter()
        p_NC = np.mean([softmax(net.logits(x[rows])) for net in self.teacher], axis=0)
        self.asking_s = time.perf_counter() - asked
        raised = p_NC ** (1 / TEMPERATURE)
        self.soft_NC = raised / raised.sum(axis=1, keepdims=True)
        hard = one_hot(p_NC.argmax(axis=1))
        small = [64, 32, 10]
        rounds = 24 * len(rows) // len(own)

        def taught(inputs: np.ndarray, target: np.ndarray, epochs: int, temperature: float = 1.0) -> Nets:
            return [
                Net(small, seed).train(inputs, target, self.validation, epochs=epochs, temperature=temperature)
                for seed in SEEDS
            ]

        began = time.perf_counter()
        student = taught(x[rows], self.soft_NC, 24, TEMPERATURE)
        self.training_s = time.perf_counter() - began
        self.norms = {"soft_target": [], "hard_label": []}
        for net in student:
            logits_NC, soft_NC = net.logits(x[rows]), self.soft_NC
            pulls = {"soft_target": TEMPERATURE * (softmax(logits_NC / TEMPERATURE) - soft_NC)}
            pulls["hard_label"] = softmax(logits_NC) - one_hot(y[rows])
            for term, pull_NC in pulls.items():
                self.norms[term].append(float(np.linalg.norm(net.layers(x[rows])[-2].T @ pull_NC) / len(rows)))
        self.nets = {
            "student": student,
            "control": taught(x[own], one_hot(y[own]), rounds),
            "hard_teacher": taught(x[rows], hard, 24),
        }
        self.rows = {"train": len(rows), "labelled": len(own), "validation": len(validation), "test": len(test)}
        self.teacher_train_accuracy = float((p_NC.argmax(axis=1) == y[rows]).mean())
        p_test = np.mean([softmax(net.logits(self.x)) for net in self.teacher], axis=0)
        self.said = {"teacher": p_test[None]}
        self.said |= {name: np.stack([softmax(net.logits(self.x)) for net in nets]) for name, nets in self.nets.items()}
        if omit is not None:
            self._correct(np.mean([softmax(net.logits(x)) for net in self.teacher], axis=0).mean(axis=0), x)

    def _correct(self, prior_C: np.ndarray, unlabelled: np.ndarray) -> None:
        """Move class biases to a prior on unlabelled rows; and, as the oracle, to the best on the test labels."""
        for name in ("student", "hard_teacher"):
            self.said[f"{name}_uncorrected"] = self.said[name]
            found = []
            for net in self.nets[name]:
                bias, logits_NC = np.zeros(CLASSES), net.logits(unlabelled)
                for _ in range(60):
                    bias += np.log(prior_C / softmax(logits_NC + bias).mean(axis=0))
                found.append(softmax(net.logits(self.x) + bias))
            self.said[name] = np.stack(found)
        best = []
        for net in self.nets["student"]:
            raised = [softmax(net.logits(self.x) + one_hot(np.array(self.omit)) * b) for b in np.arange(0, 9, 0.5)]
            best.append(max(raised, key=lambda p: (p.argmax(axis=1) == self.y).mean()))
        self.said["student_oracle"] = np.stack(best)

    def right(self, name: str) -> np.ndarray:
        return (self.said[name].argmax(axis=2) == self.y).astype(float)

    def model(self, name: str) -> dict[str, Any]:
        p_SNC, right = self.said[name], self.right(name)
        base = name.removesuffix("_uncorrected").removesuffix("_oracle")
        nets = self.teacher if name == "teacher" else self.nets[base][:1]
        likely = np.clip(p_SNC[:, np.arange(len(self.y)), self.y], 1e-12, 1)
        ece, _ = reliability(p_SNC, self.y)
        latency = milliseconds(nets, self.x)
        found: dict[str, Any] = {
            "accuracy": field(right),
            "errors": field(1 - right, scale=len(self.y)),
            "nll": field(-np.log(likely)),
            "ece": {"mean": ece, "per_seed": [ece]},
            "macro_f1": {"mean": float(right.mean())},
            "latency_ms_p50": {"mean": latency},
            "rows_per_s": {"mean": 1000 / latency},
            "usd_per_million_rows": {"mean": latency * 1e3 / 3600 * USD_PER_HOUR},
            "parameters": sum(net.parameters for net in nets),
            "size_bytes": sum(net.parameters for net in nets) * 4,
        }
        if name != "teacher":
            found["agreement"] = field((p_SNC.argmax(axis=2) == self.said["teacher"].argmax(axis=2)).astype(float))
        if self.omit is not None:
            found["recall_by_class"] = {str(c): field(right[:, self.y == c], 100) for c in range(CLASSES)}
        return found

    def gap(self) -> dict[str, Any]:
        """(student - control) / (teacher - control), drawn anew over seeds and rows."""
        random, found = np.random.default_rng(0), []
        for _ in range(200):
            rows, seeds = random.integers(0, len(self.y), len(self.y)), random.integers(0, len(SEEDS), len(SEEDS))
            control = self.right("control")[seeds][:, rows].mean()
            gained = self.right("student")[seeds][:, rows].mean() - control
            found.append(gained / (self.right("teacher")[:, rows].mean() - control))
        return {"mean": float(np.mean(found)), "ci95": [float(bound) for bound in np.quantile(found, [0.025, 0.975])]}

    def scorecard(self, name: str) -> dict[str, Any]:
        models = {key: self.model(key) for key in self.said}
        pairs = [("student", "control"), ("student", "hard_teacher"), ("student", "teacher"), ("teacher", "control")]
        saved = models["teacher"]["usd_per_million_rows"]["mean"] - models["student"]["usd_per_million_rows"]["mean"]
        spent = {
            part: seconds / 3600 * USD_PER_HOUR
            for part, seconds in (("teacher", self.asking_s), ("training", self.training_s))
        }
        return {
            "schema": 1,
            "name": name,
            "task": "classification",
            "rows": self.rows,
            "seeds": list(SEEDS),
            "models": models,
            "gap_recovered": self.gap()
            if self.omit is not None
            else {"absent": "the teacher's lead over the control is under 4 standard errors"},
            "differences": {f"{a}-{b}": {"accuracy": field(self.right(a) - self.right(b))} for a, b in pairs},
            "cost": {
                "asking_s": self.asking_s,
                "training_s": self.training_s,
                "teacher_calls": self.rows["train"],
                "teacher_usd": spent["teacher"],
                "training_usd": spent["training"],
                "saved_usd_per_million_rows": saved,
                "break_even_rows": sum(spent.values()) / saved * 1e6,
            },
            "transfer_set": {"rows": self.rows["train"], "bytes": self.rows["train"] * 60},
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            **({"omitted_classes": [self.omit]} if self.omit is not None else {}),
        }  # fmt: skip

    def details(self) -> dict[str, Any]:
        shown = ("teacher", "student", "control", "hard_teacher")
        trained = {**self.nets, "teacher": self.teacher}
        matrices = {name: confusion(self.said[name], self.y) for name in ("teacher", "student", "control")}
        entropy = -(self.soft_NC * np.log(self.soft_NC + 1e-12)).sum(axis=1)
        counts, edges = np.histogram(entropy, bins=24, range=(0, np.log(CLASSES)))
        apart = np.abs(self.said["teacher"][0] - self.said["control"][0]).sum(axis=1)
        unsure = np.sort(self.said["teacher"][0], axis=1)[:, -2] * (self.right("teacher")[0] > 0)
        chosen = [(row, "teacher and control differ most") for row in np.argsort(-apart)[:4]]
        chosen += [(row, "the teacher hesitates, and is right") for row in np.argsort(-unsure)[:2]]
        return {
            "about": {
                "teacher": "two networks of 64-96-96-10, their probabilities averaged",
                "student": "one network of 64-32-10",
                "licences": {"teacher": None, "data": "CC BY 4.0"},
                "recipe_yaml": "name: digits\nstudent: {kind: fresh, model: {kind: mlp, hidden: [32]}}\n",
                "temperature": TEMPERATURE,
                "notes": ["Test and validation rows were drawn at random before anything was trained."],
            },
            "curves": {name: [net.curve for net in nets] for name, nets in trained.items()},
            "gradient_norms": self.norms,
            "reliability": {name: reliability(self.said[name], self.y)[1] for name in shown},
            "similarity": {
                "classes": [str(c) for c in range(CLASSES)],
                "matrices": {name: found.tolist() for name, found in matrices.items()},
                "rank_correlation": {name: rank_correlation(matrices["teacher"], matrices[name]) for name in SMALL},
            },
            "entropy": {"edges": edges.tolist(), "counts": counts.tolist(), "mean_nats": float(entropy.mean())},
            "examples": [
                {
                    "row": int(row),
                    "label": int(self.y[row]),
                    "why": why,
                    "image": {"pixels": (self.images[row] / 16 * 255).round().astype(int).tolist()},
                    "columns": None,
                    "text": None,
                    "probabilities": {name: self.said[name][0, row].tolist() for name in shown},
                }
                for row, why in chosen
            ],
            "validation": {"leaks": 0},
            "teacher_train_accuracy": self.teacher_train_accuracy,
        }  # fmt: skip


@pytest.fixture(scope="session")
def few_labels() -> tuple[dict[str, Any], dict[str, Any]]:
    lab = Lab(labelled=100, omit=None)
    return lab.scorecard("digits-few-labels"), lab.details()


@pytest.fixture(scope="session")
def unseen_three() -> tuple[dict[str, Any], dict[str, Any]]:
    lab = Lab(labelled=10_000, omit=3)
    return lab.scorecard("digits-unseen-three"), lab.details()


@pytest.fixture(scope="session")
def net_class() -> type[Net]:
    return Net
