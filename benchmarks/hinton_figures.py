"""What each experiment of the Hinton bench says: from a run's scorecard and predictions to bars and tables.

Figures come from scorecard.json; where another comparison is wanted than a scorecard makes, from the predictions beside
it, with the library's own scores and intervals. Nothing is trained or chosen on test here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hinton_recipes import TEACHER, TEMPERATURES, Sizes
from benchmarks.results import Found, Row, Table, shown
from stillroom.evaluation.predictions import Said  # type: ignore[attr-defined]
from stillroom.evaluation.scores import Scores, score
from stillroom.models.classifier import Classifier
from stillroom.rows import Array
from stillroom.rundir import read_json

Read = Callable[[Path, Sizes], Row]
NAMES = {
    "teacher": "teacher",
    "student": "student, soft targets",
    "control": "control: same network and steps, labels alone",
    "hard_teacher": "same transfer set, the teacher's top answer alone",
    "smoothed": "label smoothing at the teacher's mean entropy",
    "permuted": "soft targets, wrong classes permuted in each row",
    "early_stopped": "those rows' labels, stopped early on validation",
    "mixed_early_stopped": "labels, stopped early, rows mixed in pairs",
    "plain_soft": "soft targets, rows not moved",
    "mixed": "student, soft targets, rows mixed in pairs",
    "mixed_labels": "control of that: labels, rows mixed in pairs",
    "plain_early_stopped": "labels, stopped early, rows not moved",
    "student_oracle": "student, one offset chosen WITH the test labels (oracle)",
    "student_uncorrected": "student, biases as trained",
}


def figure(models: Mapping[str, Any], model: str, name: str) -> str:
    """A figure of a model as text: mean, and the interval where there is one; empty where it was not measured."""
    found = models.get(model, {}).get(name)
    return "" if found is None else with_ends(found)


def with_ends(found: Mapping[str, Any]) -> str:
    """A mean with its interval."""
    ends = f" ({shown(found['ci95'][0])} to {shown(found['ci95'][1])})" if "ci95" in found else ""
    return shown(found["mean"]) + ends


def bar(found: Mapping[str, Any], n: str) -> Found:
    """A figure of a scorecard as a bar's value."""
    return Found(found["mean"], found.get("ci95"), n)


def seeds(scorecard: Mapping[str, Any]) -> str:
    """How many seeds a run has, in words."""
    return f"{len(scorecard['seeds'])} seeds"


def said_of(run: Path, *models: str) -> tuple[dict[str, Said], Array]:
    """What models said of the test rows [S, N, C], and those rows' labels [N]."""
    folder = run / "evaluation" / "predictions"
    listed = read_json(folder / "predictions.json")
    width, found = len(listed["classes"]), {}
    for name in models:
        about = listed["models"][name]
        parts = [np.fromfile(folder / f"{name}.{seed}.test.f32", np.float32) for seed in range(about["seeds"])]
        found[name] = Said(np.stack(parts).reshape(about["seeds"], about["test_rows"], width))
    return found, _test_labels(run)


def _test_labels(run: Path) -> Array:
    from stillroom.recipe import Recipe
    from stillroom.stages.opening import look_in

    recipe = Recipe.load(run / "recipe.yaml")
    splits = recipe.questions.build(look_in(run.parent))
    return splits.test.label_N


def rescored(said: Mapping[str, Said], label_N: Array) -> Scores:
    """Scores of these predictions under these roles."""
    classes = next(iter(said.values())).test_SNC.shape[2]
    return score(said, label_N, np.empty(0, np.int64), range(classes))


def errors_table(run: Path, title: str, models: Sequence[str], more: Sequence[str] = (), note: str = "") -> Table:
    """Errors, agreement and what else is asked for, of several models of one run."""
    found = read_json(run / "scorecard.json")["models"]
    columns = ["errors", "accuracy", "nll", "agreement", *more]
    there = [name for name in models if name in found]
    rows = [[NAMES.get(name, name), *(figure(found, name, column) for column in columns)] for name in there]
    return Table(title, ["", *columns], rows, note)


def read_teacher(base: Path, sizes: Sizes) -> Row:
    """The teacher's errors on test."""
    run = base / "teacher"
    found = Classifier.load(base / TEACHER)
    from stillroom.recipe import Recipe
    from stillroom.stages.opening import look_in

    test = Recipe.load(run / "recipe.yaml").questions.build(look_in(base)).test
    errors = int((found.log_probabilities(test.raw).argmax(1) != test.label_N).sum())
    return Row({"hinton-teacher": Found(errors, n="1 teacher")})


