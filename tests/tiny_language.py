"""A tiny text of several documents, labelled sentences, and saved tiny models: what tests of whole language runs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.models.tiny_models import byte_pairs, tiny, word_pieces

from command_line import write_csv
from stillroom.models import pretrained

WORDS = [
    *("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "a", "film", "of", "quiet", "charm"),
    *("and", "story", "that", "never", "lets", "go", "she", "said", "what", "bad", "it", "was"),
]
GOOD, BAD = ("charm", "quick", "quiet"), ("bad", "lazy", "terribly")


def document(seed: int, words: int = 80) -> str:
    """Sentences in which each word depends on the one before, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    place, found = int(rng.integers(len(WORDS))), []
    for _ in range(words):
        found.append(WORDS[place])
        place = (3 * place + int(rng.integers(3))) % len(WORDS)
    return " ".join(found)


def text(documents: int, first: int = 0, words: int = 80) -> str:
    """Documents under WikiText headings."""
    return "".join(f" = Part {first + one} = \n\n {document(first + one, words)} . \n\n" for one in range(documents))


def write_text(home: Path) -> dict[str, str]:
    """A source of running text: train with 6 documents, validation and test with 2 each. What is there stays."""
    for name, documents, first in (("train", 6, 0), ("valid", 2, 20), ("test", 2, 40)):
        if not (home / f"{name}.txt").is_file():
            (home / f"{name}.txt").write_text(text(documents, first))
    return {"train": str(home / "train.txt"), "validation": str(home / "valid.txt"), "test": str(home / "test.txt")}


def write_sentences(home: Path, count: int = 120) -> str:
    """Sentences with a label that follows from their words."""
    rng = np.random.default_rng(0)
    rows = []
    for place in range(count):
        said = [GOOD, BAD][place % 2][int(rng.integers(3))]
        around = [WORDS[int(at)] for at in rng.integers(len(WORDS) - 3, size=int(rng.integers(2, 9)))]
        around = [word for word in around if word not in (*GOOD, *BAD)]
        rows.append({"sentence": " ".join([*around, said, "film"]), "label": ["good", "poor"][place % 2]})
    return str(write_csv(home / "sentences.csv", rows))


def write_model(
    folder: Path, name: str = "llama", purpose: str | None = None, tokenizer: Any = None, **knobs: Any
) -> str:
    """A tiny random model of this type in a folder, in the library's own format."""
    reads = tokenizer or (word_pieces() if name in ("bert", "distilbert") else byte_pairs(300))
    folder.mkdir(parents=True, exist_ok=True)
    pretrained.save(tiny(name, reads, purpose, **knobs), reads, folder)
    return str(folder)


def causal(home: Path, **sections: Any) -> dict[str, Any]:
    """A recipe over the tiny text: a saved tiny Llama of two layers, asked once; a student of one of them."""
    whole = {
        "name": "tiny",
        "seeds": 1,
        "questions": {"kind": "dataset", "source": write_text(home), "window": 32},
        "teacher": {"kind": "transformers", "model": str(home / "llama"), "task": "causal"},
        "student": {"kind": "shrink", "layers": 1},
        "objectives": [{"kind": "soft_target", "temperature": 1}],
        "transfer_set": {"tail_bytes": 8},
        "training": {"epochs": 1, "batch_size": 8, "learning_rate": 0.002},
        "evaluation": {"metrics": ["accuracy", "agreement", "size", "cost"]},
    }
    if not (home / "llama").is_dir():
        write_model(home / "llama", "llama", layers=2)
    return {key: value for key, value in {**whole, **sections}.items() if value is not None}


def kept_files(run: Path) -> dict[str, bytes]:
    """Weights, tokenizers and answers of a run, by their place in it."""
    endings = ("model.safetensors", "basis.safetensors", "tokenizer.json", "records.u8", "hidden.f16", "keys.arrow")
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.name in endings}


def same_weights(first: Any, second: Any) -> bool:
    """Two modules hold equal weights under equal names."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
