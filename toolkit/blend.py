"""A watermark laid over an image of any size, a strip at a time.

The same numbers as graphs.seal.embedder.blend, which is their reference and needs torch.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from toolkit.attenuation import HALO, jnd_1_1
from toolkit.photo import Floats, Photo
from toolkit.preprocess import resize
from toolkit.watermark import EmbedderModel

_ATTENUATIONS: dict[str, Callable[[Floats, int, int], Floats]] = {"jnd_1_1": jnd_1_1}

# A strip holds about this many pixels: its arrays, some twenty at once, stay near the cache.
_STRIP_PIXELS = 1 << 18


def blended_strips(photo: Photo, watermark: Floats, model: EmbedderModel) -> Iterator[tuple[int, Floats, Floats]]:
    """clamp(scaling_i * image + scaling_w * attenuation * watermark, 0, 1), from top to bottom.

    watermark: (C, E, E) float32 in [-1, 1], resized here to the photo's size with antialias.
    Yields (top row, original, marked), both (rows, W, 3) float32 in [0, 1].
    """
    planes = [Image.fromarray(channel) for channel in watermark]
    height, width = photo.height, photo.width
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        change = np.stack([_strip(plane, width, height, top, bottom) for plane in planes], axis=2)
        above, below = min(HALO, top), min(HALO, height - bottom)
        rows = photo.rows(top - above, bottom + below)
        original = rows[above : above + bottom - top]
        if model.attenuation is not None:
            change *= _ATTENUATIONS[model.attenuation](rows, above, below)[:, :, None]
        marked = model.scaling_i * original + model.scaling_w * change
        yield top, original, np.clip(marked, 0, 1, out=marked)


def _strip(plane: Image.Image, width: int, height: int, top: int, bottom: int) -> Floats:
    """Rows top to bottom of a square plane resized to height x width: (bottom - top, width)."""
    size_px = plane.height
    scale = size_px / height
    # Pillow keeps a box in float32: cut to the rows that count, its coordinates are small and so are their errors.
    margin = math.ceil(max(scale, 1)) + 1
    first = max(0, math.floor(top * scale) - margin)
    last = min(size_px, math.ceil(bottom * scale) + margin)
    box = (0.0, top * size_px / height - first, float(size_px), bottom * size_px / height - first)
    return resize(plane.crop((0, first, size_px, last)), width, bottom - top, box)
