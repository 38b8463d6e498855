"""Distortions of photographs: everyday edits such as JPEG and cropping, on 8-bit pixels at the photograph's own size.

A distortion is one function, registered under the name that reports show. Samples and benchmarks apply distortions in
the order of their registration, which decides the random numbers of each: add a new distortion at the end.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

# Takes an RGB image and a seeded generator; returns an RGB image.
Distortion = Callable[[Image.Image, np.random.Generator], Image.Image]

# Distortions by name. MAIN: those for which the training has targets. FURTHER: all others.
MAIN: dict[str, Distortion] = {}
FURTHER: dict[str, Distortion] = {}


def distortion(name: str, group: dict[str, Distortion]) -> Callable[[Distortion], Distortion]:
    """Register the decorated function under a name in MAIN or FURTHER. Raises ValueError for a name that is taken."""

    def register(function: Distortion) -> Distortion:
        if name in MAIN or name in FURTHER:
            raise ValueError(f"distortion {name!r} is registered already")
        group[name] = function
        return function

    return register


@distortion("none", MAIN)
def _unchanged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


@distortion("JPEG 75", MAIN)
def _jpeg_75(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _jpeg(image, 75)


@distortion("JPEG 50", MAIN)
def _jpeg_50(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _jpeg(image, 50)


@distortion("half size", MAIN)
def _half_size(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _resize(image, 0.5)


@distortion("crop to 80%", MAIN)
def _crop_80(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _crop(image, rng, 0.8)


@distortion("JPEG 95", FURTHER)
def _jpeg_95(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _jpeg(image, 95)


@distortion("75% size", FURTHER)
def _three_quarters_size(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _resize(image, 0.75)


@distortion("crop to 90%", FURTHER)
def _crop_90(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _crop(image, rng, 0.9)


@distortion("crop to 70%", FURTHER)
def _crop_70(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _crop(image, rng, 0.7)


@distortion("brightness -30%", FURTHER)
def _darker(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.7)


@distortion("brightness +30%", FURTHER)
def _brighter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.3)


@distortion("contrast -30%", FURTHER)
def _less_contrast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(0.7)


@distortion("contrast +30%", FURTHER)
def _more_contrast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1.3)


@distortion("saturation -30%", FURTHER)
def _paler(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(0.7)


@distortion("saturation +30%", FURTHER)
def _more_colourful(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1.3)


@distortion("noise, sigma 8", FURTHER)
def _noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add Gaussian noise with a standard deviation of 8, where pixels are 0 to 255."""
    pixels = np.asarray(image, np.float32)
    noisy = pixels + 8.0 * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


@distortion("blur, sigma 2 px", FURTHER)
def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(2.0))


@distortion("flip", FURTHER)
def _flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


@distortion("crop to 80%, JPEG 75", FURTHER)
def _crop_80_jpeg_75(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _jpeg(_crop(image, rng, 0.8), 75)


@distortion("half size, JPEG 50", FURTHER)
def _half_size_jpeg_50(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _jpeg(_resize(image, 0.5), 50)


@distortion("flip, crop to 80%", FURTHER)
def _flip_crop_80(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _crop(_flip(image, rng), rng, 0.8)


@distortion("brightness +30%, JPEG 75", FURTHER)
def _brighter_jpeg_75(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _jpeg(_brighter(image, rng), 75)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _resize(image: Image.Image, scale: float) -> Image.Image:
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image, rng: np.random.Generator, area: float) -> Image.Image:
    """Cut out a rectangle at a random place. area: its share of the image's area. It keeps the image's aspect."""
    width, height = round(image.width * area**0.5), round(image.height * area**0.5)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))
