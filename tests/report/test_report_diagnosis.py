"""Each rule fires on its planted fault and keeps silent on a healthy run."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stillroom.report.diagnosis import RULES, diagnose
from stillroom.report.findings import Finding

Run = tuple[dict[str, Any], dict[str, Any]]


def about(mean: float, half: float = 0.01) -> dict[str, Any]:
    return {"mean": mean, "ci95": [mean - half, mean + half]}


def healthy() -> Run:
    accuracy = {"teacher": 0.95, "student": 0.945, "control": 0.9, "hard_teacher": 0.92}
    models: dict[str, Any] = {name: {"accuracy": about(value)} for name, value in accuracy.items()}
    models["student"]["agreement"] = about(0.96)
    pairs = [("student", "control"), ("student", "hard_teacher"), ("student", "teacher"), ("teacher", "control")]
    scorecard = {
        "name": "healthy",
        "task": "classification",
        "rows": {"test": 1000},
        "models": models,
        "differences": {f"{a}-{b}": {"accuracy": about(accuracy[a] - accuracy[b])} for a, b in pairs},
    }
    details = {
        "classes": list(range(10)),
        "about": {"temperature": 4},
        "gradient_norms": {"soft_target": [0.5, 0.4], "hard_label": [0.9, 0.8]},
        "entropy": {"mean_nats": 1.1},
        "curves": {"student": [losses(2 * math.exp(-step / 4) + 1 for step in range(40))]},
        "validation": {"leaks": 0},
        "teacher_train_accuracy": 0.99,
        "train_agreement": 0.97,
    }
    return scorecard, details


def losses(values: Any) -> list[dict[str, float]]:
    return [{"step": 10 * place, "loss": value} for place, value in enumerate(values)]


def found(scorecard: dict[str, Any], details: dict[str, Any]) -> dict[str, Finding]:
    return {finding.rule: finding for finding in diagnose(scorecard, details)}


def differ(scorecard: dict[str, Any], pair: str, mean: float, half: float = 0.01) -> None:
    scorecard["differences"][pair]["accuracy"] = about(mean, half)


def test_a_healthy_run_has_only_good_findings() -> None:
    assert [(finding.rule, finding.level) for finding in diagnose(*healthy())] == [("gain over the control", "good")]


def test_a_real_healthy_run_has_no_problem(unseen_three: Run) -> None:
    findings = found(*unseen_three)
    assert findings["gain over the control"].level == "good"
    assert "problem" not in {finding.level for finding in findings.values()}


def test_every_finding_is_whole() -> None:
    for finding in (*diagnose(*healthy()), *diagnose(*broken())):
        assert finding.what.endswith(".")
        assert finding.evidence.endswith(".")
        assert finding.cure.endswith(".") or finding.level == "good"


def broken() -> Run:
    scorecard, details = healthy()
    for pair in ("student-control", "student-hard_teacher", "teacher-control"):
        differ(scorecard, pair, -0.05)
    details |= {"validation": {"leaks": 3}, "entropy": {"mean_nats": 0.001}, "teacher_train_accuracy": 0.1}
    return scorecard, details


def test_problems_come_first() -> None:
    levels = [finding.level for finding in diagnose(*broken())]
    assert levels == sorted(levels, key=["problem", "note", "good"].index)
    assert levels[0] == "problem"


def test_no_gap_to_close() -> None:
    scorecard, details = healthy()
    differ(scorecard, "teacher-control", 0.004)
    findings = found(scorecard, details)
    assert findings["no gap to close"].level == "note"
    assert "+0.4 points, 95% interval −0.6 to +1.4" in findings["no gap to close"].evidence
    assert "teacher no better than control" not in findings


@pytest.mark.parametrize("lead", [0.0, -0.03])
def test_teacher_no_better_than_the_control(lead: float) -> None:
    scorecard, details = healthy()
    differ(scorecard, "teacher-control", lead)
    findings = found(scorecard, details)
    assert findings["teacher no better than control"].level == "problem"
    assert "no gap to close" not in findings


def test_the_gap_is_judged_without_a_paired_difference() -> None:
    scorecard, details = healthy()
    del scorecard["differences"]["teacher-control"]
    assert "no gap to close" not in found(scorecard, details)
    scorecard["models"]["control"]["accuracy"] = about(0.945)
    assert "no gap to close" in found(scorecard, details)
    for model in ("teacher", "control"):
        del scorecard["models"][model]["accuracy"]["ci95"]
    assert "no gap to close" in found(scorecard, details), "the error of a share follows from the test rows"


def test_soft_term_inert() -> None:
    scorecard, details = healthy()
    details["gradient_norms"] = {"soft_target": [0.02, 0.03], "hard_label": [0.9, 0.8]}
    assert found(scorecard, details)["soft term inert"].level == "problem"
    details["gradient_norms"] = {"soft_target": [0.02, 0.03]}
    assert "soft term inert" not in found(scorecard, details), "nothing drowns it"


@pytest.mark.parametrize(("nats", "words"), [(0.01, "too low"), (math.log(10) * 0.999, "too high")])
def test_temperature_unsuited(nats: float, words: str) -> None:
    scorecard, details = healthy()
    details["entropy"]["mean_nats"] = nats
    finding = found(scorecard, details)["temperature unsuited"]
    assert words in finding.what
    assert "at T = 4" in finding.evidence


@pytest.mark.parametrize("nats", [0.09, 2.26])
def test_temperatures_that_work_are_let_be(nats: float) -> None:
    # Measured on handwritten digits: a sure network at T = 1 has 0.04 of log 10, and at T = 20 it has 0.98.
    scorecard, details = healthy()
    details["entropy"]["mean_nats"] = nats
    assert "temperature unsuited" not in found(scorecard, details)


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target


@pytest.fixture
def trained(net_class: Any) -> Callable[[int, np.ndarray], Any]:
    def train(epochs: int, target: np.ndarray) -> Any:
        x, y = digits()
        return net_class([64, 32, 10], 0).train(x[:1200], target, (x[1200:], y[1200:]), epochs=epochs)

    return train


@pytest.mark.parametrize(("epochs", "fires"), [(10, True), (60, False)])
def test_student_undertrained(epochs: int, fires: bool, trained: Any) -> None:
    """Real curves: without its schedule's end a run of 60 epochs stops early; with it, the loss has levelled off."""
    _, y = digits()
    net = trained(60, np.eye(10, dtype=np.float32)[y[:1200]])
    scorecard, details = healthy()
    details["curves"]["student"] = [net.curve[:epochs]]
    differ(scorecard, "student-teacher", -0.05)
    assert ("student undertrained" in found(scorecard, details)) is fires
    differ(scorecard, "student-teacher", -0.002, half=0.001)
    assert "student undertrained" not in found(scorecard, details), "it is as good as its teacher"


