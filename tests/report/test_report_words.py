"""The verdict, the money and the printing of numbers."""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode
from typing import Any

import pytest

from stillroom.report import numbers as n
from stillroom.report.pictures import png, shown_classes, warmed
from stillroom.report.svg import linear_ticks, log_ticks
from stillroom.report.verdict import bills, figures, pays, verdict
from stillroom.report.words import roles


def run(student: float = 0.94, control: tuple[float, float, float] | None = (0.02, 0.01, 0.03)) -> dict[str, Any]:
    cheap = {
        "size_bytes": 10_000,
        "latency_ms_p50": {"mean": 0.5, "ci95": [0.4, 0.6]},
        "usd_per_million_rows": {"mean": 0.02},
    }
    cheap["rows_per_s"] = {"mean": 1e6}
    dear = {
        "size_bytes": 300_000,
        "latency_ms_p50": {"mean": 4.0, "ci95": [3.8, 4.2]},
        "usd_per_million_rows": {"mean": 0.3},
    }
    models: dict[str, Any] = {
        "teacher": {"accuracy": {"mean": 0.95}, **dear},
        "student": {"accuracy": {"mean": student}, **cheap},
    }
    differences = {
        "student-teacher": {"accuracy": {"mean": student - 0.95, "ci95": [student - 0.955, student - 0.945]}}
    }
    if control:
        mean, low, high = control
        models["control"] = {"accuracy": {"mean": student - mean}}
        differences["student-control"] = {"accuracy": {"mean": mean, "ci95": [low, high]}}
    return {"task": "classification", "rows": {"test": 500}, "models": models, "differences": differences}


def test_the_verdict_is_one_sentence() -> None:
    words = verdict(run())
    assert words == (
        "The student is 30× smaller, 8.0× faster and 15× cheaper to run than its teacher and gives up 1.0 point of "
        "accuracy (94.0% against 95.0%); it is 2.0 points better than the same network trained on the labels alone "
        "(95% interval +1.0 to +3.0)."
    )


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ((0.003, -0.005, 0.011), "stays open: +0.3 points, and the 95% interval −0.5 to +1.1 includes 0"),
        ((0.0, 0.0, 0.01), "stays open"),
        ((-0.02, -0.03, -0.01), "2.0 points worse than the same network trained on the labels alone"),
        (None, "no control was trained, so nobody can say"),
    ],
)
def test_the_verdict_is_honest_about_the_control(control: tuple[float, float, float] | None, words: str) -> None:
    assert words in verdict(run(control=control))


@pytest.mark.parametrize(
    ("student", "words"), [(0.95, "has the same accuracy"), (0.97, "gains 2.0 points of accuracy")]
)
def test_the_verdict_against_the_teacher(student: float, words: str) -> None:
    assert words in verdict(run(student=student))


def test_a_student_that_is_no_cheaper_is_called_so() -> None:
    scorecard = run()
    scorecard["models"]["student"] |= {"size_bytes": 600_000, "latency_ms_p50": {"mean": 4.1}}
    assert "is 2.0× larger and 15× cheaper to run than its teacher, as fast as it, and gives up" in verdict(scorecard)
    assert figures(scorecard)[0].what == "larger"
    scorecard["models"]["student"] = {**scorecard["models"]["teacher"]}
    assert verdict(scorecard).startswith("The student is as large, as fast and as cheap to run as its teacher and ")
    only = {
        model: {"size_bytes": 10, "latency_ms_p50": {"mean": value}}
        for model, value in (("teacher", 4.0), ("student", 2.0))
    }
    assert verdict({"models": only}).startswith(
        "The student is 2.0× faster (timed once) than its teacher, as large as it; no control"
    )


def test_a_loss_without_an_interval_is_not_put_down_to_chance() -> None:
    scorecard = run(student=0.5)
    del scorecard["differences"]["student-teacher"]["accuracy"]["ci95"]
    assert "gives up 45.0 points of accuracy (50.0% against 95.0%), measured without an interval;" in verdict(scorecard)


def test_perplexity_is_better_where_lower() -> None:
    models = {"teacher": {"perplexity": {"mean": 8.0}}, "student": {"perplexity": {"mean": 9.5}}}
    assert "has 1.50 more perplexity (9.50 against 8.00)" in verdict({"task": "language", "models": models})


def test_money() -> None:
    scorecard = run()
    found = {bill.model: bill for bill in bills(scorecard)}
    assert found["student"].usd == pytest.approx(20)
    assert found["student"].seconds == pytest.approx(1000)
    assert found["teacher"].seconds is None
    assert "control" not in found
    assert "no price" in pays(scorecard)
    scorecard["cost"] = {
        "saved_usd_per_million_rows": 0.28,
        "break_even_rows": 35714.3,
        "teacher_usd": 0.008,
        "training_usd": 0.002,
    }
    assert pays(scorecard) == (
        "Asking and all training cost $0.010. Each million rows answered by the student instead of the teacher saves "
        "$0.28, so the student has paid for itself after about 40,000 rows. The times in that were taken once; a second "
        "timing may differ severalfold."
    )
    scorecard["cost"]["break_even_rows"] = 10_000  # one student of several: the sum, and what divides into the rows
    assert pays(scorecard) == (
        "Asking and all training cost $0.010. What one student takes of that, $0.0028, it has paid for after about 10,000 "
        "rows: each million rows answered by the student instead of the teacher saves $0.28. The times in that were taken "
        "once; a second timing may differ severalfold."
    )
    scorecard["cost"]["saved_usd_per_million_rows"] = -1.0
    assert "never pays" in pays(scorecard)


