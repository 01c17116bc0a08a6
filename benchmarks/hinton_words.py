"""What the page of the Hinton bench says beside its figures: what a preset is, and why a bar was missed or not run."""

from __future__ import annotations

_COMMON = (
    "Each figure comes from an ordinary recipe (`benchmarks/hinton_recipes.py`): networks in plain PyTorch form, AdamW, "
    "a one-cycle schedule, the last epoch and never the best. Settings were chosen on 5,000 rows of the training set; then "
    "all training rows but 100 are trained on, and the test rows are read once. Intervals are a paired bootstrap over seeds "
    "and test rows together, 10,000 draws."
)
WORDS = {
    "smoke": "A few rows and epochs, to see that everything runs: none of these figures means anything.",
    "time": f"Preset `time`: the epochs that fit an hour and a half of one processor core without bfloat16. {_COMMON}",
    "full": f"Preset `full`: as many epochs as help. {_COMMON}",
}
REASONS: dict[str, dict[str, str]] = {"smoke": {}, "time": {}, "full": {}}
