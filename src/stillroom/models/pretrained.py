"""Models of the transformers library: read from safetensors or GGUF with nothing that can run code, and saved so that
plain `from_pretrained` reads them.

A saved folder: config.json · generation_config.json · model.safetensors · tokenizer.json · tokenizer_config.json · a chat
template where there is one. No time and no path stands in it, and the same model gives the same bytes.
"""

from __future__ import annotations

import copy
import json
import math
import mmap
import re
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from logging import CRITICAL
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.utils import logging

from stillroom.errors import ModelError, StillroomError
from stillroom.models.references import GGUF, refuse_pickles, weight_files
from stillroom.rundir import MANIFEST, fingerprint, read_json, sha256_file, write_file, write_json

Purpose = Literal["causal", "masked", "classification", "base"]

AUTO: dict[str, Any] = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "classification": transformers.AutoModelForSequenceClassification,
    "base": transformers.AutoModel,
}
CODE = (".py", ".pyc", ".so", ".pyd", ".dll")
CONFIG, WEIGHTS, BESIDE = "config.json", "model.safetensors", "stillroom.json"
HEADS = re.compile(
    "cls|lm_head|score|classifier|pre_classifier|classification_head|vocab_(transform|layer_norm|projector)|pooler|"
    "qa_outputs|qa_classifier|predictions|sop_classifier|generator_(predictions|lm_head)|discriminator_predictions|"
    "lm_predictions|mask_predictions|mlm_head|embed_out|head|decoder|summary|sequence_summary|logits_proj|out_proj"
)
"""Names of the layers that architectures put on top of their body; those of another task are left behind."""
TOKENIZER_FILE = re.compile(r"tokenizer\.json|vocab\.(json|txt)|tekken\.json|.*\.(model|tiktoken)")
"""Without any of these transformers would make an empty tokenizer up."""
CALLS_ONLY = (
    "is_local",
    "local_files_only",
    "name_or_path",
    "vocab_file",
    "tokenizer_file",
    "max_length",
    "stride",
) + (("truncation_strategy", "pad_to_multiple_of", "pad_token_type_id", "truncation_side"))
"""What a tokenizer's configuration says of where it was read and how it was last called, not of what it is."""


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines, progress bars or warnings of transformers while the block runs."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever transformers raises on a model it cannot read becomes a ModelError."""
    try:
        yield
    except (StillroomError, MemoryError):
        raise
    except Exception as error:
        told = str(error).strip().split("\n")[0][:240] or type(error).__name__
        raise ModelError(
            f"transformers cannot read this model: {told}",
            where=str(path),
            cure="Check that the folder is whole, and that its architecture can do this task",
        ) from error


def load(path: Path, task: Purpose, *, classes: int | None = None) -> tuple[Any, Any]:
    """The model (float32, in evaluation mode) and its tokenizer from a folder or a GGUF file.

    A classifier gets a new head where the weights have none, or one of other `classes`. A masked model's head may be
    new too: `new_weights` tells. Raises ModelError for pickles, code, weights that do not fit, and a file cut short.
    """
    tokenizer, single = load_tokenizer(path), path.is_file()
    asked: dict[str, Any] = {"dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True}
    if single:
        asked["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if classes is not None and task == "classification":
        asked["num_labels"] = classes
    # The reader of GGUF files draws its bar whatever transformers is told.
    with quiet(), explained(path), redirect_stderr(StringIO()) if single else nullcontext():
        model, info = AUTO[task].from_pretrained(**_where(path), **asked, use_safetensors=None if single else True)
    model.new_weight_names = _checked(model, info, task, path)
    if single:
        _forget_quantisation(model)
    if task == "classification" and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id  # decoders find each row's last token by it
    return model.eval(), tokenizer


def load_tokenizer(path: Path, *, weights: bool = True) -> Any:
    """The tokenizer of a folder or GGUF file alone. Raises ModelError as `load` does, and for one written in Python.

    Without `weights` the folder need hold nothing else.
    """
    refuse(path, weights=weights)
    if path.is_dir() and not any(TOKENIZER_FILE.fullmatch(found.name) for found in path.iterdir()):
        raise ModelError(
            "there is no tokenizer beside the weights",
            where=str(path),
            cure="Copy tokenizer.json of the same model there",
        )
    # For a GGUF the Auto class reads the whole header once more, to choose a class that it then fills with the same.
    auto = transformers.PreTrainedTokenizerFast if path.is_file() else transformers.AutoTokenizer
    with quiet(), explained(path):
        tokenizer = auto.from_pretrained(**_where(path))
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} is no tokenizer of the tokenizers library",
            where=str(path),
            cure="Use a model whose folder has a tokenizer.json",
        )
    return tokenizer


