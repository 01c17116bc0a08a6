"""Answers are kept by content and read back against the right question, or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from killing import came_to_its_end
from stillroom.errors import CorruptFile, NotFinite, RunBusy, WrongAnswer
from stillroom.rows import Answers, Questions
from stillroom.transfer_set.ask import KeptTeacher, ask
from stillroom.transfer_set.store import Store, open_kept, places


class Rule:
    """A real small teacher: its answer is a fixed function of the row."""

    fingerprint = "rule" * 16
    hidden_width: int | None = 3

    def __init__(self) -> None:
        self.classes = ["low", "middle", "high"]
        self.asked: list[int] = []

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        assert not isinstance(questions.raw, dict)
        self.asked.append(len(questions))
        total_N = questions.raw.sum(1)
        logits_NC = np.stack([-total_N, np.zeros_like(total_N), total_N], 1)
        logs_NC = logits_NC - np.log(np.exp(logits_NC).sum(1, keepdims=True))
        return Answers(logs_NC.astype(np.float32), questions.raw[:, :3].astype(np.float32))


def plus_view(questions: Questions, view: int) -> Questions:
    assert not isinstance(questions.raw, dict)
    return Questions(questions.raw + view, questions.key_N, questions.label_N, questions.weight_N, questions.row_N)


def some(rows: int, seed: int | None = None) -> Questions:
    return Questions.of(np.random.default_rng(seed).normal(size=(rows, 4)))


def ask_all(root: Path, teacher: Rule, questions: Questions, shard_rows: int = 10, views: tuple[int, ...] = (0,)):  # type: ignore[no-untyped-def]
    return ask(
        Store(root), teacher, questions, kind="rule", licences={"teacher": "unknown"}, views=views, seen=plus_view,
        shard_rows=shard_rows,
    )  # fmt: skip


def test_answers_come_back_under_any_shuffle_and_batch(tmp_path: Path) -> None:
    questions, teacher = some(57), Rule()
    kept = ask_all(tmp_path, teacher, questions)
    expected = Rule().answer(questions)
    order = np.random.default_rng().permutation(57)
    reader = kept.reader(questions.key_N[order])
    for start in range(0, 57, 8):
        batch = np.arange(start, min(start + 8, 57))
        np.testing.assert_allclose(
            reader.take(batch), expected.log_probabilities_NC[order][batch], rtol=1e-3, atol=1e-3
        )
        assert expected.hidden_NH is not None
        np.testing.assert_allclose(reader.take(batch, "hidden"), expected.hidden_NH[order][batch], rtol=1e-3, atol=2e-3)


def test_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    questions, teacher = some(40, 1), Rule()
    ask_all(tmp_path, teacher, questions.take(np.arange(30)))
    assert sum(teacher.asked) == 30
    ask_all(tmp_path, teacher, questions)
    assert sum(teacher.asked) == 40
    ask_all(tmp_path, teacher, questions.take(np.random.default_rng().permutation(40)))
    assert sum(teacher.asked) == 40


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    one, teacher = some(5, 2), Rule()
    twice = one.take(np.array([0, 1, 2, 0, 1, 2, 3, 4, 4]))
    kept = ask_all(tmp_path, teacher, twice)
    assert sum(teacher.asked) == 5
    assert len(kept.reader(twice.key_N)) == 9


def test_views_are_different_questions(tmp_path: Path) -> None:
    questions, teacher = some(6, 3), Rule()
    kept = ask_all(tmp_path, teacher, questions, views=(1, 2))
    assert sum(teacher.asked) == 12
    first, second = kept.reader(questions.key_N, 1).all(), kept.reader(questions.key_N, 2).all()
    assert np.abs(first - second).max() > 0.1
    with pytest.raises(WrongAnswer, match="no answer"):
        kept.reader(questions.key_N, 0)


def test_places_tell_key_and_view_apart() -> None:
    keys = np.zeros((2, 16), np.uint8)
    keys[1, 15] = 1
    # A view's bytes follow the key's, so neither can pass for the other.
    assert len({*places(keys, 0), *places(keys, 1), *places(keys, 256)}) == 6


def test_a_question_never_asked_is_refused(tmp_path: Path) -> None:
    kept = ask_all(tmp_path, Rule(), some(5, 4))
    with pytest.raises(WrongAnswer, match="1 of 1 questions"):
        kept.reader(some(1, 5).key_N)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    questions = some(20, 6)
    kept = ask_all(tmp_path, Rule(), questions)
    for name in ("log_probabilities.f16", "keys.arrow", "hidden.f16"):
        path = kept.folder / "000001" / name
        good = path.read_bytes()
        path.write_bytes(good[:9] + bytes([good[9] ^ 4]) + good[10:])
        with pytest.raises(CorruptFile, match="checksum"):
            ask_all(tmp_path, Rule(), questions)
        path.write_bytes(good)
    # Removing the damaged shard, as the error advises, costs that shard alone.
    import shutil

    shutil.rmtree(kept.folder / "000001")
    teacher = Rule()
    assert len(ask_all(tmp_path, teacher, questions).reader(questions.key_N)) == 20
    assert sum(teacher.asked) == 10


def test_an_answer_that_is_not_finite_keeps_nothing(tmp_path: Path) -> None:
    questions = some(20, 7)
    broken = questions.take(np.arange(20))
    assert not isinstance(broken.raw, dict)
    broken.raw[13, 0] = np.nan
    teacher = Rule()
    with pytest.raises(NotFinite):
        ask_all(tmp_path, teacher, broken)
    kept = ask_all(tmp_path, Rule(), questions.take(np.arange(10)))
    assert len(kept) == 10  # of the shard before it
    assert [path.name for path in sorted(kept.folder.iterdir()) if path.is_dir()] == ["000000"]


def test_a_licence_that_is_said_later_stands_with_the_answers(tmp_path: Path) -> None:
    questions = some(10, 8)

    def licence(told: str) -> str:
        kept = ask(
            Store(tmp_path), Rule(), questions, kind="rule", licences={"teacher": told}, views=(0,), seen=plus_view
        )
        assert open_kept(kept.folder).header == kept.header
        return kept.header.licences["teacher"]

    assert [licence(told) for told in ("unknown", "MIT", "unknown", "Apache-2.0")] == [
        "unknown", "MIT", "MIT", "Apache-2.0",
    ]  # fmt: skip


def test_a_hidden_layer_too_large_for_16_bits_keeps_nothing(tmp_path: Path) -> None:
    questions = Questions.of(np.array([[1.0, -1.0, 0.0, 0.0], [7e4, -7e4, 0.0, 0.0]]))
    with pytest.raises(NotFinite, match=r"question 1 .*hidden"):
        ask_all(tmp_path, Rule(), questions)
    assert not list(tmp_path.rglob("*.f16"))


def test_a_reader_leaves_alone_what_another_process_is_writing(tmp_path: Path) -> None:
    kept = ask_all(tmp_path, Rule(), some(20, 7))
    staged = kept.folder / "000002.staged"
    staged.mkdir()
    assert len(open_kept(kept.folder)) == 20
    assert staged.is_dir()
    ask_all(tmp_path, Rule(), some(5, 9))
    assert not staged.exists(), "who holds the store clears up what a killed process left"


class Wide(Rule):
    """One whose hidden layer makes each shard large enough to be mapped, not read."""

    fingerprint, hidden_width = "wide" * 16, 40_000

    def answer(self, questions: Questions, view: int = 0) -> Answers:
        said = Rule.answer(self, questions, view)
        assert said.hidden_NH is not None
        return Answers(said.log_probabilities_NC, np.tile(said.hidden_NH[:, :1], (1, 40_000)))


@pytest.mark.parametrize("teacher", [Rule(), Wide()], ids=["small files", "mapped files"])
def test_many_shards_need_no_open_file_each(tmp_path: Path, teacher: Rule) -> None:
    """A process may have 1,024 open at many a place, and a store thousands of shards."""
    questions = some(60, 12)
    kept = ask_all(tmp_path, teacher, questions, shard_rows=1)
    before = len(os.listdir("/proc/self/fd"))
    again = open_kept(kept.folder)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(again) == len(kept) == 60
    order = np.random.default_rng().permutation(60)
    for one in (kept, again):
        said = one.reader(questions.key_N[order]).all()
        np.testing.assert_allclose(said, Rule().answer(questions).log_probabilities_NC[order], rtol=1e-3, atol=1e-3)


def test_a_store_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """Shards are sorted in when somebody looks: after each, or after many."""
    questions, rng = some(90, 13), np.random.default_rng()
    kept = ask_all(tmp_path, Rule(), questions.take(np.arange(10)))
    for start in range(10, 90, 10):
        new = questions.take(np.arange(start, start + 10))
        kept.append(new.key_N, 0, Rule().answer(new))
        assert len(kept) == start + 10
        if rng.random() < 0.5:
            assert kept.answered(questions.key_N).tolist() == [True] * (start + 10) + [False] * (80 - start)
    expected = Rule().answer(questions).log_probabilities_NC
    np.testing.assert_allclose(kept.reader(questions.key_N).all(), expected, rtol=1e-3, atol=1e-3)


def test_another_teachers_folder_is_refused(tmp_path: Path) -> None:
    ask_all(tmp_path, Rule(), some(3, 8))
    other = Rule()
    other.classes = ["a", "b", "c"]
    with pytest.raises(WrongAnswer, match="another teacher"):
        ask_all(tmp_path, other, some(3, 8))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path).hold(), pytest.raises(RunBusy, match="store of its own"):  # noqa: SIM117
        with Store(tmp_path, wait_s=0.2).hold():
            pass


def test_a_store_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    """Another process holds it for half a second; asking then goes on by itself."""
    child = os.fork()
    if child == 0:
        with Store(tmp_path).hold():
            (tmp_path / "held").touch()
            time.sleep(0.5)
        os._exit(0)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    (tmp_path / "held").unlink()
    kept = ask_all(tmp_path, Rule(), some(3, 9))
    os.waitpid(child, 0)
    assert len(kept) == 3


def test_a_kept_teacher_answers_as_it_did(tmp_path: Path) -> None:
    questions = some(9, 10)
    kept = ask_all(tmp_path, Rule(), questions)
    again = KeptTeacher(kept).answer(questions.take(np.array([4, 2])))
    np.testing.assert_allclose(
        again.log_probabilities_NC, Rule().answer(questions).log_probabilities_NC[[4, 2]], rtol=1e-3, atol=1e-3
    )


@pytest.mark.kill
def test_a_kill_at_any_commit_point_loses_at_most_one_shard(tmp_path: Path) -> None:
    questions = some(30, 11)
    point = 0
    while True:
        point += 1
        root = tmp_path / str(point)
        done = came_to_its_end(lambda root=root: ask_all(root, Rule(), questions), point)
        whole = len([path for path in root.glob("*/??????") if path.is_dir()])
        teacher = Rule()
        kept = ask_all(root, teacher, questions)
        assert sum(teacher.asked) == 30 - 10 * whole
        np.testing.assert_allclose(
            kept.reader(questions.key_N).all(), Rule().answer(questions).log_probabilities_NC, rtol=1e-3, atol=1e-3
        )
        if done:
            break
    assert point > 40
