"""How much change each pixel hides: the just-noticeable-difference map, strip by strip, in numpy.

The same numbers as graphs.seal.embedder.jnd_heatmap, which is their reference and needs torch.
"""

import numpy as np

from toolkit.photo import Floats

# Rows above and below a strip that its map depends on.
HALO = 2


def luma(rows: Floats) -> Floats:
    """Y of YUV. rows (H, W, 3) -> (H, W), in the same range."""
    # Not `rows @ weights`: the threads of a matrix library wait for each other when cores are busy.
    y: Floats = 0.299 * rows[:, :, 0]
    y += 0.587 * rows[:, :, 1]
    y += 0.114 * rows[:, :, 2]
    return y


def jnd_1_1(rows: Floats, above: int, below: int) -> Floats:
    """The map of a strip of an image.

    rows: (above + H + below, W, 3) float32 in [0, 1]; above and below are the rows of the image that stand around
    the H rows of the strip, HALO of them or fewer at the image's border, where zeros follow.
    Returns (H, W) float32, at least 0, in the units of the image.
    """
    y = np.pad(255 * luma(rows), ((HALO - above, HALO - below), (HALO, HALO)))
    height, width = y.shape[0] - 2 * HALO, y.shape[1] - 2 * HALO

    def shifted(down: int, right: int) -> Floats:
        return y[HALO + down : HALO + down + height, HALO + right : HALO + right + width]

    # The 5x5 kernel of ones, with twos around its centre and 0 at it, is two boxes minus twice the centre.
    background = (_box(y, 2, height, width) + _box(y, 1, height, width) - 2 * shifted(0, 0)) / 32
    np.clip(background, 0, None, out=background)  # the sums of boxes may round to just below 0
    dark = 17 * (1 - np.sqrt(np.minimum(background, 127) / 127 + 1e-5))
    light = 3 / 128 * (background - 127) + 3
    luminance_mask = np.where(background <= 127, dark, light)

    # Sobel.
    right = shifted(-1, 1) + 2 * shifted(0, 1) + shifted(1, 1)
    left = shifted(-1, -1) + 2 * shifted(0, -1) + shifted(1, -1)
    down = shifted(1, -1) + 2 * shifted(1, 0) + shifted(1, 1)
    up = shifted(-1, -1) + 2 * shifted(-1, 0) + shifted(-1, 1)
    squared = (right - left) ** 2 + (down - up) ** 2
    contrast_mask = 0.117 * 16 * squared**1.2 / (squared + 26**2)

    overlap = 0.3 * np.minimum(luminance_mask, contrast_mask)
    heatmap: Floats = np.maximum(luminance_mask + contrast_mask - overlap, 0) / 255
    return heatmap.astype(np.float32, copy=False)


def _box(y: Floats, reach: int, height: int, width: int) -> Floats:
    """Sum over the square of 2 * reach + 1 pixels around each pixel of the strip."""
    first, last = HALO - reach, HALO + reach
    columns = y[:, first : first + width].copy()
    for left in range(first + 1, last + 1):
        columns += y[:, left : left + width]
    total = columns[first : first + height].copy()
    for top in range(first + 1, last + 1):
        total += columns[top : top + height]
    return total
