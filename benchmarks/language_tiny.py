"""A language model of a few thousand weights with a tokenizer of its own, made from nothing: for what wants no quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXT = [f"the {colour} {animal} sees a {other} by the river . " * 3 for colour in ("red", "old", "small")
        for animal in ("fox", "owl", "hen") for other in ("stone", "boat", "tree")]  # fmt: skip
TOKENS = 300


def tokenizer() -> Any:
    """Bytes and the few merges that the text teaches, with a token that ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, pad_token=end, model_max_length=64)


def llama(vocabulary: int, width: int, layers: int, tokens: int, seed: int = 0) -> Any:
    """A Llama with untied random weights, in float32; heads 64 wide where they fit."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = max(1, width // 64)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=tokens,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def folder(path: Path, steps: int = 20) -> Path:
    """The model in transformers format, trained a few steps so that its answers are not all alike; made once."""
    from stillroom.models.language import LanguageModel
    from stillroom.objectives.fused import fused_cross_entropy
    from stillroom.questions.windows import encoded
    from stillroom.rows import Tokens

    if (path / "config.json").is_file():
        return path
    words = tokenizer()
    model = LanguageModel(llama(TOKENS, 24, 1, 64), words, "causal")
    ids_BT = torch.tensor([ids[:24] for ids in encoded(words, TEXT)])
    scored_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    scored_BT[:, -1] = False
    optimiser = torch.optim.AdamW(model.network.parameters(), 1e-2)
    for _ in range(steps):
        _, hidden_PH, head, _ = model.network(Tokens(ids_BT, scored_BT))
        loss = fused_cross_entropy(hidden_PH, head, ids_BT[:, 1:].reshape(-1)) / hidden_PH.shape[0]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return path
