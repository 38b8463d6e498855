"""pocketseal beside what a user would install instead: rivaGan and dwtDct of invisible-watermark.

`python -m training.peers --data data --out benchmarks/results/pocketseal-peers.json`. The held-out photographs are
brought to one megapixel first: rivaGan works on every pixel, and at 20 megapixels takes minutes and 10 GB.
An interrupted run goes on where it was; to measure a method again, remove its rows from the file.
Needs the packages of requirements/evaluation.txt; their pretrained models ship inside them.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from imwatermark import WatermarkDecoder, WatermarkEncoder
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from skimage.metrics import structural_similarity

import toolkit
from backends.machine import Machine
from toolkit.images.distortions import FURTHER, MAIN
from toolkit.models.watermark.message import Message
from training.photographs import at_pixels, fetch, held_out, name_of

PIXELS = 1_000_000
DISTORTIONS = MAIN | {name: FURTHER[name] for name in ("noise, sigma 8", "flip")}

Bits = NDArray[np.int64]


class Watermark(Protocol):
    """A watermarking method: RGB images of any size, messages of `bits` values 0 or 1."""

    bits: int

    def embed(self, image: Image.Image, message: Bits) -> Image.Image: ...

    def read(self, image: Image.Image) -> Bits: ...


class InvisibleWatermark:
    """One method of the package invisible-watermark, which takes images with channels in OpenCV's order (BGR)."""

    def __init__(self, method: str, bits: int) -> None:
        self.method, self.bits = method, bits
        self._decoder = WatermarkDecoder("bits", bits)
        if method == "rivaGan":
            WatermarkEncoder.loadModel()
            WatermarkDecoder.loadModel()

    def embed(self, image: Image.Image, message: Bits) -> Image.Image:
        encoder = WatermarkEncoder()
        encoder.set_watermark("bits", message.tolist())
        marked = encoder.encode(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]), self.method)
        return Image.fromarray(np.ascontiguousarray(marked[:, :, ::-1]))

    def read(self, image: Image.Image) -> Bits:
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        return (np.asarray(self._decoder.decode(pixels, self.method)) > 0.5).astype(np.int64)


class Pocketseal:
    """The shipped bundle on ONNX Runtime."""

    def __init__(self) -> None:
        self._embedder, self._detector = toolkit.load_embedder("pocketseal"), toolkit.load_detector("pocketseal")
        self.bits = self._detector.model.bits

    def embed(self, image: Image.Image, message: Bits) -> Image.Image:
        return self._embedder.embed(image, Message(tuple(message.tolist()))).image

    def read(self, image: Image.Image) -> Bits:
        return np.array(self._detector.detect(image).message.bits)


METHODS: dict[str, Callable[[], Watermark]] = {
    "pocketseal": Pocketseal,
    "rivaGan": partial(InvisibleWatermark, "rivaGan", 32),
    "dwtDct": partial(InvisibleWatermark, "dwtDct", 64),
}


def measure(watermark: Watermark, image: Image.Image, seed: int) -> dict[str, Any]:
    """Mark an image with one random message, and return PSNR in dB, SSIM, seconds to embed and bit accuracies.

    The bit accuracy of a distortion is the share of right bits, 0 to 1. `seed` draws the message and the distortions.
    """
    rng = np.random.default_rng((7, seed))
    message = rng.integers(0, 2, watermark.bits)
    start = time.perf_counter()
    marked = watermark.embed(image, message)
    embed_s = time.perf_counter() - start
    before, after = np.asarray(image), np.asarray(marked)
    error = np.mean((after.astype(np.float32) - before) ** 2)
    return {
        "psnr_db": float(10 * np.log10(255**2 / error)),
        "ssim": float(structural_similarity(before, after, channel_axis=2)),
        "embed_s": embed_s,
        "bit_accuracy": {
            name: float(np.mean(watermark.read(distort(marked, rng)) == message))
            for name, distort in DISTORTIONS.items()
        },
    }


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--method", "methods", type=click.Choice(list(METHODS)), multiple=True, default=list(METHODS))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, methods: tuple[str, ...], out: Path) -> None:
    fetch(data)
    result: dict[str, Any] = {"machine": Machine.here().to_json(), "pixels": PIXELS, "methods": {}}
    if out.exists():  # keep the rows that were measured: rivaGan takes minutes a photograph
        result["methods"] = json.loads(out.read_text())["methods"]
    for name in methods:
        watermark = METHODS[name]()
        rows = result["methods"].setdefault(name, {"bits": watermark.bits, "photographs": {}})["photographs"]
        for index, path in enumerate(track(held_out(data), name)):
            if name_of(path) not in rows:
                rows[name_of(path)] = measure(watermark, at_pixels(path, PIXELS), index)
                out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
