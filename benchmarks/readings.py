"""Readings of marked and distorted photographs: the inputs of a detector, the hidden messages, and a file's logits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.machine import default_threads
from toolkit.bench.together import BenchTarget
from toolkit.images.distortions import FURTHER, MAIN
from toolkit.models.watermark.compare import marked_readings
from toolkit.models.watermark.embed import Embedder
from training.photographs import at_pixels

PIXELS = 1_000_000

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Readings:
    """Preprocessed images and the hidden messages.

    inputs: (photographs, readings, 3, S, S) float32 in [0, 1]. messages: (photographs, readings, bits) of 0 and 1.
    """

    inputs: Floats
    messages: NDArray[np.int64]


def read_marked(folder: Path, photographs: list[Path], count: int) -> Readings:
    """Return the readings of photographs after every distortion, each marked `count` times with different messages."""
    inputs, hidden = [], []
    with Embedder.open(folder) as embedder, Progress() as progress:
        bits = embedder.model.bits
        for index, path in enumerate(progress.track(photographs, description="marking")):
            rng = np.random.default_rng((11, index))
            image = at_pixels(path, PIXELS)
            for _ in range(count):
                for reading in marked_readings(embedder, image, MAIN | FURTHER, rng):
                    assert reading.message is not None
                    inputs.append(reading.image[0])
                    hidden.append(reading.message.bits)
    shape = (len(photographs), -1)
    return Readings(np.stack(inputs).reshape(*shape, *inputs[0].shape), np.stack(hidden).reshape(*shape, bits))


def logits_of(bundle: Bundle, artifact: Artifact, inputs: Floats) -> Floats:
    """Return the logits of a file, (photographs, readings, 1 + bits), for inputs as in Readings."""
    with BenchTarget.of(bundle, artifact).open(default_threads()) as session:
        flat = [session.run({"image": image[None]})["logits"][0] for image in inputs.reshape(-1, *inputs.shape[2:])]
    return np.stack(flat).reshape(*inputs.shape[:2], -1)
