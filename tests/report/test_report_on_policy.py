"""What a report shows of rounds on policy: every round, the losses after it, and samples that are text and nothing else."""

from __future__ import annotations

from typing import Any

from report.language_run import language_run
from stillroom.report.on_policy import on_policy
from stillroom.report.page import render

NASTY = "<script>alert('it wrote this')</script> & <b>more</b>"


def details(**sections: Any) -> dict[str, Any]:
    """Two rounds of two seeds."""
    rounds = [
        {"windows": 512, "tokens": 98_304, "ended": 3, "beside": 512},
        {"windows": 512, "tokens": 97_900, "ended": 9, "beside": 512},
    ]
    found = {
        "knobs": {"kind": "on_policy", "prompt": 32, "temperature": 0.8, "share": 0.5},
        "seeds": 2,
        "rounds": rounds,
        "validation_loss": {
            "student": [[3.5, 3.45, 3.41], [3.5, 3.43, 3.39]],
            "control": [[3.6, 3.55, 3.5], [3.6, 3.5, 3.4]],
        },
        "samples": [{"round": number, "prompt": "Once upon", "written": NASTY} for number in (1, 1, 2, 2)],
    }
    return {"on_policy": found | sections}


def test_each_round_has_its_counts_and_losses() -> None:
    scorecard, _ = language_run()
    shown = on_policy(scorecard, details(), "p1")
    assert shown is not None
    assert (shown["rounds"], shown["share"], shown["temperature"]) == ("2", "50%", "0.8")
    assert [row["name"] for row in shown["rows"]] == ["before", "round 1", "round 2"]
    assert shown["rows"][0]["cells"][-2:] == ["3.500", "3.600"]
    assert shown["rows"][2]["cells"] == ["512", "97,900", "9", "512", "3.400", "3.450"]
    assert len(shown["columns"]) == len(shown["rows"][1]["cells"])
    assert "ends at 3.4" in shown["chart"]


def test_what_a_student_wrote_is_text() -> None:
    scorecard, given = language_run()
    page = render(scorecard, given | details())
    assert "What the student wrote" in page
    assert NASTY not in page
    assert page.count("alert(&#39;it wrote this&#39;)&lt;/script&gt;") == 4


def test_a_run_without_such_rounds_shows_none() -> None:
    scorecard, given = language_run()
    assert on_policy(scorecard, given, "p1") is None
    assert "What the student wrote" not in render(scorecard, given)


def test_losses_that_are_not_there_are_left_out() -> None:
    scorecard, given = language_run()
    shown = on_policy(scorecard, details(validation_loss={"student": [[3.5, None, "x"]], "nobody": [[1.0]]}), "p1")
    assert shown is not None
    assert shown["chart"] is None
    assert render(scorecard, given | details(validation_loss={}))
