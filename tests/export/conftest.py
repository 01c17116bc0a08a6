"""Tiny students in folders, each with rows it can answer; skipped by name where the extra `onnx` is not installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from stillroom import inputs
from stillroom.kinds import parse
from stillroom.models import pretrained
from stillroom.models.classifier import Classifier
from stillroom.models.device import Device
from stillroom.models.text import plain

WORDS = [f"w{place}" for place in range(1000)]


class Student(NamedTuple):
    """A folder, raw rows, and their labels."""

    folder: Path
    raw: Any
    label_N: Any


def save_rows(folder: Path, model: dict[str, Any], raw: Any, seed: int = 0) -> Student:
    """An untrained network of ours, with a class bias that an export must not lose."""
    torch.manual_seed(seed)
    learned = inputs.learn(raw)
    network = parse("model", model).build(tuple(learned.shape), 3)
    student = Classifier(parse("model", model), network, learned, ["a", "b", "c"], Device())
    student.class_bias_C = torch.tensor([0.5, -0.25, 0.0])
    student.save(folder)
    return Student(folder, raw, np.arange(len(raw)) % 3)


@pytest.fixture(scope="session")
def saved() -> Any:
    """Saves an untrained network of ours."""
    return save_rows


@pytest.fixture(scope="session")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A multilayer perceptron on six numbers."""
    raw = np.random.default_rng(0).normal(size=(70, 6))
    return save_rows(tmp_path_factory.mktemp("mlp"), {"kind": "mlp", "hidden": [128, 64]}, raw)


@pytest.fixture(scope="session")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A convolutional network on images of 8 x 8."""
    raw = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    return save_rows(tmp_path_factory.mktemp("convnet"), {"kind": "convnet", "channels": [32, 64]}, raw)


def tokenizer() -> Any:
    """A thousand words and the special tokens, as a tokenizer of transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    places = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    made = Tokenizer(models.WordLevel(places, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def small(**more: Any) -> dict[str, Any]:
    """The shape every tiny transformer here has."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return {"vocab_size": len(WORDS) + 4, "max_position_embeddings": 64, "pad_token_id": 0, **shape, **more}


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A classifier of texts in a folder of transformers, with Stillroom's file beside it."""
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**small(num_labels=2, initializer_range=0.3))).eval()
    pretrained.save(model, tokenizer(), folder)
    told = {"format": 1, "model": {"kind": "transformers", "task": "classification", "from": "."}}
    told |= {"classes": ["bad", "good"], "class_bias": [0.0, 0.75]}
    inputs.write(inputs.Texts(column="text", length=64, tokenizer=plain(tokenizer())), folder)
    (folder / "stillroom.json").write_text(json.dumps(told))
    generator = np.random.default_rng(0)
    rows = [" ".join(generator.choice(WORDS, size)) for size in generator.integers(1, 30, 60)]
    raw = {"text": np.array(rows, dtype=object)}
    return Student(folder, raw, np.arange(len(rows)) % 2)


def windows(target_of: Any) -> dict[str, Any]:
    """Windows of token ids of several lengths, and what each position should say."""
    generator = np.random.default_rng(0)
    ids_NT = generator.integers(4, len(WORDS) + 4, (40, 20)).astype(np.int32)
    for row, length in enumerate(generator.integers(2, 21, 40)):
        ids_NT[row, length:] = -1
    return {"ids": ids_NT, "target": target_of(ids_NT)}


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A causal language model with tied embeddings and grouped heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(**small(num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.2))
    pretrained.save(LlamaForCausalLM(config).eval(), tokenizer(), folder)
    return Student(folder, windows(lambda ids_NT: np.pad(ids_NT[:, 1:], ((0, 0), (0, 1)), constant_values=-1)), None)


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A masked language model, a third of whose positions are scored."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked")
    torch.manual_seed(0)
    pretrained.save(BertForMaskedLM(BertConfig(**small())).eval(), tokenizer(), folder)
    scored_T = np.arange(20) % 3 == 0
    return Student(folder, windows(lambda ids_NT: np.where(scored_T, ids_NT, -1)), None)
