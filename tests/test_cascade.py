"""The cascade: the student where it is sure, the teacher elsewhere, and what the teacher says is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom import flow, inputs, rundir
from stillroom.cascade import Cascade, FromScratch
from stillroom.errors import CorruptFile, InputError, RecipeError
from stillroom.evaluation.deferral import Deferral
from stillroom.kinds import parse
from stillroom.models.device import Device
from stillroom.recipe import Training
from stillroom.rows import Answers, Questions
from stillroom.rundir import read_json

CLASSES = ["in", "out"]
NEVER = Deferral(None, 0.05, 0, 0.0, 0.0, 1.0)


def rule(raw: Any) -> np.ndarray:
    return ((np.asarray(raw, float)[:, :2] ** 2).sum(1) > 1.4).astype(np.int64)


class Teacher:
    """Follows the rule, counts what it is asked, and refuses where a third column says so."""

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    def __call__(self, questions: Questions) -> Answers:
        raw = questions.raw
        assert not isinstance(raw, dict)
        self.asked.append(raw)
        logs_NC = np.full((len(raw), 2), -9.0, np.float32)
        logs_NC[np.arange(len(raw)), rule(raw)] = -1e-4
        return Answers(logs_NC, answered_N=raw[:, 2] < 2.5)


def stream(rows: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(rows, 3)) + [shift, 0, 0]).astype(np.float32)


def learner() -> FromScratch:
    learned = inputs.learn(stream(200, 99))
    model, objective = (
        parse("model", {"kind": "mlp", "hidden": [16]}),
        parse("objective", {"kind": "hard_label", "from": "teacher"}),
    )
    knobs = Training(batch_size=32, learning_rate=0.01)
    return FromScratch(model, learned, CLASSES, [objective], knobs, 200, Device())


@pytest.fixture(scope="module")
def student() -> Any:
    raw = stream(500, 1)
    return learner()(Questions.of(raw), Teacher()(Questions.of(raw)).log_probabilities_NC)


@pytest.fixture(scope="module")
def settled(student: Any) -> Deferral:
    raw = stream(600, 2)
    return Deferral.settle(student.log_probabilities(raw), rule(raw), 0.02)


def test_the_teacher_is_asked_just_where_the_student_is_not_sure(student: Any, settled: Deferral) -> None:
    teacher, raw = Teacher(), stream(1000, 3)
    cascade = Cascade(student, settled, teacher)
    said = cascade.answer(raw)
    sure_N = settled.sure(student.log_probabilities(raw))
    np.testing.assert_array_equal(said.asked_N, ~sure_N)
    np.testing.assert_array_equal(np.concatenate(teacher.asked), raw[~sure_N])
    right_N = np.array([CLASSES[place] for place in rule(raw)]) == said.label
    assert right_N[said.asked_N & (raw[:, 2] < 2.5)].all()
    assert 0.5 < 1 - said.asked_N.mean() < 1
    assert 1 - right_N.mean() < 0.04
    assert (cascade.calls, cascade.rows) == (int(said.asked_N.sum()), 1000)
    assert said.probabilities.shape == (1000, 2)


def test_what_the_teacher_refuses_the_student_answers(student: Any) -> None:
    raw = stream(50, 4)
    raw[:, 2] = 3.0
    said = Cascade(student, NEVER, Teacher()).answer(raw)
    assert said.asked_N.all()
    assert said.label.tolist() == student.predict(raw).label.tolist()


def test_a_cascade_that_learns_asks_less_and_less(student: Any) -> None:
    teacher = Teacher()
    cascade = Cascade(None, NEVER, teacher, classes=CLASSES, learn=learner(), every=150)
    shares, wrong = [], 0
    for part in np.array_split(stream(3000, 5), 30):
        said = cascade.answer(part)
        shares.append(float(said.asked_N.mean()))
        wrong += int((np.array([CLASSES[place] for place in rule(part)]) != said.label).sum())
    assert shares[0] == 1.0
    assert np.mean(shares[-10:]) < 0.3
    assert cascade.trained >= 2
    assert wrong / 3000 < 0.08
    told = cascade.told.questions, cascade.held_out.questions
    assert told[0] is not None
    assert told[1] is not None
    keys = [{key.tobytes() for key in one.key_N} for one in told if one is not None]
    assert not keys[0] & keys[1], "what is held out is never learned from"


def test_audits_notice_that_what_is_asked_has_changed(student: Any, settled: Deferral) -> None:
    """Rows move to where the student was never trained; its threshold is set anew without a new student."""
    cascade = Cascade(student, settled, Teacher(), learn=learner(), every=10**9, audit=1.0, last=200)
    cascade.answer(stream(1500, 6))
    before = cascade.deferral.threshold_nats
    for part in np.array_split(stream(1500, 7, shift=1.2), 10):
        cascade.answer(part)
    assert cascade.trained == 0
    assert len(cascade.held_out) == 200
    assert before is not None
    assert cascade.deferral.threshold_nats != before


def test_a_threshold_stands_until_held_out_rows_suffice_for_another(student: Any, settled: Deferral) -> None:
    """At a risk of 2 % that takes 49 rows; set on fewer, none allows any answer, and everything would be asked."""
    cascade = Cascade(student, settled, Teacher(), learn=learner(), every=5, audit=0.2, last=200)
    rows, shares = iter(stream(4000, 11)[:, None]), []
    while len(cascade.held_out) < 48:
        shares.append(float(cascade.answer(next(rows)).asked_N.mean()))
        assert cascade.deferral == settled
        assert cascade.student is student, "its threshold says nothing of another student"
    assert np.mean(shares) < 0.6
    while not cascade.trained:
        cascade.answer(next(rows))
    assert cascade.deferral.rows >= 49
    assert cascade.deferral.threshold_nats is not None


def recipe(folder: Path) -> dict[str, Any]:
    raw = stream(900, 8)
    raw[:, 2] = 0
    np.savez(folder / "rows.npz", x_train=raw[:700], y_train=rule(raw[:700]), x_test=raw[700:], y_test=rule(raw[700:]))
    return {
        "name": "cascade",
        "seeds": 2,
        "questions": {"kind": "dataset", "source": str(folder / "rows.npz"), "split": {"validation": 200}},
        "teacher": {"kind": "trained", "model": {"kind": "mlp", "hidden": [32]}, "epochs": 30},
        "student": {"kind": "fresh", "model": {"kind": "mlp", "hidden": [8]}},
        "objectives": [{"kind": "hard_label", "from": "teacher"}],
        "training": {"epochs": 30, "batch_size": 16, "learning_rate": 0.01},
        "cascade": {"risk": 0.05},
        "evaluation": {"metrics": ["accuracy"]},
    }


def test_a_run_leaves_a_cascade_and_says_what_it_is_worth(tmp_path: Path) -> None:
    tree = {**recipe(tmp_path), "rounds": {"strategy": "margin", "start": 40, "budgets": [100, 200], "audit": 0.2}}
    run = flow.distill(tree, tmp_path / "run", until="evaluate")
    told = run.scorecard["cascade"]
    kept = read_json(tmp_path / "run" / "student" / "cascade.json")
    assert (kept["validation_rows"], kept["audit_rows"], kept["rows"]) == (200, 40, 240)
    assert told["threshold_nats"] == kept["threshold_nats"]
    assert told["risk"]["mean"] < 0.12
    assert 0.4 < told["coverage"]["mean"] <= 1
    assert len(told["coverage"]["per_seed"]) == 2
    teacher = Teacher()
    cascade = Cascade.load(tmp_path / "run", teacher)
    assert cascade.deferral == Deferral.of(kept)
    test = np.load(tmp_path / "rows.npz")["x_test"]
    assert 1 - cascade.answer(test).asked_N.mean() == pytest.approx(told["coverage"]["per_seed"][0])
    (tmp_path / "run" / "student" / "cascade.json").unlink()
    flow.distill(tree, tmp_path / "run", until="evaluate")
    assert read_json(tmp_path / "run" / "student" / "cascade.json") == kept


def test_a_student_without_a_cascade_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no threshold"):
        Cascade.load(tmp_path, Teacher())


def test_a_threshold_is_set_on_rows_that_nobody_chose_by(tmp_path: Path) -> None:
    rounds = {"strategy": "margin", "start": 40, "budgets": [100, 200], "audit": 0.2}
    tree = {**recipe(tmp_path), "seeds": 1, "rounds": rounds}
    tree["training"] = {**tree["training"], "patience": 3}
    flow.distill(tree, tmp_path / "run", until="evaluate")
    kept = read_json(tmp_path / "run" / "student" / "cascade.json")
    assert (kept["validation_rows"], kept["audit_rows"], kept["rows"]) == (0, 40, 40)


@pytest.mark.parametrize(
    ("sections", "knob"),
    [
        ({"training": {"patience": 3}}, "training.patience"),
        ({"objectives": [{"kind": "soft_target", "temperature": "auto"}]}, "objectives, temperature: auto"),
        (
            {"training": {"patience": 3}, "rounds": {"strategy": "margin", "start": 40, "budgets": [100], "audit": 0}},
            "training.patience",
        ),
    ],
)
def test_a_cascade_of_a_student_chosen_on_its_only_rows_is_refused(
    sections: dict[str, Any], knob: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="would promise too much") as raised:
        flow.distill({**recipe(tmp_path), **sections}, tmp_path / "run")
    assert raised.value.where == f"cascade, {knob}"


def streamed(cascade: Cascade, raw: np.ndarray, parts: int) -> list[np.ndarray]:
    return [cascade.answer(part).probabilities for part in np.array_split(raw, parts)]


def test_a_saved_cascade_goes_on_as_if_it_had_never_ended(tmp_path: Path) -> None:
    """Two halves with a save between them say, ask and learn what one whole does."""
    whole, first = (Cascade(None, NEVER, Teacher(), classes=CLASSES, learn=learner(), every=150) for _ in range(2))
    halves = stream(900, 5), stream(900, 6)
    streamed(whole, halves[0], 9)
    streamed(first, halves[0], 9)
    assert first.trained
    first.save(tmp_path / "kept")
    first.save(tmp_path / "kept")
    asked = Teacher()
    second = Cascade.load(tmp_path / "kept", asked, learn=True)
    assert (second.calls, second.rows, second.trained) == (first.calls, first.rows, first.trained)
    assert (len(second.told), len(second.held_out)) == (len(first.told), len(first.held_out))
    for one, other in zip(streamed(whole, halves[1], 9), streamed(second, halves[1], 9), strict=True):
        np.testing.assert_array_equal(one, other)
    assert second.deferral == whole.deferral
    assert second.trained == whole.trained > first.trained
    assert second.told.questions is not None
    assert whole.told.questions is not None
    assert second.told.questions.fingerprint() == whole.told.questions.fingerprint()
    assert sorted(one.name for one in (tmp_path / "kept").iterdir()) == ["2", "cascade.json"]


def test_a_saved_cascade_of_texts_without_a_student_keeps_what_was_said(tmp_path: Path) -> None:
    def ask(questions: Questions) -> Answers:
        return Answers(np.log(np.tile(np.float32([0.9, 0.1]), (len(questions), 1))))

    before = Cascade(None, NEVER, ask, classes=CLASSES, learn=lambda *_: pytest.fail("too early"), audit=0.0)
    rows = {"text": np.array(["eins", "zwei ß", ""], object), "size": np.array([1.0, np.nan, 3.0])}
    before.answer(rows)
    before.save(tmp_path / "kept")
    after = Cascade.load(tmp_path / "kept", ask, learn=lambda *_: pytest.fail("too early"), every=7)
    assert (after.student, after.classes, after.every, after.audit) == (None, CLASSES, 7, 0.0)
    assert after.told.questions is not None
    assert before.told.questions is not None
    assert after.told.questions.fingerprint() == before.told.questions.fingerprint()
    np.testing.assert_array_equal(after.told.logs_NC, before.told.logs_NC)
    with pytest.raises(InputError, match="how this cascade learns is not kept with it"):
        Cascade.load(tmp_path / "kept", ask, learn=True)


def test_a_save_that_is_stopped_leaves_the_one_before(
    student: Any, settled: Deferral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascade = Cascade(student, settled, Teacher(), learn=learner(), every=10**9)
    cascade.save(tmp_path / "kept")
    cascade.answer(stream(40, 3))
    left: list[int] = []

    def at_a_commit_point() -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()

    monkeypatch.setattr(rundir, "commit_point", at_a_commit_point)
    stopped = 0
    while True:
        left[:] = [0] * stopped
        try:
            cascade.save(tmp_path / "kept")
            break
        except KeyboardInterrupt:
            stopped += 1
            there = Cascade.load(tmp_path / "kept", Teacher(), learn=True)
            assert (there.calls, len(there.told) + len(there.held_out)) in (
                (0, 0), (cascade.calls, len(cascade.told) + len(cascade.held_out)),
            )  # fmt: skip
    assert stopped > 10
    assert Cascade.load(tmp_path / "kept", Teacher()).calls == cascade.calls > 0


def test_a_cascade_is_not_saved_over_something_else(student: Any, settled: Deferral, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    cascade = Cascade(student, settled, Teacher())
    with pytest.raises(InputError, match="something else"):
        cascade.save(tmp_path)
    cascade.save(tmp_path / "kept")
    (tmp_path / "kept" / "1" / "student" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CorruptFile, match="not whole"):
        Cascade.load(tmp_path / "kept", Teacher())
