"""Preprocessing: an image of any size and kind becomes the tensor that a network reads."""

import numpy as np
from PIL import Image

from toolkit.images.open import ImageSource, open_photo
from toolkit.images.photo import Floats, Photo

# The weights of red, green and blue in the grey of an image (ITU-R BT.601), as in Pillow's mode L.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def to_tensor(photo: Photo, size_px: int) -> Floats:
    """Return a photo as an RGB tensor: (1, 3, size_px, size_px) float32 in [0, 1], as `to_channels` resizes it."""
    channels = to_channels(photo, size_px, size_px)
    return (channels if len(channels) == 3 else np.repeat(channels, 3, axis=0))[None]


def to_channels(photo: Photo, height: int, width: int) -> Floats:
    """Return the channels of a photo: (3, height, width) float32 in [0, 1]; (1, height, width) if the photo is grey.

    It is resized by bilinear interpolation with half-pixel centres and antialias; the aspect is not kept. Each channel
    is resized in float32, because Pillow's resize of 8-bit images rounds twice, which moves logits.
    """
    channels = np.stack([resize(photo.plane(channel), width, height) for channel in range(1 if photo.is_grey else 3)])
    channels /= photo.full_scale
    return np.clip(channels, 0, 1, out=channels)


def grey_of(channels: Floats) -> Floats:
    """Return the grey of red, green and blue channels: (1, height, width) float32 of (3, height, width) float32."""
    return np.tensordot(_GREY, channels, 1)[None]


def preprocess(source: ImageSource, size_px: int) -> Floats:
    """Open an image and return it as `to_tensor` does. Raises InvalidInput as `open_photo` does."""
    return to_tensor(open_photo(source), size_px)


def resize(plane: Image.Image, width: int, height: int, box: tuple[float, float, float, float] | None = None) -> Floats:
    """Resize a plane by bilinear interpolation with antialias and half-pixel centres. Returns (height, width) float32.

    The result is that of torch's `interpolate(..., antialias=True)`. plane: of mode F. box: (left, top, right, bottom)
    in pixels, resize only this part of the plane; pixels outside it still count at its edges.
    """
    return np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR, box=box))
