"""A model with fewer layers: the right ones, in its own architecture, and plain for transformers to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import stillroom
from stillroom.errors import ModelError

pytest.importorskip("transformers", reason="the tests of language models need the transformers package")

import transformers
from tests.models.tiny_models import CAUSAL, MASKED, SENTENCES, batch, matching, tiny

from stillroom.models import pretrained
from stillroom.models.shrinking import begun_anew, evenly_spaced, keep_layers, layer_count
from tiny_language import write_model, write_sentences


def test_evenly_spaced_gives_what_distilbert_keeps() -> None:
    assert evenly_spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert evenly_spaced(6, 3) == [0, 2, 5]
    assert evenly_spaced(5, 1) == [0]
    assert evenly_spaced(1, 1) == [0]
    for layers in range(1, 40):
        assert evenly_spaced(layers, layers) == list(range(layers))
        for keep in range(2, layers + 1):
            chosen = evenly_spaced(layers, keep)
            assert chosen == sorted(set(chosen))
            assert (len(chosen), chosen[0], chosen[-1]) == (keep, 0, layers - 1)
    for keep in (0, 7, -1):
        with pytest.raises(ModelError, match=f"{keep} of 6 layers"):
            evenly_spaced(6, keep)


class Passed(torch.nn.Module):
    """A layer that gives its input on, and looks like the layer it stands for."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden: torch.Tensor, *more: Any, **named: Any) -> Any:
        usual = self.layer(hidden, *more, **named)
        return (hidden, *usual[1:]) if isinstance(usual, tuple) else hidden


def skip_all_but(model: Any, kept: list[int]) -> None:
    """Make the other layers of a model do nothing."""
    blocks = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 4)
    for place in range(len(blocks)):
        if place not in kept:
            blocks[place] = Passed(blocks[place])


@pytest.mark.parametrize("name", [*MASKED, *CAUSAL])
@pytest.mark.parametrize("kept", [[0, 2, 3], [1]])
def test_a_shrunk_model_is_the_large_one_with_layers_skipped(name: str, kept: list[int], tmp_path: Path) -> None:
    tokenizer = matching(name)
    large = tiny(name, tokenizer)
    small = keep_layers(large, kept)
    assert layer_count(large) == 4
    assert layer_count(small) == len(kept)
    given = batch(tokenizer, SENTENCES)
    before = large(**given).logits
    found = small(**given).logits
    pretrained.save(small, tokenizer, tmp_path)
    plain, told = type(large).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    assert torch.equal(plain(**given).logits, found)
    assert torch.equal(large(**given).logits, before)
    skip_all_but(large, kept)
    torch.testing.assert_close(
        large(**given, use_cache=False).logits if name in CAUSAL else large(**given).logits, found
    )
    assert type(small) is type(large)
    assert not small.training
    ours = {weights.data_ptr() for weights in small.parameters()}
    assert not ours & {weights.data_ptr() for weights in large.parameters()}, "training one would change the other"


def test_settings_of_each_layer_follow_it() -> None:
    tokenizer = matching("gemma2")
    large = tiny("gemma2", tokenizer)
    assert large.config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert keep_layers(large, [1, 2, 3]).config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert large.config.num_hidden_layers == 4


def test_classifiers_shrink_too_and_models_without_weights() -> None:
    tokenizer = matching("bert")
    small = keep_layers(tiny("bert", tokenizer, "classification", num_labels=3), [0, 3])
    assert small(**batch(tokenizer, SENTENCES)).logits.shape == (len(SENTENCES), 3)
    with torch.device("meta"):
        counted = keep_layers(tiny("bert", tokenizer, "classification", num_labels=3), [0, 3])
    assert pretrained.count_parameters(counted) == pretrained.count_parameters(small)
    assert next(counted.parameters()).is_meta


def test_layers_that_do_not_exist_are_refused() -> None:
    model = tiny("bert", matching("bert"))
    with pytest.raises(ModelError, match=r"there is no layer 4: the model has 4, 0 to 3"):
        keep_layers(model, [0, 4])
    with pytest.raises(ModelError, match="no layer -1"):
        keep_layers(model, [-1])
    for wrong in ([], [1, 0], [1, 1]):
        with pytest.raises(ModelError, match="not rising"):
            keep_layers(model, wrong)


def test_what_is_no_stack_of_like_layers_is_refused() -> None:
    small = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    shared = transformers.AlbertForMaskedLM(transformers.AlbertConfig(**small, embedding_size=8, num_hidden_layers=3))
    with pytest.raises(ModelError, match="not built as a stack"):
        keep_layers(shared, [0])
    counting = transformers.EsmForMaskedLM(
        transformers.EsmConfig(**small, num_hidden_layers=3, pad_token_id=1, mask_token_id=2)
    )
    with pytest.raises(ModelError, match="not alike"):
        keep_layers(counting, [0])


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_begun_anew_is_the_same_architecture_with_weights_of_the_seed(name: str) -> None:
    model = keep_layers(tiny(name, matching(name)), [0, 2])
    torch.manual_seed(3)
    first = begun_anew(model)
    torch.manual_seed(3)
    second = begun_anew(model)
    assert first.config.to_dict() == model.config.to_dict()
    assert {key: value.shape for key, value in first.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    matrices = [key for key, value in model.state_dict().items() if value.ndim == 2]
    assert all(not torch.equal(first.state_dict()[key], model.state_dict()[key]) for key in matrices)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


def test_a_student_from_random_weights(tmp_path: Path) -> None:
    write_sentences(tmp_path)
    write_model(tmp_path / "bert", "bert", layers=2)
    weights = {}
    for start in ("kept", "random"):
        tree = {
            "name": start, "seeds": 1, "questions": {"kind": "dataset", "source": str(tmp_path / "sentences.csv")},
            "teacher": {"kind": "trained", "model": {"kind": "transformers", "from": str(tmp_path / "bert")}, "epochs": 1},
            "student": {"kind": "shrink", "layers": [0], "vocabulary": "cut", "weights": start},
            "objectives": [{"kind": "hard_label"}], "training": {"epochs": 1, "learning_rate": 1e-9},
        }  # fmt: skip
        run = stillroom.distill(tree, tmp_path / start, until="train")
        model, _ = pretrained.load(run.path / "student", "classification")
        weights[start] = model.bert.encoder.layer[0].output.dense.weight
    theirs = (
        pretrained.load(tmp_path / "kept" / "teacher", "classification")[0].bert.encoder.layer[0].output.dense.weight
    )
    torch.testing.assert_close(weights["kept"], theirs, atol=1e-5, rtol=1e-4)
    assert (weights["random"] - theirs).abs().max() > 0.1
    told = stillroom.Recipe.load(tmp_path / "kept" / "recipe.yaml").student.model_dump(mode="json")
    assert "weights" not in told
