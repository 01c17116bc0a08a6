"""Bad input, through the command line: one plain line that names the place and the cure, and nothing is spent."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import done, recipe, rows_of, stillroom, write_csv, write_recipe
from stillroom.rundir import read_json

TRAINED = {"kind": "trained", "model": {"kind": "mlp", "hidden": [8]}, "epochs": 2}
PAIR = {"kind": "ensemble", "size": 2, "member": TRAINED}
CONVNET = {"kind": "fresh", "model": {"kind": "convnet"}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with data.csv."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_csv(tmp_path / "data.csv", rows_of())
    return tmp_path


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on three classes of the same columns."""
    home = tmp_path_factory.mktemp("three")
    write_csv(home / "data.csv", rows_of(classes=("ham", "spam", "eggs")))
    write_recipe(home / "tiny.yaml", recipe(name="three"))
    done("distill", home / "tiny.yaml", "--run", home / "run")
    return home / "run"


def refused(tree: Any, *told: str, name: str = "tiny.yaml") -> str:
    """The line with which both check and distill refuse a recipe, having left nothing behind."""
    if tree is not None:
        write_recipe(Path(name), tree)
    before = sorted(Path().rglob("*"))
    lines = set()
    for command in ("check", "distill"):
        found = stillroom(command, name)
        assert found.status == 2, found.err
        lines.add(found.error)
        assert found.err.count("\n") == 1, found.err
    (line,) = lines
    assert all(words in line for words in told), line
    assert line.endswith(".")
    assert sorted(Path().rglob("*")) == before
    return line


def data(**knobs: Any) -> dict[str, Any]:
    """A recipe over these questions."""
    return recipe(questions={"kind": "dataset", "source": "data.csv", **knobs})


def trained_by(**teacher: Any) -> dict[str, Any]:
    """A recipe with this teacher."""
    return recipe(teacher=teacher)


# the recipe file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2]", "a recipe is a mapping of sections (tiny.yaml). Start with `name: ...`"),
        ("", "a recipe is a mapping of sections"),
        ("hello", "a recipe is a mapping of sections"),
        ("name: [", "this is not well-formed YAML or JSON (tiny.yaml, line 1)"),
        ("name: a\n x: 1\n", "this is not well-formed YAML or JSON (tiny.yaml, line 2)"),
        ("name: a\nseeds: 1\nname: b\n", "the knob 'name' stands here a second time (name, lines 1 and 3)"),
        ("name: a\n", "the knob 'questions' is missing (questions). Add questions:"),
        ("name: a\ntraining:\n", "(training, line 2)"),
    ],
)
def test_a_file_that_is_no_recipe(text: str, told: str, here: Path) -> None:
    refused(text, told)


def test_a_file_that_is_not_text(here: Path) -> None:
    (here / "tiny.yaml").write_bytes(b"\xff\xfe\x00name")
    refused(None, "this is not well-formed YAML or JSON (tiny.yaml)")


def test_a_recipe_that_is_not_there(here: Path) -> None:
    refused(None, "there is no such recipe (nowhere.yaml)", "stillroom new", name="nowhere.yaml")
    refused(None, "there is no such recipe (.)", name=".")


def test_a_recipe_in_json_names_lines_too(here: Path) -> None:
    refused('{"name": "a",\n "nonsense": 1}', "there is no knob 'nonsense' here (nonsense, line 2)", name="r.json")
    refused('{"name": "a",\n "x" 1}', "this is not well-formed YAML or JSON (r.json, line 2)", name="r.json")


# kinds and knobs


