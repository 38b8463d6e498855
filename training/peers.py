"""pocketseal beside what a user would install instead: rivaGan and dwtDct of invisible-watermark.

`python -m training.peers --data data --out benchmarks/results/pocketseal-peers.json`. The held-out photographs are
brought to one megapixel first: rivaGan works on every pixel, and at 20 megapixels takes minutes and 10 GB.
Needs the packages of requirements/evaluation.txt; their pretrained models ship inside them.
"""

import json
import time
from dataclasses import dataclass, field
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
from benchmarks.machine import describe
from toolkit.message import Message
from training.distortions import FURTHER, MAIN
from training.photographs import fetch, held_out

PIXELS = 1_000_000
DISTORTIONS = MAIN | {name: FURTHER[name] for name in ("brightness +30%", "noise, sigma 8", "blur, sigma 2 px", "flip")}

Bits = NDArray[np.int64]


class Watermark(Protocol):
    bits: int

    def embed(self, image: Image.Image, message: Bits) -> Image.Image: ...

    def read(self, image: Image.Image) -> Bits: ...


class InvisibleWatermark:
    """One method of the invisible-watermark package, which takes OpenCV's order of channels."""

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


@dataclass
class Figures:
    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    embed_s: list[float] = field(default_factory=list)
    accuracy: dict[str, list[float]] = field(default_factory=dict)

    def summary(self, bits: int) -> dict[str, Any]:
        return {
            "bits": bits,
            "psnr_db": float(np.mean(self.psnr_db)),
            "ssim": float(np.mean(self.ssim)),
            "embed_s_median": float(np.median(self.embed_s)),
            "bit_accuracy": {name: float(np.mean(values)) for name, values in self.accuracy.items()},
        }


def measure(name: str, watermark: Watermark, images: list[Image.Image]) -> dict[str, Any]:
    figures = Figures()
    for index, image in enumerate(track(images, name)):
        rng = np.random.default_rng((7, index))
        message = rng.integers(0, 2, watermark.bits)
        start = time.perf_counter()
        marked = watermark.embed(image, message)
        figures.embed_s.append(time.perf_counter() - start)
        before, after = np.asarray(image), np.asarray(marked)
        error = np.mean((after.astype(np.float32) - before) ** 2)
        figures.psnr_db.append(float(10 * np.log10(255**2 / error)))
        figures.ssim.append(float(structural_similarity(before, after, channel_axis=2)))
        for attack, distort in DISTORTIONS.items():
            right = np.mean(watermark.read(distort(marked, rng)) == message)
            figures.accuracy.setdefault(attack, []).append(float(right))
    return figures.summary(watermark.bits)


def _at_one_megapixel(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGB")
    scale = (PIXELS / (image.width * image.height)) ** 0.5
    # Even sides: dwtDct halves them.
    size = (2 * round(image.width * scale / 2), 2 * round(image.height * scale / 2))
    return image.resize(size, Image.Resampling.LANCZOS)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, out: Path) -> None:
    fetch(data)
    images = [_at_one_megapixel(path) for path in held_out(data)]
    watermarks: dict[str, Watermark] = {
        "pocketseal": Pocketseal(),
        "dwtDct": InvisibleWatermark("dwtDct", 64),
        "rivaGan": InvisibleWatermark("rivaGan", 32),
    }
    result: dict[str, Any] = {"machine": describe(), "photographs": len(images), "pixels": PIXELS, "methods": {}}
    for name, watermark in watermarks.items():
        result["methods"][name] = measure(name, watermark, images)
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
