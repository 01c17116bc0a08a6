"""A transformers classifier of texts as a network of ours: rows of token ids in, logits and last hidden layer out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillroom.columns import TEXT_COLUMN
from stillroom.errors import DataError, ModelError
from stillroom.inputs import Texts
from stillroom.kinds import NetworkTask
from stillroom.models import pretrained
from stillroom.rows import Output, Raw


def inputs_for(raw: Raw | None, tokenizer: Any, length: int | None, context: int) -> Texts:
    """What a model with this tokenizer must know of rows of text; None: of any one column.

    Raises DataError for other rows, ModelError for a length that the model cannot look at.
    """
    if length is not None and length > context:
        raise ModelError(
            f"texts of {length:,} tokens are asked for, and the model looks at {context:,} at most",
            where="length",
            cure=f"Set it to {context} or less",
        )
    column = TEXT_COLUMN if raw is None else _text_column(raw)
    return Texts(column=column, length=length or context, tokenizer=plain(tokenizer))


def _text_column(raw: Raw) -> str:
    texts = [name for name, column in raw.items() if column.dtype.kind == "O"] if isinstance(raw, dict) else []
    if not isinstance(raw, dict) or len(raw) != 1 or len(texts) != 1:
        found = "columns " + ", ".join(raw) if isinstance(raw, dict) else "arrays"
        raise DataError(
            f"a model of the transformers library takes one column of text, and these rows are {found}",
            where="questions.input",
            cure="Name the text column: input: sentence",
        )
    return texts[0]


def plain(tokenizer: Any) -> str:
    """The tokenizer as the tokenizers library writes it, cutting and padding nothing."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    found.no_truncation()
    found.no_padding()
    return str(found.to_str())


class TextNetwork(nn.Module):
    """Wraps a sequence classifier: forward(ids [B, T], PADDING at the end) -> Output(logits [B, C], hidden [B, H])."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        if model.config.pad_token_id is None:
            model.config.pad_token_id = _padding_of(tokenizer)
        classes = model.config.num_labels
        heads = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == classes]
        if not heads:
            raise ModelError(
                f"a {type(model).__name__} has no linear layer to {classes} classes",
                where="model",
                cure="Use an architecture that transformers loads for sequence classification",
            )
        self.hidden_width = heads[-1].in_features
        self.shows: tuple[int, ...] = ()
        """Layers, counted from 0, whose hidden states are shown too: of the token that a text is answered from."""
        self._seen: torch.Tensor | None = None
        heads[-1].register_forward_pre_hook(self._look)

    @property
    def depth(self) -> tuple[int, int]:
        """How many layers the body has, and their width."""
        return depth_of(self.model)

    def _look(self, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._seen = given[0]

    def forward(self, ids_BT: torch.Tensor) -> Output:
        there_BT = ids_BT >= 0
        longest = int(there_BT.sum(1).max())
        ids_BT, there_BT = ids_BT[:, :longest].long(), there_BT[:, :longest]
        ids_BT = ids_BT.where(there_BT, ids_BT.new_tensor(padding := self.model.config.pad_token_id))
        more = {"output_hidden_states": True} if self.shows else {}
        found = self.model(input_ids=ids_BT, attention_mask=there_BT.long(), **more)
        hidden, self._seen = self._seen, None
        assert hidden is not None
        row_B = torch.arange(len(ids_BT), device=ids_BT.device)
        place_B = torch.zeros_like(row_B)
        if hidden.ndim == 3:  # a decoder's head looks at every token; its answer is at the last that is no padding
            place_B = ((ids_BT != padding) * torch.arange(longest, device=ids_BT.device)).argmax(1)
            hidden = hidden[row_B, place_B]
        layers = tuple(found.hidden_states[layer + 1][row_B, place_B] for layer in self.shows)
        return Output(found.logits, hidden, layers=layers)


def depth_of(model: Any) -> tuple[int, int]:
    """How many layers a model's body has, and the width of what is between them."""
    config = model.config.get_text_config()
    return int(config.num_hidden_layers), int(config.hidden_size)


def _padding_of(tokenizer: Any) -> int:
    """A token that no text ends with: a decoder's head looks for the last token of each row that is another one."""
    for name in ("pad_token_id", "eos_token_id", "unk_token_id", "bos_token_id"):
        found = getattr(tokenizer, name)
        if found is not None:
            return int(found)
    raise ModelError(
        "this tokenizer has no padding token and no other special one, so where a text ends cannot be told",
        where="tokenizer",
        cure="Name a pad_token in its tokenizer_config.json",
    )


def network_of(model: Any, tokenizer: Any, task: NetworkTask) -> nn.Module:
    """The network that trains and answers: a classifier of texts, or a language model."""
    if task == "classification":
        return TextNetwork(model, tokenizer)
    from stillroom.models.language import LanguageNetwork

    network = LanguageNetwork(model, task)
    network.tokenizer = tokenizer
    return network