def test_student_falls_short() -> None:
    scorecard, details = healthy()
    differ(scorecard, "student-teacher", -0.08)
    assert "student falls short" not in found(scorecard, details), "it agrees with the teacher on the training rows"
    details["train_agreement"] = 0.8
    finding = found(scorecard, details)["student falls short"]
    assert "80.0% of the training rows after 390 steps" in finding.evidence
    del details["train_agreement"]
    scorecard["models"]["student"]["agreement"] = about(0.85)
    assert "85.0% of the test rows" in found(scorecard, details)["student falls short"].evidence
    scorecard["omitted_classes"] = [3]
    assert "student falls short" not in found(scorecard, details), "it is behind because it never saw a 3"


@pytest.mark.parametrize(("width", "epochs"), [(32, 4), (2, 200)])
def test_undertrained_and_too_small_are_not_told_apart_by_a_level_curve(
    width: int, epochs: int, net_class: Any
) -> None:
    """Planted: one that stopped early, one too small when it had learned all it can. A schedule's end flattens both."""
    x, y = digits()
    known = np.eye(10, dtype=np.float32)[y[:1200]]
    net = net_class([64, width, 10], 0).train(x[:1200], known, (x[1200:], y[1200:]), epochs=epochs)
    scorecard, details = healthy()
    level = [{"step": net.curve[-1]["step"], "loss": net.curve[-1]["loss"]}] * 10
    details["curves"]["student"] = [[*net.curve, *level]]
    details["train_agreement"] = float((net.logits(x[:1200]).argmax(axis=1) == y[:1200]).mean())
    differ(scorecard, "student-teacher", -0.08)
    finding = found(scorecard, details)["student falls short"]
    assert "One run cannot tell which" in finding.evidence
    assert finding.cure.index("epochs") < finding.cure.index("widen")
    assert "questions" not in finding.cure


