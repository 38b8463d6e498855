"""What quantization costs in bits: every detector file on the same marked, distorted photographs, beside float32.

`python -m benchmarks.quantization build/pocketseal --out benchmarks/results/quantization-pocketseal.json`
Held-out photographs, brought to one megapixel and marked; each reading is preprocessed once and given to every file.
Bit accuracy against the message that was hidden, and bits that differ from torch's; intervals are 95%, over
photographs (bootstrap). `loss_pp` is torch's accuracy minus the file's, in percentage points, photograph by photograph.
Random weights read nothing in an image: then the photographs are not marked, and bits are compared with torch's alone.

All files of a model, calibrated and searched on photographs that it is not measured on:
`python -m benchmarks.marked build/pocketseal --out build/marked`
`toolkit convert build/pocketseal -p fp32 -p fp16 -p int8 -p int8-static -p int8-w -p int16x8 -p mixed
--calibration build/marked --images build/marked --budget "flips<=0%"`
`python -m benchmarks.quantization build/pocketseal --messages 1 --out benchmarks/results/recipes-pocketseal.json`
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.machine import default_threads, describe
from backends.registry import default_backend, open_session
from toolkit.images.distortions import FURTHER, MAIN
from toolkit.models.watermark.compare import distorted_readings, marked_readings
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import matching_bits_needed
from training.measure import interval_95
from training.photographs import at_pixels, fetch, held_out

PIXELS = 1_000_000
MESSAGES = 3
UNMARKED = ("none",)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Readings:
    """inputs (photographs, readings, 3, S, S) float32 in [0, 1] and what is hidden in each: (..., bits) of 0 and 1."""

    inputs: Floats
    messages: NDArray[np.int64] | None


def _unmarked(side: int, photographs: list[Path]) -> Readings:
    """Each photograph as it is, at the model's size."""
    distortions = {name: MAIN[name] for name in UNMARKED}
    inputs = [
        reading.image[0]
        for index, path in enumerate(photographs)
        for reading in distorted_readings(
            at_pixels(path, PIXELS), None, distortions, side, np.random.default_rng((11, index))
        )
    ]
    return Readings(np.stack(inputs).reshape(len(photographs), -1, *inputs[0].shape), None)


def read_marked(folder: Path, photographs: list[Path], count: int = MESSAGES) -> Readings:
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
    with open_session(bundle, artifact, default_backend(artifact.format).name, default_threads()) as session:
        flat = [session.run({"image": image[None]})["logits"][0] for image in inputs.reshape(-1, *inputs.shape[2:])]
    return np.stack(flat).reshape(*inputs.shape[:2], -1)


def row_of(artifact: Artifact, logits: Floats, reference: Floats, messages: NDArray[np.int64] | None) -> dict[str, Any]:
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


def table_of(rows: list[dict[str, Any]]) -> Table:
    table = Table("file", "MB", "right", "loss, points", "flipped", "verdicts", "cosine", "SNR")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        snr = row["signal_to_noise_db"]
        table.add_row(
            row["file"].removeprefix("detector."),
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['bit_accuracy']:.3%}" if "bit_accuracy" in row else "",
            f"{row['loss_pp']:+.3f}" if "loss_pp" in row else "",
            f"{row['bits_flipped']:.3%}",
            str(row.get("verdicts_changed", "")),
            f"{row['cosine']:.5f}",
            "same" if snr is None else f"{snr:.1f}",
        )
    return table


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--messages", type=click.IntRange(min=1), default=MESSAGES, show_default=True, help="In each photograph.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(folder: Path, data: Path, messages: int, out: Path | None) -> None:
    fetch(data)
    bundle = Bundle.open(folder)
    photographs = held_out(data)
    marked = bundle.weights["origin"] != "random"
    readings = (
        read_marked(folder, photographs, messages)
        if marked
        else _unmarked(int(bundle.model["image_size_px"]), photographs)
    )
    artifacts = [artifact for artifact in bundle.artifacts if artifact.role == "detector"]
    reference = logits_of(bundle, next(a for a in artifacts if a.format == "torch"), readings.inputs)
    with Progress() as progress:
        rows = [
            row_of(artifact, logits_of(bundle, artifact, readings.inputs), reference, readings.messages)
            for artifact in progress.track(artifacts, description="reading")
        ]
    Console().print(table_of(rows))
    if out is not None:
        result = {
            "machine": describe(),
            "model": bundle.model["name"],
            "weights": bundle.weights,
            "photographs": len(readings.inputs),
            "pixels": PIXELS,
            "messages": messages if marked else 0,
            "distortions": list(MAIN | FURTHER) if marked else list(UNMARKED),
            "readings": int(np.prod(readings.inputs.shape[:2])),
            "files": rows,
        }
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
