"""Graphs whose one input is a square RGB image in [0, 1]."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.tensor import Array
from toolkit.images.open import ImageSource, name_of
from toolkit.images.preprocess import preprocess
from toolkit.metrics.samples import Sample, signed_samples


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Each image once, in batches where the graph takes several. Raises InvalidInput for a graph with other inputs."""
    artifact = bundle.find(role, "onnx", "fp32")
    specs = [binding.spec for binding in artifact.inputs]
    shape = specs[0].shape
    if len(specs) != 1 or specs[0].dtype != "float32" or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
        raise InvalidInput(
            f"{artifact.file}: images go into a graph with one input of float32 [N, 3, S, S], not {shown}"
        )
    batch: list[Array] = []
    for number, image in enumerate(images, 1):
        batch.append(preprocess(image, shape[-1]))
        if len(batch) == shape[0]:
            yield name_of(image, number), {specs[0].name: np.concatenate(batch)}
            batch.clear()


def samples(bundle: Bundle, reference: Artifact, images: Sequence[Path]) -> Iterator[Sample]:
    """Synthetic inputs; and the user's images, for a graph whose one input takes square RGB images in [0, 1]."""
    specs = tuple(binding.spec for binding in reference.inputs)
    if images:
        shape = specs[0].shape
        if (
            len(specs) != 1
            or specs[0].dtype != "float32"
            or len(shape) != 4
            or shape[:2] != (1, 3)
            or shape[2] != shape[3]
        ):
            shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
            raise InvalidInput(f"images: expected a graph with one input of float32 [1, 3, S, S], it has {shown}")
        for path in images:
            yield Sample(path.name, "real", {specs[0].name: preprocess(path, shape[-1])}, None)
    yield from signed_samples(specs)