@pytest.mark.parametrize(
    ("sections", "place", "told"),
    [
        (
            {"objectives": [{"kind": "soft_targt"}]},
            "objectives.0.kind, line ",
            "Did you mean 'soft_target'? Known: hard_",
        ),
        ({"student": {"kind": "fresh", "model": {"kind": "mlpp"}}}, "student.model.kind, line ", "Known: convnet, mlp"),
        ({"student": {"model": {"kind": "mlp"}}}, "student, line ", "a mapping with a kind, such as {kind: fresh}"),
        ({"student": {"kind": ["a"]}}, "student.kind, line ", "Known: fresh"),
        ({"training": {"epohcs": 2}}, "training.epohcs, line ", "Did you mean 'epochs'?"),
        ({"trainin": {}}, "trainin, line ", "Did you mean 'training'?"),
        (
            {"objectives": [{"kind": "soft_target", "temprature": 2}]},
            "objectives.0.temprature, line ",
            "'temperature'?",
        ),
        (
            {"teacher": {**PAIR, "member": {**TRAINED, "epoch": 3}}},
            "teacher.member.epoch, line ",
            "Did you mean 'epochs'?",
        ),
        ({"arms": {"a": {"trainin": {}}}}, "arms.a.trainin, line ", "Did you mean 'training'?"),
        ({"arms": {"a": {"training": {"epohcs": 1}}}}, "arms.a.training.epohcs, line ", "Did you mean 'epochs'?"),
        ({"arms": {"a": {"student": {"kind": "frehs"}}}}, "arms.a.student.kind, line ", "Did you mean 'fresh'?"),
        ({"arms": {"a": [1]}}, "arms.a, line ", "a: should be a mapping"),
        ({"arms": {"control": {}}}, "arms, line ", "the arm 'control' would hide the model of that name"),
        ({"arms": {"a/b": {}}}, "arms, line ", "can name a folder"),
        ({"arms": {"a": {"seeds": 3}}}, "arms, line ", "the arm 'a' cannot have its own seeds"),
        ({"training": {"epochs": -1}}, "training.epochs, line ", "epochs: should be at least 1, not -1"),
        ({"training": {"epochs": "many"}}, "training.epochs, line ", "epochs: should be a whole number, not 'many'"),
        ({"training": {"epochs": 1.5}}, "training.epochs, line ", "epochs: should be a whole number, not 1.5"),
        ({"training": {"batch_size": 0}}, "training.batch_size, line ", "should be at least 1, not 0"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate, line ", "should be above 0, not 0"),
        ({"training": {"schedule": "cosin"}}, "training.schedule, line ", "should be 'one_cycle', 'cosine', 'linear'"),
        ({"training": [1]}, "training, line ", "training: should be a mapping"),
        (
            {"objectives": [{"kind": "soft_target", "temperature": 0}]},
            "objectives.0.temperature, line ",
            "above 0 or 'auto'",
        ),
        ({"objectives": [{"kind": "soft_target", "temperature": -2}]}, "objectives.0.temperature, line ", "not -2"),
        ({"objectives": [{"kind": "soft_target", "temperature": "hot"}]}, "0.temperature, line ", "a number or 'auto'"),
        ({"objectives": [{"kind": "soft_target", "weight": -1}]}, "objectives.0.weight, line ", "should be at least 0"),
        ({"objectives": [{"kind": "soft_target", "weight": 0}]}, "objectives", "all weights are 0"),
        ({"objectives": {"kind": "soft_target"}}, "objectives, line ", "objectives: should be a list"),
        (
            {"student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [4, -3]}}},
            "model.hidden.1, line ",
            "not -3",
        ),
        (
            {"student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": 3}}},
            "model.hidden, line ",
            "should be a list",
        ),
        ({"training": {"epochs": True}}, "training.epochs, line ", "epochs: should be a number, not true"),
        (
            {
                "training": {"batch_size": 10**9},
                "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [10**10]}},
            },
            "student.model",
            "Choose a smaller one",
        ),
        ({"seeds": 0}, "seeds, line 3", "seeds: should be at least 1, not 0"),
        ({"seeds": None, "name": 5}, "name, line 2", "name: should be a text"),
        ({"name": "a/b"}, "name, line 2", "can name a folder, not 'a/b'"),
        ({"name": " "}, "name, line 2", "can name a folder"),
        ({"name": "x" * 300}, "name, line 2", "can name a folder"),
        (
            {"evaluation": {"metrics": ["acuracy"]}},
            "evaluation.metrics.0, line ",
            "'calibration', 'speed', 'size' or 'cost'",
        ),
        ({"evaluation": {"price": {"usd_per_hour": 0}}}, "evaluation.price.usd_per_hour, line ", "should be above 0"),
        ({"evaluation": {"groups": {"pets": ["nope"]}}}, "evaluation.groups.pets", "the data has no class 'nope'"),
        ({"budget": {"minutes": 0}}, "budget.minutes, line ", "should be above 0, not 0"),
        ({"budget": {"usd": 1}}, "budget.usd", "a budget in USD needs a price"),
        ({"training": {"mixup": 0.2}}, "training.mixup", "Set mixup: 0, or transfer_set.live: true"),
        ({"training": {"mixup": 0.2}, "transfer_set": {"live": True}}, "training.mixup", "columns cannot be mixed"),
        ({"teacher": {**TRAINED, "mixup": 0.2}}, "teacher.mixup", "columns cannot be mixed"),
        (
            {"transfer_set": {"live": True, "wrong_classes": "permuted"}},
            "transfer_set.wrong_classes",
            "a live teacher has none",
        ),
        ({"device": "cuda:7"}, "device", "this machine has no"),
        ({"seeds": True}, "seeds, line 3", "seeds: should be a number, not true"),
        ({"transfer_set": {"store": "data.csv"}}, "transfer_set.store, data.csv", "this is a file"),
        ({"device": "gpu"}, "device", "there is no device 'gpu'"),
        ({"arms": {"a": {"device": "gpu"}}}, "device", "there is no device 'gpu'"),
        ({"objectives": [{"kind": "hidden"}], "teacher": PAIR}, "objectives", "need hidden of the teacher"),
        ({"student": CONVNET}, "student.model", "a convnet of 3 blocks cannot look at inputs of shape [5]"),
        ({"teacher": {**TRAINED, "model": {"kind": "convnet"}}}, "teacher.model", "a convnet of 3 blocks cannot look"),
        ({"arms": {"a": {"student": CONVNET}}}, "arms.a.student.model", "a convnet of 3 blocks cannot look"),
    ],
)
def test_a_wrong_kind_or_knob(sections: dict[str, Any], place: str, told: str, here: Path) -> None:
    line = refused(recipe(**sections), told)
    assert f"({place}" in line or f".{place}" in line, line


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ({"kind": "ensemble"}, "either members: [..], or size: and member:"),
        ({"kind": "ensemble", "members": []}, "members: should have at least 2"),
        ({"kind": "ensemble", "members": [TRAINED, TRAINED], "size": 2}, "either members: [..], or size: and member:"),
        ({"kind": "ensemble", "members": [PAIR, TRAINED]}, "an ensemble's members cannot be ensembles"),
        ({**PAIR, "weights": [1]}, "weights should hold one number above 0 for each member"),
        ({"kind": "ensemble", "size": 2, "member": {"kind": "saved", "model": "x"}}, "would all answer alike"),
        ({**TRAINED, "class_prior": "uniform"}, "class_prior is for students"),
        ({"kind": "saved", "model": "nowhere"}, "there is no model folder 'nowhere' (looked in /"),
        ({"kind": "saved", "model": "."}, "this is no folder of a Stillroom student or teacher: it has no config.json"),
        ({"kind": "saved", "model": "hf:a/b"}, "the model cannot be fetched from the hub: "),
        ({"kind": "saved", "model": "package:nowhere_at_all/x"}, "'nowhere_at_all' is not installed"),
        ({"kind": "python"}, "Call stillroom.distill(recipe, teacher=...)"),
    ],
)
def test_a_wrong_teacher(teacher: dict[str, Any], told: str, here: Path) -> None:
    refused(trained_by(**teacher), told)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seeds", "'seeds' is no override (command line)"),
        ("=3", "'=3' is no override (command line)"),
        ("objectives.5.temperature=3", "there is no '5' in this list"),
        ("objectives.x.temperature=3", "there is no 'x' in this list"),
        ("objectives.7={kind: hidden}", "To make a list longer, give it whole"),
        ("objectives=[]", "names none, so nothing would be learned"),
        ("seeds.x=3", "seeds is no section"),
        ("seeds.x.y=3", "'x' stands in no section"),
        ("training=[", "cannot be read (command line)"),
        ("training.epochs=x", "epochs: should be a whole number, not 'x' (training.epochs)"),
        ("trainin.epochs=1", "Did you mean 'training'?"),
    ],
)
def test_a_wrong_override(override: str, told: str, here: Path) -> None:
    write_recipe(here / "tiny.yaml", recipe())
    found = stillroom("distill", "tiny.yaml", override)
    assert (found.status, told in found.error) == (2, True), found.err
    assert not (here / "runs").exists()


