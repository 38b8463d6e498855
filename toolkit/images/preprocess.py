"""Preprocessing: an image of any size and kind becomes the tensor that a network reads."""

import numpy as np
from PIL import Image

from toolkit.images.open import ImageSource, open_photo
from toolkit.images.photo import Floats, Photo


def to_tensor(photo: Photo, size_px: int) -> Floats:
    """Return a photo as an RGB tensor: (1, 3, size_px, size_px) float32 in [0, 1].

    It is resized by bilinear interpolation with half-pixel centres and antialias; the aspect is not kept. Each channel
    is resized in float32, because Pillow's resize of 8-bit images rounds twice, which moves logits.
    """
    channels = [resize(photo.plane(channel), size_px, size_px) for channel in range(1 if photo.is_grey else 3)]
    tensor = np.stack(3 * channels if photo.is_grey else channels)[None]
    tensor /= photo.full_scale
    return np.clip(tensor, 0, 1, out=tensor)


def preprocess(source: ImageSource, size_px: int) -> Floats:
    """Open an image and return it as `to_tensor` does. Raises InvalidInput as `open_photo` does."""
    return to_tensor(open_photo(source), size_px)


def resize(plane: Image.Image, width: int, height: int, box: tuple[float, float, float, float] | None = None) -> Floats:
    """Resize a plane by bilinear interpolation with antialias and half-pixel centres. Returns (height, width) float32.

    The result is that of torch's `interpolate(..., antialias=True)`. plane: of mode F. box: (left, top, right, bottom)
    in pixels, resize only this part of the plane; pixels outside it still count at its edges.
    """
    return np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR, box=box))
