"""Classifiers of texts: sentences as example rows, slices of the test rows, exported files."""

from __future__ import annotations

from report.page_reader import EVIL, Page, check_page
from report.text_run import SENTENCES, text_run
from stillroom.report import further_tables
from stillroom.report.page import render


def test_one_text_column_is_read_as_a_text() -> None:
    text = render(*text_run())
    page = check_page(text)
    assert text.count("<blockquote") == len(SENTENCES) + 1, "one for each row and one for the idea"
    assert all(words in page.text for words, _, _ in SENTENCES)
    assert '<dl class="columns">' not in text
    assert "sentence" not in page.text, "a single column needs no name"


def test_several_text_columns_keep_their_names() -> None:
    scorecard, details = text_run()
    details["examples"] = [
        {
            **details["examples"][0],
            "columns": {"premise": "word " * 400, "hypothesis": "It is so.", "votes": 3, "left": None},
        }
    ]
    page = check_page(render(scorecard, details))
    assert "premise word word" in page.text
    assert "word …" in page.text
    assert "hypothesis It is so. votes 3 left missing" in page.text


def test_slices_are_a_table() -> None:
    scorecard, details = text_run()
    page = check_page(render(scorecard, details))
    assert "Slice by slice" in page.text
    assert "The student is weakest on with “but” ." in page.text
    assert "with “but” 159 rows, the student's weakest 84.1%" in page.text
    assert "83.2% 81.2 to 85.2%" in page.text
    del scorecard["slices"]["control"]["long"]
    assert "not measured" in check_page(render(scorecard, details)).text
    for empty in ({}, None, {"student": {}}, {"student": {"x": {"accuracy": None}}}, {"student": None}):
        assert "Slice by slice" not in check_page(render({**scorecard, "slices": empty}, details)).text


def test_exported_files_are_a_table() -> None:
    scorecard, details = text_run()
    page = check_page(render(scorecard, details))
    assert "The exported files" in page.text
    assert "Latency one row, median 4.46 ms 2.90 ms 1.40 ms" in page.text
    assert "Agreement with the student share of test rows where both say the same itself 100.0% 99.1%" in page.text
    assert "0.0000031 0.41" in page.text
    scorecard["export"] = {"int8": {"accuracy": 0.9, "size_bytes": float("nan")}, "onnx": None}
    page = check_page(render(scorecard, details))
    assert "ONNX, 8 bits" in page.text
    assert "not measured 12.9 MB" not in page.text
    for empty in ({}, None, {"onnx": {}}, {"onnx": {"size_bytes": None}}):
        assert "The exported files" not in check_page(render({**scorecard, "export": empty}, details)).text


def test_an_exported_file_stands_beside_the_student_it_was_made_from() -> None:
    scorecard, _ = text_run()
    scorecard["models"]["student"]["accuracy"] = {"mean": 0.9, "ci95": [0.85, 0.95], "per_seed": [0.896, 0.92, 0.884]}
    told = further_tables.exported(scorecard)
    assert told is not None
    (row,) = [row for row in told["groups"][0]["rows"] if row["name"] == "Accuracy"]
    assert [cell["value"] for cell in row["cells"]][:2] == ["89.6%", "89.6%"]
    assert "the student of the first seed, which they were made from" in told["caption"]
    scorecard["models"]["student"]["accuracy"] = {"mean": 0.896, "per_seed": [0.896]}
    assert "first seed" not in (further_tables.exported(scorecard) or {})["caption"]


def test_names_of_slices_are_escaped() -> None:
    scorecard, details = text_run()
    scorecard["slices"]["student"] = {EVIL: {"accuracy": {"mean": 0.1}, "rows": 1}, "b": {"accuracy": {"mean": 0.9}}}
    details["examples"][0]["columns"] = {EVIL: EVIL, "b": EVIL * 9}
    text = render(scorecard, details)
    assert EVIL not in text
    assert len(Page(text).all("script")) == 1
