"""Where a two-pass model looked, for a person: over a clip's frames, all at once and one after the other."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from toolkit.photo import Floats

_FRAME_PX = 192


def attention_views(frames: Iterable[Image.Image], attention: Sequence[Floats]) -> list[list[Image.Image]]:
    """For each frame: the frame, then what each pass looked at, brighter where it looked more; small RGB squares.

    attention: for each pass (T, grid, grid).
    """
    views = []
    for number, frame in enumerate(frames):
        small = frame.resize((_FRAME_PX, _FRAME_PX), Image.Resampling.BILINEAR)
        views.append([small, *(_lit(small, maps[number]) for maps in attention)])
    return views


def attention_picture(views: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """A column a frame."""
    sheet = Image.new("RGB", (_FRAME_PX * len(views), _FRAME_PX * len(views[0])))
    for column, view in enumerate(views):
        for row, square in enumerate(view):
            sheet.paste(square, (column * _FRAME_PX, row * _FRAME_PX))
    return sheet


def attention_animation(views: Sequence[Sequence[Image.Image]]) -> list[Image.Image]:
    """A picture a frame: the frame, the first pass and the second, side by side."""
    return [attention_picture([[square] for square in view]) for view in views]


def _lit(frame: Image.Image, weights: Floats) -> Image.Image:
    """A frame that is dark where nothing was looked at. weights: (grid, grid)."""
    share = weights / max(float(weights.max()), 1e-12)
    light = Image.fromarray((255 * share).round().astype(np.uint8)).resize(frame.size, Image.Resampling.NEAREST)
    return Image.composite(frame, frame.point(lambda value: value // 4), light)
