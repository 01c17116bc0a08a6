"""Small real tokenizers, trained on a few words while a test runs: byte-level, SentencePiece-like, and WordPiece."""

from __future__ import annotations

import json
from typing import Any

import pytest

WORDS = [
    "The cat sat on the mat, and the dog sat by the cat.",
    "Ein Bär, 日本, naïve 🙂 and so on: the end\n\n = Title = \n",
    "Words of 1 . Words of 2 . Words of 3 . SPEAKER: what then?",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def transformers() -> Any:
    """The library, or a skip by name."""
    return pytest.importorskip("transformers", reason="the language extra is not installed")


def byte_level(begins: str | None = None, ends: str = "<|endoftext|>", **more: Any) -> Any:
    """A GPT-2 kind of tokenizer; `begins` is put before each text."""
    library = transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [ends, "<|im_start|>", "<|im_end|>", *([begins] if begins else [])]
    backend.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if begins:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begins} $A", special_tokens=[(begins, backend.token_to_id(begins))]
        )
    named = {"bos_token": begins} if begins else {}
    return library.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=ends,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=TEMPLATE,
        **named,
        **more,
    )


def sentence_piece() -> Any:
    """A tokenizer that writes blanks as ▁ and unknown characters as bytes."""
    library = transformers()
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<unk>", "</s>", *(f"<0x{value:02X}>" for value in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator([WORDS[0].replace(" ", "▁")], trainer)
    described = json.loads(backend.to_str())
    described["added_tokens"] = described["added_tokens"][:2]
    return library.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)), eos_token="</s>", unk_token="<unk>"
    )


def word_piece() -> Any:
    """A BERT kind of tokenizer."""
    library = transformers()
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        WORDS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As such files often come: asked to cut and to pad.
    backend.enable_truncation(8)
    backend.enable_padding(length=8)
    return library.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )
