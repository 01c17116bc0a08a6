"""Arrays: .npz files with x and y, and the data that ships with scikit-learn. This file knows no columns by name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from stillroom.columns import objects
from stillroom.errors import DataError, NotYet, did_you_mean
from stillroom.questions import intents
from stillroom.questions.arithmetic import BUILTIN, Problem, builtin
from stillroom.questions.part import Part, plain_labels
from stillroom.rows import Array

ROLES = ("train", "validation", "test")
KEYS = tuple(f"{letter}_{role}" for role in ROLES for letter in "xy")
DIGITS = ("datasets", "data", "digits.csv.gz")
"""Below scikit-learn's own folder."""
FORM = "Give x_train and y_train, x_test and y_test, x_validation and y_validation; or x and y alone"


def read_npz(path: Path) -> dict[str, Part]:
    """The parts of an .npz: x_ROLE and y_ROLE for each role that is there, or x and y as `train`."""
    arrays = load_arrays(path)
    odd = next((name for name in arrays if name.startswith(("x_", "y_")) and name not in KEYS), None)
    if odd is not None:
        raise DataError(f"{odd!r} is no part of a data set", where=path.name, cure=did_you_mean(odd, KEYS))
    if "x" in arrays and "y" in arrays and not any(name in arrays for name in KEYS):
        return {"train": _part(arrays, "x", "y", path)}
    parts = {}
    for role in ROLES:
        x, y = f"x_{role}", f"y_{role}"
        if (x in arrays) != (y in arrays):
            raise DataError(f"there is {x if x in arrays else y} without its partner", where=path.name, cure=FORM)
        if x in arrays:
            parts[role] = _part(arrays, x, y, path)
    if "train" not in parts and len(parts) != 1:
        raise DataError(f"there are no x_train and y_train, only {', '.join(arrays)}", where=path.name, cure=FORM)
    return parts


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz by name. Raises DataError for a damaged file, or one that holds pickled objects."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise DataError("this file is empty", where=path.name, cure=FORM)
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError("this is one bare array", where=path.name, cure="Write it with numpy.savez. " + FORM)
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (BadZipFile, ValueError, EOFError, OSError) as error:
        if "allow_pickle" in str(error) or "pickle" in str(error):
            raise DataError(
                "this file holds pickled objects, which could run code when read",
                where=path.name,
                cure="Save plain arrays: numbers, or texts as array.astype(str)",
            ) from error
        raise DataError("this is no whole .npz file", where=path.name, cure="Write it with numpy.savez") from error


def _part(arrays: dict[str, Array], x: str, y: str, path: Path) -> Part:
    place, labels = f"{path.name}, {y}", arrays[y]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise NotYet(
            f"{y} holds {'x'.join(map(str, labels.shape))} values, so several labels a row",
            where=path.name,
            cure="Give one class for each row, such as y.argmax(1); multi-label data comes later",
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if arrays[x].ndim == 0:
        raise DataError(f"{x} is a single value", where=path.name, cure=FORM)
    return Part(arrays[x], plain_labels(labels.tolist(), place), f"{path.name}, {x}")


def read_builtin(name: str) -> dict[str, Part]:
    """Data that is there without a file: `digits`, 1,797 images of 8 x 8 with levels 0..16 brought to 0..255; `intents`,
    texts of twelve classes; or problems of arithmetic.py, whose labels are answers and no classes."""
    if name in BUILTIN:
        return {role: _problems(made, name) for role, made in builtin(name).items()}
    if name == "intents":
        texts, labels = intents.intents(intents.ROWS, 0)
        return {"train": Part({"text": objects(texts)}, plain_labels(labels, name), f"builtin:{name}")}
    if name != "digits":
        known = ["digits", "intents", *BUILTIN]
        raise DataError(f"there is no builtin data {name!r}", where="questions.source", cure=did_you_mean(name, known))
    levels, digits = read_digits()
    images = np.rint(levels * (255 / 16)).astype(np.uint8)
    return {"train": Part(images, plain_labels(digits.tolist(), name), "builtin:digits")}


def read_digits() -> tuple[Array, Array]:
    """What `sklearn.datasets.load_digits` gives: levels 0..16, [1797, 8, 8], and which digit each image is, int64 [1797].

    Its file is read as it does: importing it for that takes longer than importing PyTorch.
    """
    found = find_spec("sklearn")
    path = Path(found.origin).parent.joinpath(*DIGITS) if found is not None and found.origin else None
    if path is None or not path.is_file():
        cure = "Install scikit-learn; if it is there, give the digits in a file of your own"
        raise DataError("scikit-learn's digits are not here", where="questions.source", cure=cure)
    rows = np.loadtxt(path, delimiter=",")
    return rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(np.int64)


def _problems(made: list[Problem], name: str) -> Part:
    columns = {
        "question": objects([one.question for one in made]),
        "length": objects([one.length for one in made]),
    }
    labels = plain_labels([one.answer for one in made], name)
    place = f"builtin:{name}"
    return Part({"question": columns["question"]}, labels, place, beside=columns, names=("question", "label", "length"))