def test_training_diverged_silences_what_it_makes_moot() -> None:
    scorecard, details = broken()
    scorecard["models"]["student"]["nll"] = {"mean": 15_732_136.0}
    findings = found(scorecard, details)
    assert set(findings) == {"training diverged", "answers shuffled", "validation leaks"}
    assert "student 15.7 million nats" in findings["training diverged"].evidence
    assert "learning_rate" in findings["training diverged"].cure
    scorecard["models"]["student"]["nll"] = {"mean": 8.0}
    assert "training diverged" not in found(scorecard, details), "it is overconfident, and that is no divergence"


def test_an_arm_that_diverged_is_named_and_silences_nothing() -> None:
    scorecard, details = healthy()
    before = set(found(scorecard, details))
    scorecard["models"]["hard_teacher"]["nll"] = {"mean": 4_000.0}
    details["curves"]["hard_teacher"] = details["curves"]["student"]
    assert set(found(scorecard, details)) == before | {"training of an arm diverged"}


def test_a_teacher_that_is_sure_of_wrong_answers_did_not_diverge() -> None:
    """It was asked, not trained: an answer of probability 0 is kept as ten thousand nats."""
    scorecard, details = healthy()
    scorecard["models"]["teacher"]["nll"] = {"mean": 25.0}
    assert not {name for name in found(scorecard, details) if "diverged" in name}
    scorecard["models"]["student"]["nll"] = {"mean": 25.0}
    scorecard["omitted_classes"] = [3]
    assert not {name for name in found(scorecard, details) if "diverged" in name}


def test_training_diverged_by_a_rise_that_left_nothing() -> None:
    scorecard, details = healthy()
    details["curves"]["control"] = [losses([2.3, 1.0, 40.0, 38.0, 35.0, 30.0])]
    scorecard["models"]["control"]["nll"] = {"mean": 2.25}
    assert "rose to 17 times its first record" in found(scorecard, details)["training diverged"].evidence
    scorecard["models"]["control"]["nll"] = {"mean": 0.6}
    assert "training diverged" not in found(scorecard, details), "the weights of before the rise were kept"
    scorecard["models"]["control"]["nll"] = {"mean": 2.25}
    details["curves"]["control"] = [losses([2.3, 2.2, 2.4, 2.3, 2.2, 2.3])]
    assert "training diverged" not in found(scorecard, details), "it learned nothing, but nothing blew up"


@pytest.mark.parametrize(
    ("nats", "says"),
    [
        (0.2, "The teacher is sure of itself"),
        (1.887, "hesitate between 6.6 of 10 classes"),
        (math.log(10) * 0.999, "See to the temperature first."),
    ],
)
def test_what_soft_targets_could_say_follows_from_their_entropy(nats: float, says: str) -> None:
    scorecard, details = healthy()
    differ(scorecard, "student-hard_teacher", 0.001)
    details["entropy"]["mean_nats"] = nats
    cure = found(scorecard, details)["hard teacher does as well"].cure
    assert says in cure
    assert ("higher temperature" in cure) is (nats == 0.2)


@pytest.mark.parametrize(
    ("low", "high", "what"), [(-0.1, -0.02, "more honest"), (0.02, 0.1, "less honest"), (-0.1, 0.02, "teacher helped")]
)
def test_a_gain_in_log_loss_is_told_where_accuracy_is_open(low: float, high: float, what: str) -> None:
    scorecard, details = healthy()
    differ(scorecard, "student-control", 0.005)
    scorecard["differences"]["student-control"]["nll"] = {"mean": (low + high) / 2, "ci95": [low, high]}
    finding = found(scorecard, details)["gain not shown"]
    assert what in finding.what
    assert f"95% interval {low:+.3f} to {high:+.3f}".replace("-", "−") in finding.evidence


def test_answers_shuffled_by_the_stored_answers() -> None:
    scorecard, details = healthy()
    details["teacher_train_accuracy"] = 0.11
    assert "match 11.0% of the training labels" in found(scorecard, details)["answers shuffled"].evidence


