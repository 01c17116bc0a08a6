"""Each rule for language models fires on its planted fault and keeps silent on a healthy run."""

from __future__ import annotations

from typing import Any

import pytest

from report.language_run import about, language_run
from stillroom.report.diagnosis import diagnose
from stillroom.report.findings import Finding
from stillroom.report.language_diagnosis import LANGUAGE_RULES, POOR_FIDELITY
from stillroom.report.language_sections import plain
from stillroom.report.page import render

Run = tuple[dict[str, Any], dict[str, Any]]


def found(run: Run) -> dict[str, Finding]:
    return {finding.rule: finding for finding in diagnose(run[0], plain(run[1]), LANGUAGE_RULES)}


def differ(run: Run, pair: str, better: float, half: float = 0.005) -> None:
    """The first of a pair is so many bits per byte better."""
    run[0]["differences"][pair]["bits_per_byte"] = about(-better, half)


@pytest.mark.parametrize("architecture", ["causal", "masked"])
def test_a_healthy_run_has_only_good_findings(architecture: str) -> None:
    assert {rule: finding.level for rule, finding in found(language_run(architecture)).items()} == {
        "gain over the control": "good"
    }


def test_no_gap_to_close() -> None:
    run = language_run()
    differ(run, "teacher-control", 0.003)
    findings = found(run)
    assert findings["no gap to close"].level == "note"
    assert "+0.003 bits per byte, 95% interval −0.002 to +0.008" in findings["no gap to close"].evidence
    assert "teacher no better than control" not in findings


@pytest.mark.parametrize("lead", [0.0, -0.04])
def test_teacher_no_better_than_the_control(lead: float) -> None:
    run = language_run()
    differ(run, "teacher-control", lead)
    findings = found(run)
    assert findings["teacher no better than control"].level == "problem"
    assert "teacher 1.044, control 1.187" in findings["teacher no better than control"].evidence
    assert "no gap to close" not in findings


@pytest.mark.parametrize("term", ["hard_label", "hidden"])
def test_soft_term_inert(term: str) -> None:
    run = language_run()
    run[1]["gradient_norms"]["student"] = {"soft_target": [0.02, 0.03, 0.02], term: [0.9, 0.8, 0.9]}
    finding = found(run)["soft term inert"]
    assert finding.level == "problem"
    assert term in finding.cure
    run[1]["gradient_norms"]["student"] = {"soft_target": [0.02, 0.03, 0.02]}
    assert "soft term inert" not in found(run), "nothing drowns it"
    run[1]["gradient_norms"]["student"] = {"soft_target": [None], term: None}
    assert "soft term inert" not in found(run)


def test_fidelity_poor_over_all() -> None:
    run = language_run()
    run[0]["transfer_set"]["fidelity"] = {"kl": POOR_FIDELITY + 0.01}
    finding = found(run)["fidelity poor"]
    assert finding.level == "problem"
    assert "0.31 nats over all in 60 bytes" in finding.evidence
    assert "tail_bytes" in finding.cure
    run[0]["transfer_set"]["fidelity"] = {"kl": POOR_FIDELITY}
    assert "fidelity poor" not in found(run)


def test_fidelity_poor_on_one_source() -> None:
    run = language_run()
    run[0]["transfer_set"]["fidelity"]["by_source"]["shakespeare"] = {"kl": {"mean": 0.5}}
    assert "0.50 nats on shakespeare" in found(run)["fidelity poor"].evidence


def test_fidelity_not_measured() -> None:
    run = language_run()
    del run[0]["transfer_set"]["fidelity"]
    run[1]["fidelity"] = None
    assert found(run)["fidelity not measured"].evidence == "60 of 98,304 bytes were kept for each token."
    run[0]["transfer_set"]["bytes_per_token"] = run[0]["transfer_set"]["dense_bytes_per_token"]
    assert "fidelity not measured" not in found(run), "everything was kept"
    run[0]["transfer_set"] = {}
    assert "fidelity not measured" not in found(run), "nothing was kept"


