"""A classifier of sentences with made-up figures: one text column, slices, exported files."""

from __future__ import annotations

from typing import Any

CLASSES = ["negative", "positive"]
RIGHT = {"teacher": 0.905, "student": 0.896, "control": 0.871, "hard_teacher": 0.889}
SLICES = {"short": (0.012, 311), "long": (-0.021, 402), "with “but”": (-0.064, 159)}
SENTENCES = (
    ("a film that means well and moves slowly , and yet by its last third one is sitting on the edge of the seat , "
     "which no one who saw the first would have believed .", "positive", (0.61, 0.52, 0.24)),
    ("neither funny nor suspenseful nor particularly well-drawn .", "negative", (0.03, 0.05, 0.41)),
    ("it 's a charming and often affecting journey .", "positive", (0.99, 0.97, 0.93)),
    ("not bad .", "positive", (0.72, 0.66, 0.13)),
)  # fmt: skip


def about(mean: float, half: float = 0.006) -> dict[str, Any]:
    return {"mean": mean, "ci95": [mean - half, mean + half], "per_seed": [mean - half / 2, mean, mean + half / 2]}


def text_run() -> tuple[dict[str, Any], dict[str, Any]]:
    models: dict[str, Any] = {
        name: {"accuracy": about(right), "nll": about(1 - right)} for name, right in RIGHT.items()
    }
    for name, figures in models.items():
        share = 1.0 if name == "teacher" else 0.55
        figures |= {"parameters": int(22_713_216 * share), "size_bytes": int(90_852_864 * share)}
        figures |= {"latency_ms_p50": {"mean": 8.1 * share}, "rows_per_s": {"mean": 310 / share}}
        if name != "teacher":
            figures["agreement"] = about(0.94)
    scorecard = {
        "schema": 1,
        "name": "sst2",
        "task": "classification",
        "rows": {"train": 60_614, "validation": 6_735, "test": 872},
        "seeds": [0, 1, 2],
        "models": models,
        "differences": {
            f"{a}-{b}": {"accuracy": about(RIGHT[a] - RIGHT[b])}
            for a, b in (("student", "control"), ("student", "teacher"), ("student", "hard_teacher"), ("teacher", "control"))
        },
        "slices": {
            name: {value: {"accuracy": about(right + moved, 0.02), "rows": rows} for value, (moved, rows) in SLICES.items()}
            for name, right in RIGHT.items()
        },
        "export": {
            "onnx": {"size_bytes": 50_031_112, "latency_ms_p50": 2.9, "rows_per_s": 611.0, "accuracy": 0.896,
                     "largest_difference": 3.1e-06, "agreement": 1.0},
            "int8": {"size_bytes": 12_904_551, "latency_ms_p50": 1.4, "rows_per_s": 1190.0, "accuracy": 0.893,
                     "largest_difference": 0.41, "agreement": 0.991},
        },
    }  # fmt: skip
    details = {
        "classes": CLASSES,
        "about": {"teacher": "MiniLM, 6 layers", "student": "3 of its layers", "temperature": 2},
        "examples": [
            {
                "row": row,
                "label": label,
                "why": "teacher and control differ most",
                "columns": {"sentence": words},
                "probabilities": {
                    name: [1 - share, share]
                    for name, share in zip(("teacher", "student", "control"), shares, strict=True)
                },
            }
            for row, (words, label, shares) in enumerate(SENTENCES)
        ],
    }
    return scorecard, details
