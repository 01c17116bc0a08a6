"""Stillroom from Python: recipes, teachers handed over, students loaded, and every way to ask a teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import stillroom
from command_line import METRICS, events, recipe, rows_of, write_csv, write_recipe
from stillroom import flow
from stillroom.errors import DataError, InputError, ModelError, NotFinite, RecipeError
from stillroom.rundir import read_json
from stillroom.stages.opening import load, look_in

TRAINED = {"kind": "trained", "model": {"kind": "mlp", "hidden": [8]}, "epochs": 2}
WORDS = ["red", "green", "blue"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with data.csv."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    write_csv(tmp_path / "data.csv", rows_of())
    return tmp_path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a student of an earlier run on the same data."""
    home = tmp_path_factory.mktemp("saved")
    write_csv(home / "data.csv", rows_of())
    write_recipe(home / "tiny.yaml", recipe(training={"epochs": 20, "batch_size": 16}))
    return str(stillroom.distill(home / "tiny.yaml", home / "run").path / "student")


def numbers(here: Path, classes: tuple[Any, ...] = (3, 7)) -> dict[str, Any]:
    """A recipe over numbers alone, whose labels are of one's own choice."""
    rows = [{key: value for key, value in row.items() if key != "colour"} for row in rows_of(classes=classes)]
    write_csv(here / "data.csv", rows)
    return {key: value for key, value in recipe().items() if key != "teacher"} | {"teacher": {"kind": "python"}}


def models(run: Any) -> dict[str, Any]:
    found: dict[str, Any] = run.scorecard["models"]
    return found


def asked(path: Path) -> list[int]:
    """The number of calls to each teacher of a run, in the order they were first asked."""
    calls: dict[str, int] = {}
    for event in events(path, "asked"):
        calls[event["teacher"]] = calls.get(event["teacher"], 0) + event["calls"]
    return list(calls.values())


# recipes


def test_a_recipe_is_the_same_from_yaml_json_and_python(tmp_path: Path) -> None:
    tree = recipe(arms={"hot": {"objectives": [{"kind": "soft_target", "temperature": 8}]}})
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "a.json").write_text(json.dumps(tree))
    whole = stillroom.Recipe.from_tree(tree)
    assert stillroom.Recipe(**tree) == whole
    assert stillroom.Recipe.load(tmp_path / "a.yaml") == whole
    assert stillroom.Recipe.load(tmp_path / "a.json") == whole
    assert stillroom.Recipe.from_tree(whole.to_tree()) == whole


def test_distill_takes_a_mapping_a_recipe_or_a_path(here: Path) -> None:
    write_recipe(here / "tiny.yaml", recipe())
    runs = [
        stillroom.distill(given, here / name)
        for name, given in (("a", recipe()), ("b", stillroom.Recipe(**recipe())), ("c", "tiny.yaml"))
    ]
    assert len({run.scorecard["models"]["student"]["nll"]["mean"] for run in runs}) == 1
    assert "<table" in runs[0]._repr_html_()
    assert "weights" in runs[0].student._repr_html_()


def test_folders_may_be_given_as_texts(here: Path) -> None:
    stillroom.distill(recipe(), str(here / "a"), folder=str(here), until="teach")
    assert (here / "a" / "recipe.yaml").is_file()


def test_a_wrong_recipe_is_a_recipe_error(here: Path) -> None:
    with pytest.raises(RecipeError, match=r"\(training\.epohcs\)\. Did you mean 'epochs'"):
        stillroom.distill(recipe(training={"epohcs": 2}))
    with pytest.raises(RecipeError, match="the knob 'name' is missing"):
        stillroom.distill({})
    assert not (here / "runs").exists()


# teachers from Python


