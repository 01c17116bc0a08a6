"""A loss means its name: the rules of the house, over every objective in kinds.py, against naive float64 references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from stillroom.kinds import TABLE, Objective, Setting, find, parse
from stillroom.rows import Batch, Head, Output

ROWS, CLASSES, WIDTH = 7, 5, 6
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "hard_label": [{}, {"from": "teacher"}],
    "soft_target": [
        {"temperature": heat, "divergence": form, "standardise": standard}
        for heat in (1.0, 4.0)
        for form in ("forward", "reverse", "jensen_shannon")
        for standard in (False, True)
    ],
    "hidden": [{"distance": "mse"}, {"distance": "cosine"}],
    "trace": [{}],
}
HARD = ("hard_label", "trace")
ALL = [(kind, knobs) for kind in TABLE["objective"] for knobs in VARIANTS.get(kind, [{}])]
SOFT = [knobs for kind, knobs in ALL if kind == "soft_target"]


def objective(kind: str, knobs: dict[str, Any]) -> Objective:
    made: Objective = parse("objective", {"kind": kind, **knobs})
    return made


def setting(classes: int = CLASSES) -> Setting:
    return Setting(classes, WIDTH, WIDTH, None)


def random_batch(rng: np.random.Generator, rows: int = ROWS, classes: int = CLASSES) -> tuple[Output, Batch]:
    logits = torch.tensor(rng.normal(0, 2, (rows, classes))).float()
    hidden = torch.tensor(rng.normal(0, 1, (rows, WIDTH))).float()
    teacher = torch.tensor(rng.normal(0, 2, (rows, classes))).float().log_softmax(1)
    batch = Batch(
        torch.zeros(rows, 1),
        torch.tensor(rng.integers(0, classes, rows)),
        log_probabilities_BC=teacher,
        hidden_BH=torch.tensor(rng.normal(0, 1, (rows, WIDTH))).float(),
    )
    return Output(logits.requires_grad_(), hidden.requires_grad_()), batch


def said(kind: str, output: Output) -> Output:
    """The output as the kind takes it: `trace` is for language models, whose logits come out of a last hidden layer."""
    return output if kind != "trace" else Output(None, output.logits_BC, Head(torch.eye(CLASSES)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def test_every_objective_is_tested() -> None:
    assert set(VARIANTS) == set(TABLE["objective"])
    assert all(issubclass(find("objective", kind), Objective) for kind in VARIANTS)


@pytest.mark.parametrize(("kind", "knobs"), ALL)
def test_a_perfect_student_has_no_loss(kind: str, knobs: dict[str, Any], rng: np.random.Generator) -> None:
    _, batch = random_batch(rng)
    assert batch.log_probabilities_BC is not None
    if kind in HARD:
        # Certain and right is the perfect answer to a hard label.
        target = batch.log_probabilities_BC.argmax(1) if knobs.get("from") == "teacher" else batch.label_B
        assert target is not None
        logits = torch.full((ROWS, CLASSES), -200.0).scatter(1, target[:, None], 200.0)
    else:
        logits = batch.log_probabilities_BC + 3.0
    output = Output(logits, batch.hidden_BH)
    loss = objective(kind, knobs).build(setting()).sum(said(kind, output), batch)
    assert abs(float(loss)) < 1e-4


@pytest.mark.parametrize(("kind", "knobs"), ALL)
def test_shifting_the_logits_changes_nothing(kind: str, knobs: dict[str, Any], rng: np.random.Generator) -> None:
    output, batch = random_batch(rng)
    built = objective(kind, knobs).build(setting())
    moved = Output(output.logits_BC + torch.randn(ROWS, 1) * 5, output.hidden_BH)
    before, after = built.sum(said(kind, output), batch), built.sum(said(kind, moved), batch)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "knobs"), ALL)
def test_masked_rows_count_nothing_and_have_no_gradient(
    kind: str, knobs: dict[str, Any], rng: np.random.Generator
) -> None:
    output, batch = random_batch(rng)
    batch.weight_B = torch.ones(ROWS)
    batch.weight_B[2] = 0
    built = objective(kind, knobs).build(setting())
    assert built.count(batch) == ROWS - 1
    built.sum(said(kind, output), batch).backward()
    looked_at = output.hidden_BH if kind == "hidden" else output.logits_BC
    assert looked_at is not None
    assert looked_at.grad is not None
    assert looked_at.grad[2].abs().sum() == 0
    assert looked_at.grad[3].abs().sum() > 0


def test_rows_without_a_label_are_masked(rng: np.random.Generator) -> None:
    output, batch = random_batch(rng)
    assert batch.label_B is not None
    batch.label_B[1] = -1
    built = objective("hard_label", {}).build(setting())
    assert built.count(batch) == ROWS - 1
    built.sum(output, batch).backward()
    assert output.logits_BC.grad is not None
    assert output.logits_BC.grad[1].abs().sum() == 0


@pytest.mark.parametrize(("kind", "knobs"), ALL)
def test_equal_to_a_naive_float64_reference(kind: str, knobs: dict[str, Any], rng: np.random.Generator) -> None:
    output, batch = random_batch(rng)
    loss = float(objective(kind, knobs).build(setting()).sum(said(kind, output), batch).detach())
    assert loss == pytest.approx(naive(kind, knobs, output, batch), rel=1e-5, abs=1e-5)


def naive(kind: str, knobs: dict[str, Any], output: Output, batch: Batch) -> float:
    """Loops over rows and classes in float64."""
    assert batch.log_probabilities_BC is not None
    assert batch.label_B is not None
    assert batch.hidden_BH is not None
    assert output.hidden_BH is not None
    total = 0.0
    for row in range(ROWS):
        student = output.logits_BC[row].detach().double().tolist()
        teacher = batch.log_probabilities_BC[row].double().tolist()
        if kind in HARD:
            label = teacher.index(max(teacher)) if knobs.get("from") == "teacher" else int(batch.label_B[row])
            total -= math.log(_softmax(student, 1.0)[label])
        elif kind == "hidden":
            left, right = output.hidden_BH[row].detach().double().tolist(), batch.hidden_BH[row].double().tolist()
            pairs = list(zip(left, right, strict=True))
            if knobs["distance"] == "mse":
                total += sum((a - b) ** 2 for a, b in pairs) / WIDTH
            else:
                norms = math.sqrt(sum(a * a for a in left)) * math.sqrt(sum(b * b for b in right))
                total += 1 - sum(a * b for a, b in pairs) / norms
        else:
            heat = knobs["temperature"]
            if knobs["standardise"]:
                student, teacher = _standard(student), _standard(teacher)
            p, q = _softmax(teacher, heat), _softmax(student, heat)
            total += (
                heat**2 * {"forward": _kl(p, q), "reverse": _kl(q, p), "jensen_shannon": _js(p, q)}[knobs["divergence"]]
            )
    return total


def _softmax(logits: list[float], heat: float) -> list[float]:
    top = max(logits)
    parts = [math.exp((value - top) / heat) for value in logits]
    return [part / sum(parts) for part in parts]


def _standard(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance + 1e-7) for value in values]


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _js(p: list[float], q: list[float]) -> float:
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (_kl(p, middle) + _kl(q, middle)) / 2


@pytest.mark.parametrize("form", ["forward", "reverse", "jensen_shannon"])
@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heat", [0.05, 0.5, 1.0, 20.0, 100.0])
def test_gradients_are_finite_at_any_temperature(
    form: str, standard: bool, dtype: torch.dtype, heat: float, rng: np.random.Generator
) -> None:
    output, batch = random_batch(rng)
    # An answer that is certain: all other classes stand at the least log-probability a store holds.
    assert batch.log_probabilities_BC is not None
    batch.log_probabilities_BC[0] = torch.tensor([0.0] + [-1e4] * (CLASSES - 1))
    logits = (output.logits_BC.detach() * 20).to(dtype).requires_grad_()
    knobs = {"temperature": heat, "divergence": form, "standardise": standard}
    loss = objective("soft_target", knobs).build(setting()).sum(Output(logits, None), batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_gradient_keeps_its_scale_as_the_temperature_grows(rng: np.random.Generator) -> None:
    """T^2 makes up for the softening: at high T the gradient tends to (student - teacher logits) / C, whatever T."""
    _, batch = random_batch(rng)
    assert batch.log_probabilities_BC is not None
    base = torch.tensor(rng.normal(0, 2, (ROWS, CLASSES))).float()
    norms = []
    for heat in (50.0, 100.0, 400.0):
        logits = base.clone().requires_grad_()
        objective("soft_target", {"temperature": heat}).build(setting()).sum(Output(logits, None), batch).backward()
        assert logits.grad is not None
        norms.append(float(logits.grad.norm()))
    assert norms[0] == pytest.approx(norms[2], rel=0.05)
    centred = (base - base.mean(1, keepdim=True)) - (
        batch.log_probabilities_BC - batch.log_probabilities_BC.mean(1, keepdim=True)
    )
    assert norms[2] == pytest.approx(float(centred.norm()) / CLASSES, rel=0.02)


@pytest.mark.parametrize("knobs", SOFT)
def test_unused_classes_do_not_dilute_the_loss(knobs: dict[str, Any], rng: np.random.Generator) -> None:
    """A divergence is a sum over classes, never a mean: classes that neither gives any mass change nothing."""
    if knobs["standardise"]:
        knobs = {**knobs, "standardise": False}  # the spread is taken over all logits, unused classes included
    output, batch = random_batch(rng)
    assert batch.log_probabilities_BC is not None
    wide = Output(torch.cat([output.logits_BC, torch.full((ROWS, 40), -1e4)], 1), None)
    wide_batch = Batch(
        batch.input, log_probabilities_BC=torch.cat([batch.log_probabilities_BC, torch.full((ROWS, 40), -1e4)], 1)
    )
    narrow = objective("soft_target", knobs).build(setting()).sum(output, batch)
    padded = objective("soft_target", knobs).build(setting(CLASSES + 40)).sum(wide, wide_batch)
    torch.testing.assert_close(narrow, padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "knobs"), ALL)
def test_a_sum_over_parts_is_the_sum_over_all(kind: str, knobs: dict[str, Any], rng: np.random.Generator) -> None:
    output, batch = random_batch(rng)
    built = objective(kind, knobs).build(setting())
    parts = []
    for rows in (slice(0, 3), slice(3, None)):
        assert batch.label_B is not None
        assert batch.log_probabilities_BC is not None
        assert batch.hidden_BH is not None
        assert output.hidden_BH is not None
        part = Batch(
            batch.input[rows],
            batch.label_B[rows],
            log_probabilities_BC=batch.log_probabilities_BC[rows],
            hidden_BH=batch.hidden_BH[rows],
        )
        shown = said(kind, Output(output.logits_BC[rows], output.hidden_BH[rows]))
        parts.append(float(built.sum(shown, part).detach()))
    assert sum(parts) == pytest.approx(float(built.sum(said(kind, output), batch).detach()), rel=1e-5)