# data


def with_value(place: int, **values: Any) -> list[dict[str, Any]]:
    rows = rows_of()
    rows[place] |= values
    return rows


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (with_value(5, length="nan"), "there is no number here (missing, or NaN) (data.csv, row 6, column length)"),
        (with_value(5, length=""), "there is no number here (missing, or NaN) (data.csv, row 6, column length)"),
        (with_value(5, weight="inf"), "this number is infinite, or too large (data.csv, row 6, column weight)"),
        (
            with_value(5, weight="1e300"),
            "this number is infinite, or too large (data.csv, row 6, column weight). Correct it",
        ),
        (with_value(5, weight="1,5"), "'1,5' is none (data.csv, row 6, column weight)"),
        (rows_of(classes=("ham",)), "there is only one class, 'ham' (data.csv)"),
        (rows_of(1), "there is only one class"),
        ([{**row, "label": ""} for row in rows_of()], "there is no label (data.csv)"),
        (
            [{**row, "label": place * 0.37} for place, row in enumerate(rows_of())],
            "a quantity, not classes (regression) (data.csv). Name a label column with classes, or group the numbers; "
            "regression comes later.",
        ),
        ([{**row, "label": f"id {place}"} for place, row in enumerate(rows_of())], "name rows, not classes"),
        ([{**row, "label": 7 * place} for place, row in enumerate(rows_of())], "classes; regression comes later."),
        ([{"label": row["label"]} for row in rows_of()], "there is no column but the label"),
    ],
)
def test_wrong_rows(rows: list[dict[str, Any]], told: str, here: Path) -> None:
    write_csv(here / "data.csv", rows)
    refused(recipe(), told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "this file is empty (data.csv)"),
        (b"length,label\n", "there are no rows (data.csv)"),
        (b"\xff\xfe\x00", "this file is not UTF-8 text (data.csv)"),
        (b"a,label\n1,x\n1,2,y\n", "this line has 3 cells, and the header has 2 (data.csv, line 3)"),
        (
            b"a;b;label\n1;2;x\n",
            "separated by semicolons, and commas are expected (data.csv, line 1). Write it anew: "
            "pandas.read_csv('data.csv', sep=';')",
        ),
        (b"a\tlabel\n1\tx\n", "separated by tabs, and commas are expected (data.csv, line 1)"),
        (b"a,a,label\n1,2,x\n", "two columns are called 'a' (data.csv)"),
    ],
)
def test_a_broken_table(content: bytes, told: str, here: Path) -> None:
    (here / "data.csv").write_bytes(content)
    refused(recipe(), told)


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"source": "nowhere.csv"}, "there is no 'nowhere.csv' (looked in /"),
        ({"source": 5}, "should be a path, or {train: PATH, test: PATH}, not 5 (questions.source, line 6)"),
        ({"source": {"test": "data.csv"}}, "should name a file for train (questions.source, line 6)"),
        ({"source": "hf:nobody/nothing"}, "(hf:nobody/nothing)"),
        ({"source": "builtin:digit"}, "Did you mean 'digits'?"),
        ({"label": "lable"}, "there is no label column 'lable' (data.csv). Did you mean 'label'?"),
        ({"input": ["lenght"]}, "there is no input column 'lenght' (data.csv). Did you mean 'length'?"),
        ({"omit": ["x"]}, "there is no class 'x' (questions.omit)"),
        ({"omit": ["ham"]}, "fewer than two classes would be left (questions.omit)"),
        ({"labelled": 1}, "Choose a number from 2 to 63"),
        ({"labelled": 1000}, "train has 63 (questions.labelled)"),
        ({"split": {"test": -1}}, "(questions.split.test, line 8)"),
        ({"split": {"test": 1000}}, "split.test asks for 1,000 labelled rows"),
        ({"split": {"test": 0.9, "validation": 0.5}}, "(questions.split.test, questions.split.validation)"),
        ({"split": {"test": 0.93}}, "split.test took 84 labelled rows, and of the others split.validation asks for 9"),
        ({"augment": [{"kind": "shift", "pixels": 1}]}, "the view 'shift' is for images"),
        ({"class_weights": "heavy"}, "should be none, balanced, or {CLASS: WEIGHT}, not 'heavy'"),
        ({"class_weights": {"nope": 2}}, "there is no class 'nope' (questions.class_weights)"),
    ],
)
def test_wrong_questions(knobs: dict[str, Any], told: str, here: Path) -> None:
    refused(data(**knobs), told)


