"""Running text: where documents begin, how they are split, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillroom.errors import DataError, RecipeError
from stillroom.questions.dataset import Dataset
from stillroom.questions.running import LONGEST_PIECE, PIECE_CHARACTERS, conversation, documents_of
from stillroom.questions.sources import read_rows
from stillroom.rows import Questions, Splits

TALK = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng()


def articles(count: int, words: int = 20) -> str:
    """Articles as WikiText has them, each of other words."""
    return " \n" + "".join(
        f" = Article {n} = \n \n" + f" Words of {n} . " * words + "\n \n = = Section = = \n \n More .\n \n"
        for n in range(count)
    )


def build(source: Any, folder: Path, **knobs: Any) -> Splits:
    return Dataset(source=source, **knobs).build([folder])


def texts(questions: Questions, name: str = "text") -> list[str]:
    assert isinstance(questions.raw, dict)
    assert list(questions.raw) == [name]
    return list(questions.raw[name])


def lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_document_begins_at_each_top_heading_and_nothing_is_lost() -> None:
    text = articles(5) + " = no heading = \n since a line follows\n \n = nor = is this =x\n \n"
    found = documents_of(text)
    assert "".join(found) == text
    assert [document.split(" = ")[1] for document in found] == [f"Article {n}" for n in range(5)]
    before = documents_of("A preface.\n\n = One = \n\nx\n\n = Two = \n\ny")
    assert before == ["A preface.\n\n", " = One = \n\nx\n\n", " = Two = \n\ny"]
    windows_lines = documents_of(" = One = \r\n \r\nx\r\n \r\n = Two = \r\n \r\ny\r\n")
    assert len(windows_lines) == 2


def test_a_text_without_headings_is_cut_at_blank_lines(rng: np.random.Generator) -> None:
    speeches = "".join(f"SPEAKER {n}:\n" + "word " * int(rng.integers(5, 200)) + "\n\n" for n in range(300))
    found = documents_of(speeches)
    assert "".join(found) == speeches
    assert all(piece.endswith("\n\n") for piece in found)
    assert min(map(len, found[:-1])) >= PIECE_CHARACTERS
    assert max(map(len, found[:-1])) < PIECE_CHARACTERS + 1100
    assert len(found[-1]) >= PIECE_CHARACTERS / 2
    no_blank = "a line of words\n" * 5000
    assert max(map(len, documents_of(no_blank))) <= LONGEST_PIECE + PIECE_CHARACTERS
    assert "".join(documents_of(no_blank)) == no_blank
    for one in ("short", "x" * 100_000, " = One heading = \n \n alone\n"):
        assert documents_of(one) == [one]


def test_documents_are_split_whole_by_shares_of_the_characters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(articles(40), encoding="utf-8-sig")
    splits = build("a.txt", tmp_path)
    assert splits.classes == []
    assert (len(splits.train), len(splits.validation), len(splits.test), len(splits.omitted)) == (28, 4, 8, 0)
    assert not splits.train.labelled_N.any()
    parts = (splits.train, splits.validation, splits.test)
    in_order = sorted((row, text) for part in parts for row, text in zip(part.row_N.tolist(), texts(part), strict=True))
    assert "".join(text for _, text in in_order) == articles(40)
    assert build("a.txt", tmp_path).fingerprint() == splits.fingerprint()
    assert texts(build("a.txt", tmp_path, seed=1).test) != texts(splits.test)
    assert [len(getattr(build("a.txt", tmp_path, split={"test": 3, "validation": 2}), role)) for role in parts_of] == [
        35, 2, 3
    ]  # fmt: skip
    assert splits.notes[0] == "test: 8 documents split off train, whole, seed 0"


parts_of = ("train", "validation", "test")


def test_a_long_document_counts_by_its_length(tmp_path: Path) -> None:
    long = " = Long = \n \n" + "word " * 4000 + "\n \n"
    (tmp_path / "a.txt").write_text(long + articles(60))
    for seed in range(8):
        splits = build("a.txt", tmp_path, seed=seed, split={"test": 0.25})
        total = sum(len(text) for part in parts_of for text in texts(getattr(splits, part)))
        longest = max(len(text) for text in texts(splits.test))
        assert abs(sum(map(len, texts(splits.test))) / total - 0.25) <= max(longest / total / 2, 0.02)


def test_files_for_the_splits_keep_all_their_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(articles(20))
    (tmp_path / "b.txt").write_text(articles(7, words=3))
    splits = build({"train": "a.txt", "test": "b.txt"}, tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 7)
    assert "".join(texts(splits.test)) == articles(7, words=3)
    lines(tmp_path / "c.jsonl", [{"text": text} for text in documents_of(articles(7, words=3))])
    for source in ({"train": "a.txt", "test": "c.jsonl"}, {"train": "c.jsonl", "test": "b.txt", "validation": "a.txt"}):
        mixed = build(source, tmp_path)
        assert texts(mixed.test) == texts(splits.test)
    same = build({"train": "a.txt", "test": "a.txt"}, tmp_path)
    assert "18 of 20 test rows stand in train as well, with the same content" in same.notes
    raw = read_rows("b.txt", [tmp_path])
    assert isinstance(raw, dict)
    assert list(raw["text"]) == texts(splits.test)


def test_fewer_training_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(articles(40))
    whole, few = build("a.txt", tmp_path), build("a.txt", tmp_path, rows=10)
    assert set(texts(few.train)) < set(texts(whole.train))
    assert (len(few.train), few.test.fingerprint()) == (10, whole.test.fingerprint())


def test_a_column_of_texts_without_a_label_is_running_text(tmp_path: Path) -> None:
    rows = [{"text": f"The {n}th text.", "book": f"b{n % 12}"} for n in range(60)]
    rows[7]["text"] = " "
    lines(tmp_path / "d.jsonl", rows)
    splits = build("d.jsonl", tmp_path, input="text", slice="book", split={"group": "book"})
    assert splits.classes == []
    assert "train: 1 empty texts were left out" in splits.notes
    assert sum(len(getattr(splits, part)) for part in parts_of) == 59
    assert splits.slice_N is not None
    assert splits.slice_N.tolist() == [rows[row]["book"] for row in splits.test.row_N]
    books = [{rows[row]["book"] for row in getattr(splits, part).row_N} for part in parts_of]
    assert not books[0] & books[1] | books[0] & books[2] | books[1] & books[2]
    with pytest.raises(DataError, match="no label column 'label'"):
        build("d.jsonl", tmp_path)
    lines(tmp_path / "e.jsonl", [{**row, "label": n % 2} for n, row in enumerate(rows)])
    assert build("e.jsonl", tmp_path).classes == [0, 1]


def test_conversations_are_rows(tmp_path: Path) -> None:
    rows = [{"id": n, "messages": [{"content": f"{n}?", "role": "user"}, TALK[1]]} for n in range(30)]
    lines(tmp_path / "d.jsonl", rows)
    splits = build("d.jsonl", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test), splits.classes) == (21, 3, 6, [])
    for row, kept in zip(splits.test.row_N, texts(splits.test, "messages"), strict=True):
        assert conversation(kept) == rows[row]["messages"]
    turned = [
        {"messages": [dict(reversed(message.items())) for message in row["messages"]]}  # type: ignore[attr-defined]
        for row in rows
    ]
    lines(tmp_path / "e.jsonl", turned)
    assert build("e.jsonl", tmp_path).fingerprint() == splits.fingerprint()
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    assert build("f.parquet", tmp_path).fingerprint() == splits.fingerprint()


def test_running_text_of_the_datasets_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the hub extra is not installed")
    talks = [[{"role": "user", "content": f"{n}?"}, {**TALK[1], "name": None}] for n in range(30)]
    for name, rows in (("text", documents_of(articles(30))), ("messages", talks)):
        table = datasets.Dataset.from_list([{name: row} for row in rows])
        datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / name))
        splits = build(f"hf:./{name}", tmp_path)
        assert (len(splits.test), splits.classes) == (30, [])
        assert len(splits.train) + len(splits.validation) == 30
    assert conversation(texts(splits.test, "messages")[4]) == [{"role": "user", "content": "4?"}, TALK[1]]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", r"a list of messages.*d\.jsonl, row 2"),
        ([], r"a list of messages.*d\.jsonl, row 2"),
        (["hello"], r"an object with a role.*row 2, message 1"),
        ([TALK[0], {"role": "assistant"}], r"an object with a role and a text.*row 2, message 2"),
        ([{"role": "teacher", "content": "x"}], "no role 'teacher'.*Known: system, user"),
        ([TALK[0]], "nothing in this conversation is said by the assistant.*row 2"),
        ([TALK[0], {"role": "assistant", "content": " "}], "nothing in this conversation is said by the assistant"),
        ([{"role": "assistant", "content": "a\0b"}], r"NUL.*row 2, message 1"),
        ([{"role": "assistant", "content": "a\ud800b"}], r"half a character.*row 2, message 1"),
    ],
)
def test_conversations_that_cannot_be_used(messages: Any, message: str, tmp_path: Path) -> None:
    lines(tmp_path / "d.jsonl", [{"messages": TALK}, {"messages": messages}])
    with pytest.raises(DataError, match=message):
        build("d.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}, {"text": 3}], r"an? int is no text \(d\.jsonl, row 2\)"),
        ([{"text": "a"}, {"text": "a\0"}], r"NUL character.*d\.jsonl, row 2"),
        ([{"text": ""}, {"text": None}], "all texts of train are empty"),
        ([{"text": "a"}, {"text": "b"}], "there are just 2 in the training rows"),
    ],
)
def test_texts_that_cannot_be_used(rows: list[Any], message: str, tmp_path: Path) -> None:
    lines(tmp_path / "d.jsonl", rows)
    with pytest.raises(DataError, match=message):
        build("d.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"labelled": 5}, r"labelled is about labels.*questions\.labelled"),
        ({"omit": ["a"]}, "omit is about labels"),
        ({"class_weights": "balanced"}, "class_weights is about labels"),
        ({"label": "label"}, "input and label name columns"),
        ({"slice": "book"}, r"no columns, so none called 'book' \(questions\.slice, a\.txt\)"),
        ({"split": {"group": "book"}}, r"no columns, so none called 'book' \(questions\.split\.group, a\.txt\)"),
        ({"rows": 99}, r"99 rows of train are wanted, and there are 28 \(questions\.rows\)"),
        ({"split": {"test": 40}}, r"split\.test asks for 40, and 38 of 40"),
    ],
)
def test_knobs_that_running_text_has_no_use_for(knobs: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(articles(40))
    assert build("a.txt", tmp_path, input="text").classes == [], "its one column may be named"
    with pytest.raises(DataError, match=message):
        build("a.txt", tmp_path, **knobs)


def test_views_of_images_do_not_fit_and_a_mask_does(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(articles(40))
    with pytest.raises(RecipeError, match="'flip' is for images"):
        build("a.txt", tmp_path, augment={"kind": "flip"})
    assert len(build("a.txt", tmp_path, augment={"kind": "mask"}).train) == 28


def test_parts_of_other_forms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(articles(40))
    lines(tmp_path / "b.jsonl", [{"messages": TALK}] * 3)
    lines(tmp_path / "c.jsonl", [{"text": "x", "label": n % 2} for n in range(9)])
    for test in ("b.jsonl", "c.jsonl"):
        with pytest.raises(DataError, match=r"test is not of the same form as train|no label column"):
            build({"train": "a.txt", "test": test}, tmp_path)


def test_knobs_of_running_text_are_refused_for_rows_with_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(60, 2)), y=np.arange(60) % 2)
    for knobs in ({"window": 64}, {"pack": False}, {"skip": 8}):
        with pytest.raises(DataError, match="is for running text"):
            build("d.npz", tmp_path, **knobs)


def test_wikitext_has_sixty_articles_each(stillroom_data: Path) -> None:
    splits = build({"train": "wikitext2/valid.txt", "test": "wikitext2/test.txt"}, stillroom_data, window=256)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (54, 6, 60)
    assert "".join(texts(splits.test)).encode() == (stillroom_data / "wikitext2" / "test.txt").read_bytes()
    share = sum(map(len, texts(splits.validation))) / sum(
        len(t) for p in parts_of[:2] for t in texts(getattr(splits, p))
    )
    assert 0.08 < share < 0.12
    plays = build("tinyshakespeare/input.txt", stillroom_data)
    assert 200 < len(plays.train) + len(plays.validation) + len(plays.test) < 400