def read_student(base: Path, sizes: Sizes) -> Row:
    """The paper's first table, and what mixed rows add to it."""
    card = read_json(base / "student" / "scorecard.json")
    models = card["models"]
    paper = {"teacher": 67, "control": 146, "student": 74, "hard_teacher": "", "mixed": "", "mixed_labels": ""}
    rows = [
        [NAMES[name], figure(models, name, "errors"), paper[name], figure(models, name, "agreement")] for name in paper
    ]
    gap, apart = card["gap_recovered"], card["differences"]
    note = (
        "Share of the gap between control and teacher that the student closes in the paper's own way: "
        f"{gap.get('absent') or with_ends(gap)} (paper: 0.911). Student minus control, errors: "
        f"{with_ends(apart['student-control']['errors'])}; student minus the student of hard answers: "
        f"{with_ends(apart['student-hard_teacher']['errors'])}. Mixed rows: each row of a batch is blended with another one "
        f"(mixup), for {sizes.mixed_epochs} epochs in place of {sizes.student_epochs}, and the teacher is asked about what "
        "comes of that; no row is moved. The paper did not do so. The bar is held against the mixed rows, chosen on 5,000 "
        "validation rows, where one student each made 32 errors after 20 epochs in the paper's own way, 22 after 60, 23 after "
        "20 epochs of mixed rows and 13 after 60. The teacher, which had seen those rows, made 8."
    )
    table = Table(
        "The paper's MNIST table: errors of 10,000", ["", "errors", "paper", "agreement with teacher"], rows, note
    )
    n = f"{seeds(card)}, rows mixed in pairs; {shown(models['student']['errors']['mean'])} in the paper's own way"
    return Row({"hinton-student": bar(models["mixed"]["errors"], n)}, {"mnist": table})


UNSEEN = (
    "student", "student_uncorrected", "student_oracle", "permuted", "hard_teacher", "hard_teacher_uncorrected", "control",
)  # fmt: skip


def _unseen_rows(models: Mapping[str, Any], class_name: str) -> list[list[str]]:
    named = NAMES | {
        "student": "student, label-free bias",
        "permuted": "wrong classes' probabilities shuffled, label-free bias",
        "hard_teacher": "hard-teacher student, label-free bias",
        "hard_teacher_uncorrected": "hard-teacher student, biases as trained",
        "control": "control (labels alone), label-free bias",
    }
    return [
        [named[name], figure(models, name, "errors"), _recall(models, name, class_name)]
        for name in UNSEEN
        if name in models
    ]


def _recall(models: Mapping[str, Any], model: str, class_name: str) -> str:
    found = models[model].get("recall_by_class", {}).get(class_name)
    return "" if found is None else with_ends(found)


def read_omit_3(base: Path, sizes: Sizes) -> Row:
    """No 3 in the transfer set."""
    card = read_json(base / "omit_3" / "scorecard.json")
    models = card["models"]
    note = (
        "The label-free bias matches the mean prediction on training rows, taken without their labels, to the class "
        "frequencies. The paper: 206 errors as trained; 109, and 0.986 of the 3s, with an offset chosen on the test set, "
        "which is what the oracle line does here and no honest result."
    )
    table = Table(
        "No 3 in the transfer set: errors of 10,000", ["", "errors", "recall of 3"], _unseen_rows(models, "3"), note
    )
    student = models["student"]
    return Row(
        {
            "hinton-omit-3-free": bar(student["errors"], seeds(card)),
            "hinton-omit-3-recall": bar(student["recall_by_class"]["3"], seeds(card)),
        },
        {"omit_3": table},
    )


def read_only_78(base: Path, sizes: Sizes) -> Row:
    """Nothing but 7s and 8s in the transfer set."""
    card = read_json(base / "only_78" / "scorecard.json")
    models = card["models"]
    oracle = models["student_oracle"]["accuracy"]
    found = {"mean": 1 - oracle["mean"]}
    if "ci95" in oracle:
        found["ci95"] = [1 - end for end in reversed(oracle["ci95"])]
    note = (
        "The paper: error rate 0.473 as trained, 0.132 with one offset for 7 and 8 chosen on the test set (the oracle)."
    )
    rows = [[*line[:2], _error_rate(models, line[0])] for line in _unseen_rows(models, "3")]
    table = Table("Only 7s and 8s in the transfer set", ["", "errors", "error rate"], rows, note)
    return Row({"hinton-78-oracle": bar(found, seeds(card))}, {"only_78": table})


def _error_rate(models: Mapping[str, Any], words: str) -> str:
    place = [line[0] for line in _unseen_rows(models, "3")].index(words)
    name = [name for name in UNSEEN if name in models][place]
    return shown(1 - models[name]["accuracy"]["mean"])


PAIRS = {
    "both moved and mixed, labels trained to the end": ("mixed", "mixed_labels"),
    "both moved and mixed": ("mixed", "mixed_early_stopped"),
    "both moved": ("student", "early_stopped"),
    "neither": ("plain_soft", "plain_early_stopped"),
    "soft moved and mixed, labels moved": ("mixed", "early_stopped"),
}
"""Soft targets and labels on 3 % of the rows; the first pair is the one with the bar."""