def test_a_label_of_test_that_the_classes_lack(here: Path) -> None:
    write_csv(here / "test.csv", rows_of(20, classes=("ham", "eggs")))
    told = "the label 'eggs' does not occur in the training rows (test.csv, row 2)"
    refused(data(source={"train": "data.csv", "test": "test.csv"}), told)


def test_a_test_file_without_a_column(here: Path) -> None:
    write_csv(here / "test.csv", [{"length": row["length"], "label": row["label"]} for row in rows_of(20)])
    refused(data(source={"train": "data.csv", "test": "test.csv"}), "there is no input column 'weight' (test.csv)")


CODES = np.arange(60) % 2
IMAGES = np.zeros((60, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": np.ones((60, 3)), "y": np.linspace(0, 1, 60)}, "a quantity, not classes (regression)"),
        ({"x": np.ones((60, 3)), "y": np.zeros((60, 2))}, "multi-label data comes later"),
        ({"x": np.full((60, 3), np.nan), "y": CODES}, "(d.npz, x, row 1, column 1)"),
        ({"x": np.ones((50, 3)), "y": CODES}, "there are 50 inputs and 60 labels"),
        ({"x": np.ones((60, 4, 4)), "y": CODES}, "images are whole numbers from 0 to 255"),
        ({"x": np.array([None] * 60), "y": CODES}, "pickled objects, which could run code"),
        ({"x_train": IMAGES, "y_train": CODES, "x_test": np.zeros((2, 5, 5), np.uint8), "y_test": CODES[:2]}, "5 x 5"),
        (
            {"x_train": IMAGES, "y_train": CODES, "x_test": IMAGES[:0], "y_test": CODES[:0]},
            "there are no rows (d.npz, x_",
        ),
        ({"x_train": IMAGES}, "there is x_train without its partner"),
    ],
)
def test_wrong_arrays(arrays: dict[str, Any], told: str, here: Path) -> None:
    np.savez(here / "d.npz", **arrays)
    refused(data(source="d.npz"), told)


