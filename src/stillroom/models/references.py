"""A model reference in a recipe -> where it stands: a path, `hf:ORG/NAME`, or `package:MODULE/FILE_OR_FOLDER`.

What is found is a folder, or one file: a GGUF.
"""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

from stillroom.errors import ModelError

PLAIN = (".safetensors", ".gguf", ".json", ".txt", ".md")
"""Formats whose first bytes may look like anything, and which are read as what they are called."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy")
GGUF = ".gguf"

DOWNLOADED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")
"""Of a repository: weights that cannot run code, configuration and tokenizer."""


def resolve(reference: str, folders: list[Path]) -> Path:
    """The folder or GGUF file a reference names; a relative path is looked for in `folders`. Raises ModelError.

    `hf:ORG/NAME` is downloaded, or taken from the hub's cache where there is no network; `hf:ORG/NAME@REVISION` fixes
    the state of it.
    """
    return _resolved(reference, folders, fetch=True)


def is_here(reference: str, folders: list[Path]) -> bool:
    """It can be read without fetching anything."""
    try:
        _resolved(reference, folders, fetch=False)
    except ModelError:
        return False
    return True


def _resolved(reference: str, folders: list[Path], fetch: bool) -> Path:
    if reference.startswith("hf:"):
        return _from_hub(reference, fetch)
    if reference.startswith("package:"):
        return _in_package(reference)
    tried = [folder / reference for folder in folders] if not Path(reference).is_absolute() else [Path(reference)]
    found = next((path for path in tried if _is_model(path)), None)
    if found is None:
        raise ModelError(
            f"there is no model folder {reference!r}",
            where="looked in " + ", ".join(str(path.parent.absolute()) for path in tried),
            cure="Check the path; it is taken from the recipe's folder, then from $STILLROOM_DATA",
        )
    return found


def weight_files(place: Path) -> list[Path]:
    """The files of weights at a place, which may be such a file itself: safetensors, or a GGUF."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    return [path for path in files if path.suffix in (".safetensors", GGUF) and path.is_file()]


def _is_model(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.suffix == GGUF)


def _in_package(reference: str) -> Path:
    module, _, inside = reference.removeprefix("package:").partition("/")
    root = _package_folder(module)
    if root is None:
        raise ModelError(
            f"the Python package {module!r} is not installed", where=reference, cure=f"pip install {module}"
        )
    path = Path(root, inside)
    if ".." in path.parts or not _is_model(path):
        raise ModelError(
            f"the package {module!r} has no folder or {GGUF} file {inside!r}",
            where=reference,
            cure="Check the path in it",
        )
    return path


def _package_folder(module: str) -> str | None:
    try:
        spec = find_spec(module) if all(part.isidentifier() for part in module.split(".")) else None
    except ModuleNotFoundError:  # the package that a dotted name stands in
        return None
    return next(iter(spec.submodule_search_locations or []), None) if spec else None


def _from_hub(reference: str, fetch: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise ModelError(
            "models of the Hugging Face hub need the huggingface_hub package",
            where=reference,
            cure="pip install stillroom[language]",
        ) from error
    name, _, revision = reference.removeprefix("hf:").partition("@")
    if Path(name).is_absolute() or ".." in name:
        raise ModelError(
            f"{name!r} is no repository of the hub", where=reference, cure="Write hf:ORG/NAME, or the folder's path"
        )
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision or None, allow_patterns=list(DOWNLOADED), local_files_only=not fetch
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        told = str(error).strip().split("\n")[0][:200]
        raise ModelError(
            f"the model cannot be fetched from the hub: {told}",
            where=reference,
            cure="Check name and network (a closed model wants `hf auth login`), or give the folder of a copy",
        ) from error
    refuse_pickles(folder)
    return folder


def _is_pickle(path: Path) -> bool:
    """By what it holds: a pickle of protocol 2 to 5, or an archive with one in it, as torch.save writes."""
    if not path.is_file() or path.suffix in PLAIN:
        return False
    with open(path, "rb") as file:
        start = file.read(2)
    if len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return True
    if start != b"PK" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".pkl") for name in archive.namelist())


def refuse_pickles(folder: Path) -> None:
    """Raise ModelError where a model folder holds a file that could run code when loaded."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in PICKLES or _is_pickle(path):
            raise ModelError(
                "this model folder holds a pickle, which can run code when it is read",
                where=str(path),
                cure="Convert the weights to safetensors, or remove the file if it is not needed",
            )