def read_three_percent(base: Path, sizes: Sizes) -> Row:
    """Soft targets on 3 % of the rows against those rows' labels, each pair shown the same rows."""
    run = base / "three_percent"
    said, label_N = said_of(run, "teacher", *dict.fromkeys(name for pair in PAIRS.values() for name in pair))
    gaps = {
        words: rescored(
            {"teacher": said["teacher"], "student": said[soft], "control": said[hard]}, label_N
        ).gap_recovered
        for words, (soft, hard) in PAIRS.items()
    }
    card = read_json(run / "scorecard.json")
    told = "; ".join(f"{words} {gap.get('absent') or with_ends(gap)}" for words, gap in gaps.items())
    note = (
        f"Every student sees {card['rows']['train']:,} training rows and nothing else; moved means by up to 2 pixels, as the "
        "teacher's own training rows were, mixed means blended with another row of the batch. The share of accuracy "
        "recovered is (soft - early stopped) / (teacher - early stopped), where the teacher learned from all labels: "
        f"{told}; over the control that is moved and does not stop early "
        f"{card['gap_recovered'].get('absent') or with_ends(card['gap_recovered'])}. The bar is held against the first "
        "pair, the best labels there are: stopping them early, as the paper does, would flatter soft targets here. "
        "The paper, on speech: 58.9 % with all "
        "data, 44.5 % with 3 % and hard targets, 57.0 % with 3 % and soft targets, so 0.868. Soft minus hard-teacher "
        f"student, errors: {with_ends(card['differences']['student-hard_teacher']['errors'])}."
    )
    hard = ("early_stopped", "mixed_early_stopped", "mixed_labels", "control", "hard_teacher")
    models = ("teacher", "student", "mixed", *hard, "plain_soft", "plain_early_stopped")
    table = errors_table(run, "3 % of the rows: errors of 10,000", models, note=note)
    gap = next(iter(gaps.values()))
    value = Found(None, why=gap["absent"]) if "absent" in gap else bar(gap, seeds(card))
    return Row({"hinton-3-percent": value}, {"three_percent": table})


def read_ensemble_gain(base: Path, sizes: Sizes) -> Row:
    """How much of an ensemble's gain over its own members one student keeps."""
    from stillroom.recipe import Recipe
    from stillroom.stages.opening import look_in

    run = base / "ensemble_gain"
    card = read_json(run / "scorecard.json")
    test = Recipe.load(run / "recipe.yaml").questions.build(look_in(base)).test
    folders = [run / "teacher" / str(place) for place in range(sizes.members)]
    members = Said(np.stack([Classifier.load(folder).log_probabilities(test.raw) for folder in folders]))
    said, label_N = said_of(run, "teacher", "student")
    scores = rescored({**said, "control": members}, label_N)
    single, gap = scores.models["control"]["errors"], scores.gap_recovered
    models = ("teacher", "student", "hard_teacher", "control")
    plain = errors_table(run, f"{card['rows']['labelled']:,} labels, the rest unlabelled: errors of 10,000", models)
    alone = ["one member alone, mean of the ten", with_ends(single), with_ends(scores.models["control"]["accuracy"]),
             with_ends(scores.models["control"]["nll"]), ""]  # fmt: skip
    note = (
        f"The teacher is an ensemble of {sizes.members} networks 784-200-200-10, the student one such network. The share "
        "kept is (student - member) / (ensemble - member), where a member is one network trained on the labels just as "
        f"each of the {sizes.members} was: {gap.get('absent') or with_ends(gap)}. Over the control, which is trained for the "
        "student's number of steps without the members' dropout, the share is "
        f"{card['gap_recovered'].get('absent') or with_ends(card['gap_recovered'])}. Soft minus hard-teacher student, errors: "
        f"{with_ends(card['differences']['student-hard_teacher']['errors'])}."
    )
    table = Table(plain.title, plain.columns, [*plain.rows[:1], alone, *plain.rows[1:]], note)
    value = Found(None, why=gap["absent"]) if "absent" in gap else bar(gap, seeds(card))
    return Row({"hinton-ensemble-gain": value}, {"ensemble_gain": table})


OTHERS = ("hard_teacher", "smoothed", "permuted")


def arms_table(run: Path, title: str, note: str) -> tuple[Table, Mapping[str, Any]]:
    """The four arms with errors and severity, and soft minus each of the others."""
    card = read_json(run / "scorecard.json")
    models, rows = card["models"], []
    for name in ("teacher", "student", *OTHERS, "control"):
        apart = _soft_minus(card, name)
        cells = [figure(models, name, "errors"), figure(models, name, "mistake_severity"), figure(models, name, "nll")]
        rows.append([NAMES[name], *cells, with_ends(apart["errors"]) if apart else "",
                     with_ends(apart["mistake_severity"]) if "mistake_severity" in apart else ""])  # fmt: skip
    columns = ["", "errors", "mistake severity", "nll", "soft minus this, errors", "soft minus this, severity"]
    return Table(title, columns, rows, note), card