def test_roles_are_ordered_and_told_apart() -> None:
    found = roles(
        ["student_oracle", "mine", "control", "student", "teacher", "hard_teacher_uncorrected", "student_uncorrected"]
    )
    assert list(found) == [
        "teacher", "student", "control", "mine", "student_uncorrected", "hard_teacher_uncorrected", "student_oracle",
    ]  # fmt: skip
    assert found["student_oracle"].tag
    assert "never a result" in found["student_oracle"].meaning
    assert "without any label" in found["student"].meaning
    assert "without any label" not in roles(["student"])["student"].meaning
    assert found["student_uncorrected"].colour == "student"
    marks = {(role.shape, role.hollow) for key, role in found.items() if not role.tag}
    assert len(marks) == len(found) - 1


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (n.percent(0.9134), "91.3%"),
        (n.percent(-0.00001), "0.0%"),
        (n.signed(-0.04), "0.0"),
        (n.signed(-1.25, 2), "−1.25"),
        (n.signed(3), "+3.0"),
        (n.significant(0.0001234), "0.000123"),
        (n.significant(12345.6), "12,346"),
        (n.big(6_700_000_000), "6.70 billion"),
        (n.big(999), "999"),
        (n.size_of(9640), "9.64 kB"),
        (n.usd(0.00022), "$0.00022"),
        (n.usd(1234.5), "$1,234.50"),
        (n.usd(-2), "−$2.00"),
        (n.printed(0.00803, "ms"), "8.03 µs"),
        (n.printed(38.4, "count", 1), "38.4"),
        (n.duration(7920), "2.2 hours"),
        (n.duration(4e9), "127 years"),
        (n.duration(0.4), "0.40 s"),
    ],
)
def test_numbers_are_printed(printed: str, words: str) -> None:
    assert printed == words


def test_ticks_are_round() -> None:
    assert linear_ticks(0, 1, 4) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert linear_ticks(-6, 14, 4) == [-5, 0, 5, 10]
    assert log_ticks(8, 500_000) == [10, 100, 1000, 10_000, 100_000]
    assert log_ticks(15, 60) == [20, 50]


def test_a_picture_holds_its_pixels() -> None:
    uri = png([[0, 255], [128, 7], [1, 2]])
    assert uri is not None
    data = b64decode(uri.removeprefix("data:image/png;base64,"))
    assert struct.unpack(">II", data[16:24]) == (2, 3)
    start = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[start - 8 : start - 4])
    assert zlib.decompress(data[start : start + length]) == bytes([0, 0, 255, 0, 128, 7, 0, 1, 2])
    for broken in ([], [[]], [[0], [0, 1]], "text", None, [[None]], [[[1, 2]]]):
        assert png(broken) is None


def test_temperature_keeps_the_order_and_the_sum() -> None:
    warm = warmed([0.9, 0.09, 0.01, 0.0], 4)
    assert sum(warm) == pytest.approx(1)
    assert warm == sorted(warm, reverse=True)
    assert warm[3] == 0
    assert warm[2] / warm[0] == pytest.approx((0.01 / 0.9) ** 0.25)


def test_a_large_matrix_shows_its_most_alike_classes() -> None:
    matrix = [[0.0] * 40 for _ in range(40)]
    matrix[37][2] = 0.5
    assert {2, 37} <= set(shown_classes(matrix))
    assert len(shown_classes(matrix)) == 20


def test_a_difference_that_chance_could_make_is_told_as_one() -> None:
    scorecard = run()
    apart = scorecard["differences"]["student-teacher"]["accuracy"]
    apart |= {"mean": 0.003, "ci95": [-0.006, 0.012]}
    assert "which chance alone could do" in verdict(scorecard)
    apart["ci95"] = [0.001, 0.012]
    assert "chance" not in verdict(scorecard)


def test_the_verdict_names_the_stronger_control() -> None:
    """Moved class biases may cost the control more than they give it."""
    scorecard = run()
    scorecard["differences"]["student-control"]["accuracy"] = {"mean": 0.11, "ci95": [0.09, 0.13]}
    student, control = (scorecard["models"][name]["accuracy"]["mean"] for name in ("student", "control"))
    scorecard["models"]["control_uncorrected"] = {"accuracy": {"mean": control + 0.02}}
    told = f"and {100 * (student - control - 0.02):.1f} points better than that network with its biases as trained"
    assert told in verdict(scorecard)
    scorecard["models"]["control_uncorrected"]["accuracy"]["mean"] = control - 0.02
    assert "as trained" not in verdict(scorecard)
