"""A tiny run, its student exported in eight bits, and the table that its report then has: size, speed and accuracy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.report.page_reader import check_page

pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")

import stillroom
from command_line import recipe, rows_of, write_csv
from stillroom.exporting import export_student
from tiny_language import causal

UNITS = {"%": 0.01, "ms": 1.0, "µs": 1e-3, "": 1.0, "B": 1.0, "bytes": 1.0, "kB": 1e3, "MB": 1e6}


def number(value: str) -> float:
    """A printed figure in the unit of the scorecard."""
    found = re.fullmatch(r"([\d.,]+) ?(\D*)", value)
    assert found, value
    return float(found[1].replace(",", "")) * UNITS[found[2]]


def exported_table(page: str) -> dict[str, dict[str, str]]:
    """The table under the heading of the exported files: measure -> model -> what is printed."""
    check_page(page)
    section = page.partition("The exported files</")[2].partition("</section>")[0]
    rows = re.findall(r'<th scope="row"[^>]*>(.*?)<span class="gloss">.*?</th>(.*?)</tr>', section, re.DOTALL)
    cell = re.compile(r'data-model="([^"]*)".*?<span class="value">(.*?)</span>', re.DOTALL)
    return {measure: dict(cell.findall(cells)) for measure, cells in rows}


def classifier(home: Path) -> dict[str, Any]:
    write_csv(home / "data.csv", rows_of(200))
    return recipe(student={"kind": "fresh", "model": {"kind": "mlp", "hidden": [64, 64]}})


@pytest.mark.parametrize(
    ("made", "figures"),
    [
        (classifier, {"Accuracy": "accuracy", "Latency": "latency_ms_p50"}),
        (causal, {"Top-1 accuracy": "accuracy", "Time for a window": "latency_ms_p50"}),
    ],
    ids=["classifier", "causal model"],
)
def test_size_speed_and_accuracy_of_an_export_stand_in_the_report(
    made: Any, figures: dict[str, str], tmp_path: Path
) -> None:
    run = stillroom.distill(made(tmp_path), tmp_path / "run", folder=tmp_path).path
    assert "The exported files" not in (run / "report.html").read_text()
    found = export_student(run, None, True)
    table = exported_table((run / "report.html").read_text())
    for column, name in (("ONNX", "onnx"), ("ONNX, 8 bits", "int8")):
        one = found["models"][name]
        for measure, key in {**figures, "Size": "size_bytes"}.items():
            value = one["bytes"] if key == "size_bytes" else one[key]
            value = value["mean"] if isinstance(value, dict) else value
            assert number(table[measure][column]) == pytest.approx(value, rel=0.06, abs=0.0006), (measure, column)
        assert number(table["Agreement with the student"][column]) == pytest.approx(one["agreement"], abs=0.006)
    card = json.loads((run / "scorecard.json").read_text())["models"]["student"]
    (student,) = set(table["Size"]) - {"ONNX", "ONNX, 8 bits"}
    assert number(table["Size"][student]) == pytest.approx(card["size_bytes"], rel=0.06)
    assert table["Agreement with the student"][student] == "itself"