def _where(path: Path) -> dict[str, Any]:
    """What `from_pretrained` wants to be told of a folder, or of a GGUF file."""
    if path.is_file():
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
    return {"pretrained_model_name_or_path": str(path), "local_files_only": True}


def new_weights(model: Any) -> list[str]:
    """Names of the weights that `load` had to make anew, since the file has none for this task."""
    return list(getattr(model, "new_weight_names", []))


def refuse(path: Path, *, weights: bool = True) -> None:
    """Raise ModelError for a folder or file that could run code, is incomplete, or is no model of transformers.

    `weights`: also for a folder without configuration or weights.
    """
    folder = path.parent if path.is_file() else path
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            "this folder holds an adapter, and transformers would fetch the model it belongs to from elsewhere",
            where=str(folder),
            cure="Merge the adapter into its model and save that",
        )
    if path.is_file():
        return _refuse_gguf(path)
    refuse_pickles(path)
    for found in sorted(path.rglob("*")):
        if found.suffix in CODE:
            raise ModelError(
                "this model folder holds code", where=str(found), cure="Stillroom runs no model's own code; remove it"
            )
    if weights and not (path / CONFIG).is_file():
        ggufs = sorted(path.glob("*" + GGUF))
        hint = (
            f"Name the file in it: {ggufs[0].name}" if ggufs else "Name a folder with config.json and model.safetensors"
        )
        raise ModelError("this is no folder of a transformers model: it has no config.json", where=str(path), cure=hint)
    for name in (CONFIG, "tokenizer_config.json"):
        if (path / name).is_file():
            _refuse_settings(path / name)
    if weights and not any(path.glob("*.safetensors")):
        raise ModelError(
            "there are no weights in the safetensors format", where=str(path), cure="Convert them to model.safetensors"
        )
    for part in sorted(path.glob("*.safetensors")):
        _refuse_cut_short(part)


def _refuse_cut_short(path: Path) -> None:
    """Opening reads the header, and compares what it says with the file's length."""
    with explained(path), safetensors.safe_open(path, "pt"):
        return


def _refuse_settings(path: Path) -> None:
    """Settings that would run code from elsewhere, or that say the weights are quantised."""
    with explained(path):
        settings = json.loads(path.read_text(encoding="utf-8"))
        named = [settings, *(part for part in settings.values() if isinstance(part, dict))]
    for part in named:
        kernels = [name for name, value in part.items() if "_implementation" in name and "/" in str(value)]
        for name in ["auto_map"] * bool(part.get("auto_map")) + kernels:
            raise ModelError(
                f"this model wants to run code of its own ({name})",
                where=str(path),
                cure="Stillroom never does; use a model whose architecture is part of transformers",
            )
    if settings.get("quantization_config"):
        raise ModelError(
            "the weights are quantised, and these cannot be trained or read exactly",
            where=str(path),
            cure="Use the unquantised weights, or a GGUF file",
        )


