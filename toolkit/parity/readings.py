"""Photographs as a detector meets them: as they are, and with a message hidden in them and then distorted."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.distortions import FURTHER, MAIN, Distortion
from toolkit.embed import Embedder
from toolkit.image_io import open_photo
from toolkit.message import Message
from toolkit.photo import Floats
from toolkit.preprocess import preprocess

PHOTOGRAPHS = Path(__file__).parent.parent / "photographs"
ALL_DISTORTIONS: Mapping[str, Distortion] = MAIN | FURTHER


@dataclass(frozen=True)
class Reading:
    """One image as a detector sees it: (1, 3, S, S) float32 in [0, 1], and the message in it, if one was hidden."""

    distortion: str
    image: Floats
    message: Message | None


def shipped_photographs() -> list[Path]:
    """The photographs that come with this package, by name."""
    return sorted(PHOTOGRAPHS.glob("*.jpg"))


def generator_of(name: str) -> np.random.Generator:
    """Random numbers that a name decides, the same on every machine and in every order."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def distorted_readings(
    image: Image.Image,
    message: Message | None,
    distortions: Mapping[str, Distortion],
    size_px: int,
    rng: np.random.Generator,
) -> Iterator[Reading]:
    """An RGB image, marked or not, after each distortion, at the detector's size."""
    for name, distort in distortions.items():
        yield Reading(name, preprocess(distort(image, rng), size_px), message)


def marked_readings(
    embedder: Embedder, image: Image.Image, distortions: Mapping[str, Distortion], rng: np.random.Generator
) -> Iterator[Reading]:
    """Hide a random message in an RGB image, save it to 8 bits as a file would, and distort that."""
    message = Message.drawn(embedder.model.bits, rng)
    marked = embedder.embed(image, message).image
    yield from distorted_readings(marked, message, distortions, embedder.model.image_size_px, rng)


def read_rgb(path: Path) -> Image.Image:
    """A photograph in 8-bit RGB, as a viewer shows it. Raises InvalidInput."""
    photo = open_photo(path)
    if isinstance(photo.pixels, Image.Image) and photo.mode != "I;16":
        return photo.pixels.convert("RGB")
    return Image.fromarray(np.rint(photo.rows(0, photo.height) * 255).astype(np.uint8))