def test_rows_with_several_labels(here: Path) -> None:
    lines = [json.dumps({"a": place, "label": ["x", "y"]}) for place in range(40)]
    (here / "data.jsonl").write_text("\n".join(lines))
    refused(data(source="data.jsonl"), "a row with several labels at once (data.jsonl, column label, row 1)", "later")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.txt", "these rows are running text without labels, and a classifier learns classes (questions)"),
        ("a.xls", "a file with the ending '.xls'"),
    ],
)
def test_files_of_another_kind(name: str, told: str, here: Path) -> None:
    (here / name).write_text("".join(f" = Part {place} = \n\n some words {place} \n\n" for place in range(20)))
    refused(data(source=name), told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.csv"], "say which column to learn with --label"),
        (["data.csv", "--label", "lable"], "Did you mean 'label'?"),
        (["nowhere.csv", "--label", "label"], "there is no 'nowhere.csv'"),
        (["data.csv", "--label", "label", "seeds=0"], "seeds: should be at least 1, not 0"),
    ],
)
def test_a_table_without_a_recipe(words: list[str], told: str, here: Path) -> None:
    for command in ("check", "distill"):
        found = stillroom(command, *words)
        assert (found.status, told in found.error) == (2, True), found.err
    assert not (here / "runs").exists()


# models and recorded answers


def test_a_saved_teacher_of_other_classes(here: Path, three_classes: Path) -> None:
    teacher = {"kind": "saved", "model": str(three_classes / "student")}
    refused(
        trained_by(**teacher), "the teacher knows 3 classes ['eggs', 'ham', 'spam'], the data has 2: ['ham', 'spam']"
    )


def test_a_saved_teacher_of_other_columns(here: Path, three_classes: Path) -> None:
    rows = [{"size": row["length"], "label": row["label"]} for row in rows_of(classes=("ham", "spam", "eggs"))]
    write_csv(here / "data.csv", rows)
    refused(trained_by(kind="saved", model=str(three_classes / "student")), "the column 'length' is missing")


def _archive(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, b"x")
    return held.getvalue()


