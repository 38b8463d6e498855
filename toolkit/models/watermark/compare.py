"""Samples of watermark models: photographs with and without a hidden message, unchanged and distorted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path

import numpy as np
from PIL import Image

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.tensor import Array, TensorSpec
from toolkit.images.distortions import FURTHER, MAIN, Distortion
from toolkit.images.open import read_rgb
from toolkit.images.photo import Floats
from toolkit.images.preprocess import preprocess
from toolkit.images.samples import generator_of, shipped_photographs
from toolkit.metrics.samples import Sample, unit_samples
from toolkit.models.watermark.detector import WatermarkModel
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Message

ALL_DISTORTIONS: Mapping[str, Distortion] = MAIN | FURTHER


@dataclass(frozen=True)
class MessageReading:
    """One image to read, after a distortion.

    image: as the detector reads it, (1, 3, S, S) float32 in [0, 1]. message: the hidden message, None if there is none.
    """

    distortion: str
    image: Floats
    message: Message | None


def distorted_readings(
    image: Image.Image,
    message: Message | None,
    distortions: Mapping[str, Distortion],
    size_px: int,
    rng: np.random.Generator,
) -> Iterator[MessageReading]:
    """Yield an RGB image after each distortion, resized to `size_px`. message: the message hidden in it, if any."""
    for name, distort in distortions.items():
        yield MessageReading(name, preprocess(distort(image, rng), size_px), message)


def marked_readings(
    embedder: Embedder, image: Image.Image, distortions: Mapping[str, Distortion], rng: np.random.Generator
) -> Iterator[MessageReading]:
    """Hide a random message in an RGB image, and yield the marked 8-bit image after each distortion."""
    message = Message.drawn(embedder.model.bits, rng)
    marked = embedder.embed(image, message).image
    yield from distorted_readings(marked, message, distortions, embedder.model.image_size_px, rng)


def samples(bundle: Bundle, reference: Artifact, images: Sequence[Path]) -> Iterator[Sample]:
    """Yield the samples of a role: the shipped photographs, the user's images, then synthetic inputs.

    A detector reads each image unchanged and after one distortion. If the bundle has an embedder with trained weights,
    it also reads marked images: shipped photographs after every distortion, the user's images unchanged and after one.
    Raises InvalidInput for a reference that takes several images at a time, and for a file that is not an image.
    """
    model = WatermarkModel.of(bundle)
    specs = tuple(binding.spec for binding in reference.inputs)
    if any(spec.shape[0] != 1 for spec in specs):
        raise InvalidInput(f"{reference.file}: expected inputs for one image at a time, got {specs[0].shape}")
    if reference.role == "detector":
        yield from _detector_samples(bundle, model, images)
    else:
        for path in chain(shipped_photographs(), images):
            yield Sample(path.name, "real", _embedder_feeds(specs, path), None)
    yield from unit_samples(specs)


def _detector_samples(bundle: Bundle, model: WatermarkModel, images: Sequence[Path]) -> Iterator[Sample]:
    marks = model.embedder is not None and not bundle.weights.is_random
    shipped = shipped_photographs()
    turns = cycle(name for name in ALL_DISTORTIONS if name != "none")
    with ExitStack() as stack:
        embedder = stack.enter_context(Embedder.open(bundle)) if marks else None
        for path in chain(shipped, images):
            rng = generator_of(path.name)
            image = read_rgb(path)
            two = {name: ALL_DISTORTIONS[name] for name in ("none", next(turns))}
            for reading in distorted_readings(image, None, two, model.image_size_px, rng):
                yield _sample(path, "real", reading)
            if embedder is not None:
                distortions = ALL_DISTORTIONS if path in shipped else two
                for reading in marked_readings(embedder, image, distortions, rng):
                    yield _sample(path, "marked", reading)


def _sample(path: Path, family: str, reading: MessageReading) -> Sample:
    name = sample_name(path, family, reading.distortion)
    return Sample(name, family, {"image": reading.image}, None if reading.message is None else reading.message.bits)


def sample_name(photograph: Path, family: str, distortion: str) -> str:
    """Return the name of a detector's sample, which names the photograph, the family and the distortion."""
    return f"{photograph.name}, {family}, {distortion}"


def _embedder_feeds(specs: tuple[TensorSpec, ...], path: Path) -> dict[str, Array]:
    image, message = specs
    bits = generator_of(path.name).integers(0, 2, message.shape).astype(np.float32)
    return {"image": preprocess(path, image.shape[-1]), "message": bits}