def _refuse_gguf(path: Path) -> None:
    """A GGUF file that is damaged or ends before its last weight."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            needed = _gguf_bytes(data)
    except ImportError as error:
        raise ModelError(
            "reading a GGUF file needs the gguf package", where=str(path), cure="pip install stillroom[language]"
        ) from error
    except (struct.error, ValueError, LookupError, OverflowError) as error:
        raise ModelError(
            f"this is no whole GGUF file ({size:,} bytes)", where=str(path), cure="Copy or download it again"
        ) from error
    if size < needed:
        raise ModelError(
            f"this GGUF file is cut short: {size:,} of {needed:,} bytes",
            where=str(path),
            cure="Copy or download it again",
        )


GGUF_WIDTH = {0: 1, 1: 1, 7: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 10: 8, 11: 8, 12: 8}
"""Bytes of each type of a value in a GGUF header; 8 is a text, 9 a list."""


def _gguf_bytes(data: mmap.mmap) -> int:
    """How long the file must be for its last weight to be whole: a walk over the header, which is all it reads."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    magic, _, tensors, pairs = struct.unpack_from("<4sIQQ", data)
    if magic != b"GGUF":
        raise ValueError("no GGUF")

    def after_text(at: int) -> int:
        return at + 8 + int(struct.unpack_from("<Q", data, at)[0])

    def after_value(at: int, kind: int) -> int:
        if kind == 8:
            return after_text(at)
        if kind != 9:
            return at + GGUF_WIDTH[kind]
        inner, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if inner in GGUF_WIDTH:
            return at + int(count) * GGUF_WIDTH[inner]
        for _ in range(count):
            at = after_value(at, inner)
        return at

    at, alignment = 24, 32
    for _ in range(pairs):
        key_end = after_text(at)
        (kind,) = struct.unpack_from("<I", data, key_end)
        if data[at + 8 : key_end] == b"general.alignment":
            (alignment,) = struct.unpack_from("<I", data, key_end + 4)
        at = after_value(key_end + 4, kind)
    last = 0
    for _ in range(tensors):
        at = after_text(at)
        (dimensions,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * dimensions)
        at += 16 + 8 * dimensions
        weights, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        last = max(last, int(offset) + math.prod(shape) // weights * width)
    return -(-at // alignment) * alignment + last


def _checked(model: Any, info: dict[str, Any], task: Purpose, path: Path) -> list[str]:
    """The weights made anew, where the task allows it; a ModelError names those that lack, or have no place."""
    body, prefix = model.base_model, f"{model.base_model_prefix}."
    inside = {name.partition(".")[0] for name, _ in [*body.named_parameters(), *body.named_buffers()]} - {"pooler"}

    def of_body(name: str) -> bool:
        return name.removeprefix(prefix).partition(".")[0] in inside

    resized = {name: f"{name} {list(theirs)} for {list(ours)}" for name, theirs, ours in info["mismatched_keys"]}
    lacking = set(info["missing_keys"]) | set(resized)
    no_new_head = task == "causal" or (task != "classification" and resized)
    wrong = sorted(resized.get(name, name) for name in lacking if no_new_head or of_body(name))
    if wrong:
        raise ModelError(
            f"the weights do not fit the architecture: {_some(wrong)} lacking or of another shape",
            where=str(path),
            cure="Check that config.json belongs to these weights, and that the model was made for this task",
        )
    foreign = [name for name in info["unexpected_keys"] if of_body(name) or not _of_a_head(name.removeprefix(prefix))]
    if foreign or info["error_msgs"]:
        raise ModelError(
            f"the architecture has no place for these weights: {_some(sorted(foreign) or info['error_msgs'])}",
            where=str(path),
            cure="Check that config.json belongs to these weights",
        )
    return sorted(lacking)


def _of_a_head(name: str) -> bool:
    return HEADS.fullmatch(name.partition(".")[0]) is not None


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _forget_quantisation(model: Any) -> None:
    """The weights are float32 now; without this transformers would refuse to save or train them."""
    for holder, name in (
        (model.config, "quantization_config"),
        (model.config, "_pre_quantization_dtype"),
        (model, "hf_quantizer"),
        (model, "is_quantized"),
        (model, "quantization_method"),
    ):
        if name in vars(holder):
            delattr(holder, name)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer durably, so that `from_pretrained(folder)` reads them. Twice the same, byte for byte."""
    with quiet():
        weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        for name in model._keys_to_ignore_on_save or []:
            weights.pop(name, None)
        weights = revert_weight_conversion(model, remove_tied_weights_from_state_dict(weights, model))
        kept = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    write_file(folder / WEIGHTS, safetensors.torch.save(kept, {"format": "pt"}))
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(model.dtype).removeprefix("torch.")
    write_json(folder / CONFIG, _without(json.loads(config.to_json_string()), ("_name_or_path", "_model_name_or_path")))
    if model.can_generate():
        write_json(folder / "generation_config.json", json.loads(model.generation_config.to_json_string()))
    save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer durably: what it is, not how it was last called."""
    with tempfile.TemporaryDirectory() as staging, quiet():
        tokenizer.save_pretrained(staging)
        for path in sorted(Path(staging).rglob("*")):
            target = folder / path.relative_to(staging)
            if path.name == "tokenizer.json":
                whole = {**read_json(path), "truncation": None, "padding": None}
                write_file(target, json.dumps(whole, ensure_ascii=False).encode())
            elif path.name == "tokenizer_config.json":
                write_json(target, _without(read_json(path), CALLS_ONLY))
            elif path.is_file():
                write_file(target, path.read_bytes())


def _without(tree: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in names}


def count_parameters(model: torch.nn.Module) -> int:
    """How many weights a model has, shared ones counted once."""
    return sum(weights.numel() for weights in model.parameters())


def fingerprint_of(path: Path) -> str:
    """A digest of a GGUF file, or of the weights, configuration and tokenizer in a folder."""
    if path.is_file():
        return fingerprint("gguf", sha256_file(path))
    ours = {MANIFEST, BESIDE, "inputs.json"}
    kinds = {".safetensors", ".json", ".jinja", ".txt", ".model"}
    files = sorted(found for found in path.iterdir() if found.suffix in kinds and found.name not in ours)
    return fingerprint("transformers", [(found.name, sha256_file(found)) for found in files])


def weights_fingerprint(path: Path) -> str:
    """A digest of a model's weights and configuration alone; of a GGUF file, of all that is in it."""
    if path.is_file():
        return fingerprint_of(path)
    files = [*weight_files(path), path / "config.json"]
    return fingerprint("weights", [(found.name, sha256_file(found)) for found in files if found.is_file()])