def losses(values: list[float], key: str = "validation_loss") -> list[dict[str, float]]:
    return [{"step": place, "loss": 3.0, key: value} for place, value in enumerate(values)]


FALLING = [6.0 - 0.05 * place for place in range(40)]
LEVEL = [6.0 - 0.05 * min(place, 25) for place in range(40)]


def test_student_undertrained() -> None:
    run = language_run()
    run[1]["curves"]["student"] = {"0": losses(FALLING), "1": losses(FALLING)}
    finding = found(run)["student undertrained"]
    assert finding.level == "problem"
    assert "lowered its validation loss by 0.40 nats" in finding.evidence
    run[1]["curves"]["student"] = {"0": losses(LEVEL)}
    assert "student undertrained" not in found(run)
    run[1]["curves"]["student"] = {"0": losses(FALLING, "loss")}
    assert "training loss" in found(run)["student undertrained"].evidence, "without a validation loss the other serves"
    differ(run, "student-teacher", 0.0)
    assert "student undertrained" not in found(run), "it is as good as its teacher"


def test_a_trained_start_is_not_called_undertrained() -> None:
    run = language_run()
    run[1]["curves"]["student"] = {"0": losses([3.45 - 0.001 * place for place in range(40)])}
    assert "student undertrained" not in found(run), "a hundredth of a nat is nothing, though a fifth of the fall"


def test_hard_teacher_does_as_well() -> None:
    run = language_run()
    differ(run, "student-hard_teacher", 0.001)
    finding = found(run)["hard teacher does as well"]
    assert finding.level == "note"
    assert "not from the soft part" in finding.what
    assert "Do not claim" in finding.cure
    differ(run, "student-control", 0.001)
    finding = found(run)["hard teacher does as well"]
    assert "brought nothing that can be shown" in finding.what
    assert "Do not claim" not in finding.cure


@pytest.mark.parametrize(
    ("lead", "rule", "level"),
    [
        (0.04, "gain over the control", "good"),
        (0.001, "gain not shown", "note"),
        (-0.04, "worse than the control", "problem"),
    ],
)
def test_gain_over_the_control(lead: float, rule: str, level: str) -> None:
    run = language_run()
    differ(run, "student-control", lead)
    assert found(run)[rule].level == level
    if rule == "worse than the control":
        assert "learning from the text alone" in found(run)[rule].what


def test_no_control() -> None:
    run = language_run()
    del run[0]["models"]["control"]
    run[0]["differences"] = {}
    assert found(run)["no control"].level == "note"


def test_leaks() -> None:
    run = language_run()
    run[1]["validation"] = {"leaks": 2}
    assert found(run)["validation leaks"].level == "problem"


def test_every_finding_is_whole_and_shown() -> None:
    run = language_run()
    for pair in ("student-control", "student-hard_teacher", "teacher-control"):
        differ(run, pair, -0.05)
    run[0]["transfer_set"]["fidelity"]["kl"] = 0.6
    run[1]["curves"]["student"] = {"0": losses(FALLING)}
    run[1]["gradient_norms"]["student"]["soft_target"] = [0.001]
    findings = diagnose(run[0], plain(run[1]), LANGUAGE_RULES)
    assert len(findings) == 6
    text = render(*run)
    for finding in findings:
        assert finding.what.endswith(".")
        assert finding.evidence.endswith(".")
        assert finding.cure.endswith(".") or finding.level == "good"
        assert finding.what.replace("'", "&#39;") in text


def test_rules_keep_silent_where_they_lack_what_they_need() -> None:
    for rule in LANGUAGE_RULES:
        assert rule({}, plain({})) is None
        assert (
            rule({"task": "language", "models": {"student": {}, "control": {}}}, plain({"curves": {"student": [[]]}}))
            is None
        )