def test_a_model_folder_with_a_pickle(here: Path, three_classes: Path) -> None:
    shutil.copytree(three_classes / "student", here / "model")
    (here / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    write_csv(here / "data.csv", rows_of(classes=("ham", "spam", "eggs")))
    refused(trained_by(kind="saved", model="model"), "holds a pickle, which can run code", "pytorch_model.bin")
    (here / "model" / "pytorch_model.bin").unlink()
    for name, data in (("notes.dat", b"\x80\x04}."), ("weights", _archive("archive/data.pkl"))):
        (here / "model" / name).write_bytes(data)  # by what it holds, whatever it is called
        refused(trained_by(kind="saved", model="model"), "holds a pickle, which can run code", name)
        (here / "model" / name).unlink()


def answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Recorded answers to these rows."""
    return [{**row, "p_ham": 0.75, "p_spam": 0.25} for row in rows]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:40], "34 of 63 questions have no recorded answer (answers.csv, first: row 41 of the data)"),
        (
            lambda rows: [*rows, {**rows[0], "p_ham": 0.5, "p_spam": 0.5}],
            "two different answers (answers.csv, rows 1 and 91",
        ),
        (lambda rows: [{**row, "p_ham": "nan"} for row in rows], "an answer is not finite (answers.csv, row 1)"),
        (lambda rows: [{**row, "p_ham": "high"} for row in rows], "'high'"),
        (lambda rows: [{**row, "p_ham": 2} for row in rows], "is no probability distribution"),
        (lambda rows: [{**row, "p_ham": -0.25, "p_spam": 1.25} for row in rows], "is no probability distribution"),
        (lambda rows: [without(row, "p_ham", "p_spam") for row in rows], "hold neither probabilities nor an answer"),
        (lambda rows: [without(row, "length") for row in rows], "lack the question's column 'length'"),
        (lambda rows: [{**without(row, "p_ham"), "answer": "eggs"} for row in rows], "'eggs' is none of the classes"),
        (lambda rows: [{**row, "length": "long"} for row in rows], "'long'"),
    ],
)
def test_recorded_answers(change: Any, told: str, here: Path) -> None:
    write_csv(here / "answers.csv", change(answers(rows_of())))
    line = refused(trained_by(kind="recorded", source="answers.csv"), told, "answers.csv")
    assert "row" in line or "column" in line


def test_recorded_answers_to_other_rows(here: Path) -> None:
    """By their key they would pass for answers to the mixed or moved rows that a student is shown."""
    write_csv(here / "answers.csv", answers(rows_of()))
    tree = trained_by(kind="recorded", source="answers.csv")
    refused({**tree, "transfer_set": {"live": True}}, "are to the rows as they are", "teacher, transfer_set.live")


def test_recorded_log_probabilities_that_add_up_to_less(here: Path) -> None:
    write_csv(here / "answers.csv", [{**row, "logp_ham": -1.0, "logp_spam": -5.0} for row in rows_of()])
    refused(trained_by(kind="recorded", source="answers.csv"), "is no probability distribution", "answers.csv, row 1")


def test_an_independent_teacher_must_know_the_rows_that_students_are_judged_on(here: Path) -> None:
    write_csv(here / "answers.csv", answers(rows_of())[:70])
    write_csv(here / "train.csv", rows_of()[:70])
    questions = {"kind": "dataset", "source": {"train": "train.csv", "test": "data.csv"}}
    evaluation = {"independent_teacher": {"kind": "recorded", "source": "answers.csv"}}
    refused(recipe(questions=questions, evaluation=evaluation), "20 of 90 questions have no recorded answer")


def test_a_class_prior_of_labels_without_a_label(here: Path) -> None:
    rows = rows_of()
    write_csv(here / "unlabelled.csv", [{**row, "label": ""} for row in rows])
    write_csv(here / "answers.csv", answers(rows))
    source = {"train": "unlabelled.csv", "validation": "data.csv", "test": "data.csv"}
    tree = trained_by(kind="recorded", source="answers.csv")
    tree |= {"questions": {"kind": "dataset", "source": source}, "training": {"class_prior": "labels"}}
    refused(tree, "there is no label to count a class prior from", "training.class_prior")


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def test_recorded_answers_that_are_not_there(here: Path) -> None:
    refused(trained_by(kind="recorded", source="nowhere.csv"), "there are no recorded answers at 'nowhere.csv'")
    tree = trained_by(kind="recorded", source="data.csv", answer="nope")
    refused(tree, "there is no column 'nope' (data.csv)")


def test_chosen_answers_give_no_soft_targets(here: Path) -> None:
    rows = [{**row, "answer": row["label"]} for row in rows_of()]
    write_csv(here / "answers.csv", rows)
    refused(trained_by(kind="recorded", source="answers.csv"), "the objectives need probabilities of the teacher")


# damage


@pytest.fixture
def run(here: Path) -> Path:
    """A finished run that a test may damage."""
    write_recipe(here / "tiny.yaml", recipe())
    done("distill", "tiny.yaml")
    return here / "runs" / "tiny"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_shard_with_a_flipped_bit(run: Path) -> None:
    shard = next(run.glob("transfer_set/*/000000"))
    flip(shard / "log_probabilities.f16")
    told = stillroom("distill", "tiny.yaml")
    assert told.status == 1
    assert "this file does not match its checksum" in told.error
    assert f"Remove {shard.relative_to(Path.cwd())} and run again" in told.error
    shutil.rmtree(shard)
    done("distill", "tiny.yaml")


def test_weights_with_a_flipped_bit(run: Path) -> None:
    flip(run / "student" / "model.safetensors")
    commands = (["predict", run, "data.csv"], ["try", run, "--row", "0"], ["evaluate", run], ["distill", "tiny.yaml"])
    for words in commands:
        told = stillroom(*words)
        assert told.status == 1
        assert "this file does not match its checksum" in told.error
        assert "student/model.safetensors" in told.error
    shutil.rmtree(run / "evaluation")
    assert "student/model.safetensors" in stillroom("evaluate", run).error
    shutil.rmtree(run / "student")
    done("distill", "tiny.yaml")
    done("predict", run, "data.csv")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"made_from": "x"}'])
def test_a_damaged_manifest_is_told_and_the_folder_made_anew(run: Path, content: str) -> None:
    manifest = run / "student" / "manifest.json"
    whole = read_json(manifest)
    manifest.write_text(content)
    told = stillroom("distill", "tiny.yaml")
    assert told.status == 1
    assert "runs/tiny/student" in told.error
    assert "inside Stillroom" not in told.error
    shutil.rmtree(run / "student")
    done("distill", "tiny.yaml")
    again = read_json(manifest)
    assert again["made_from"] == whole["made_from"]
    assert list(again["files"]) == list(whole["files"])
    assert again["files"]["model.safetensors"] == whole["files"]["model.safetensors"]


def test_a_line_of_events_that_a_crash_cut(run: Path) -> None:
    whole = (run / "events.jsonl").read_text()
    (run / "events.jsonl").write_text(whole + '{"time": 1, "eve')
    done("distill", "tiny.yaml", "seeds=2")
    lines = (run / "events.jsonl").read_text().splitlines()
    assert lines[len(whole.splitlines())] == '{"time": 1, "eve'
    assert all(json.loads(line) for line in lines[len(whole.splitlines()) + 1 :])
    assert len(lines) > len(whole.splitlines()) + 1


@pytest.mark.parametrize("content", [None, "", '{"schema": 1}'])
def test_a_damaged_or_lost_scorecard_comes_back(run: Path, content: str | None) -> None:
    before = (run / "scorecard.json").read_bytes()
    if content is None:
        (run / "scorecard.json").unlink()
    else:
        (run / "scorecard.json").write_text(content)
        for words in (["compare", run], ["runs"]):
            told = stillroom(*words)
            assert told.status == 1
            assert "runs/tiny/scorecard.json" in told.error
            assert "inside Stillroom" not in told.error
    done("report", run)
    assert (run / "scorecard.json").read_bytes() == before


def test_a_damaged_evaluation(run: Path) -> None:
    (run / "evaluation" / "details.json").write_text("{}")
    told = stillroom("report", run)
    assert (told.status, "runs/tiny/evaluation and run again" in told.error) == (1, True)
    shutil.rmtree(run / "evaluation")
    done("report", run)


def test_a_damaged_config(run: Path) -> None:
    (run / "student" / "manifest.json").unlink()
    for content in ("{", "{}", '{"model": {"kind": "mlp", "hidden": [9]}, "classes": ["a"], "class_bias": [0]}'):
        (run / "student" / "config.json").write_text(content)
        write_recipe(Path("b.yaml"), trained_by(kind="saved", model="runs/tiny/student") | {"name": "b"})
        told = stillroom("distill", "b.yaml")
        assert told.status in (1, 2)
        assert "runs/tiny/student" in told.error
        assert "inside Stillroom" not in told.error
    assert not (run.parent / "b").exists()


def test_a_full_disk_keeps_what_was_done(run: Path) -> None:
    """/dev/full is a real device on which every write ends in ENOSPC."""
    events = (run / "events.jsonl").read_text()
    (run / "scorecard.json").unlink()
    (run / "scorecard.json.staged").symlink_to("/dev/full")
    told = stillroom("distill", "tiny.yaml")
    assert told.status == 1
    assert "no room left on the disk (runs/tiny/scorecard.json). Free some space" in told.error
    (run / "scorecard.json.staged").unlink()
    done("distill", "tiny.yaml")
    assert (run / "events.jsonl").read_text() == events


def test_a_full_disk_for_a_file_of_ones_own(run: Path, here: Path) -> None:
    (here / "said.csv.staged").symlink_to("/dev/full")
    told = stillroom("predict", run, "data.csv", "--out", "said.csv")
    assert (told.status, "no room left on the disk" in told.error) == (1, True)


@pytest.mark.parametrize("words", [["distill", "tiny.yaml", "--run"], ["new", "ensemble", "--out"]])
def test_a_place_that_cannot_be_written(words: list[str], here: Path) -> None:
    write_recipe(here / "tiny.yaml", recipe())
    (here / "file").write_text("")
    told = stillroom(*words, "file/below")
    assert (told.status, "nothing can be written here: " in told.error) == (2, True)


# rows to predict


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", '{"length": 1, "weight": 2}', "the column 'colour' is missing (a.jsonl"),
        (
            "a.jsonl",
            '{"length": "long", "weight": 2, "colour": "red"}',
            "'long' is none (a.jsonl, row 1, column length)",
        ),
        (
            "a.jsonl",
            '{"length": null, "weight": 2, "colour": "red"}',
            "missing, or NaN) (a.jsonl, row 1, column length)",
        ),
        ("a.jsonl", "nonsense", "this line is no JSON (a.jsonl, line 1)"),
        ("a.csv", "length,weight\n1,2\n", "the column 'colour' is missing (a.csv"),
        (
            "a.csv",
            "length,weight,color\n1,2,red\n",
            "Add it, or rename the column that holds it. Did you mean 'color'? Given: color, length, weight.",
        ),
        ("a.csv", "", "this file is empty (a.csv)"),
        ("a.npz", "nonsense", "(a.npz)"),
        ("a.xls", "nonsense", "a file with the ending '.xls' cannot be read"),
    ],
)
def test_rows_that_cannot_be_predicted(name: str, content: str, told: str, here: Path, three_classes: Path) -> None:
    (here / name).write_text(content)
    found = stillroom("predict", three_classes, name)
    assert (found.status, told in found.error) == (2, True), found.err


def test_images_of_another_size_to_predict(here: Path) -> None:
    tree = data(source="builtin:digits") | {"name": "digits"}
    write_recipe(here / "tiny.yaml", tree)
    done("distill", "tiny.yaml")
    np.savez(here / "a.npz", x=np.zeros((2, 9, 9), np.uint8))
    found = stillroom("predict", "runs/digits", "a.npz")
    assert (found.status, "images of 8 x 8" in found.error, "9 x 9" in found.error) == (2, True, True)
    found = stillroom("try", "runs/digits")
    assert (found.status, "this student looks at images" in found.error) == (2, True)
    found = stillroom("export-answers", "runs/digits", "--openai", "--out", "a.jsonl")
    assert (found.status, "cannot be told as chat messages" in found.error) == (2, True)
    assert "student" in done("try", "runs/digits", "--row", 1).out


# odd, and allowed


@pytest.mark.parametrize(
    "rows",
    [
        [{"Länge ∑ [x]": row["length"], "label": row["label"]} for row in rows_of()],
        rows_of(classes=("<script>alert(1)</script>", "b" * 3000)),
        rows_of(classes=('a,"b"\n', "[red]x[/red]")),
        rows_of(classes=(True, False)),
        rows_of(classes=(1, 25, -3)),
        [{"text": f"the {row['label']} number {row['length']} of many", "label": row["label"]} for row in rows_of()],
        [{"key": row["length"], "label": row["label"]} for row in rows_of()],
        [*rows_of(), *rows_of()],
        [{**row, "constant": 1} for row in rows_of()],
        rows_of(6),
    ],
)
def test_odd_data_that_works(rows: list[dict[str, Any]], here: Path) -> None:
    write_csv(here / "data.csv", rows)
    write_recipe(here / "tiny.yaml", recipe())
    done("distill", "tiny.yaml")
    page = (here / "runs" / "tiny" / "report.html").read_text()
    assert "<script>alert(1)" not in page
    labels = [json.loads(line)["label"] for line in done("predict", "runs/tiny", "data.csv", "--json").out.splitlines()]
    assert {str(label) for label in labels} <= {str(row["label"]) for row in rows}
    done("try", "runs/tiny", "--row", 0)
    done("export-answers", "runs/tiny", "--parquet", "--out", "answers.parquet")
