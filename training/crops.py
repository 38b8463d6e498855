"""A pool of random crops with their just-noticeable-difference maps, the source of every training batch.

The map is computed at the resolution of the photograph, where the mark will be added, and shrunk with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from graphs.networks.seal.embedder import jnd_heatmap

SIDE_PX = 256
LARGEST_SIDE_PX = 1200
LEVELS = 3


@dataclass(frozen=True)
class _Level:
    image: Image.Image
    heatmap: Image.Image


def _levels(path: Path) -> list[_Level]:
    """Return one photograph at up to LEVELS falling resolutions, each with the map of that resolution."""
    image = Image.open(path)
    image.draft("RGB", (2 * LARGEST_SIDE_PX, 2 * LARGEST_SIDE_PX))
    image = image.convert("RGB")
    levels = []
    side = min(LARGEST_SIDE_PX, *image.size)
    for _ in range(LEVELS):
        if side < SIDE_PX:
            break
        scale = side / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
        levels.append(_Level(image, Image.fromarray(jnd_heatmap(pixels)[0, 0].numpy())))
        side //= 2
    return levels


class CropPool:
    """A pool of `size` crops of SIDE_PX x SIDE_PX pixels, some of which are renewed at every step.

    What a slot holds depends only on the seed and the step. images: (size, 3, SIDE_PX, SIDE_PX) uint8; heatmaps: (size,
    1, SIDE_PX, SIDE_PX) float16.
    """

    def __init__(
        self, photographs: Sequence[Path], drawings: Sequence[Path], size: int, seed: int, drawing_share: float = 0.15
    ) -> None:
        self._photographs = [levels for levels in map(_levels, photographs) if levels]
        self._drawings = [levels for levels in map(_levels, drawings) if levels]
        self._drawing_share = drawing_share if self._drawings else 0.0
        self._seed = seed
        self.images = np.empty((size, 3, SIDE_PX, SIDE_PX), np.uint8)
        self.heatmaps = np.empty((size, 1, SIDE_PX, SIDE_PX), np.float16)

    def fill(self, step: int, renewed: int) -> None:
        """Bring every slot to its state at `step`, when `renewed` slots change at each step."""
        size = len(self.images)
        for slot in range(size):
            self._draw(slot, version=(step * renewed + size - 1 - slot) // size)

    def renew(self, step: int, renewed: int) -> None:
        """Draw anew the `renewed` slots that change at `step`."""
        size = len(self.images)
        for count in range(step * renewed, (step + 1) * renewed):
            self._draw(count % size, version=count // size + 1)

    def _draw(self, slot: int, version: int) -> None:
        rng = np.random.default_rng((self._seed, slot, version))
        source = self._drawings if rng.random() < self._drawing_share else self._photographs
        levels = source[rng.integers(len(source))]
        level = levels[rng.integers(len(levels))]
        width, height = level.image.size
        # A third of the crops are whole photographs, because the detector gets whole photographs, squeezed to a square.
        share = 1.0 if rng.random() < 1 / 3 else rng.uniform(0.3, 1.0)
        stretch = np.exp(rng.uniform(-0.3, 0.3))
        w = int(np.clip(width * share * stretch, SIDE_PX / 2, width))
        h = int(np.clip(height * share / stretch, SIDE_PX / 2, height))
        left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        box, square = (left, top, left + w, top + h), (SIDE_PX, SIDE_PX)
        image = np.asarray(level.image.resize(square, Image.Resampling.BILINEAR, box=box))
        heatmap = np.asarray(level.heatmap.resize(square, Image.Resampling.BILINEAR, box=box))
        if rng.random() < 0.5:
            image, heatmap = image[:, ::-1], heatmap[:, ::-1]
        self.images[slot] = image.transpose(2, 0, 1)
        self.heatmaps[slot, 0] = heatmap

    def batch(self, rng: np.random.Generator, count: int, side_px: int) -> tuple[Tensor, Tensor]:
        """Return a random window of `count` random crops, the same window for all.

        Images are (count, 3, side_px, side_px) float32 in [0, 1], heat maps (count, 1, side_px, side_px) float32.
        """
        slots = rng.choice(len(self.images), count, replace=False)
        top, left = (int(rng.integers(SIDE_PX - side_px + 1)) for _ in range(2))
        window: tuple[slice, slice] = (slice(top, top + side_px), slice(left, left + side_px))
        return _floats(self.images[slots][:, :, *window]) / 255, _floats(self.heatmaps[slots][:, :, *window])


def _floats(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
