"""A folder of marked photographs, each after one of the distortions, to calibrate on and to keep budgets on.

`python -m benchmarks.marked build/pocketseal --out build/marked`
From the photographs that choose the model's thresholds: none of those that it is measured on. Seeded.
"""

from pathlib import Path

import click
import numpy as np

from toolkit.images.distortions import FURTHER, MAIN
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Message
from training.photographs import at_pixels, fetch, validation_photographs

PIXELS = 500_000


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path), default="data", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", type=click.IntRange(min=1), default=128, show_default=True)
def main(folder: Path, data: Path, out: Path, count: int) -> None:
    fetch(data)
    out.mkdir(parents=True, exist_ok=True)
    photographs = validation_photographs(data)
    distortions = list((MAIN | FURTHER).values())
    rng = np.random.default_rng(17)
    with Embedder.open(folder) as embedder:
        for index in range(count):
            image = at_pixels(photographs[index % len(photographs)], PIXELS)
            message = Message.drawn(embedder.model.bits, rng)
            marked = embedder.embed(image, message).image
            distortions[index % len(distortions)](marked, rng).save(out / f"{index:03d}.png")


if __name__ == "__main__":
    main()