def adapted(model: Any, tokenizer: Any, task: NetworkTask) -> nn.Module:
    """The network of a model with low-rank adapters beside its layers; `merged` puts them into its weights."""
    network = network_of(model, tokenizer, task)
    vars(network)["adapters"] = (model,)  # no submodule: its weights would be counted twice
    return network


def merged(network: nn.Module, task: NetworkTask) -> nn.Module:
    """The network with its adapters in its weights; one without comes back as it is."""
    adapters = getattr(network, "adapters", None)
    if adapters is None:
        return network
    from stillroom.models import lora  # peft is imported for models that have adapters

    return network_of(lora.merged(adapters[0]), network.tokenizer, task)


def loaded(path: Path, task: NetworkTask, classes: int | None) -> tuple[Any, Any]:
    """Model and tokenizer at a path. On the meta device just the architecture, for counting its weights."""
    if torch.get_default_device().type != "meta":
        return pretrained.load(path, task, classes=classes)
    config = _config_at(path)
    with pretrained.explained(path):
        model = _from_config(config, task, config.num_labels if classes is None else classes)
    return model, tokenizer_at(path)


def order_classes(model: Any, order: list[int]) -> None:
    """Put a sequence classifier's classes into another order: the rows of its last layer."""
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == len(order)][-1]
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        if head.bias is not None:
            head.bias.copy_(head.bias[order].clone())


def name_classes(network: Any, classes: Sequence[Any]) -> None:
    """Write the classes into a sequence classifier's configuration, so that whoever loads it knows them by name.

    A head that knew the same classes in another order is put into this one.
    """
    model, told = network.model, [str(name) for name in classes]
    known = [str(model.config.id2label.get(place)) for place in range(len(told))]
    if known != told and sorted(known) == sorted(told):
        order_classes(model, [known.index(name) for name in told])
    model.config.id2label = dict(enumerate(told))
    model.config.label2id = {name: place for place, name in enumerate(told)}


def fresh(config: dict[str, Any], tokenizer: Any, task: NetworkTask, classes: int) -> Any:
    """A new model of this configuration; the vocabulary is the tokenizer's where it does not say. Raises ModelError."""
    # A type's own defaults are the ids of the tokenizer it was published with.
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    made = _configured(config, vocab_size=len(tokenizer), **ends)
    made.pad_token_id = tokenizer.pad_token_id
    with _a_network(), pretrained.quiet():
        return _from_config(made, task, classes)


def _configured(config: dict[str, Any], **more: Any) -> Any:
    from transformers import AutoConfig

    known = {name: value for name, value in config.items() if name != "model_type"}
    with _a_network():
        return AutoConfig.for_model(config["model_type"], **{**more, **known})


@contextmanager
def _a_network() -> Iterator[None]:
    """Whatever transformers raises on a configuration that makes no network becomes a ModelError."""
    try:
        yield
    except (ArithmeticError, AttributeError, AssertionError, KeyError, TypeError, ValueError, RuntimeError) as error:
        told = str(error).strip().split("\n")[0][:240] or type(error).__name__
        raise ModelError(
            f"transformers makes no network of this configuration: {told}",
            where="config",
            cure="See the documentation of that model type's configuration",
        ) from error


def _from_config(config: Any, task: NetworkTask, classes: int) -> Any:
    if task == "classification":
        config.num_labels = classes
    return pretrained.AUTO[task].from_config(config)


def _where(path: Path) -> tuple[str, dict[str, str]]:
    """What transformers wants to be told of a folder, or of a GGUF file."""
    return (str(path), {}) if path.is_dir() else (str(path.parent), {"gguf_file": path.name})


def _config_at(path: Path) -> Any:
    from transformers import AutoConfig

    pretrained.refuse(path)  # before anything is read: what runs code, is cut short or is no model at all
    where, more = _where(path)
    with pretrained.quiet(), pretrained.explained(path):
        return AutoConfig.from_pretrained(where, local_files_only=True, **more)


def tokenizer_at(path: Path) -> Any:
    """The tokenizer at a path: beside a model's weights, inside a GGUF file, or alone in a folder. Raises ModelError."""
    return _tokenizer_at(path.absolute(), _written(path))


def context_of(path: Path) -> int:
    """Most tokens that the model at a path can look at."""
    return _context_of(path.absolute(), _written(path))


@lru_cache(maxsize=8)
def _tokenizer_at(path: Path, written: int) -> Any:
    return pretrained.load_tokenizer(path, weights=False)


@lru_cache(maxsize=8)
def _context_of(path: Path, written: int) -> int:
    return _context(_config_at(path))


def _written(path: Path) -> int:
    """When a model's files were last written: another model may have come to stand at the same path."""
    files = [path, *(path.iterdir() if path.is_dir() else ())]
    return max(int(found.stat().st_mtime_ns) for found in files)


def context_of_config(config: dict[str, Any]) -> int:
    """The same of a configuration."""
    return _context(_configured(config))


def _context(config: Any) -> int:
    places = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 1_000_000)
    # RoBERTa counts its positions from after the padding id.
    return places - 2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else places
