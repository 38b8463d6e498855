"""What happens to photographs on their way: on 8-bit pixels at their own size, as a person's tools would.

Each takes an RGB image and a seeded generator and returns an RGB image. `MAIN` are the ones the targets name.
"""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Distortion = Callable[[Image.Image, np.random.Generator], Image.Image]


def _plain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


def _jpeg(image: Image.Image, rng: np.random.Generator, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _resize(image: Image.Image, rng: np.random.Generator, scale: float) -> Image.Image:
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image, rng: np.random.Generator, area: float) -> Image.Image:
    """A rectangle of this share of the area and the photograph's own proportions, at a random place."""
    width, height = round(image.width * area**0.5), round(image.height * area**0.5)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _brightness(image: Image.Image, rng: np.random.Generator, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, rng: np.random.Generator, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _saturation(image: Image.Image, rng: np.random.Generator, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _noise(image: Image.Image, rng: np.random.Generator, sigma: float) -> Image.Image:
    """Gaussian noise; sigma in 8-bit steps."""
    pixels = np.asarray(image, np.float32)
    noisy = pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def _blur(image: Image.Image, rng: np.random.Generator, sigma_px: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma_px))


def _flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def _then(first: Distortion, second: Distortion) -> Distortion:
    return lambda image, rng: second(first(image, rng), rng)


_JPEG_75, _JPEG_50 = partial(_jpeg, quality=75), partial(_jpeg, quality=50)

_HALF, _CROP_80 = partial(_resize, scale=0.5), partial(_crop, area=0.8)

MAIN: dict[str, Distortion] = {
    "none": _plain,
    "JPEG 75": _JPEG_75,
    "JPEG 50": _JPEG_50,
    "half size": _HALF,
    "crop to 80%": _CROP_80,
}

FURTHER: dict[str, Distortion] = {
    "JPEG 95": partial(_jpeg, quality=95),
    "75% size": partial(_resize, scale=0.75),
    "crop to 90%": partial(_crop, area=0.9),
    "crop to 70%": partial(_crop, area=0.7),
    "brightness -30%": partial(_brightness, factor=0.7),
    "brightness +30%": partial(_brightness, factor=1.3),
    "contrast -30%": partial(_contrast, factor=0.7),
    "contrast +30%": partial(_contrast, factor=1.3),
    "saturation -30%": partial(_saturation, factor=0.7),
    "saturation +30%": partial(_saturation, factor=1.3),
    "noise, sigma 8": partial(_noise, sigma=8.0),
    "blur, sigma 2 px": partial(_blur, sigma_px=2.0),
    "flip": _flip,
    "crop to 80%, JPEG 75": _then(_CROP_80, _JPEG_75),
    "half size, JPEG 50": _then(_HALF, _JPEG_50),
    "flip, crop to 80%": _then(_flip, _CROP_80),
    "brightness +30%, JPEG 75": _then(partial(_brightness, factor=1.3), _JPEG_75),
}
