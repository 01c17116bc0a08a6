"""A store that several runs of language models share: whose basis is used, what is asked anew, and what is said of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import stillroom
from command_line import events
from stillroom.progress import Done, Silent
from stillroom.rows import Head, Output, Questions
from stillroom.rundir import read_json, write_json
from stillroom.stages.language_asking import Tried
from stillroom.teachers.language import Heard
from stillroom.transfer_set import recording
from stillroom.transfer_set.basis import FittedBasis
from stillroom.transfer_set.sparse_logits import Layout
from stillroom.transfer_set.store import Header, Kept, open_kept
from tiny_language import causal, text


class Told(Silent):
    """Keeps what is noted, and how many windows had been asked by then."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.asked = 0

    def note(self, words: str) -> None:
        assert not self.asked, "before the asking"
        self.notes.append(words)

    @contextmanager
    def stage(self, words: str, total: int, unit: str) -> Iterator[Done]:
        def done(more: int, before: bool = False) -> None:
            self.asked += more

        yield done


def asked(tree: dict[str, Any], run: Path) -> tuple[Kept, list[str], int]:
    """Ask; the answers, what was noted of the store, and how many windows were asked."""
    told = Told()
    stillroom.distill(tree, run, until="ask", show=told)
    at = run / "transfer_set" / read_json(run / "transfer_set" / "asked.json")["answers"]
    calls = sum(event["calls"] for event in events(run, "asked")) if (run / "events.jsonl").is_file() else 0
    return open_kept(at), [note for note in told.notes if "asked" in note], calls


def figures(run: Path) -> dict[str, Any]:
    """What was measured of the form that is kept, by the text."""
    told = read_json(run / "transfer_set" / "fidelity.json")
    found: dict[str, Any] = told["tried"][told["kept"]]
    return found


# what a basis is fitted on


def strange(home: Path) -> dict[str, str]:
    """Documents of digits alone."""
    home.mkdir()
    luck = np.random.default_rng(3)
    for name, documents in (("train", 6), ("valid", 2), ("test", 2)):
        parts = [
            f" = {one} = \n\n {' '.join(map(str, luck.integers(10**6, size=40)))} \n\n" for one in range(documents)
        ]
        (home / f"{name}.txt").write_text("".join(parts))
    return {"train": str(home / "train.txt"), "validation": str(home / "valid.txt"), "test": str(home / "test.txt")}


def test_a_basis_of_other_text_is_fitted_anew_before_more_bytes_are_spent(tmp_path: Path) -> None:
    first = causal(tmp_path, name="first", transfer_set={"store": str(tmp_path / "store"), "tail_bytes": 3})
    plain, _, _ = asked(first, tmp_path / "first")
    files = {path: path.read_bytes() for path in plain.folder.rglob("*") if path.is_file()}
    questions = {**first["questions"], "source": strange(tmp_path / "digits")}
    other = {**first, "questions": questions}
    # Without a bound the basis that is there is used; what it keeps of this text is measured all the same.
    lent, notes, _ = asked({**other, "name": "lent"}, tmp_path / "lent")
    assert (lent.folder, notes) == (plain.folder, [])
    alone = {"store": str(tmp_path / "alone"), "tail_bytes": 3}
    asked({**other, "name": "alone", "transfer_set": alone}, tmp_path / "alone run")
    worst = {run: max(one["kl"] for one in figures(tmp_path / run).values()) for run in ("lent", "alone run")}
    assert worst["alone run"] < 0.8 * worst["lent"]
    bound = math.sqrt(worst["alone run"] * worst["lent"])
    # With one that it misses, the run's own text is fitted on; the layout stays.
    close = {**other, "name": "close", "transfer_set": {**first["transfer_set"], "fidelity": {"kl": bound}}}
    own, notes, calls = asked(close, tmp_path / "close")
    assert own.folder not in (plain.folder, lent.folder)
    assert own.header.layout is not None
    assert own.header.layout["tail_bytes"] == 3
    assert max(one["kl"] for one in figures(tmp_path / "close").values()) == pytest.approx(worst["alone run"])
    assert calls == len(own) > 0
    assert len(notes) == 1
    assert "was fitted on other text and keeps too little of this run's" in notes[0]
    texts = {FittedBasis.load(one.folder / recording.BASIS).fitted_on for one in (plain, own)}
    assert len(texts) == 2
    # It is found again; and nothing that the first run kept has changed but for what the second one added.
    again, notes, after = asked(close, tmp_path / "close")
    assert (again.folder, notes, after) == (own.folder, [], calls)
    assert all(path.read_bytes() == content for path, content in files.items() if path.name != "teacher.json")


def test_the_bound_is_on_the_worst_text_that_is_not_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {name: Questions.of(np.arange(rows)[:, None]) for name, rows in (("train", 7), ("validation", 2))}
    monkeypatch.setattr(recording, "measured", lambda _, part: {"kl": 0.1 * len(part)})
    packer: Any = type("Packer", (), {"fingerprint": "a" * 64, "layout": Layout.of(300, 1, "bucket")})()
    assert Tried(tmp_path / "fidelity.json", parts).kl(packer) == pytest.approx(0.7)
    assert Tried(tmp_path / "fidelity.json", dict(zip(parts, [*parts.values()][::-1], strict=True))).kl(
        packer
    ) == pytest.approx(0.7)


