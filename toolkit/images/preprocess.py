"""Preprocessing: an image of any size and kind becomes the tensor that a network reads."""

from typing import Literal

import numpy as np
from PIL import Image

from toolkit.images.open import ImageSource, open_photo
from toolkit.images.photo import Floats, Photo

Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
# Added to a number of pixels before its fraction is dropped: 224 / (224 / 232) may be a little below 232.
_ROUNDING = 1e-6
# The weights of red, green and blue in the grey of an image (ITU-R BT.601), as in Pillow's mode L.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def to_tensor(photo: Photo, size_px: int) -> Floats:
    """Return a photo as an RGB tensor: (1, 3, size_px, size_px) float32 in [0, 1], as `to_channels` resizes it."""
    channels = to_channels(photo, size_px, size_px)
    return (channels if len(channels) == 3 else np.repeat(channels, 3, axis=0))[None]


def to_channels(
    photo: Photo, height: int, width: int, interpolation: Interpolation = "bilinear", crop: float | None = None
) -> Floats:
    """Return the channels of a photo: (3, height, width) float32 in [0, 1]; (1, height, width) if the photo is grey.

    It is resized with half-pixel centres and antialias. Each channel is resized in float32, because Pillow's resize of
    8-bit images rounds twice, which moves logits.
    crop: None resizes the whole photo, and does not keep its aspect. A share in (0, 1] keeps it: the photo is resized
    to the smallest size that holds height / crop rows and width / crop columns, and its middle is taken, as timm and
    torchvision evaluate their networks.
    """
    rows, columns = (height, width) if crop is None else _covering(photo, height / crop, width / crop)
    top, left = (round((whole - part) / 2) for whole, part in ((rows, height), (columns, width)))
    middle = slice(top, top + height), slice(left, left + width)
    planes = (photo.plane(channel) for channel in range(1 if photo.is_grey else 3))
    channels = np.stack([resize(plane, columns, rows, interpolation=interpolation)[middle] for plane in planes])
    channels /= photo.full_scale
    return np.clip(channels, 0, 1, out=channels)


def _covering(photo: Photo, rows: float, columns: float) -> tuple[int, int]:
    """Return the smallest height and width of a photo's aspect that are at least `rows` and `columns`, whole pixels
    below each."""
    least = int(rows + _ROUNDING), int(columns + _ROUNDING)
    scale = max(least[0] / photo.height, least[1] / photo.width)
    return max(least[0], int(scale * photo.height + _ROUNDING)), max(least[1], int(scale * photo.width + _ROUNDING))


def grey_of(channels: Floats) -> Floats:
    """Return the grey of red, green and blue channels: (1, height, width) float32 of (3, height, width) float32."""
    return np.tensordot(_GREY, channels, 1)[None]


def preprocess(source: ImageSource, size_px: int) -> Floats:
    """Open an image and return it as `to_tensor` does. Raises InvalidInput as `open_photo` does."""
    return to_tensor(open_photo(source), size_px)


def resize(
    plane: Image.Image,
    width: int,
    height: int,
    box: tuple[float, float, float, float] | None = None,
    interpolation: Interpolation = "bilinear",
) -> Floats:
    """Resize a plane with antialias and half-pixel centres. Returns (height, width) float32.

    Bilinear, the result is that of torch's `interpolate(..., antialias=True)`. plane: of mode F. box: (left, top,
    right, bottom) in pixels, resize only this part of the plane; pixels outside it still count at its edges.
    """
    return np.asarray(plane.resize((width, height), Image.Resampling[interpolation.upper()], box=box))
