"""A model reference in a recipe -> a folder: a path, `hf:ORG/NAME`, or `package:MODULE/FILE`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stillroom.errors import ModelError, NotYet

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy")


def resolve(reference: str, folders: list[Path]) -> Path:
    """The folder a reference names; a relative path is looked for in `folders`. Raises ModelError."""
    if reference.startswith("hf:"):
        raise NotYet(
            f"{reference} names a language model, and this version distils classifiers",
            where="model reference",
            cure="Use the folder of a Stillroom student or teacher",
        )
    if reference.startswith("package:"):
        return _in_package(reference.removeprefix("package:"))
    tried = [folder / reference for folder in folders] if not Path(reference).is_absolute() else [Path(reference)]
    found = next((path for path in tried if path.is_dir()), None)
    if found is None:
        raise ModelError(
            f"there is no model folder {reference!r}",
            where="looked in " + ", ".join(str(path.parent.absolute()) for path in tried),
            cure="Check the path; it is taken from the recipe's folder, then from $STILLROOM_DATA",
        )
    return found


def _in_package(reference: str) -> Path:
    module, _, inside = reference.partition("/")
    spec = find_spec(module)
    root = next(iter(spec.submodule_search_locations or []), None) if spec else None
    if root is None:
        raise ModelError(
            f"the Python package {module!r} is not installed", where=reference, cure=f"pip install {module}"
        )
    path = Path(root, inside)
    if not path.is_dir():
        raise ModelError(
            f"the package {module!r} has no folder {inside!r}", where=reference, cure="Check the path in it"
        )
    return path


def refuse_pickles(folder: Path) -> None:
    """Raise ModelError where a model folder holds a file that could run code when loaded."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in PICKLES:
            raise ModelError(
                "this model folder holds a pickle, which can run code when it is read",
                where=str(path),
                cure="Convert the weights to safetensors, or remove the file if it is not needed",
            )