def test_answers_shuffled_in_earnest(trained: Any) -> None:
    """A student that learns from answers in another order agrees with its teacher by chance, and a control learns."""
    x, y = digits()
    teacher = np.eye(10, dtype=np.float32)[y[:1200]]
    student = trained(10, teacher[np.random.default_rng(0).permutation(1200)])
    control = trained(10, teacher)
    rows = slice(1200, None)
    agreement = float((student.logits(x[rows]).argmax(axis=1) == y[rows]).mean())
    scorecard, details = healthy()
    del details["teacher_train_accuracy"]
    assert "answers shuffled" not in found(scorecard, details)
    scorecard["models"]["student"]["agreement"] = {"mean": agreement}
    scorecard["models"]["control"]["accuracy"] = {
        "mean": float((control.logits(x[rows]).argmax(axis=1) == y[rows]).mean())
    }
    assert "answers shuffled" in found(scorecard, details)


@pytest.mark.parametrize("count", [1, 12])
def test_validation_leaks(count: int) -> None:
    scorecard, details = healthy()
    details["validation"] = {"leaks": count}
    assert found(scorecard, details)["validation leaks"].evidence.startswith(
        f"{count} row{'s are' if count > 1 else ' is'}"
    )


def test_hard_teacher_does_as_well() -> None:
    scorecard, details = healthy()
    differ(scorecard, "student-hard_teacher", 0.001)
    finding = found(scorecard, details)["hard teacher does as well"]
    assert "having more questions answered" in finding.what
    assert "Do not claim" in finding.cure
    differ(scorecard, "student-control", 0.001)
    finding = found(scorecard, details)["hard teacher does as well"]
    assert "brought no more right ones" in finding.what
    assert "more honest" not in finding.what
    scorecard["differences"]["student-hard_teacher"]["nll"] = {"mean": -0.07, "ci95": [-0.12, -0.02]}
    assert "more honest" in found(scorecard, details)["hard teacher does as well"].what
    assert "Do not claim" not in finding.cure
    assert "right as often" in finding.what
    differ(scorecard, "student-hard_teacher", -0.04)
    assert "right more often, and not by chance" in found(scorecard, details)["hard teacher does as well"].what


@pytest.mark.parametrize(
    ("lead", "rule", "level"),
    [
        (0.04, "gain over the control", "good"),
        (0.005, "gain not shown", "note"),
        (-0.04, "worse than the control", "problem"),
    ],
)
def test_gain_over_the_control(lead: float, rule: str, level: str) -> None:
    scorecard, details = healthy()
    differ(scorecard, "student-control", lead)
    findings = found(scorecard, details)
    assert findings[rule].level == level
    assert len({"gain over the control", "gain not shown", "worse than the control"} & set(findings)) == 1


def test_no_control() -> None:
    scorecard, details = healthy()
    del scorecard["models"]["control"]
    scorecard["differences"] = {}
    assert found(scorecard, details)["no control"].level == "note"
    assert "stillroom train" in found(scorecard, details)["no control"].cure
    scorecard["rows"]["labelled"] = 0
    assert "label some" in found(scorecard, details)["no control"].cure


@pytest.mark.parametrize(("labelled", "right", "is_told"), [(0, 1.0, True), (0, 0.99, False), (1, 1.0, False)])
def test_a_teacher_that_is_right_by_definition(labelled: int, right: float, is_told: bool) -> None:
    scorecard, details = healthy()
    scorecard["rows"] |= {"labelled": labelled, "test": 1234}
    scorecard["models"]["teacher"]["accuracy"] = {"mean": right}
    told = found(scorecard, details).get("judged by its teacher")
    assert (told is not None) == is_told
    if told:
        assert "all 1,234 test rows" in told.evidence


def test_where_lower_is_better_the_sign_turns() -> None:
    models = {
        name: {"perplexity": about(value, 0.1)} for name, value in (("teacher", 8), ("student", 9), ("control", 12))
    }
    scorecard = {
        "task": "language",
        "models": models,
        "differences": {"student-control": {"perplexity": about(-3, 0.2)}},
    }
    findings = found(scorecard, {})
    assert findings["gain over the control"].level == "good"
    assert "teacher no better than control" not in findings
    scorecard["differences"] = {"control-student": {"perplexity": about(-3, 0.2)}}
    assert "worse than the control" in found(scorecard, {})


def test_rules_keep_silent_where_they_lack_what_they_need() -> None:
    for rule in RULES:
        assert rule({}, {}) is None
        assert rule({"models": {"student": {}, "control": {}}}, {"curves": {"student": [[]]}}) is None


def test_diagnosis_changes_nothing() -> None:
    run = broken()
    before = copy.deepcopy(run)
    diagnose(*run)
    assert run == before