def _soft_minus(card: Mapping[str, Any], other: str) -> Mapping[str, Any]:
    """student - other for each compared figure, whichever way round the scorecard has it."""
    found = card["differences"].get(f"student-{other}")
    if found is not None or other == "student":
        return found or {}
    turned = card["differences"].get(f"{other}-student", {})
    return {
        name: {"mean": -one["mean"]} | ({"ci95": [-one["ci95"][1], -one["ci95"][0]]} if "ci95" in one else {})
        for name, one in turned.items()
    }


SHORT = {"hard_teacher": "hard answers", "smoothed": "label smoothing", "permuted": "permuted wrong classes"}


def verdict(card: Mapping[str, Any]) -> str:
    """In words: against which arms soft targets were better, worse or neither, in errors and in severity."""
    said: list[str] = []
    better: dict[str, bool] = {}
    for name in OTHERS:
        for what in ("errors", "mistake_severity"):
            ends = _soft_minus(card, name).get(what, {}).get("ci95")
            if ends is not None:
                how = "better than" if ends[1] < 0 else "worse than" if ends[0] > 0 else "not told apart from"
                said.append(f"{how} {SHORT[name]} in {what.replace('_', ' ')}")
                better[name] = better.get(name, False) or ends[1] < 0
    told = "Soft targets were " + "; ".join(said) + "."
    if better.get("smoothed") and better.get("permuted"):
        return told + " So what they say of the wrong classes is what helps."
    if better.get("hard_teacher"):
        return (
            told
            + " So it helps that targets are soft; that it matters what they say of the wrong classes is not shown."
        )
    return told + " So nothing is shown for soft targets here."


def read_arms(name: str, title: str, note: str) -> Read:
    """The reader of one data set of the dark-knowledge experiment; the bar is set from both, see `soft_over_hard`."""

    def read(base: Path, sizes: Sizes) -> Row:
        table, card = arms_table(base / name, title, note)
        whole = Table(table.title, table.columns, table.rows, f"{note} {verdict(card)}")
        return Row({"soft-over-hard": soft_over_hard(card)}, {name: whole})

    return read


def soft_over_hard(card: Mapping[str, Any]) -> Found:
    """1 where the upper bound of soft minus hard-teacher errors lies below 0 on this data set, else 0."""
    apart = card["differences"]["student-hard_teacher"]["errors"]
    holds = "ci95" in apart and apart["ci95"][1] < 0
    return Found(
        float(holds), n=seeds(card), why="" if holds else f"soft minus hard-teacher errors: {with_ends(apart)}"
    )


def read_thirty_units(base: Path, sizes: Sizes) -> Row:
    """The temperature that suits thirty units, chosen on validation."""
    run = base / "thirty_units"
    card = read_json(run / "scorecard.json")
    listed = {f"T{heat}": f"T{heat}" for heat in TEMPERATURES[:-1]} | {f"T{TEMPERATURES[-1]}": "student"}
    rows, means = [], {}
    for name, model in listed.items():
        missed = [_validation_errors(run, model, seed, sizes) for seed in range(sizes.thirty_seeds)]
        means[name] = float(np.mean(missed))
        rows.append([name.replace("T", "T = "), means[name], figure(card["models"], model, "errors")])
    best = min(means, key=lambda name: means[name])
    for name, model in (("control", "control"), ("hard_teacher", "hard_teacher")):
        missed = [_validation_errors(run, model, seed, sizes) for seed in range(sizes.thirty_seeds)]
        rows.append([NAMES[name], float(np.mean(missed)), figure(card["models"], model, "errors")])
    note = (
        f"{sizes.thirty_seeds} seeds, {sizes.thirty_validation:,} validation rows taken from train. Best on validation: "
        f"{best.replace('T', 'T = ')}. The paper found 2.5 to 4 significantly better than higher or lower."
    )
    columns = ["784-30-30-10", "validation errors", "test errors"]
    return Row({}, {"thirty_units": Table("Thirty units: which temperature", columns, rows, note)})


def _validation_errors(run: Path, model: str, seed: int, sizes: Sizes) -> int:
    from stillroom.recipe import Recipe
    from stillroom.stages.opening import look_in

    rows = Recipe.load(run / "recipe.yaml").questions.build(look_in(run.parent)).validation
    said = np.fromfile(run / "evaluation" / "predictions" / f"{model}.{seed}.validation.f32", np.float32)
    return int((said.reshape(len(rows), -1).argmax(1) != rows.label_N).sum())
