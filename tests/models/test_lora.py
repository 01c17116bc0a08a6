"""Adapters: only they learn, and merging them gives a plain model that says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stillroom.errors import ModelError

pytest.importorskip("transformers", reason="the tests of language models need the transformers package")
pytest.importorskip("peft", reason="adapters need the peft package")

from tests.models.tiny_models import SENTENCES, batch, matching, tiny

from stillroom.models import lora, pretrained
from stillroom.models.language import LanguageNetwork, logits
from stillroom.rows import Tokens


def learning(model: torch.nn.Module) -> set[str]:
    return {name for name, weights in model.named_parameters() if weights.requires_grad}


@pytest.mark.parametrize("name", ["bert", "distilbert", "llama", "gpt2"])
def test_merged_adapters_say_the_same_and_are_plain(name: str, tmp_path: Path) -> None:
    tokenizer = matching(name)
    model, given = tiny(name, tokenizer), batch(tokenizer, SENTENCES)
    first = model(**given).logits
    count = pretrained.count_parameters(model)
    wrapped = lora.wrap(model, rank=2, alpha=4, dropout=0.1).eval()
    assert torch.equal(wrapped(**given).logits, first)
    assert all("lora_" in one for one in learning(wrapped))
    assert not any("head" in one or "cls." in one or "vocab_" in one for one in learning(wrapped))
    with torch.no_grad():
        for one, weights in wrapped.named_parameters():
            if "lora_B" in one:
                weights.normal_(std=0.1)
    changed = wrapped(**given).logits
    assert not torch.allclose(changed, first)
    network = LanguageNetwork(wrapped)
    scored_BT = given["attention_mask"].bool()
    output = network(Tokens(given["input_ids"].masked_fill(~scored_BT, -1), scored_BT))
    assert output.hidden_BH is not None
    assert output.head is not None
    torch.testing.assert_close(logits(output.hidden_BH, output.head), changed[scored_BT])
    plain = lora.merged(wrapped)
    torch.testing.assert_close(plain(**given).logits, changed, atol=1e-4, rtol=1e-4)
    assert pretrained.count_parameters(plain) == count
    assert len(learning(plain)) == len(list(plain.parameters()))
    pretrained.save(plain, tokenizer, tmp_path)
    again, _ = pretrained.load(tmp_path, "masked" if name in ("bert", "distilbert") else "causal")
    assert torch.equal(again(**given).logits, plain(**given).logits)


def test_a_classifiers_new_head_is_trained_whole() -> None:
    tokenizer = matching("bert")
    wrapped = lora.wrap(tiny("bert", tokenizer, "classification", num_labels=3), 2, 4)
    heads = {one for one in learning(wrapped) if "lora_" not in one}
    assert heads
    assert all("classifier" in one for one in heads)
    assert "ForSequenceClassification" in type(lora.merged(wrapped)).__name__


def test_targets_by_name_and_one_that_does_not_exist() -> None:
    tokenizer = matching("llama")
    wrapped = lora.wrap(tiny("llama", tokenizer), 2, 4, targets=["q_proj"])
    assert learning(wrapped)
    assert all("q_proj" in one for one in learning(wrapped))
    with pytest.raises(ModelError, match=r"no linear layer 'c_attn'.*Choose among down_proj, gate_proj, k_proj"):
        lora.wrap(tiny("llama", tokenizer), 2, 4, targets=["c_attn"])


def test_a_model_without_adapters_comes_back() -> None:
    model = tiny("llama", matching("llama"))
    assert lora.merged(model) is model
