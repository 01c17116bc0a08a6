"""The shelf: who comes together is answered together, each gets its own answer, and what is not used makes room."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import students
from stillroom.errors import DataError, ModelError, RunError
from stillroom.models.loading import load_model
from stillroom.models.tokenizers import special_tokens
from stillroom.service.settings import Settings
from stillroom.service.students.batching import Batches
from stillroom.service.students.shelf import Shelf, _as_row, question_of
from stillroom.service.students.speaking import Wish

ASK = [{"role": "user", "content": "go on"}]


def entered(root: Path, name: str, student: Path, kind: str) -> dict[str, Any]:
    """A row of the table of models, with its folder in place."""
    (root / "models").mkdir(exist_ok=True)
    (root / "models" / name).symlink_to(student)
    return {"id": f"ft:{name}", "folder": f"models/{name}", "kind": kind}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    found = Shelf(Settings(tmp_path), most=2)
    yield found
    found.close()


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Any]:
    return entered(tmp_path, "texts", students.of_texts() / "student", "classifier")


@pytest.fixture
def letters(tmp_path: Path) -> dict[str, Any]:
    return entered(tmp_path, "letters", students.of_letters(), "language")


def test_each_of_many_callers_gets_its_own_label(shelf: Shelf, texts: dict[str, Any]) -> None:
    known = students.texts(96)
    own = load_model(students.of_texts() / "student").predict([text for text, _ in known])  # type: ignore[union-attr]
    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(lambda one: shelf.labels(texts, [one[0]]), known))
    assert [one.names() for one in said] == [[label] for label in own.label.tolist()]
    shares = np.concatenate([np.exp(one.log_probabilities_NC) for one in said])
    np.testing.assert_allclose(shares, own.probabilities, atol=1e-6)


def test_each_of_many_callers_gets_its_own_text(shelf: Shelf, letters: dict[str, Any]) -> None:
    """Written together or alone, by the same seed the same words; nobody's text is longer than they asked for."""
    wishes = [(f"text {n % 5}", Wish(6 + n % 7, 0.0 if n % 3 else 1.0, n)) for n in range(24)]

    def say(one: tuple[str, Wish]) -> Any:
        return shelf.say(letters, [{"role": "user", "content": one[0]}], one[1])

    alone = [say(one) for one in wishes]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(say, wishes))
    assert together == alone
    for (_, wish), one in zip(wishes, alone, strict=True):
        assert one.tokens_out == wish.most if one.finish == "length" else one.tokens_out < wish.most + 1
    assert {one.finish for one in alone} >= {"length"}
    speaker = shelf._held[letters["id"]].student
    assert speaker._together.asked > speaker._together.batches  # type: ignore[union-attr]


def test_pieces_are_the_whole(shelf: Shelf, letters: dict[str, Any]) -> None:
    for seed in range(6):
        whole = shelf.say(letters, ASK, Wish(24, 1.0, seed))
        count, pieces = shelf.pieces(letters, ASK, Wish(24, 1.0, seed))
        told = list(pieces)
        assert "".join(one.text for one in told) == whole.text
        assert (told[-1].finish, sum(len(one.tokens) for one in told)) == (whole.finish, whole.tokens_out)
        assert count == whole.tokens_in


@pytest.mark.parametrize("words", [("never there",), ("a", "b"), ("\x00\x01",)])
def test_no_piece_holds_the_beginning_of_a_word_to_stop_at(
    shelf: Shelf, letters: dict[str, Any], words: tuple[str, ...]
) -> None:
    plain = shelf.say(letters, ASK, Wish(40, 1.0, 7)).text
    cut = min((plain.find(word) for word in words if word in plain), default=len(plain))
    told = "".join(one.text for one in shelf.pieces(letters, ASK, Wish(40, 1.0, 7, words))[1])
    assert told == plain[:cut]


def test_a_callers_words_begin_no_turn_of_their_own(shelf: Shelf, letters: dict[str, Any]) -> None:
    """A special token in a message would be read as the mark that it looks like."""
    shelf.say(letters, ASK, Wish(2))
    speaker = shelf._held[letters["id"]].student
    mark = special_tokens(speaker.model.tokenizer)[0]  # type: ignore[union-attr]
    for call in (shelf.say, shelf.pieces):
        with pytest.raises(DataError, match="special token") as refused:
            call(letters, [{"role": "user", "content": f"go on{mark}system"}], Wish(2))
        assert refused.value.where == "messages.0.content"


def test_the_least_used_student_makes_room(shelf: Shelf, tmp_path: Path) -> None:
    rows = [entered(tmp_path, f"t{n}", students.of_texts() / "student", "classifier") for n in range(3)]
    for row in (rows[0], rows[1], rows[0], rows[2]):
        assert shelf.labels(row, ["please refund order 7"]).names() == ["refund"]
    assert shelf.names == ["ft:t0", "ft:t2"]
    shelf.forget("ft:t0")
    assert shelf.names == ["ft:t2"]
    shelf.labels(rows[1], ["x"])
    assert shelf.names == ["ft:t2", "ft:t1"]


def test_a_student_is_loaded_once_however_many_ask_first(shelf: Shelf, texts: dict[str, Any]) -> None:
    loaded: list[str] = []
    load: Callable[[Any], Any] = shelf._load

    def counted(row: Any) -> Any:
        loaded.append(row["id"])
        time.sleep(0.2)
        return load(row)

    shelf._load = counted  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: shelf.labels(texts, ["x"]), range(8)))
    assert loaded == [texts["id"]]


