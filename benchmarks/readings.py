"""Readings of marked or unmarked photographs by a detector file, and their figures: right bits and flipped bits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.machine import default_threads
from toolkit.bench.together import BenchTarget
from toolkit.images.distortions import FURTHER, MAIN
from toolkit.models.watermark.compare import distorted_readings, marked_readings
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import matching_bits_needed
from training.measure import interval_95
from training.photographs import at_pixels

PIXELS = 1_000_000
UNMARKED = ("none",)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Readings:
    """Preprocessed images and the hidden messages.

    inputs: (photographs, readings, 3, S, S) float32 in [0, 1]. messages: (photographs, readings, bits) of 0 and 1; None
    for unmarked photographs.
    """

    inputs: Floats
    messages: NDArray[np.int64] | None


def read_unmarked(side: int, photographs: list[Path]) -> Readings:
    """Return the readings of unmarked, undistorted photographs, at a model's size of `side` pixels."""
    distortions = {name: MAIN[name] for name in UNMARKED}
    inputs = [
        reading.image[0]
        for index, path in enumerate(photographs)
        for reading in distorted_readings(
            at_pixels(path, PIXELS), None, distortions, side, np.random.default_rng((11, index))
        )
    ]
    return Readings(np.stack(inputs).reshape(len(photographs), -1, *inputs[0].shape), None)


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


def row_of(artifact: Artifact, logits: Floats, reference: Floats, messages: NDArray[np.int64] | None) -> dict[str, Any]:
    """Return the figures of a file against the reference: right bits, flipped bits, and the error of the logits."""
    accuracy = {} if messages is None else _accuracy(logits, reference, messages)
    flipped = (logits > 0)[..., 1:] != (reference > 0)[..., 1:]
    return {
        "file": artifact.file,
        "precision": artifact.precision,
        "route": artifact.route,
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        **accuracy,
        "bits_flipped": float(flipped.mean()),
        "bits_flipped_interval_95": interval_95(flipped.mean(axis=(1, 2)).tolist(), np.random.default_rng(0)),
        "channel_changed": int(((logits > 0)[..., 0] != (reference > 0)[..., 0]).sum()),
        "cosine": float(np.sum(logits * reference) / np.linalg.norm(logits) / np.linalg.norm(reference)),
        "signal_to_noise_db": _decibels(float((reference**2).sum()), float(((logits - reference) ** 2).sum())),
    }


def _accuracy(logits: Floats, reference: Floats, messages: NDArray[np.int64]) -> dict[str, Any]:
    needed = matching_bits_needed(messages.shape[-1])
    right, reference_right = (logits[..., 1:] > 0) == messages, (reference[..., 1:] > 0) == messages
    loss_pp = 100 * (reference_right.mean(axis=(1, 2)) - right.mean(axis=(1, 2)))
    verdicts = right.sum(axis=-1) >= (needed or 0)
    return {
        "bit_accuracy": float(right.mean()),
        "bit_accuracy_interval_95": interval_95(right.mean(axis=(1, 2)).tolist(), np.random.default_rng(0)),
        "loss_pp": float(loss_pp.mean()),
        "loss_pp_interval_95": interval_95(loss_pp.tolist(), np.random.default_rng(0)),
        "verdicts_changed": int((verdicts != (reference_right.sum(axis=-1) >= (needed or 0))).sum()),
    }


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * float(np.log10(signal / noise)) if noise > 0 else None
