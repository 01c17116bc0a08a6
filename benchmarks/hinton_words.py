"""What the page of the Hinton bench says beside its figures: what a preset is, and why a bar was missed or not run."""

from __future__ import annotations

_COMMON = (
    "Each figure comes from an ordinary recipe (`benchmarks/hinton_recipes.py`): plain networks, AdamW, a one-cycle "
    "schedule, the last epoch and never the best. Settings were chosen on validation rows taken from the training set; "
    "then all training rows but 100 are trained on, where nothing else is said, and the test rows are read once. "
    "Intervals are a paired bootstrap over seeds and test rows together, 10,000 draws."
)
WORDS = {
    "smoke": "A few rows and epochs, to see that everything runs: none of these figures means anything.",
    "time": f"Preset `time`: the epochs that fit about two hours of a busy machine without bfloat16. {_COMMON}",
    "full": f"Preset `full`: 300 epochs for the teacher, 20 for its students. {_COMMON}",
}
_GAIN = (
    "Ten networks together make only 54 errors fewer than one of them on average, 9 %, so that the share is known to no better "
    "than a quarter either way. Against the control, a network of the same size trained without the members' dropout, the "
    "share is far higher (see the table), but that is no fair single network"
)
REASONS: dict[str, dict[str, str]] = {
    "smoke": {},
    "time": {
        "hinton-teacher": (
            "80 epochs, and the network still makes 246 errors on the 60,000 training rows as they are, so it is not done "
            "learning; preset full takes 300 epochs"
        ),
        "hinton-student": (
            "Ten epochs from a teacher that makes 81 errors itself. On validation rows students came to rest at 1.3 times "
            "the teacher's errors, whatever the temperature (4 or 20), the learning rate and the epochs (20 or 60), so the "
            "teacher has to get better first"
        ),
        "hinton-omit-3-free": "Six epochs; the oracle's offset, chosen on the test rows, makes hardly fewer errors",
        "hinton-omit-3-recall": "Six epochs; the target lies within the interval",
        "hinton-ensemble-gain": _GAIN,
        "hinton-3-percent": (
            "1,800 rows show the student too little of what the teacher knows. Stopping early is no help here: the labels "
            "trained to the end make fewer errors, and over those the share is lower still (see the table)"
        ),
    },
    "full": {
        "hinton-student": (
            "On validation rows more epochs and mixed rows each took a third of the errors away, and 60 epochs were not seen to "
            "be enough; more were not tried. Noise on the inputs, or a fifth of them dropped, made worse students there"
        ),
        "hinton-ensemble-gain": f"{_GAIN}. Sixty epochs in place of twenty changed nothing",
    },
}
