"""What a report shows beyond the figures: curves, similarity of classes, example rows with their soft targets.

All of it plain data, read from predictions, histories and the raw test rows. Knows no page.

`details` holds what the scorecard has no room for; every key may be absent:

    about                   teacher, student, arms, licences, recipe_yaml, temperature, notes: what was written, not measured
    classes                 the names of all classes, those that no test row has among them
    curves                  model -> a list of {step, epoch, loss, validation_loss, validation_accuracy} for each seed
    gradient_norms          term of the objective -> norms at a few steps, weight included
    reliability             model -> {confidence, accuracy, count}, one entry for each bin
    similarity              {classes of test rows, matrices: model -> C x C, rank_correlation: model -> with the teacher}
    entropy                 of the teacher's answers to the test rows, softened as in training: {edges, counts, mean_nats};
                            absent, as its reliability is, of a teacher that says classes alone
    examples                rows: {row, label, why, image: {pixels}, columns, text, probabilities: model -> C}
    validation              {leaks}: rows that stand in two splits
    teacher_train_accuracy  share of the stored answers whose top class is the label
    train_agreement         share of the training rows where the student says what the teacher says
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.evaluation.dark_knowledge import dark_knowledge
from stillroom.evaluation.predictions import Predictions
from stillroom.models.classifier import Classifier
from stillroom.rows import Array, Raw, Splits, take_rows
from stillroom.rundir import read_json

EXAMPLES = 8
HESITATING = 6


def details(
    predictions: Predictions,
    splits: Splits,
    models: Mapping[str, list[Path]],
    teacher_folders: list[Path],
    temperature: float,
    about: dict[str, Any],
    stored_NC: Array | None,
) -> dict[str, Any]:
    """Curves, gradient norms, reliability, similarity, entropy, examples, leaks; see report/ for how they look.

    `stored_NC` are the teacher's kept log-probabilities of the training rows; None for a live teacher.
    """
    first = {name: said.test_SNC[0] for name, said in predictions.said.items()}
    dark = dark_knowledge(first, splits.test.label_N, splits.classes, temperature=temperature, examples=EXAMPLES)
    found: dict[str, Any] = {"about": about, "classes": list(splits.classes), "temperature": temperature}
    histories = {name: [read_json(folder / "history.json") for folder in folders] for name, folders in models.items()}
    found["curves"] = {name: [one["curve"] for one in several] for name, several in histories.items()}
    taught = [read_json(folder / "history.json") for folder in teacher_folders if (folder / "history.json").is_file()]
    if taught:
        found["curves"]["teacher"] = [one["curve"] for one in taught]
    found["gradient_norms"] = histories["student"][0]["gradient_norms"]
    found["reliability"] = {
        name: {key: [point[key] for point in one["reliability"]] for key in ("confidence", "accuracy", "count")}
        for name, one in dark["models"].items()
        if "reliability" in one
    }
    found["similarity"] = _similarity(dark)
    shown = dark["models"].get("teacher", {}).get("entropy")
    if "teacher" in first and _names_only(first["teacher"]):  # how sure it is, nobody knows
        found["reliability"].pop("teacher", None)
    elif shown is not None:
        found["entropy"] = {"edges": shown["edges"], "counts": shown["counts"], "mean_nats": shown["mean"]}
    found["examples"] = _examples(dark, first, splits)
    found["validation"] = {"leaks": _leaks(splits)}
    if stored_NC is not None:
        found |= _on_train(stored_NC, splits, models["student"][0])
    return found


def _on_train(stored_NC: Array, splits: Splits, student: Path) -> dict[str, float]:
    """How often the stored answers name the label, and the student says what they say: both near chance if shuffled."""
    label_N, known = splits.train.label_N, splits.train.labelled_N
    said_N = stored_NC.argmax(1)
    own_N = Classifier.load(student).log_probabilities(splits.train.raw).argmax(1)
    found = {"train_agreement": float((own_N == said_N).mean())}
    if known.any():
        found["teacher_train_accuracy"] = float((said_N[known] == label_N[known]).mean())
    return found


def _similarity(dark: dict[str, Any]) -> dict[str, Any]:
    models = {name: one["similarity"] for name, one in dark["models"].items() if "similarity" in one}
    if not models:
        return {}
    classes = next(iter(models.values()))["classes"]
    return {
        "classes": classes,
        "matrices": {name: one["matrix"] for name, one in models.items() if one["classes"] == classes},
        "rank_correlation": {
            name: one["spearman_to_teacher"] for name, one in dark["models"].items() if "spearman_to_teacher" in one
        },
    }


def _leaks(splits: Splits) -> int:
    """Validation and test rows whose very content stands in train too."""
    known = {key.tobytes() for key in splits.train.key_N}
    return sum(key.tobytes() in known for part in (splits.validation, splits.test) for key in part.key_N)


def _names_only(said_NC: Array) -> bool:
    """Each answer is one class and no word on how likely: all of its probability."""
    return bool((said_NC.max(1) == 0.0).all())


def _examples(dark: dict[str, Any], first: dict[str, Array], splits: Splits) -> list[dict[str, Any]]:
    """Where teacher and control differ most, where the teacher hesitates and is right, and once where it is wrong."""
    rows = [(int(one["row"]), "teacher and control differ most") for one in dark.get("most_different", [])[:EXAMPLES]]
    leader = "teacher" if "teacher" in first and not _names_only(first["teacher"]) else "student"
    taken = {row for row, _ in rows}
    rows += [
        (row, f"the {leader} hesitates, and is right")
        for row in _hesitating(first[leader], splits.test.label_N)
        if row not in taken
    ]
    wrong = _least_sure_wrong(first[leader], splits.test.label_N)
    if wrong is not None and wrong not in taken:
        rows.append((wrong, f"the {leader} hesitates, and is wrong"))
    shown = [name for name in ("teacher", "student", "control", "hard_teacher") if name in first]
    return [
        {
            "row": int(splits.test.row_N[row]),
            "label": None if splits.test.label_N[row] < 0 else splits.classes[splits.test.label_N[row]],
            "why": why,
            **_picture(take_rows(splits.test.raw, np.array([row]))),
            "probabilities": {name: np.exp(first[name][row].astype(np.float64)).tolist() for name in shown},
        }
        for row, why in rows
    ]


def _hesitating(said_NC: Array, label_N: Array) -> list[int]:
    """One row of each class that is answered rightly with the least confidence on average, least sure classes first.

    Of a class's right answers not the very least sure, which tends to be a scribble, but the one a tenth of the way up.
    """
    sure_N, right_N = said_NC.max(1), said_NC.argmax(1) == label_N
    found: list[tuple[float, int]] = []
    for place in range(said_NC.shape[1]):
        rows = np.flatnonzero(right_N & (label_N == place))
        if len(rows):
            ordered = rows[np.argsort(sure_N[rows], kind="stable")]
            found.append((float(sure_N[rows].mean()), int(ordered[len(ordered) // 10])))
    return [row for _, row in sorted(found)[:HESITATING]]


def _least_sure_wrong(said_NC: Array, label_N: Array) -> int | None:
    """Of the labelled rows answered wrongly the one with the least confidence; None where there is none."""
    wrong_N = np.flatnonzero((said_NC.argmax(1) != label_N) & (label_N >= 0))
    return int(wrong_N[said_NC.max(1)[wrong_N].argmin()]) if len(wrong_N) else None


def _picture(raw: Raw) -> dict[str, Any]:
    """One row as a person would look at it: an image's pixels, or its columns by name."""
    if isinstance(raw, dict):
        return {"columns": {name: _plain(column[0]) for name, column in raw.items()}}
    row = raw[0]
    if row.dtype == np.uint8 and row.ndim >= 2:
        pixels = row[..., 0] if row.ndim == 3 and row.shape[2] == 1 else row
        return {"image": {"pixels": pixels.tolist()}}
    if row.ndim == 0:
        return {"text": str(row)}
    return {"columns": {f"column {place}": _plain(value) for place, value in enumerate(row.ravel())}}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