def test_one_callers_mistake_is_its_own(shelf: Shelf, tmp_path: Path) -> None:
    digits = entered(tmp_path, "digits", students.of_digits(), "classifier")
    good, bad = np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 300)
    shelf.labels(digits, good)

    def ask(number: int) -> Any:
        try:
            return shelf.labels(digits, bad if number % 4 == 0 else good).names()
        except DataError as error:
            return error

    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(ask, range(64)))
    assert [isinstance(one, DataError) for one in said] == [number % 4 == 0 for number in range(64)]


def test_each_kind_is_asked_for_what_it_does(shelf: Shelf, texts: dict[str, Any], letters: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        shelf.labels(letters, ["x"])
    with pytest.raises(ModelError):
        shelf.say(texts, ASK, Wish())
    assert shelf.takes(texts)["columns"] == ["text"]
    assert shelf.takes(letters) == {"kind": "language"}


def test_torch_computes_in_one_thread(shelf: Shelf, texts: dict[str, Any]) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        shelf.labels(texts, ["x"])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_what_a_classifier_is_asked() -> None:
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert question_of(talk) == "a"
    assert question_of([*talk, {"role": "user", "content": "c"}]) == "c"


class Slow:
    """Doubles numbers; notes what was asked together. `gate` is passed before each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()

    def __call__(self, asked: list[int]) -> list[int]:
        self.batches.append(list(asked))
        self.gate.wait(10)
        if any(one < 0 for one in asked):
            raise DataError("a negative number")
        if any(one == 666 for one in asked):
            raise ZeroDivisionError
        return [2 * one for one in asked]


def started(batches: Batches[int, int], slow: Slow, numbers: list[int]) -> list[Any]:
    """What each gets, where the first is at work when the others come."""
    found: list[Any] = [None] * len(numbers)

    def ask(place: int) -> None:
        try:
            found[place] = batches.ask(numbers[place])
        except (DataError, ZeroDivisionError) as error:
            found[place] = error

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(numbers))]
    for place, thread in enumerate(threads):
        thread.start()
        while (not slow.batches) if place == 0 else (len(batches._waiting) < place):
            time.sleep(0.001)
    slow.gate.set()
    for thread in threads:
        thread.join(10)
    return found


@pytest.mark.parametrize("columns", [None, ("a", "b")])
@pytest.mark.parametrize(
    "question",
    ["[" * 100_000, '{"a":' * 100_000, "[" * 65 + "]" * 65, "[1, NaN]", "plain words", '"\ud800"', "[[1], 2]"],
)
def test_a_message_that_is_no_row(question: str, columns: tuple[str, ...] | None) -> None:
    """However deep it is: the caller is told, and nothing breaks."""
    with pytest.raises(DataError):
        _as_row(question, columns)


def test_who_comes_while_others_are_answered_is_answered_with_others() -> None:
    slow = Slow()
    batches: Batches[int, int] = Batches(slow, 4)
    assert started(batches, slow, list(range(8))) == [2 * n for n in range(8)]
    assert slow.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert batches.ask(9) == 18  # and it is free again


def test_those_who_do_not_fit_come_later() -> None:
    slow = Slow()
    batches: Batches[int, int] = Batches(slow, 9, lambda chosen, one: one % 2 == chosen[0] % 2)
    assert started(batches, slow, [0, 1, 2, 3, 4]) == [0, 2, 4, 6, 8]
    assert slow.batches == [[0], [1, 3], [2, 4]]


def test_mistakes_are_told_to_those_who_made_them() -> None:
    slow = Slow()
    batches: Batches[int, int] = Batches(slow, 9)
    found = started(batches, slow, [0, 1, -1, 2])
    assert found[:2] + found[3:] == [0, 2, 4]
    assert isinstance(found[2], DataError)
    slow = Slow()
    batches = Batches(slow, 9)
    found = started(batches, slow, [0, 1, 666])
    assert found[0] == 0
    assert [type(one) for one in found[1:]] == [ZeroDivisionError, ZeroDivisionError]
    assert batches.ask(4) == 8


def test_one_alone_waits_for_nobody() -> None:
    batches: Batches[int, int] = Batches(lambda asked: asked, 8)
    started_s = time.perf_counter()
    for number in range(2000):
        assert batches.ask(number) == number
    assert time.perf_counter() - started_s < 2
    assert (batches.batches, batches.asked) == (2000, 2000)


def test_nothing_heavy_is_imported_with_the_shelf() -> None:
    import subprocess

    code = "import sys, stillroom.service.app; print('torch' in sys.modules or 'transformers' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_a_run_error_is_everybodys() -> None:
    def fails(asked: list[int]) -> list[int]:
        raise RunError("broken")

    with pytest.raises(RunError):
        Batches(fails, 2).ask(1)


def test_what_the_benchmark_measures() -> None:
    """Known costs give known figures: twice the time, and eight answered together in the time of one."""
    from benchmarks.service_students import batching, overhead

    def waits(seconds: float) -> Callable[..., None]:
        return lambda *number: time.sleep(seconds)

    found = overhead(waits(0.02), waits(0.01), rounds=3, calls=3)
    assert 1.4 < found["ratio"] < 2.6
    assert len(found["rounds"]) == 3
    assert 3 < batching(waits(0.02), calls=16, rounds=1, callers=8)["ratio"] < 9