def test_a_scikit_learn_teacher(here: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    tree = numbers(here)
    rows = rows_of(classes=(3, 7))
    x, y = np.array([[row["length"], row["weight"]] for row in rows]), np.array([row["label"] for row in rows])
    forest = LogisticRegression().fit(x, y)
    run = stillroom.distill(tree, here / "run", teacher=forest.predict_proba)
    assert models(run)["teacher"]["accuracy"]["mean"] > 0.7
    assert "parameters" not in models(run)["teacher"]
    assert yaml.safe_load((run.path / "recipe.yaml").read_text())["teacher"]["name"] == "LogisticRegression"
    before = asked(run.path)
    stillroom.distill(tree, here / "run", teacher=forest.predict_proba)
    assert asked(run.path) == before
    other = LogisticRegression(C=0.01).fit(x, y)
    stillroom.distill(tree, here / "run", teacher=other.predict_proba)
    assert len(asked(run.path)) > len(before)


def test_a_scikit_learn_teacher_of_images(here: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    images, codes = rng.integers(0, 256, (60, 4, 4)).astype(np.uint8), np.arange(60) % 2
    np.savez(here / "d.npz", x=images, y=codes)
    teacher = LogisticRegression(max_iter=20000).fit(images.reshape(60, -1) / 255, codes)
    tree = recipe(questions={"kind": "dataset", "source": "d.npz"})
    run = stillroom.distill(tree, here / "run", teacher=teacher.predict_proba)
    assert models(run)["teacher"]["accuracy"]["mean"] > 0.3


def test_a_pipeline_over_columns_of_numbers_and_texts(here: Path) -> None:
    seen = []

    def teacher(rows: Any) -> Any:
        seen.append(rows)
        high = (rows["length"] > 0.7) & rows["colour"].isin(WORDS)
        return np.stack([0.9 - 0.8 * high, 0.1 + 0.8 * high], 1)

    run = stillroom.distill(recipe(), here / "run", teacher=teacher)
    assert list(seen[0].columns) == ["length", "weight", "colour"]
    assert models(run)["teacher"]["accuracy"]["mean"] > 0.5


class Network(torch.nn.Module):
    """A module of one's own: logits of float rows."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, classes)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.layer(rows.flatten(1)))


def test_a_teacher_from_python_teaches_the_arms_too(here: Path) -> None:
    tree = numbers(here) | {"arms": {"hot": {"objectives": [{"kind": "soft_target", "temperature": 8}]}}}
    run = stillroom.distill(tree, here / "run", teacher=lambda rows: np.full((len(rows), 2), 0.5))
    assert "hot" in models(run)
    assert len(asked(run.path)) == 1


def test_a_torch_teacher(here: Path) -> None:
    torch.manual_seed(0)
    module = Network(2, 2)
    module.train()
    run = stillroom.distill(numbers(here), here / "run", teacher=module)
    assert module.training
    assert all(weights.grad is None for weights in module.parameters())
    rows = run.student.inputs.as_raw([[0.5, 1.0]])
    assert run.student.log_probabilities(rows).shape == (1, 2)
    card = models(run)["teacher"]["nll"]["mean"]
    again = stillroom.distill(numbers(here), here / "again", teacher=module)
    assert models(again)["teacher"]["nll"]["mean"] == card


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda rows: np.full((len(rows), 3), 1 / 3), r"answered with shape \[3, 3\], not \[3, 2\]"),
        (lambda rows: np.full(len(rows), 0.5), r"answered with shape \[3\], not \[3, 2\]"),
        (lambda rows: np.full((len(rows), 2), 0.5).T, r"answered with shape \[2, 3\], not \[3, 2\]"),
        (lambda rows: np.full((len(rows), 2), 2.0), "is no probability distribution"),
        (lambda rows: np.tile([-0.5, 1.5], (len(rows), 1)), "is no probability distribution"),
        (lambda rows: np.full((len(rows), 2), np.nan), "is not finite"),
        (lambda rows: "spam", "the teacher cannot answer these rows"),
        (lambda rows: 1 / 0, "the teacher cannot answer these rows: ZeroDivisionError: division by zero"),
    ],
)
def test_a_callable_that_gives_no_probabilities(answer: Any, told: str, here: Path) -> None:
    with pytest.raises(ModelError, match=told):
        stillroom.distill(numbers(here), here / "run", teacher=answer)
    assert not (here / "run").exists()


def test_a_callable_that_fails_later_keeps_nothing_of_the_batch(here: Path) -> None:
    def teacher(rows: Any) -> Any:
        said = np.full((len(rows), 2), 0.5)
        said[10:] = np.nan
        return said

    with pytest.raises(NotFinite, match="nothing of this batch was kept"):
        stillroom.distill(numbers(here), here / "run", teacher=teacher)


def test_a_teacher_fitted_on_other_classes(here: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression().fit([[0, 0], [1, 1]], [0, 1])
    with pytest.raises(ModelError, match=r"the teacher's classes \[0, 1\] are not the data's \[3, 7\]"):
        stillroom.distill(numbers(here), here / "run", teacher=fitted.predict_proba)
    assert not (here / "run").exists()


def test_what_is_no_teacher_is_told(here: Path) -> None:
    with pytest.raises(ModelError, match="a torch module or a callable"):
        stillroom.distill(numbers(here), here / "run", teacher=5)
    with pytest.raises(ModelError, match="a torch module or a callable"):
        stillroom.distill(numbers(here), here / "run")
    assert not (here / "run").exists()


# students


def test_predict_takes_tables_in_every_form(saved: str) -> None:
    import pandas as pd

    student = stillroom.load_student(saved)
    rows = [{key: value for key, value in row.items() if key != "label"} for row in rows_of(5, seed=2)]
    said = student.predict(rows)
    assert said.label.shape == (5,)
    assert said.probabilities.dtype == np.float32
    assert said.probabilities.shape == (5, 2)
    assert said.classes == ["ham", "spam"]
    assert set(said.label) <= {"ham", "spam"}
    np.testing.assert_allclose(said.probabilities.sum(1), 1, rtol=1e-5)
    assert [said.classes[place] for place in said.probabilities.argmax(1)] == said.label.tolist()
    frame = pd.DataFrame(rows)
    shuffled = frame[["colour", "weight", "length"]]
    for given in (frame, shuffled, [list(row.values()) for row in rows], np.array(frame, dtype=object)):
        np.testing.assert_array_equal(student.predict(given).probabilities, said.probabilities)
    assert len(said) == 5
    assert "<table>" in said._repr_html_()


def test_predict_takes_arrays_and_gives_back_whole_numbers(here: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(here / "d.npz", x=x, y=(x[:, 0] > 0) * 4 + 3)
    run = stillroom.distill(recipe(questions={"kind": "dataset", "source": "d.npz"}), here / "run")
    said = stillroom.load_student(run.path).predict(x[:4])
    assert said.label.dtype.kind == "i"
    assert set(said.label.tolist()) <= {3, 7}
    with pytest.raises(DataError, match="2"):
        stillroom.load_student(run.path).predict(x[:4, :2])
    with pytest.raises(DataError, match="NaN"):
        stillroom.load_student(run.path).predict(np.full((1, 3), np.nan))


def test_predict_takes_images(here: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4)).astype(np.uint8)
    np.savez(here / "d.npz", x=images, y=np.arange(60) % 2)
    run = stillroom.distill(recipe(questions={"kind": "dataset", "source": "d.npz"}), here / "run")
    student = stillroom.load_student(run.path)
    said = student.predict(images[:3])
    np.testing.assert_array_equal(student.predict(list(images[:3])).probabilities, said.probabilities)
    with pytest.raises(DataError, match="images of 4 x 4"):
        student.predict(np.zeros((2, 5, 5), np.uint8))


def test_predict_takes_texts(here: Path) -> None:
    lines = [f"a {word} line about {word} things, number {place}" for place in range(30) for word in ("cat", "dog")]
    rows = [{"said": line, "label": "meow" if "cat" in line else "woof"} for line in lines]
    write_csv(here / "data.csv", rows)
    training = {"epochs": 20, "batch_size": 8, "learning_rate": 0.02}
    run = stillroom.distill(recipe(training=training, teacher={**TRAINED, **training}), here / "run")
    student = stillroom.load_student(run.path)
    assert student.predict(lines[:2]).label.tolist() == ["meow", "woof"]
    assert student.predict(lines[0]).label.tolist() == ["meow"]
    assert student.predict([{"said": lines[1]}]).label.tolist() == ["woof"]


@pytest.mark.parametrize("labels", [(True, False), (1.5, 2.5), (0, 1), ("0", "1")])
def test_labels_come_back_as_they_were_given(labels: tuple[Any, ...], here: Path) -> None:
    rows = rows_of(classes=labels)
    (here / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    run = stillroom.distill(recipe(questions={"kind": "dataset", "source": "data.jsonl"}), here / "run")
    for given in stillroom.load_student(run.path).predict(rows).label.tolist():
        assert given in labels
        assert type(given) is type(labels[0])


def test_a_folder_that_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        stillroom.load_student(tmp_path)


# ensembles


def members(count: int) -> dict[str, Any]:
    return {"kind": "ensemble", "members": [{**TRAINED, "seed": seed} for seed in range(count)]}


def test_a_fourth_member_is_asked_alone(here: Path) -> None:
    run = stillroom.distill(recipe(teacher=members(3)), here / "run")
    assert asked(run.path) == [90, 90, 90, 0]
    stillroom.distill(recipe(teacher=members(4)), here / "run")
    assert asked(run.path)[4:] == [90, 0]
    assert [event["name"] for event in events(run.path, "taught")] == [f"teacher/{place}" for place in range(4)]


def test_size_and_member_is_a_list_of_members(here: Path) -> None:
    first = stillroom.distill(recipe(teacher=members(2)), here / "a")
    second = stillroom.distill(recipe(teacher={"kind": "ensemble", "size": 2, "member": TRAINED}), here / "b")
    assert models(first)["teacher"]["nll"] == models(second)["teacher"]["nll"]


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_means_and_weights(mean: str, here: Path) -> None:
    tree = members(2) | {"mean": mean, "weights": [3, 1]}
    run = stillroom.distill(recipe(teacher=tree), here / "run")
    shares = []
    for place in range(2):
        member = stillroom.load_student(run.path / "teacher" / str(place))
        shares.append(member.predict([row for row in rows_of()]).probabilities.astype(np.float64))
    if mean == "arithmetic":
        merged = (3 * shares[0] + shares[1]) / 4
    else:
        merged = np.exp((3 * np.log(shares[0]) + np.log(shares[1])) / 4)
        merged /= merged.sum(1, keepdims=True)
    stored = np.fromfile(run.path / "evaluation" / "predictions" / "teacher.0.test.f32", np.float32).reshape(-1, 2)
    whole, folder = load(run.path / "recipe.yaml")
    test = whole.questions.build(look_in(folder)).test
    np.testing.assert_allclose(np.exp(stored.astype(np.float64)), merged[test.row_N], atol=2e-3)
    assert np.ptp(merged[test.row_N, 0]) > 0.1, "rows differ, so that one is not taken for another"


def test_an_ensemble_of_different_kinds(here: Path, saved: str) -> None:
    teacher = {"kind": "ensemble", "members": [TRAINED, {"kind": "saved", "model": saved, "licence": "CC0"}]}
    run = stillroom.distill(recipe(teacher=teacher), here / "run")
    headers = [read_json(path) for path in run.path.glob("transfer_set/*/teacher.json")]
    merged = next(header for header in headers if header["kind"] == "ensemble")
    assert merged["licences"] == {"teacher": "unknown", "teacher.0": "unknown", "teacher.1": "CC0"}
    assert "CC0" in (run.path / "student" / "README.md").read_text()


# one recipe, many shapes


def test_a_saved_teacher(here: Path, saved: str) -> None:
    run = stillroom.distill(recipe(teacher={"kind": "saved", "model": saved}), here / "run")
    assert not (run.path / "teacher").exists()
    assert models(run)["teacher"]["parameters"] == stillroom.load_student(saved).parameters


def test_no_training_row_has_a_label(here: Path, saved: str) -> None:
    rows = rows_of()
    for name, part in (
        ("train", [{**row, "label": ""} for row in rows]),
        ("validation", rows[:20]),
        ("test", rows[20:]),
    ):
        write_csv(here / f"{name}.csv", part)
    source = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    questions = {"kind": "dataset", "source": source}
    run = stillroom.distill(recipe(questions=questions, teacher={"kind": "saved", "model": saved}), here / "run")
    assert "control" not in models(run)
    assert "absent" in run.scorecard["gap_recovered"]
    assert run.scorecard["rows"]["labelled"] == 0
    assert (run.path / "report.html").stat().st_size > 1000
    with pytest.raises(RecipeError, match="no training row has a label"):
        stillroom.distill(recipe(questions=questions, name="other"), here / "other")
    assert not (here / "other").exists()


def test_arms_with_other_objectives_students_teachers_and_targets(here: Path, saved: str) -> None:
    arms = {
        "labels": {"objectives": [{"kind": "hard_label"}]},
        "wide": {"student": {"model": {"hidden": [16]}}},
        "other": {"teacher": {"kind": "saved", "model": saved}},
        "permuted": {"transfer_set": {"wrong_classes": "permuted"}},
        "smooth": {"transfer_set": {"wrong_classes": "uniform"}},
    }
    run = stillroom.distill(recipe(arms=arms), here / "run")
    assert set(arms) <= set(models(run))
    assert models(run)["wide"]["parameters"] > models(run)["student"]["parameters"]
    assert models(run)["labels"]["nll"]["mean"] == pytest.approx(models(run)["control"]["nll"]["mean"])
    assert len(asked(run.path)) == 2
    before = [event["name"] for event in events(run.path, "trained")]
    stillroom.distill(recipe(arms={**arms, "new": {"training": {"epochs": 1}}}), here / "run")
    assert [event["name"] for event in events(run.path, "trained")][len(before) :] == ["arms/new"]


@pytest.mark.parametrize(
    ("objectives", "there"),
    [
        ([{"kind": "soft_target"}], True),
        ([{"kind": "soft_target"}, {"kind": "hard_label", "weight": 0.1}], True),
        ([{"kind": "hard_label", "from": "teacher"}], False),
        ([{"kind": "hidden"}, {"kind": "hard_label"}], False),
    ],
)
def test_the_hard_teacher_stands_only_beside_soft_targets(
    objectives: list[dict[str, Any]], there: bool, here: Path
) -> None:
    run = stillroom.distill(recipe(objectives=objectives), here / "run")
    assert ("hard_teacher" in models(run)) is there
    assert "student-control" in run.scorecard["differences"]
    assert ("student-hard_teacher" in run.scorecard["differences"]) is there


def test_temperature_auto_is_settled_on_validation(here: Path) -> None:
    run = stillroom.distill(recipe(objectives=[{"kind": "soft_target", "temperature": "auto"}]), here / "run")
    chosen = read_json(run.path / "tuning" / "student" / "chosen.json")
    tried = {float(heat): (-one["accuracy"], one["loss"]) for heat, one in chosen["tried"].items()}
    assert len(set(tried.values())) > 1
    assert chosen["temperature"] == min(tried, key=lambda heat: tried[heat])
    # The student is the one of that temperature, bit for bit, and of no other.
    made = {
        float(path.parent.name): path.read_bytes() for path in (run.path / "tuning").glob("student/*/model.safetensors")
    }
    student = (run.path / "student" / "model.safetensors").read_bytes()
    assert [heat for heat, weights in made.items() if weights == student] == [chosen["temperature"]]
    before = len(events(run.path, "trained"))
    stillroom.distill(recipe(objectives=[{"kind": "soft_target", "temperature": "auto"}]), here / "run")
    assert len(events(run.path, "trained")) == before


@pytest.mark.parametrize("prior", ["labels", "teacher", "uniform"])
def test_class_prior(prior: str, here: Path) -> None:
    questions = {"kind": "dataset", "source": "data.csv", "omit": ["c"]}
    write_csv(here / "data.csv", rows_of(120, classes=("a", "b", "c")))
    run = stillroom.distill(recipe(questions=questions, training={"epochs": 2, "class_prior": prior}), here / "run")
    assert run.scorecard["omitted_classes"] == ["c"]
    assert {"student_uncorrected", "student_oracle"} <= set(models(run))
    bias = read_json(run.path / "student" / "config.json")["class_bias"]
    assert any(bias)


@pytest.mark.parametrize("sections", [{"transfer_set": {"live": True}}, {"questions": "augmented"}])
def test_a_class_prior_of_the_teacher_is_of_the_rows_as_they_are(sections: dict[str, Any], here: Path) -> None:
    """Also where the students learn from other answers: of a live teacher, or to augmented views."""
    questions = images(here) if "questions" in sections else recipe()["questions"]
    tree = recipe(**{**sections, "questions": questions}, training={"epochs": 1, "class_prior": "teacher"})
    run = stillroom.distill(tree, here / "run")
    assert any(read_json(run.path / "student" / "config.json")["class_bias"])


def test_an_arm_may_want_more_answers_than_the_student(here: Path) -> None:
    arms = {"stored": {"transfer_set": {"live": False}}, "prior": {"training": {"class_prior": "teacher"}}}
    run = stillroom.distill(recipe(transfer_set={"live": True}, arms=arms), here / "run")
    assert set(arms) <= set(models(run))


@pytest.mark.parametrize("kind", ["saved", "trained", "ensemble"])
def test_an_independent_teacher(kind: str, here: Path, saved: str) -> None:
    other: dict[str, Any] = {
        "saved": {"kind": "saved", "model": saved},
        "trained": {**TRAINED, "seed": 9},
        "ensemble": members(2),
    }[kind]
    evaluation = {"metrics": METRICS, "independent_teacher": other}
    run = stillroom.distill(recipe(evaluation=evaluation), here / "run")
    assert "agreement_with_independent_teacher" in models(run)["student"]
    assert "mistake_severity" in models(run)["student"] or models(run)["student"]["errors"]["mean"] == 0
    before = len(events(run.path, "taught"))
    stillroom.distill(recipe(evaluation=evaluation), here / "run")
    assert len(events(run.path, "taught")) == before


def test_groups_give_severity(here: Path) -> None:
    write_csv(here / "data.csv", rows_of(120, classes=("cat", "dog", "car")))
    evaluation = {"metrics": METRICS, "groups": {"animals": ["cat", "dog"]}}
    run = stillroom.distill(recipe(evaluation=evaluation), here / "run")
    said = run.path / "evaluation" / "predictions"
    classes = np.array(read_json(said / "predictions.json")["classes"])
    label_N = classes[np.fromfile(said / "test.labels.i64", "<i8")]
    answer_N = classes[np.fromfile(said / "student.0.test.f32", "<f4").reshape(len(label_N), 3).argmax(1)]
    wrong_N = label_N != answer_N
    within_N = wrong_N & (label_N != "car") & (answer_N != "car")
    assert 0 < within_N.sum() < wrong_N.sum()  # mistakes of both kinds; one between animals is half as severe
    severity = 1 - 0.5 * within_N.sum() / wrong_N.sum()
    assert models(run)["student"]["mistake_severity"]["mean"] == pytest.approx(severity)


def images(here: Path) -> dict[str, Any]:
    """Questions of small images with two augmentations."""
    drawn = np.random.default_rng(0).integers(0, 256, (60, 4, 4)).astype(np.uint8)
    np.savez(here / "d.npz", x=drawn, y=np.arange(60) % 2)
    return {"kind": "dataset", "source": "d.npz", "augment": [{"kind": "shift", "pixels": 1}, {"kind": "flip"}]}


def test_views_are_asked_once_each(here: Path) -> None:
    run = stillroom.distill(recipe(questions=images(here) | {"views": 3}), here / "run")
    rows = run.scorecard["rows"]
    assert asked(run.path) == [3 * rows["train"] + rows["validation"] + rows["test"]]
    stillroom.distill(recipe(questions=images(here) | {"views": 4}), here / "run")
    assert asked(run.path) == [4 * rows["train"] + rows["validation"] + rows["test"]]


def test_a_live_teacher_with_mixup_keeps_no_training_answers_and_its_calls_are_counted(here: Path) -> None:
    tree = recipe(
        questions=images(here), transfer_set={"live": True}, training={"epochs": 2, "batch_size": 16, "mixup": 0.4}
    )
    planned = flow.plan(stillroom.Recipe(**tree), folder=here)["figures"]["teacher calls"]
    run = stillroom.distill(tree, here / "run")
    rows = run.scorecard["rows"]
    assert asked(run.path) == [rows["validation"] + rows["test"]]
    students = 2 * run.scorecard["rows"]["train"] * len(run.scorecard["seeds"])  # the student, and that of hard answers
    assert run.scorecard["cost"]["teacher_calls"] == planned == 2 * students + rows["validation"] + rows["test"]


def test_a_live_teacher_is_not_asked_where_labels_alone_are_learned(here: Path) -> None:
    counted, train_rows = {"arm": 0, "none": 0}, 0

    def answering(name: str) -> Any:
        def teacher(rows: Any) -> Any:
            counted[name] += len(rows)
            return np.full((len(rows), 2), 0.5)

        return teacher

    training = {"epochs": 2, "batch_size": 16, "mixup": 0.4}
    arm = {"objectives": [{"kind": "hard_label"}], "transfer_set": {"live": True}, "training": training}
    for name, arms in (("arm", {"mixed": arm}), ("none", {})):
        tree = recipe(questions=images(here), teacher={"kind": "python"}, arms=arms)
        run = stillroom.distill(tree, here / name, teacher=answering(name))
        assert ("mixed" in models(run)) is (name == "arm")
        train_rows = run.scorecard["rows"]["train"]
    assert counted["arm"] < counted["none"] + train_rows, "each epoch of the arm would ask once for every training row"


def test_a_class_that_no_test_row_has_is_still_a_class(here: Path) -> None:
    rows = rows_of(60, classes=("ham", "spam", "egg"))
    write_csv(here / "train.csv", rows)
    write_csv(here / "test.csv", [row for row in rows_of(60, ("ham", "spam", "egg"), 3) if row["label"] != "egg"])
    source = {"train": "train.csv", "test": "test.csv"}
    run = stillroom.distill(recipe(questions={"kind": "dataset", "source": source}), here / "run")
    details = read_json(run.path / "evaluation" / "details.json")
    assert sorted(details["classes"]) == ["egg", "ham", "spam"]
    assert sorted(details["similarity"]["classes"]) == ["ham", "spam"]
    assert all(len(one["probabilities"]["teacher"]) == 3 for one in details["examples"])
    page = (run.path / "report.html").read_text()
    assert "of the largest possible with 2 classes" not in page
    assert "where it is the same on all 3" in page
    assert "Single rows" in page


def test_a_run_that_is_not_finished_shows_itself_and_wrong_words_are_told(here: Path) -> None:
    begun = stillroom.distill(recipe(), here / "run", until="ask")
    assert "has no scorecard yet" in begun._repr_html_()
    with pytest.raises(InputError, match=r"there is no stage 'tran'.*Did you mean 'train'"):
        stillroom.distill(recipe(), here / "run", until="tran")
    with pytest.raises(RecipeError, match=r"there is no arm 'hit'.*Did you mean 'hot'"):
        stillroom.Recipe(**recipe(arms={"hot": {"training": {"epochs": 3}}})).arm("hit")


@pytest.mark.parametrize("live", [True, False])
def test_the_hidden_objective(live: bool, here: Path) -> None:
    objectives = [{"kind": "hidden", "weight": 2}, {"kind": "soft_target"}]
    run = stillroom.distill(recipe(objectives=objectives, transfer_set={"live": live}), here / "run")
    history = read_json(run.path / "student" / "history.json")
    assert set(history["gradient_norms"]) == {"hidden", "soft_target"}


@pytest.mark.parametrize("weights", ["balanced", {"ham": 3}])
def test_class_weights_change_the_student(weights: Any, here: Path) -> None:
    write_csv(here / "data.csv", rows_of() + [row for row in rows_of(60, seed=5) if row["label"] == "ham"])
    even = stillroom.distill(recipe(), here / "even")
    questions = {"kind": "dataset", "source": "data.csv", "class_weights": weights}
    uneven = stillroom.distill(recipe(questions=questions), here / "uneven")
    assert models(even)["student"]["nll"] != models(uneven)["student"]["nll"]


def test_recorded_answers_for_the_training_rows_alone(here: Path) -> None:
    """The teacher is then not scored on test, and the report still stands."""
    rows = rows_of()
    write_csv(here / "train.csv", rows[:60])
    write_csv(here / "test.csv", rows[60:])
    write_csv(here / "answers.csv", [{**row, "p_ham": 0.8, "p_spam": 0.2} for row in rows[:60]])
    questions = {"kind": "dataset", "source": {"train": "train.csv", "test": "test.csv"}}
    teacher = {"kind": "recorded", "source": "answers.csv"}
    run = stillroom.distill(recipe(questions=questions, teacher=teacher), here / "run")
    assert "accuracy" not in models(run).get("teacher", {})
    assert "accuracy" in models(run)["student"]
    assert (run.path / "report.html").is_file()


def test_another_column_of_recorded_answers_is_another_teacher(here: Path) -> None:
    other = {"ham": "spam", "spam": "ham"}
    write_csv(here / "answers.csv", [{**row, "right": row["label"], "wrong": other[row["label"]]} for row in rows_of()])
    for column, accuracy in (("right", 1), ("wrong", 0)):
        teacher = {"kind": "recorded", "source": "answers.csv", "answer": column}
        objectives = [{"kind": "hard_label", "from": "teacher"}]
        run = stillroom.distill(recipe(teacher=teacher, objectives=objectives), here / "run")
        assert models(run)["teacher"]["accuracy"]["mean"] == accuracy


def test_a_licence_that_is_said_later_reaches_the_card(here: Path) -> None:
    run = stillroom.distill(recipe(), here / "run")
    trained = len(events(run.path, "trained"))
    stillroom.distill(recipe(teacher={**TRAINED, "licence": "CC-BY-4.0"}), here / "run")
    assert "CC-BY-4.0" in (run.path / "student" / "README.md").read_text()
    assert len(events(run.path, "trained")) == trained


def test_spoiled_answers_beside_the_hidden_layer(here: Path) -> None:
    objectives = [{"kind": "hidden"}, {"kind": "soft_target"}]
    arms = {"labels": {"objectives": [{"kind": "hard_label"}]}}
    tree = recipe(objectives=objectives, transfer_set={"wrong_classes": "permuted"}, arms=arms)
    assert "labels" in models(stillroom.distill(tree, here / "run"))


def test_chosen_answers_teach_by_hard_labels(here: Path) -> None:
    write_csv(here / "answers.csv", [{**row, "answer": row["label"]} for row in rows_of()])
    teacher = {"kind": "recorded", "source": "answers.csv"}
    run = stillroom.distill(
        recipe(teacher=teacher, objectives=[{"kind": "hard_label", "from": "teacher"}]), here / "run"
    )
    assert models(run)["teacher"]["accuracy"]["mean"] == 1
    # A class that was chosen is no probability: its log loss would be endless, and so would be every difference to it.
    apart = run.scorecard["differences"]
    assert {"accuracy", "errors"} <= set(apart["student-teacher"])
    assert not any("nll" in figures for pair, figures in apart.items() if "teacher" in pair.split("-"))
    assert "nll" in apart["student-control"]
