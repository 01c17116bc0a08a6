"""The loop divides once, resumes bit for bit, and keeps a seeded toy's golden numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillroom import inputs
from stillroom.errors import NotFinite
from stillroom.kinds import Setting, parse
from stillroom.models.device import Device
from stillroom.objectives.weighted_sum import WeightedSum
from stillroom.recipe import Training
from stillroom.rows import Questions
from stillroom.training import schedule
from stillroom.training.batches import Batches, Source
from stillroom.training.loop import Hooks, Trainer
from stillroom.training.steps import steps_in


class Stop(Exception):
    """What a test raises to end a training at a step of its choice."""


def questions(rows: int = 40, seed: int = 0) -> Questions:
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(rows, 6))
    label_N = (raw[:, 0] + raw[:, 1] > 0).astype(np.int64) + (raw[:, 2] > 1)
    return Questions.of(raw, label_N)


class Echo:
    """A small true teacher: softened one-hot answers of a rule."""

    fingerprint, hidden_width = "echo", None
    classes = [0, 1, 2]  # noqa: RUF012

    def answer(self, asked: Questions, view: int = 0):  # type: ignore[no-untyped-def]
        from stillroom.rows import Answers

        assert not isinstance(asked.raw, dict)
        logits = np.stack([-asked.raw[:, 0], asked.raw[:, 1], asked.raw[:, 2]], 1)
        logs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        return Answers(logs, asked.raw.astype(np.float32))


OBJECTIVES: list[dict[str, Any]] = [{"kind": "soft_target", "temperature": 3}, {"kind": "hard_label", "weight": 0.5}]


def trainer(work: Path, knobs: Training, steps: int, rows: Questions | None = None, **options: Any) -> Trainer:
    rows = questions() if rows is None else rows
    torch.manual_seed(7)
    network = parse("model", {"kind": "mlp", "hidden": [16], "dropout": options.pop("dropout", 0.3)}).build((6,), 3)
    hidden = options.pop("hidden", False)
    objectives = [*OBJECTIVES, *([{"kind": "hidden"}] if hidden else [])]
    loss = WeightedSum([parse("objective", one) for one in objectives], Setting(3, 16, 6, None))
    source = Source(rows, inputs.learn(rows.raw), live=Echo(), with_hidden=hidden)
    batches = Batches(source, knobs.batch_size, 3, Device())
    work.mkdir(parents=True, exist_ok=True)
    return Trainer(network, loss, batches, knobs, steps, Device(), work, Hooks(**options))


def weights(trained: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


def test_accumulating_8_and_2_rows_equals_the_whole_batch_of_10(tmp_path: Path) -> None:
    """The mean over micro-batches of different sizes must be the mean over rows, each term by its own count."""
    rows = questions(10)
    rows.label_N[[1, 4, 5]] = -1
    plain: Any = {"optimiser": "sgd", "learning_rate": 0.1, "clip": None}  # AdamW's steps are the same at any scale
    whole = trainer(tmp_path / "a", Training(batch_size=10, **plain), 1, rows, dropout=0.0)
    parts = trainer(tmp_path / "b", Training(batch_size=8, accumulate=2, **plain), 1, rows, dropout=0.0)
    before = weights(whole)
    for one in (whole, parts):
        one.batches.order(0)
        one.batches._order_N = torch.arange(10)
        one.train()
    for name, tensor in weights(whole).items():
        assert not torch.equal(tensor, before[name])
        moved, moved_in_parts = tensor - before[name], weights(parts)[name] - before[name]
        torch.testing.assert_close(moved, moved_in_parts, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("stop_at", [1, 7, 23])
@pytest.mark.parametrize(
    "knobs", [{}, {"optimiser": "sgd"}, {"patience": 50}, {"clip": 0.5, "accumulate": 2, "max_norm": 0.7}]
)
def test_a_stopped_and_resumed_training_equals_an_unstopped_one_bit_for_bit(
    tmp_path: Path, knobs: dict[str, Any], stop_at: int
) -> None:
    settings = Training(batch_size=16, **knobs)
    straight = trainer(tmp_path / "straight", settings, 30, validate=_validation_loss)
    straight.train()
    done = 0

    def count(steps: int) -> None:
        nonlocal done
        done += steps

    def stop() -> None:
        if done == stop_at:
            raise Stop

    stopped = trainer(tmp_path / "stopped", settings, 30, validate=_validation_loss, stepped=count, may_go_on=stop)
    with pytest.raises(Stop):
        stopped.train()
    torch.manual_seed(999)  # a new process has another random state
    told: list[tuple[str, int]] = []
    resumed = trainer(
        tmp_path / "stopped", settings, 30, validate=_validation_loss, resumed=lambda steps: told.append(("found", steps)),
        stepped=lambda steps: told.append(("done", steps)),
    )  # fmt: skip
    history = resumed.train()
    assert told == [("found", stop_at), *[("done", 1)] * (straight.history.steps - stop_at)]
    for name, tensor in weights(straight).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    assert history.curve == straight.history.curve
    assert history.gradient_norms == straight.history.gradient_norms


def _validation_loss(network: torch.nn.Module) -> dict[str, float]:
    return {"validation_loss": float(sum(weight.detach().abs().sum() for weight in network.parameters()))}


def test_patience_keeps_the_best_weights(tmp_path: Path) -> None:
    losses = iter([5.0, 3.0, 4.0, 4.5, 1.0])
    kept: list[dict[str, torch.Tensor]] = []

    def look(network: torch.nn.Module) -> dict[str, float]:
        kept.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"validation_loss": next(losses)}

    trained = trainer(tmp_path, Training(batch_size=40, epochs=20, patience=2), 20, validate=look)
    history = trained.train()
    assert history.best_epoch == 2
    assert len(kept) == 4
    assert all(torch.equal(tensor, weights(trained)[name]) for name, tensor in kept[1].items())


@pytest.mark.parametrize(("rows", "batch_size", "accumulate"), [(90, 10, 8), (100, 100, 4), (90, 10, 1), (90, 10, 3)])
def test_an_epoch_is_one_pass_however_steps_accumulate(rows: int, batch_size: int, accumulate: int) -> None:
    """To the last step, which may begin another pass."""
    knobs = Training(epochs=10, batch_size=batch_size, accumulate=accumulate)
    batches = 10 * -(-rows // batch_size)
    assert batches <= steps_in(knobs, rows) * accumulate < batches + accumulate


def test_a_control_on_few_labels_has_the_students_epochs(tmp_path: Path) -> None:
    """Its patience must not end after so many passes over its own few rows."""
    looks = []

    def look(network: torch.nn.Module) -> dict[str, float]:
        looks.append(1)
        return {"validation_loss": 1.0 + len(looks)}

    knobs = Training(batch_size=8, epochs=10, patience=3)
    steps = steps_in(knobs, 80)
    history = trainer(tmp_path, knobs, steps, questions(8), validate=look).train()
    assert history.best_epoch == 1
    assert history.curve[-1]["epoch"] >= 3
    assert history.steps >= 30, "10 steps an epoch, as the student's 80 rows have it"


def test_mixup_without_a_teacher_mixes_too() -> None:
    """The control, and a teacher that is trained on labels, are mixed as the student is."""
    rows = questions(20)
    source = Source(rows, inputs.learn(rows.raw))
    plain, mixed = Batches(source, 8, 1, Device())(0), Batches(source, 8, 1, Device(), mixup=0.5)(0)
    assert mixed.mixed_label_B is not None
    places = [
        place for row in range(8) for place in range(8)
        if torch.allclose(mixed.mix * plain.input[row] + (1 - mixed.mix) * plain.input[place], mixed.input[row], atol=1e-5)
    ]  # fmt: skip
    assert sorted(places) == list(range(8)), "each row is mixed with another one of the batch"


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match="at step"):
        trainer(tmp_path, Training(batch_size=16, learning_rate=1e30, schedule="constant", optimiser="sgd"), 20).train()


def test_weights_that_the_last_step_ruined_are_told_by_validation(tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match="the validation loss became nan at step 1"):
        trainer(
            tmp_path, Training(batch_size=40), 1, validate=lambda network: {"validation_loss": float("nan")}
        ).train()


def test_the_student_is_in_training_mode_after_each_look(tmp_path: Path) -> None:
    from stillroom.models.classifier import evaluating

    modes = []

    def look(network: torch.nn.Module) -> dict[str, float]:
        with evaluating(network):
            assert not network.training
        modes.append(network.training)
        return {"validation_loss": 1.0}

    trainer(tmp_path, Training(batch_size=16), 10, validate=look).train()
    assert modes
    assert all(modes)


def test_max_norm_holds_hidden_units_and_leaves_the_head(tmp_path: Path) -> None:
    trained = trainer(tmp_path, Training(batch_size=16, max_norm=0.5, learning_rate=0.1), 40)
    trained.train()
    hidden = trained.network.body[0].weight  # type: ignore[index,union-attr]
    assert float(hidden.detach().norm(dim=1).max()) <= 0.5 + 1e-5  # type: ignore[operator,union-attr]
    assert float(trained.network.head.weight.detach().norm(dim=1).max()) > 0.5  # type: ignore[operator,union-attr]


def test_golden_numbers_of_a_seeded_toy(tmp_path: Path) -> None:
    """A refactoring that changes these changes what is computed. float32, one thread."""
    trained = trainer(tmp_path, Training(batch_size=16, learning_rate=1e-2), 50)
    history = trained.train()
    assert history.curve[-1]["loss"] == pytest.approx(GOLDEN_LOSS, abs=1e-4)
    assert float(trained.network.head.weight.detach().norm()) == pytest.approx(GOLDEN_NORM, abs=1e-4)  # type: ignore[operator,union-attr]


GOLDEN_LOSS = 0.455574
GOLDEN_NORM = 1.442234


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "linear", "constant"])
def test_schedules_rise_then_fall(name: Any) -> None:
    shares = [schedule.share(step, 100, name, 0.1) for step in range(100)]
    assert shares[:10] == sorted(shares[:10])
    assert shares[9] == pytest.approx(1.0)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert all(0 <= share <= 1 for share in shares)
    assert (shares[-1] < 0.02) == (name != "constant")


def test_batches_are_a_function_of_seed_and_step() -> None:
    rows = questions()
    source = Source(rows, inputs.learn(rows.raw))
    one, two = Batches(source, 16, 5, Device()), Batches(source, 16, 5, Device())
    for step in (0, 1, 2, 3, 7, 4):
        assert torch.equal(one(step).input, two(step).input)
    seen = torch.cat([one(step).label_B for step in range(one.per_epoch)])  # type: ignore[misc]
    assert sorted(seen.tolist()) == sorted(rows.label_N.tolist())
    assert not torch.equal(Batches(source, 16, 6, Device())(0).input, one(0).input)


def test_teacher_and_student_see_the_same_mixed_rows() -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4)).astype(np.uint8)
    rows = Questions.of(images, np.arange(20) % 3)

    class Looker(Echo):
        def answer(self, asked: Questions, view: int = 0):  # type: ignore[no-untyped-def]
            self.saw = asked.raw
            return Echo.answer(
                self, Questions.of(np.asarray(asked.raw, np.float64).reshape(len(asked), -1)[:, :3] / 255)
            )

    looker, learned = Looker(), inputs.learn(images)
    batch = Batches(Source(rows, learned, live=looker), 8, 1, Device(), mixup=0.5)(0)
    assert np.array_equal(learned.encode(looker.saw), batch.input.numpy())
    assert batch.mixed_label_B is not None
    assert 0 <= batch.mix <= 1


def test_stored_answers_are_those_to_the_very_view_the_student_sees(tmp_path: Path) -> None:
    """Each batch of each epoch: what was stored for it is what the teacher says of the rows in that batch."""
    from stillroom.questions.views import apply_views
    from stillroom.transfer_set.ask import ask
    from stillroom.transfer_set.store import Store

    images = np.random.default_rng(0).integers(0, 255, (20, 6, 6)).astype(np.uint8)
    rows, learned = Questions.of(images, np.arange(20) % 3), inputs.learn(images)
    shift = [parse("view", {"kind": "shift", "pixels": 2})]

    class Looker(Echo):
        def answer(self, asked: Questions, view: int = 0):  # type: ignore[no-untyped-def]
            return Echo.answer(
                self, Questions.of(learned.encode(asked.raw).reshape(len(asked), -1)[:, 12:15].astype(float))
            )

    def seen(asked: Questions, view: int) -> Questions:
        shown = apply_views(shift, asked.raw, asked.key_N, view) if view else asked.raw
        return Questions(shown, asked.key_N, asked.label_N, asked.weight_N, asked.row_N)

    views = [1, 2, 3]
    kept = ask(Store(tmp_path), Looker(), rows, kind="rule", licences={}, views=views, seen=seen)
    readers = [kept.reader(rows.key_N, view) for view in views]
    batches = Batches(Source(rows, learned, readers, views=views, seen=seen), 8, 1, Device())
    for step in range(4 * batches.per_epoch):
        batch = batches(step)
        shown = batch.input.numpy().reshape(len(batch.input), -1)[:, 12:15]
        expected = Echo().answer(Questions.of(shown.astype(float))).log_probabilities_NC
        assert batch.log_probabilities_BC is not None
        np.testing.assert_allclose(batch.log_probabilities_BC.numpy(), expected, rtol=2e-3, atol=2e-3)
