"""Pictures: a folder with one sub-folder for each class, or such folders in train/, validation/ and test/.

Pillow reads them. All must be of one size; they are grey where all files are grey, else red, green and blue. This file
knows no array file and no split that is not a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.errors import DataError
from stillroom.questions.part import Part
from stillroom.rows import Array

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}


def read_folder(folder: Path) -> dict[str, Part]:
    """The parts of a folder of pictures; the classes are the names of the sub-folders."""
    children = _folders(folder)
    if children and all(child.name in SPLITS for child in children):
        roots = {SPLITS[child.name]: child for child in children}
        if "train" not in roots:
            raise DataError(
                "there is no train/ folder", where=str(folder), cure="Name the folder of training classes train"
            )
    else:
        roots = {"train": folder}
    found = [
        (role, child.name, path)
        for role, root in roots.items()
        for child in _folders(root)
        for path in pictures_in(child)
    ]
    for role, root in roots.items():
        if not any(part == role for part, _, _ in found):
            raise DataError(
                "there are no pictures in sub-folders here",
                where=str(root),
                cure="Make a sub-folder for each class; for tables, name the file, or files as {train: .., test: ..}",
            )
    images = stack([open_picture(path) for _, _, path in found], [str(path) for _, _, path in found])
    parts = {}
    for role, root in roots.items():
        index = np.flatnonzero([part == role for part, _, _ in found])
        labels = [found[place][1] for place in index]
        parts[role] = Part(images[index], np.fromiter(labels, dtype=object, count=len(labels)), str(root))
    return parts


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def open_picture(path: Path) -> Array:
    """One picture as uint8 [H, W] or [H, W, 3]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "reading pictures needs Pillow", where=str(path), cure="pip install 'stillroom[images]'"
        ) from error
    try:
        with Image.open(path) as image:
            return picture_array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError("this picture cannot be read", where=str(path), cure="Write it anew, or take it out") from error


def picture_array(image: Any) -> Array:
    """A Pillow image as uint8 [H, W] where it is grey, else [H, W, 3]."""
    return np.asarray(image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB"))


def stack(images: Sequence[Array], places: Sequence[str]) -> Array:
    """Images as one array; grey ones become red, green and blue where others are. Names the first of another size."""
    size = images[0].shape[:2]
    for image, place in zip(images, places, strict=True):
        if image.shape[:2] != size:
            raise DataError(
                f"this picture is {image.shape[1]} x {image.shape[0]}, and the first is {size[1]} x {size[0]}",
                where=place,
                cure="Bring all pictures to one size",
            )
    if len({image.ndim for image in images}) == 1:
        return np.stack(images)
    return np.stack([image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2) for image in images])


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] != ".")
