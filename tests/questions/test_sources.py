"""Every form a data set comes in, and what each reader refuses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import DataError, NotYet
from stillroom.questions import arrays
from stillroom.questions.arrays import read_digits
from stillroom.questions.dataset import Dataset
from stillroom.questions.sources import read_rows
from stillroom.rows import Splits

NAMES = ["age", "colour", "story", "label"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def some_rows(rng: np.random.Generator, count: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "age": float(rng.normal()),
            "colour": str(rng.choice(["red", "green"])),
            "story": f'a "quoted", long\nstory of row {row}',
            "label": ["yes", "no", "maybe"][row % 3],
        }
        for row in range(count)
    ]


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


def build(source: Any, folder: Path, **knobs: Any) -> Splits:
    return Dataset(source=source, **knobs).build([folder])


def test_all_files_of_columns_give_the_same_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = some_rows(rng)
    found = []
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet"):
        write_table(tmp_path / f"d{suffix}", rows)
        splits = build(f"d{suffix}", tmp_path)
        assert isinstance(splits.train.raw, dict)
        assert list(splits.train.raw) == NAMES[:3]
        assert splits.classes == ["maybe", "no", "yes"]
        found.append(splits.fingerprint())
        rows_read = read_rows(f"d{suffix}", [tmp_path])
        assert isinstance(rows_read, dict)
        assert list(rows_read) == NAMES
    assert len(set(found)) == 1


def test_input_and_label_name_columns(tmp_path: Path, rng: np.random.Generator) -> None:
    write_table(tmp_path / "d.csv", some_rows(rng))
    splits = build("d.csv", tmp_path, input="story", label="colour")
    assert isinstance(splits.train.raw, dict)
    assert list(splits.train.raw) == ["story"]
    assert splits.classes == ["green", "red"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"label": "lable"}, "no label column 'lable'.*Did you mean 'label'"),
        ({"input": ["age", "color"]}, "no input column 'color'.*Did you mean 'colour'"),
        ({"input": ["age", "label"]}, "input and label at once"),
    ]
    for knobs, message in cases:
        with pytest.raises(DataError, match=message):
            build("d.csv", tmp_path, **knobs)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["3", "10", "3"], [3, 10]),
        (["0.5", "2", "1e1"], [0.5, 2.0, 10.0]),
        (["01", "1", "2"], ["01", "1", "2"]),
        (["true", "false", "true"], ["false", "true"]),
        (["NA", "nan", "NA"], ["NA", "nan"]),
    ],
)
def test_labels_of_a_csv(labels: list[str], classes: list[Any], tmp_path: Path) -> None:
    rows = [{"x": row, "label": labels[row % 3]} for row in range(60)]
    write_table(tmp_path / "d.csv", rows)
    found = build("d.csv", tmp_path).classes
    assert found == classes
    assert {type(name) for name in found} == {type(classes[0])}


def test_files_for_the_splits(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = some_rows(rng, 90)
    for name, part in (("a.csv", rows[:60]), ("b.jsonl", rows[60:75]), ("c.parquet", rows[75:])):
        write_table(tmp_path / name, [{**row, **({"more": 1} if name == "b.jsonl" else {})} for row in part])
    splits = build({"train": "a.csv", "validation": "b.jsonl", "test": "c.parquet"}, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (60, 15, 15)
    assert splits.notes == []
    assert isinstance(splits.validation.raw, dict)
    assert list(splits.validation.raw) == NAMES[:3]
    splits = build({"train": "a.csv", "test": "c.parquet"}, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54, 6, 15)
    splits = build({"train": "a.csv"}, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (42, 6, 12)


def test_files_of_the_splits_must_agree(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = some_rows(rng)
    write_table(tmp_path / "a.csv", rows)
    for change, message in (("age", "'old' is none.*b.csv, row 1, column age"), (None, "no input column 'age'.*b.csv")):
        part = [{**row, "age": "old"} if change else {n: row[n] for n in NAMES[1:]} for row in rows]
        write_table(tmp_path / "b.csv", part)
        with pytest.raises(DataError, match=message):
            build({"train": "a.csv", "test": "b.csv"}, tmp_path)
    x, y = rng.normal(size=(20, 3)), np.arange(20) % 2
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:, :2], y_test=y)
    with pytest.raises(DataError, match="these rows are 2, and those of train are 3"):
        build("d.npz", tmp_path)


def test_an_npz_with_parts_keeps_them(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, (100, 4, 4), dtype=np.uint8)
    y = np.array(["cat", "dog"])[np.arange(100) % 2]
    parts = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    np.savez(tmp_path / "d.npz", **parts)
    splits = build("d.npz", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54, 6, 40)
    assert splits.classes == ["cat", "dog"]
    np.testing.assert_array_equal(splits.test.raw, x[60:])
    np.savez(tmp_path / "d.npz", **parts, x_validation=x[:10], y_validation=y[:10])
    splits = build("d.npz", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (60, 10, 40)
    np.savez(tmp_path / "only.npz", x=x[60:], y=y[60:])
    splits = build({"train": "d.npz", "test": "only.npz"}, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54, 6, 40)
    np.testing.assert_array_equal(read_rows("d.npz", [tmp_path]), x[60:])


def test_texts_of_an_npz_are_a_column(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([f"text {row}" for row in range(40)]), y=np.arange(40) % 2)
    raw = build("d.npz", tmp_path).train.raw
    assert isinstance(raw, dict)
    assert list(raw) == ["text"]
    assert raw["text"].dtype == object


def save_pictures(root: Path, rng: np.random.Generator, mode: str = "RGB", count: int = 20, size: Any = (5, 4)) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for row in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{row:03}.png")


@pytest.mark.parametrize(("mode", "shape"), [("RGB", (4, 5, 3)), ("L", (4, 5)), ("1", (4, 5)), ("RGBA", (4, 5, 3))])
def test_a_folder_of_pictures_by_class(mode: str, shape: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    save_pictures(tmp_path / "pets", rng, mode)
    (tmp_path / "pets" / "notes.txt").write_text("not a picture")
    splits = build("pets", tmp_path)
    raw = splits.train.raw
    assert isinstance(raw, np.ndarray)
    assert (raw.dtype, raw.shape) == (np.uint8, (28, *shape))
    assert splits.classes == ["cat", "dog"]
    assert (len(splits.validation), len(splits.test)) == (4, 8)
    found = read_rows("pets/cat", [tmp_path])
    assert isinstance(found, np.ndarray)
    assert found.shape == (20, *shape)


def test_folders_of_pictures_for_the_splits(tmp_path: Path, rng: np.random.Generator) -> None:
    save_pictures(tmp_path / "pets" / "train", rng)
    save_pictures(tmp_path / "pets" / "test", rng, "L", 7)
    splits = build("pets", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (36, 4, 14)
    assert isinstance(splits.test.raw, np.ndarray)
    assert splits.test.raw.shape[1:] == (4, 5, 3)


def test_pictures_that_do_not_fit_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    save_pictures(tmp_path / "pets", rng)
    Image.new("RGB", (7, 4)).save(tmp_path / "pets" / "cat" / "odd.png")
    with pytest.raises(DataError, match=r"picture is 7 x 4, and the first is 5 x 4 .*cat/odd\.png"):
        build("pets", tmp_path)
    (tmp_path / "pets" / "cat" / "odd.png").write_text("no picture")
    with pytest.raises(DataError, match=r"cannot be read .*cat/odd\.png"):
        build("pets", tmp_path)
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no pictures in sub-folders"):
        build("empty", tmp_path)


def test_a_missing_file_names_the_folders_and_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    with pytest.raises(DataError, match=f"no 'd.npz' .looked in {one}, {two}.*STILLROOM_DATA, which is not set"):
        Dataset(source="d.npz").build([one, two])
    monkeypatch.setenv("STILLROOM_DATA", str(two))
    with pytest.raises(DataError, match="Check the path") as found:
        Dataset(source="d.npz").build([one, two])
    assert "not set" not in str(found.value)


def test_the_first_folder_that_has_the_file_wins(tmp_path: Path, rng: np.random.Generator) -> None:
    for name, count in (("one", 50), ("two", 100)):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "d.npz", x=rng.normal(size=(count, 2)), y=np.arange(count) % 2)
    found = [tmp_path / name for name in ("none", "two", "one")]
    assert len(Dataset(source="d.npz").build(found).test) == 20
    assert len(Dataset(source=str(tmp_path / "one" / "d.npz")).build(found).test) == 10


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("d.xlsx", "x", DataError, r"ending '\.xlsx' cannot be read .*\.npz \.csv"),
        ("data", "x", DataError, "no ending"),
        ("d.txt", "", DataError, r"file is empty \(d\.txt\)"),
        ("d.txt", " \n\n", DataError, r"nothing but blank space in this file \(d\.txt\)"),
        ("d.txt", "one\ntwo\0\n", DataError, r"NUL character.*no plain text \(d\.txt, line 2\)"),
        ("d.txt", "once upon a time", DataError, r"just one in the training rows.*\(questions\.split\.test\)"),
        ("d.csv", "", DataError, r"file is empty \(d\.csv\)"),
        ("d.npz", "", DataError, r"file is empty \(d\.npz\)"),
        ("d.npz", "no zip", DataError, "no whole .npz|pickled"),
        ("d.parquet", "no parquet", DataError, r"cannot be read.*d\.parquet"),
        ("d.csv", "a,label\n", DataError, r"no rows \(d\.csv\)"),
        ("d.json", "[]", DataError, r"no rows \(d\.json\)"),
        ("d.csv", 'a,label\n"x\ny",1\n2,3\n4,5,6\n', DataError, r"3 cells, and the header has 2 \(d\.csv, line 5\)"),
        ("d.csv", "a,a,label\n1,2,3\n", DataError, "two columns are called 'a'"),
        ("d.csv", ",a,label\n" + "1,2,x\n3,4,y\n" * 20, DataError, "a column has no name"),
        ("d.csv", "label\nx\ny\n", DataError, "no column but the label"),
        ("d.csv", "a,label\n1,x\n,y\n" + "2,x\n3,y\n" * 20, DataError, r"d\.csv, row 2, column a\)"),
        ("d.csv", "a,label\n1,x\n2,y\ninf,y\n" + "2,x\n3,y\n" * 20, DataError, r"infinite.*d\.csv, row 3, column a\)"),
        ("d.jsonl", '{"a": 1, "label": 2}\n{"a": \n', DataError, r"no JSON \(d\.jsonl, line 2\)"),
        ("d.jsonl", '{"a": 1, "label": 2}\n' + "[" * 60_000, DataError, r"nested too deep \(d\.jsonl, line 2\)"),
        ("d.json", "[" * 60_000, DataError, r"nested too deep \(d\.json\)"),
        ("d.jsonl", "[1, 2]\n", DataError, r"an object of column and value \(d\.jsonl, line 1\)"),
        ("d.jsonl", '{"a": NaN, "label": 2}\n' + '{"a": 1, "label": 1}\n' * 9, DataError, "row 1, column a"),
        (
            "d.jsonl",
            '{"a": [1], "label": 2}\n{"a": [2], "label": 1}\n',
            DataError,
            "a list is neither.*row 1, column a",
        ),
        ("d.jsonl", '{"a": 1, "label": [1, 2]}\n', NotYet, "several labels at once"),
        ("d.json", '{"a": 1}\n{"a": 2}', DataError, "Name it .jsonl"),
        ("d.json", '{"a": 1}', DataError, "one list of objects"),
        ("d.csv", "a,label\n" + "".join(f"{n},{n / 7 + 0.01}\n" for n in range(90)), NotYet, "distinct non-integer"),
    ],
)
def test_files_that_cannot_be_used(name: str, text: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        build(name, tmp_path)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    for name in ("d.csv", "d.jsonl"):
        (tmp_path / name).write_bytes(b"a,label\ncaf\xe9,1\n")
        with pytest.raises(DataError, match="not UTF-8"):
            build(name, tmp_path)
    (tmp_path / "d.txt").write_bytes(b"a\nb\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"not UTF-8 text \(d\.txt, line 3\)"):
        build("d.txt", tmp_path)
    (tmp_path / "d.csv").write_bytes("\ufeffa,label\n".encode() + b"1,x\n2,y\n" * 20)
    assert isinstance(build("d.csv", tmp_path).train.raw, dict)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, DataError, r"3 inputs and 4 labels \(d\.npz, x\)"),
        ({"x": np.zeros((3, 2)), "y": np.zeros((3, 2))}, NotYet, "several labels a row"),
        ({"x": np.array([{}, {}], object), "y": np.zeros(2)}, DataError, "pickled objects"),
        ({"x_train": np.zeros((3, 2))}, DataError, "x_train without its partner"),
        ({"x_trian": np.zeros((3, 2))}, DataError, "Did you mean 'x_train'"),
        ({"a": np.zeros(3)}, DataError, "no x_train and y_train, only a"),
        ({"x": np.zeros((9, 4, 4)), "y": np.arange(9) % 2}, DataError, r"these are float64 \(d\.npz, x\)"),
        ({"x": np.full((9, 4), np.nan), "y": np.arange(9) % 2}, DataError, r"d\.npz, x, row 1, column 1\)"),
        ({"x": np.zeros((4, 9)), "y": np.array([1, 2j, 1, 2])}, DataError, "a complex cannot be a label"),
    ],
)
def test_arrays_that_cannot_be_used(arrays: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(error, match=message):
        build("d.npz", tmp_path)


def test_sources_that_have_no_columns_refuse_their_names(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match=r"no builtin data 'digit'.*Did you mean 'digits'"):
        build("builtin:digit", tmp_path)
    with pytest.raises(DataError, match="input and label name columns"):
        build("builtin:digits", tmp_path, label="target")


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    (levels, labels), known = read_digits(), load_digits()
    assert np.array_equal(levels, known.images)
    assert np.array_equal(labels, known.target)
    assert (levels.dtype, labels.dtype) == (known.images.dtype, known.target.dtype)


def test_the_digits_do_not_wait_for_scikit_learn() -> None:
    program = (
        "import sys; from stillroom.questions.arrays import read_digits; read_digits(); print('sklearn' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_digits_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "DIGITS", ("datasets", "none"))
    with pytest.raises(DataError, match="digits are not here"):
        build("builtin:digits", tmp_path)


def test_the_hub_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"hf:imdb.*stillroom\[hub\]"):
        build("hf:imdb", tmp_path)
    with pytest.raises(DataError, match=r"no './mine'"):
        build("hf:./mine", tmp_path)


def test_a_data_set_saved_by_the_datasets_library(tmp_path: Path, rng: np.random.Generator) -> None:
    datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")
    rows = some_rows(rng)
    table = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": table, "test": table, "unsupervised": table}).save_to_disk(str(tmp_path / "mine"))
    splits = build("hf:./mine", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54, 6, 60)
    write_table(tmp_path / "d.jsonl", rows)
    by_file = build({"train": "d.jsonl", "test": "d.jsonl"}, tmp_path)
    assert by_file.fingerprint() == splits.fingerprint()
