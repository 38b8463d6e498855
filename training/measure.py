"""Measure pocketseal on the held-out photographs: `python -m training.measure --weights DIR --out FILE.json`.

Every photograph is marked at its own size, saved to 8 bits, distorted, and read back with the float32 detector.
Bit accuracies carry 95% intervals over photographs (bootstrap): messages in one photograph are not independent.
False alarms are counted on unmarked crops, with Clopper-Pearson intervals.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from safetensors.torch import load_file
from scipy.stats import binomtest
from skimage.metrics import structural_similarity
from torch import Tensor

from graphs.networks.seal.cards import POCKET_BITS, POCKET_DETECTOR, POCKET_EMBEDDER
from graphs.networks.seal.detector import SealDetector
from graphs.networks.seal.embedder import SealEmbedder, jnd_heatmap, resize
from toolkit.images.distortions import FURTHER, MAIN
from toolkit.images.preprocess import preprocess
from toolkit.models.watermark.message import matching_bits_needed
from training.photographs import fetch, held_out, name_of, validation_photographs

MESSAGES = 10
FURTHER_MESSAGES = 3
SSIM_MESSAGES = 1
UNMARKED_CROPS_PER_PHOTOGRAPH = 100


@dataclass
class PhotographResult:
    """The results of one photograph: right bits and detection logit of each message, for each distortion."""

    name: str
    megapixels: float
    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    right_bits: dict[str, list[int]] = field(default_factory=dict)
    detection: dict[str, list[float]] = field(default_factory=dict)
    unmarked_detection: list[float] = field(default_factory=list)
    unmarked_right_bits: list[int] = field(default_factory=list)


class Networks:
    """The trained detector and embedder, read from the folder `weights`, in float32."""

    def __init__(self, weights: Path) -> None:
        self.detector = SealDetector(POCKET_DETECTOR).eval()
        self.detector.load_state_dict(load_file(weights / "detector.safetensors"))
        self.embedder = SealEmbedder(POCKET_EMBEDDER).eval()
        self.embedder.load_state_dict(load_file(weights / "embedder.safetensors"))

    def read(self, images: list[Image.Image]) -> NDArray[np.float32]:
        """Return logits (len(images), 1 + POCKET_BITS) of RGB images of any size, preprocessed as the toolkit does."""
        batch = np.concatenate([preprocess(image, POCKET_DETECTOR.image_size_px) for image in images])
        with torch.no_grad():
            return np.asarray(self.detector(torch.from_numpy(batch)).numpy())

    def watermarks(self, image: Tensor, messages: NDArray[np.int64]) -> Tensor:
        """Return the watermarks of messages (M, POCKET_BITS) for one image (1, 3, H, W): (M, channels, side, side)."""
        side = POCKET_EMBEDDER.image_size_px
        with torch.no_grad():
            small = resize(image, side, side).expand(len(messages), -1, -1, -1)
            return self.embedder(small, torch.from_numpy(messages))


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _saved(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())


def measure_photograph(path: Path, weights: Path, scaling_w: float, seed: int) -> PhotographResult:
    """Mark one photograph with MESSAGES messages, distort and read each, and read unmarked crops of it.

    The first FURTHER_MESSAGES messages get the further distortions too.
    """
    torch.set_num_threads(1)
    networks = Networks(weights)
    photograph = Image.open(path).convert("RGB")
    rng = np.random.default_rng((seed, *name_of(path).encode()))
    result = PhotographResult(name_of(path), photograph.width * photograph.height / 1e6)

    image = _to_tensor(photograph)
    heatmap = jnd_heatmap(image) * scaling_w
    messages = rng.integers(0, 2, (MESSAGES, POCKET_BITS))
    for index, watermark in enumerate(networks.watermarks(image, messages).split(1)):
        change = resize(watermark, photograph.height, photograph.width) * heatmap
        marked = _saved((POCKET_EMBEDDER.scaling_i * image + change).clamp(0, 1))
        error = np.mean((np.asarray(marked, np.float32) - np.asarray(photograph, np.float32)) ** 2)
        result.psnr_db.append(float(10 * np.log10(255**2 / error)))
        if index < SSIM_MESSAGES:
            ssim = structural_similarity(np.asarray(photograph), np.asarray(marked), channel_axis=2)
            result.ssim.append(float(ssim))
        distortions = MAIN | FURTHER if index < FURTHER_MESSAGES else MAIN
        logits = networks.read([distort(marked, rng) for distort in distortions.values()])
        right = ((logits[:, 1:] > 0) == messages[index]).sum(axis=1)
        for name, count, detection in zip(distortions, right, logits[:, 0], strict=True):
            result.right_bits.setdefault(name, []).append(int(count))
            result.detection.setdefault(name, []).append(float(detection))

    for crops in _unmarked_crops(photograph, rng):
        logits = networks.read(crops)
        expected = rng.integers(0, 2, (len(crops), POCKET_BITS))
        result.unmarked_detection += logits[:, 0].astype(float).tolist()
        result.unmarked_right_bits += ((logits[:, 1:] > 0) == expected).sum(axis=1).tolist()
    return result


def measure_photographs(
    paths: list[Path], weights: Path, scaling_w: float, processes: int = 2
) -> list[PhotographResult]:
    """Measure photographs in parallel processes, and show the progress."""
    work = partial(measure_photograph, weights=weights, scaling_w=scaling_w, seed=0)
    with ProcessPoolExecutor(processes) as pool, Progress() as progress:
        return list(progress.track(pool.map(work, paths), total=len(paths), description="measuring"))


def detection_threshold(results: list[PhotographResult]) -> float:
    """Return the detection logit halfway between the unmarked crops and the marked photographs.

    It is the middle of the highest logit of unmarked crops and the lowest per cent of marked, distorted photographs;
    where these overlap, the highest logit of unmarked crops.
    """
    unmarked = max(logit for result in results for logit in result.unmarked_detection)
    marked = [logit for result in results for logits in result.detection.values() for logit in logits]
    return max(unmarked, (unmarked + float(np.quantile(marked, 0.01))) / 2)


def _unmarked_crops(photograph: Image.Image, rng: np.random.Generator, batch: int = 20) -> Iterator[list[Image.Image]]:
    """Yield batches of square crops of at least 128 pixels a side, at random places."""
    for _ in range(0, UNMARKED_CROPS_PER_PHOTOGRAPH, batch):
        crops = []
        for _ in range(batch):
            side = int(rng.uniform(128, min(photograph.size)))
            left, top = int(rng.integers(photograph.width - side + 1)), int(rng.integers(photograph.height - side + 1))
            crops.append(photograph.crop((left, top, left + side, top + side)))
        yield crops


def interval_95(per_photograph: Sequence[float], rng: np.random.Generator) -> list[float]:
    """Return the 95% interval of the mean over photographs (bootstrap).

    Photographs are drawn, because readings of one photograph are not independent.
    """
    draws = rng.choice(per_photograph, (2000, len(per_photograph))).mean(axis=1)
    return [float(q) for q in np.quantile(draws, [0.025, 0.975])]


def _false_alarms(count: int, total: int) -> dict[str, Any]:
    interval = binomtest(count, total).proportion_ci(0.95, "exact")
    return {"fired": count, "of": total, "rate": count / total, "interval_95": [interval.low, interval.high]}


def summarize(results: list[PhotographResult], threshold: float) -> dict[str, Any]:
    """Return the figures of the card, with the detection channel compared to `threshold`.

    PSNR is in dB, accuracies and rates are 0 to 1, intervals are 95%.
    """
    rng = np.random.default_rng(0)
    needed = matching_bits_needed(POCKET_BITS)
    assert needed is not None  # 64 bits are enough for the default rate
    table = {}
    for name in MAIN | FURTHER:
        counts = [np.array(result.right_bits[name]) for result in results]
        detection = np.concatenate([result.detection[name] for result in results])
        per_photograph = [float(c.mean() / POCKET_BITS) for c in counts]
        table[name] = {
            "bit_accuracy": float(np.concatenate(counts).mean() / POCKET_BITS),
            "interval_95": interval_95(per_photograph, rng),
            "messages_whole": float((np.concatenate(counts) == POCKET_BITS).mean()),
            "message_detected": float((np.concatenate(counts) >= needed).mean()),
            "channel_detected": float((detection > threshold).mean()),
            "readings": len(detection),
        }
    unmarked = np.concatenate([result.unmarked_detection for result in results])
    matching = np.concatenate([result.unmarked_right_bits for result in results])
    return {
        "photographs": len(results),
        "megapixels": [min(r.megapixels for r in results), max(r.megapixels for r in results)],
        "psnr_db": float(np.mean([v for r in results for v in r.psnr_db])),
        "psnr_db_lowest": float(min(v for r in results for v in r.psnr_db)),
        "ssim": float(np.mean([v for r in results for v in r.ssim])),
        "detection_threshold": threshold,
        "bits_needed": needed,
        "unmarked_channel": _false_alarms(int((unmarked > threshold).sum()), len(unmarked)),
        "unmarked_message": _false_alarms(int((matching >= needed).sum()), len(matching)),
        "distortions": table,
    }


@click.command(help=__doc__)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--split", type=click.Choice(["held-out", "validation"]), default="held-out", show_default=True)
@click.option("--scaling-w", type=float, default=POCKET_EMBEDDER.scaling_w, show_default=True)
@click.option("--detection-threshold", type=float, default=0.0, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    weights: Path, data: Path, split: str, scaling_w: float, detection_threshold: float, processes: int, out: Path
) -> None:
    fetch(data)
    paths = held_out(data) if split == "held-out" else validation_photographs(data)
    results = measure_photographs(paths, weights, scaling_w, processes)
    summary = {"split": split, "scaling_w": scaling_w} | summarize(results, detection_threshold)
    out.write_text(json.dumps(summary, indent=1) + "\n")
    for name, row in summary["distortions"].items():
        click.echo(f"{name:28} {row['bit_accuracy']:.2%}  whole {row['messages_whole']:.1%}")
    click.echo(f"PSNR {summary['psnr_db']:.2f} dB, SSIM {summary['ssim']:.4f}")


if __name__ == "__main__":
    main()
