"""A teacher's last hidden states over text, computed once and kept: fidelity and quality need nothing else of it.

    STATES/head.npy                    the output matrix [V, G]
    STATES/NAME.npz                    windows: ids and target [N, T], the document of each [N]
    STATES/NAME.hidden.npy, NAME.done  hidden states [N, T, G], and how many windows are finished

Windows are drawn at random over a text, by seed 0. A stop costs at most the batch that was being asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.language_sizes import TINY, Sizes
from stillroom.rows import PADDING, Array, Head, Questions, Splits
from stillroom.teachers.language import in_order

SKIP = 32
"""First positions of a window that are left out: they have little before them."""
SMALL_SKIP = 2
BATCH = 8
FAR = {"Shakespeare": "tinyshakespeare/input.txt", "GSM8K": "gsm8k/test.jsonl"}
TRAIN, TEST = "wikitext2/valid.txt", "wikitext2/test.txt"


class States:
    """Windows of a text and what the teacher's last layer said of them."""

    def __init__(self, folder: Path, name: str, skip: int) -> None:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as kept:
            self.ids_NT, self.target_NT, self.document_N = kept["ids"], kept["target"], kept["document"]
        self.hidden_NTG: Array = np.load(folder / f"{name}.hidden.npy", mmap_mode="r")
        self.skip = skip

    @cached_property
    def scored_NT(self) -> Array:
        """Positions with a target, and enough before them."""
        scored_NT: Array = self.target_NT != PADDING
        scored_NT[:, : self.skip] = False
        return scored_NT

    def positions(self) -> tuple[torch.Tensor, torch.Tensor, Array]:
        """Hidden states [P, G], the tokens that stand there [P], the document of each [P]."""
        hidden_PG = torch.from_numpy(np.array(self.hidden_NTG[self.scored_NT]))
        document_P = np.broadcast_to(self.document_N[:, None], self.scored_NT.shape)[self.scored_NT]
        return hidden_PG, torch.from_numpy(self.target_NT[self.scored_NT]).long(), document_P


class Teacher:
    """The teacher of the bench, loaded when it is first needed, with its states in a folder."""

    def __init__(self, sizes: Sizes, base: Path, data: Path) -> None:
        self.sizes, self.folder, self.data = sizes, base / "states", data
        self.folder.mkdir(parents=True, exist_ok=True)
        self.length, self.skip = (64, SMALL_SKIP) if sizes.teacher == TINY else (256, SKIP)

    @cached_property
    def path(self) -> Path:
        """Where its weights stand."""
        from benchmarks import language_tiny
        from stillroom.models.references import resolve

        if self.sizes.teacher == TINY:
            return language_tiny.folder(self.folder.parent / "tiny")
        return resolve(self.sizes.teacher, [])

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer alone: seconds."""
        from stillroom.models.text import tokenizer_at

        return tokenizer_at(self.path)

    @cached_property
    def asked(self) -> Any:
        """The model at work."""
        from stillroom.models.language import LanguageModel
        from stillroom.teachers.language import AskedLanguageModel

        return AskedLanguageModel(LanguageModel.load(self.path, "causal"), [self.path])

    @cached_property
    def head(self) -> Head:
        """Its output layer, kept beside the states."""
        path = self.folder / "head.npy"
        if not path.is_file():
            weight_VG, bias_V, soft_cap = self.asked.head()
            assert bias_V is None
            assert soft_cap is None
            _save(path, weight_VG.numpy())
        return Head(torch.from_numpy(np.load(path)))

    def splits(self, source: dict[str, str]) -> Splits:
        """Documents of text files as windows of the teacher's tokens."""
        from stillroom.kinds import parse
        from stillroom.questions.windows import windows

        knobs = parse("questions", {"kind": "dataset", "source": source})
        return windows(knobs.build([self.data]), self.tokenizer, self.length, context=self.length)

    def spoken(self, texts: Sequence[str]) -> Questions:
        """Texts as unpacked windows."""
        from stillroom.questions.running import TEXT
        from stillroom.questions.windows import windows

        rows = Questions.of({TEXT: np.array(list(texts), dtype=object)})
        none = rows.take(np.arange(1))
        splits = Splits(none, none, rows, none.take(np.arange(0)), [])
        return windows(splits, self.tokenizer, self.length, context=self.length).test

    def train(self) -> States:
        """Windows of wikitext2/valid.txt, packed, at random places."""
        return self.states(
            "train", lambda: self.splits({"train": TRAIN, "test": TEST}).train, self.sizes.calibration_windows
        )

    def test(self) -> States:
        """Windows of wikitext2/test.txt, each of one document."""
        return self.states("test", lambda: self.splits({"train": TRAIN, "test": TEST}).test, self.sizes.test_windows)

    def far(self, name: str) -> States:
        """Windows of another kind of text, enough for the positions that are asked for."""
        wanted = self.sizes.far_positions

        def made() -> Questions:
            path = self.data / FAR[name]
            if path.suffix == ".jsonl":
                lines = [json.loads(line) for line in path.read_text().splitlines()[:200]]
                found = self.spoken([f"{line['question']}\n{line['answer']}" for line in lines])
            else:
                found = self.splits({"train": TRAIN, "test": FAR[name]}).test
            order = np.random.default_rng(0).permutation(len(found))
            assert isinstance(found.raw, dict)
            each_N = (found.raw["target"][order, self.skip :] != PADDING).sum(1)
            return found.take(order[: int(np.searchsorted(each_N.cumsum(), wanted)) + 1])

        return self.states(name.lower(), made, None)

    def states(self, name: str, questions: Any, count: int | None) -> States:
        """Windows and their states, computed where they are not kept yet."""
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            found = questions()
            if count is not None:
                found = found.take(np.sort(np.random.default_rng(0).permutation(len(found))[:count]))
            staged = path.with_suffix(".staged.npz")
            np.savez(staged, ids=found.raw["ids"], target=found.raw["target"], document=found.row_N)
            staged.replace(path)
        self._ask(name)
        return States(self.folder, name, self.skip)

    def _ask(self, name: str) -> None:
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as kept:
            ids_NT, target_NT = kept["ids"], kept["target"]
        hidden, told = self.folder / f"{name}.hidden.npy", self.folder / f"{name}.done"
        done = int(told.read_text()) if told.is_file() else 0
        if done == len(ids_NT):
            return
        width = int(self.asked.hidden_width)
        shape = (*ids_NT.shape, width)
        mode = "r+" if hidden.is_file() else "w+"
        kept_NTG = np.lib.format.open_memmap(hidden, mode, np.float32, shape)
        for start in range(done, len(ids_NT), BATCH):
            rows = slice(start, start + BATCH)
            part = Questions.of({"ids": ids_NT[rows], "target": target_NT[rows]})
            heard = list(self.asked.outputs(part))
            index_P, _ = in_order([(one.place_B, one.count_B) for one in heard])
            said_PG = np.concatenate([one.output.hidden_BH.float().numpy() for one in heard])
            kept_NTG[rows][target_NT[rows] != PADDING] = said_PG[index_P]
            kept_NTG.flush()
            told.write_text(str(min(start + BATCH, len(ids_NT))))
            print(f"  {name}: {min(start + BATCH, len(ids_NT)):,} of {len(ids_NT):,} windows", flush=True)


def _save(path: Path, array: Array) -> None:
    staged = path.with_name(path.name + ".staged")
    with open(staged, "wb") as file:
        np.save(file, array)
    staged.replace(path)