def test_what_the_sizes_that_were_tried_lose_is_shown(tmp_path: Path) -> None:
    home = shared_home(tmp_path)
    run = stillroom.distill(causal(home, transfer_set={"tail_bytes": 2, "fidelity": {"kl": 0.02}}), home / "run")
    told = read_json(run.path / "transfer_set" / "fidelity.json")
    shown = run.scorecard["transfer_set"]["fidelity"]["per_byte"]
    assert len(shown) == len(told["tried"]) > 1
    assert [one["bytes"] for one in shown] == sorted(told["bytes"].values())
    assert shown[-1]["bytes"] == run.scorecard["transfer_set"]["bytes_per_token"]
    assert [one["kl"] for one in shown] == [told["tried"][name]["validation"]["kl"] for name in told["bytes"]]
    assert "What other sizes would lose" in (run.path / "report.html").read_text()


class Wide:
    """A teacher of two hidden units that counts what it is shown."""

    def outputs(self, questions: Questions) -> Iterator[Heard]:
        assert isinstance(questions.raw, dict)
        target_NT = questions.raw["target"]
        target_P = torch.from_numpy(target_NT[target_NT >= 0])
        hidden_PG = target_P[:, None].float().repeat(1, 2)
        output = Output(None, hidden_PG, Head(torch.ones(3, 2)))
        yield Heard(np.arange(len(target_NT)), (target_NT >= 0).sum(1), output, target_P)


@pytest.mark.parametrize(("rows", "positions"), [(9_000, 40_000), (300, 1_500)])
def test_calibration_takes_windows_until_it_has_positions_enough(rows: int, positions: int) -> None:
    """Of short windows more than of long ones; and no more than there are, each once."""
    target_NT = np.arange(rows * 5, dtype=np.int32).reshape(rows, 5)
    questions = Questions.of({"ids": target_NT, "target": target_NT})
    teacher: Any = Wide()
    hidden_NG = recording.calibrate(teacher, questions)
    assert hidden_NG.shape == (positions, 2)
    assert len(np.unique(hidden_NG[:, 0])) == positions
    assert abs(hidden_NG[:, 0].mean() / (rows * 5) - 0.5) < 0.05, "spread over the text"


# another teacher


def weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def tokenizer(folder: Path) -> None:
    tree = json.loads((folder / "tokenizer.json").read_text())
    merges = tree["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]
    (folder / "tokenizer.json").write_text(json.dumps(tree))


def template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + "{# changed #}")


def further(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"max_length": 3}')


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((weights,), "another weights or configuration"),
        ((tokenizer,), "another tokenizer"),
        ((template,), "another chat template"),
        ((weights, template), "another weights or configuration and another chat template"),
        ((further,), "other files in its folder"),
    ],
)
def test_what_a_store_has_of_almost_the_same_teacher_is_named(changes: Any, told: str, tmp_path: Path) -> None:
    home = shared_home(tmp_path)
    tree = causal(home, name="first", transfer_set={"store": str(home / "store"), "tail": "bucket"})
    first, notes, before = asked(tree, home / "first")
    assert notes == []
    for change in changes:
        change(home / "llama")
    other, notes, calls = asked({**tree, "name": "other"}, home / "other")
    assert notes == [
        f"{home / 'store'} has answers of a teacher with {told}; they are not this one's, and every window is asked anew"
    ]
    assert calls == before == len(other)
    assert other.header.fingerprint != first.header.fingerprint
    same = {part for part, digest in first.header.made_of.items() if other.header.made_of[part] == digest}
    changed = {"teacher"} | {change.__name__ for change in changes} - {"further"}
    assert same == {"teacher", "weights", "tokenizer", "template"} - changed
    # Once it has answers there, they are used without a word.
    assert asked({**tree, "name": "third"}, home / "third")[1:] == ([], 0)


def shared_home(folder: Path) -> Path:
    """A folder with a short text."""
    for name, documents, first in (("train", 2, 0), ("valid", 1, 20), ("test", 1, 40)):
        (folder / f"{name}.txt").write_text(text(documents, first, 30))
    return folder


def test_a_header_without_digests_is_read_and_completed(tmp_path: Path) -> None:
    home = shared_home(tmp_path)
    tree = causal(home, name="first", transfer_set={"store": str(home / "store"), "tail": "bucket"})
    first, _, _ = asked(tree, home / "first")
    path = first.folder / "teacher.json"
    told = read_json(path)
    digests = told.pop("made_of")
    assert set(digests) == {"teacher", "weights", "tokenizer", "template"}
    write_json(path, told)
    assert open_kept(first.folder).header.made_of == {}
    second, notes, calls = asked({**tree, "name": "second"}, home / "second")
    assert (second.folder, notes, calls) == (first.folder, [], 0)
    assert second.header == Header(**{name: value for name, value in told.items() if name != "format"}, made_of=digests)
