"""The images on which a static quantizer sees the ranges of activations: a folder's, or generated ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from backends.errors import InvalidInput
from backends.tensor import Array
from toolkit.convert.worker.ranges import METHODS
from toolkit.preprocess import preprocess

GENERATED = "generated"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
MOST_IMAGES = 128  # more changes ranges no more, and each costs a float32 run
GENERATED_IMAGES = 64
_SEED = 0


@dataclass(frozen=True)
class Calibration:
    """folder: None for generated images. method: how ranges follow from values, see worker/ranges.py."""

    folder: Path | None
    method: str = "min-max"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidInput(f"calibration method: expected one of {', '.join(METHODS)}, got {self.method!r}")

    @classmethod
    def of(cls, source: str, method: str) -> "Calibration":
        """From a folder's path, or the word "generated". Raises InvalidInput for an unknown method."""
        return cls(None if source == GENERATED else Path(source), method)


@dataclass(frozen=True)
class Calibrated:
    """The images themselves, (N, 3, size, size) float32 in [0, 1], mapped from a file; and the method."""

    images: Array
    method: str


def images_in(folder: Path, what: str) -> list[Path]:
    """Every image in a folder, by name. Raises InvalidInput, which says `what` they are for, if there is none."""
    if not folder.is_dir():
        raise InvalidInput(f"{what} {folder}: no such folder; give one with a few dozen photographs")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InvalidInput(
            f"{what} {folder}: no images in it (looked for {', '.join(sorted(_SUFFIXES))}); "
            "give a folder with a few dozen photographs"
        )
    return paths


def read_calibration(calibration: Calibration, size_px: int, file: BinaryIO) -> Calibrated:
    """Write the images to `file`, one after the other, so that memory does not grow with their number.

    Of a folder with more than 128 images a seeded choice of 128 is taken.
    Raises InvalidInput for a folder that is missing or without images, and for a file that cannot be read.
    """
    if calibration.folder is None:
        images, count = generated(size_px, GENERATED_IMAGES), GENERATED_IMAGES
    else:
        paths = images_in(calibration.folder, "calibration")
        if len(paths) > MOST_IMAGES:
            chosen = np.random.default_rng(_SEED).choice(len(paths), MOST_IMAGES, replace=False)
            paths = [paths[i] for i in sorted(chosen)]
        images, count = (preprocess(path, size_px)[0] for path in paths), len(paths)
    return Calibrated(_written(images, count, size_px, file), calibration.method)


def read_images(folder: Path, size_px: int, file: BinaryIO) -> Array:
    """Every image of a folder, written to `file` and mapped from there: (N, 3, size_px, size_px), as above."""
    paths = images_in(folder, "images")
    return _written((preprocess(path, size_px)[0] for path in paths), len(paths), size_px, file)


def _written(images: Iterable[Array], count: int, size_px: int, file: BinaryIO) -> Array:
    mapped: Array = np.memmap(file, np.float32, "w+", shape=(count, 3, size_px, size_px))
    for i, image in enumerate(images):
        mapped[i] = image
    return mapped


def generated(size_px: int, count: int, seed: int = _SEED) -> Iterator[Array]:
    """Images with the statistics of photographs: (3, size_px, size_px) float32 in [0, 1], the same for the same seed.

    A surface whose amplitudes fall as 1/frequency, as those of natural scenes do, its colours correlated; edges of
    flat discs and bars; sometimes fine noise; exposures from dim to blown out. They hold no watermark and no scene:
    ranges seen on photographs of the kind a model will meet are better, and cost as little.
    """
    random = np.random.default_rng(seed)
    for _ in range(count):
        grey = _surface(size_px, random)
        image = np.stack([0.8 * grey + 0.2 * _surface(size_px, random) for _ in range(3)])
        for _ in range(int(random.integers(0, 6))):
            inside = _shape(size_px, random)
            image = np.where(inside, image * 0.2 + random.normal(0, 1.5, (3, 1, 1)), image)
        image += random.normal(0, random.choice([0.0, 0.02, 0.1]), image.shape)
        image = random.uniform(0.2, 0.8) + image * random.uniform(0.05, 0.35)
        yield np.clip(image, 0, 1).astype(np.float32)


def _surface(size_px: int, random: np.random.Generator) -> Array:
    """Noise with amplitudes as 1/frequency: (size_px, size_px), mean 0 and standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((size_px, size_px))) / frequency
    surface = np.fft.irfft2(spectrum, (size_px, size_px))
    normal: Array = surface / surface.std()
    return normal


def _shape(size_px: int, random: np.random.Generator) -> Array:
    """Where a disc or a slanted bar lies: (size_px, size_px) bool."""
    y, x = np.indices((size_px, size_px)) / size_px - random.random((2, 1, 1))
    if random.random() < 0.5:
        disc: Array = np.hypot(x, y) < random.uniform(0.05, 0.4)
        return disc
    angle = random.uniform(0, np.pi)
    bar: Array = np.abs(x * np.cos(angle) + y * np.sin(angle)) < random.uniform(0.01, 0.15)
    return bar
