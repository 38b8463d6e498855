"""Samples of imported graphs: images for a graph whose one input takes square RGB images, and synthetic inputs."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.tensor import Array, TensorSpec
from toolkit.images.open import ImageSource, name_of
from toolkit.images.preprocess import preprocess
from toolkit.metrics.samples import Sample, signed_samples


def image_input(graph: Artifact, batch: int | None = None) -> TensorSpec:
    """Return the only input of a graph that takes RGB images: float32 (N, 3, S, S).

    batch: the expected N; by default any. Raises InvalidInput for a graph with other inputs.
    """
    specs = [binding.spec for binding in graph.inputs]
    shape = specs[0].shape
    square = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3] and shape[0] == (batch or shape[0])
    if len(specs) != 1 or specs[0].dtype != "float32" or not square:
        shown = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
        raise InvalidInput(
            f"{graph.file}: expected one input for images, float32 [{batch or 'N'}, 3, S, S], it has {shown}"
        )
    return specs[0]


def feeds(bundle: Bundle, role: str, images: Iterable[ImageSource]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield (name of the last image, input) for each batch of the graph's size; an incomplete batch is left out.

    Raises InvalidInput as `image_input` does, and for a file that is not an image.
    """
    spec = image_input(bundle.find(role, "onnx", "fp32"))
    batch: list[Array] = []
    for number, image in enumerate(images, 1):
        batch.append(preprocess(image, spec.shape[-1]))
        if len(batch) == spec.shape[0]:
            yield name_of(image, number), {spec.name: np.concatenate(batch)}
            batch.clear()


def samples(bundle: Bundle, reference: Artifact, images: Sequence[Path]) -> Iterator[Sample]:
    """Yield the user's images, if any, then synthetic inputs. Raises InvalidInput as `image_input` does."""
    if images:
        spec = image_input(reference, batch=1)
        for path in images:
            yield Sample(path.name, "real", {spec.name: preprocess(path, spec.shape[-1])}, None)
    yield from signed_samples(tuple(binding.spec for binding in reference.inputs))
