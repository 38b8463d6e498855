"""An image of any size and kind, as the tensor that a network reads."""

import numpy as np
from PIL import Image

from toolkit.images.open import ImageSource, open_photo
from toolkit.images.photo import Floats, Photo


def to_tensor(photo: Photo, size_px: int) -> Floats:
    """(1, 3, size_px, size_px) float32 in [0, 1], RGB: bilinear, half-pixel centres, antialias, aspect not kept.

    One channel at a time in float32: Pillow's resize of 8-bit images rounds twice, which moves logits.
    """
    channels = [resize(photo.plane(channel), size_px, size_px) for channel in range(1 if photo.is_grey else 3)]
    tensor = np.stack(3 * channels if photo.is_grey else channels)[None]
    tensor /= photo.full_scale
    return np.clip(tensor, 0, 1, out=tensor)


def preprocess(source: ImageSource, size_px: int) -> Floats:
    """open_photo, then to_tensor. Raises InvalidInput."""
    return to_tensor(open_photo(source), size_px)


def resize(plane: Image.Image, width: int, height: int, box: tuple[float, float, float, float] | None = None) -> Floats:
    """Bilinear with antialias and half-pixel centres, as torch's `interpolate(..., antialias=True)`.

    plane: mode F. box: only this part of it (left, top, right, bottom, in its pixels), pixels beyond it still
    count at its edges. Returns (height, width) float32.
    """
    return np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR, box=box))
