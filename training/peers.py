"""What a user would install instead: rivaGan and dwtDct of invisible-watermark, on the same photographs and attacks.

`python -m training.peers --data data --out benchmarks/results/pocketseal-peers.json`. Needs the packages of
requirements/evaluation.txt and their pretrained models, which ship inside them.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from imwatermark import WatermarkDecoder, WatermarkEncoder
from PIL import Image
from rich.progress import track

from training.distortions import FURTHER, MAIN
from training.photographs import fetch, held_out

# Both work on every pixel: a photograph of 20 megapixels takes rivaGan minutes and 10 GB.
LARGEST_PIXELS = 4_200_000


@dataclass(frozen=True)
class Peer:
    method: str
    bits: int


PEERS = (Peer("rivaGan", 32), Peer("dwtDct", 64))
DISTORTIONS = MAIN | {name: FURTHER[name] for name in ("brightness +30%", "flip")}


def measure(peer: Peer, paths: list[Path]) -> dict[str, object]:
    accuracy: dict[str, list[float]] = {name: [] for name in DISTORTIONS}
    psnr_db, seconds = [], []
    decoder = WatermarkDecoder("bits", peer.bits)
    if peer.method == "rivaGan":
        WatermarkDecoder.loadModel()
        WatermarkEncoder.loadModel()
    for index, path in enumerate(track(paths, f"{peer.method}")):
        rng = np.random.default_rng((7, index))
        image = np.asarray(Image.open(path).convert("RGB"))
        message = rng.integers(0, 2, peer.bits)
        encoder = WatermarkEncoder()
        encoder.set_watermark("bits", message.tolist())
        start = time.perf_counter()
        marked = encoder.encode(np.ascontiguousarray(image[:, :, ::-1]), peer.method)[:, :, ::-1]
        seconds.append(time.perf_counter() - start)
        error = np.mean((marked.astype(np.float32) - image) ** 2)
        psnr_db.append(float(10 * np.log10(255**2 / error)))
        for name, distort in DISTORTIONS.items():
            attacked = np.asarray(distort(Image.fromarray(np.ascontiguousarray(marked)), rng))
            read = np.asarray(decoder.decode(np.ascontiguousarray(attacked[:, :, ::-1]), peer.method))
            accuracy[name].append(float(np.mean((read > 0.5) == message)))
    return {
        "bits": peer.bits,
        "photographs": len(paths),
        "psnr_db": float(np.mean(psnr_db)),
        "embed_s_median": float(np.median(seconds)),
        "bit_accuracy": {name: float(np.mean(values)) for name, values in accuracy.items()},
    }


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, out: Path) -> None:
    fetch(data)
    paths = []
    for path in held_out(data):
        width, height = Image.open(path).size
        if width * height <= LARGEST_PIXELS:
            paths.append(path)
    result: dict[str, object] = {"largest_pixels": LARGEST_PIXELS, "photographs": [path.name for path in paths]}
    for peer in PEERS:
        result[peer.method] = measure(peer, paths)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
