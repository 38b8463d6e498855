"""Photographs on which a static quantizer sees the ranges of activations."""

from pathlib import Path

import numpy as np

from backends.errors import InvalidInput
from backends.tensor import Array
from toolkit.preprocess import preprocess

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_MOST = 256  # more changes ranges no more, and each costs a float32 run


def read_calibration(folder: Path, size_px: int) -> Array:
    """Every image in a folder, in the order of names: (N, 3, size_px, size_px) float32 in [0, 1], N at most 256.

    Raises InvalidInput for a folder that is missing or without images, and for a file that cannot be read.
    """
    if not folder.is_dir():
        raise InvalidInput(f"calibration {folder}: no such folder; give one with a few dozen photographs")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InvalidInput(
            f"calibration {folder}: no images in it (looked for {', '.join(sorted(_SUFFIXES))}); "
            "give a folder with a few dozen photographs"
        )
    return np.concatenate([preprocess(path, size_px) for path in paths[:_MOST]])
