"""Attacks on a batch for training. An attack without a gradient passes the gradient of its result to its input.

Every attack takes images (B, 3, S, S) float32 in [0, 1] and a generator, and returns images of the same shape. Attacks
that move the picture also take and return Frames: the part of the marked image that each image shows. The ranges are
those of the measurement in `toolkit/images/distortions.py`.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from graphs.networks.seal.embedder import luma
from training.supervision import Frames, whole

Attack = Callable[[Tensor, np.random.Generator], Tensor]
Move = Callable[[Tensor, Frames, np.random.Generator], tuple[Tensor, Frames]]


def _per_image(rng: np.random.Generator, low: float, high: float, images: Tensor) -> Tensor:
    """Return one random factor from [low, high) for each image, (B, 1, 1, 1)."""
    return torch.from_numpy(rng.uniform(low, high, len(images))).to(images)[:, None, None, None]


def straight_through(images: Tensor, changed: Tensor) -> Tensor:
    """Return the values of `changed`, with the gradient of `images`."""
    return images + (changed - images).detach()


def to_8_bits(images: Tensor) -> Tensor:
    """Round images to the values of 8 bits; the gradient passes unchanged."""
    return straight_through(images, (images * 255).round() / 255)


def jpeg(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Save each image as JPEG of a random quality from 45 to 95, with or without chroma subsampling."""
    pixels = (images.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    decoded = np.empty_like(pixels)
    for index, image in enumerate(pixels):
        buffer = io.BytesIO()
        subsampling = int(rng.choice([0, 2]))
        Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(45, 96)), subsampling=subsampling)
        decoded[index] = np.asarray(Image.open(buffer))
    changed = torch.from_numpy(decoded).permute(0, 3, 1, 2).to(images) / 255
    return straight_through(images, changed)


def resize(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Shrink all images to the same random 50-100% of their sides, and back."""
    side = images.shape[-1]
    smaller = int(side * rng.uniform(0.5, 1.0))
    down = F.interpolate(images, size=(smaller, smaller), mode="bilinear", antialias=True)
    return F.interpolate(down, size=(side, side), mode="bilinear")


def crop(images: Tensor, frames: Frames, rng: np.random.Generator) -> tuple[Tensor, Frames]:
    """Cut a random rectangle out of each image, and resize it to the size of the image.

    The rectangle has 65-100% of the area, at a random place; its sides differ by at most 3%.
    """
    side = images.shape[-1]
    out, shown = [], []
    for image, (x0, y0, x1, y1) in zip(images.split(1), frames, strict=True):
        share, stretch = np.sqrt(rng.uniform(0.65, 1.0)), np.exp(rng.uniform(-0.015, 0.015))
        w, h = int(min(side, side * share * stretch)), int(min(side, side * share / stretch))
        left, top = int(rng.integers(side - w + 1)), int(rng.integers(side - h + 1))
        window = image[:, :, top : top + h, left : left + w]
        out.append(F.interpolate(window, size=(side, side), mode="bilinear"))
        dx, dy = (x1 - x0) / side, (y1 - y0) / side
        shown.append([x0 + dx * left, y0 + dy * top, x0 + dx * (left + w), y0 + dy * (top + h)])
    return torch.cat(out), np.array(shown)


def flip(images: Tensor, frames: Frames, rng: np.random.Generator) -> tuple[Tensor, Frames]:
    """Mirror the images left to right."""
    return images.flip(-1), frames[:, [2, 1, 0, 3]]


def brightness(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Multiply each image by a random factor from 0.7 to 1.3."""
    return (images * _per_image(rng, 0.7, 1.3, images)).clamp(0, 1)


def contrast(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Multiply the distance of each image to its mean luma by a random factor from 0.7 to 1.3."""
    mean = luma(images).mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * _per_image(rng, 0.7, 1.3, images)).clamp(0, 1)


def saturation(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Multiply the distance of each image to its grey version by a random factor from 0.7 to 1.3."""
    grey = luma(images)
    return (grey + (images - grey) * _per_image(rng, 0.7, 1.3, images)).clamp(0, 1)


def noise(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise to each image, of a random standard deviation from 0 to 0.04."""
    sigma = _per_image(rng, 0.0, 0.04, images)
    normal = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32)).to(images)
    return (images + sigma * normal).clamp(0, 1)


def blur(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur all images with the same Gaussian, of a random standard deviation from 0.3 to 1.5 pixels."""
    sigma = rng.uniform(0.3, 1.5)
    radius = max(1, int(3 * sigma))
    kernel = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(images)[None, None, None]
    batch, channels, height, width = images.shape
    flat = images.reshape(-1, 1, height, width)
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel)
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3))
    return flat.reshape(batch, channels, height, width)


# Attacks that move the mark are the hardest to learn, so they are drawn most often.
MOVES: dict[Move, float] = {crop: 6.0, flip: 2.0}
CHANGES: dict[Attack, float] = {
    jpeg: 2.0,
    resize: 1.0,
    brightness: 1.0,
    contrast: 1.0,
    saturation: 0.5,
    noise: 1.0,
    blur: 1.0,
}


def attack(images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Frames]:
    """Attack groups of four images, each group with a random chain of attacks.

    A sixth of the groups get no attack, 45% get one, the others two. Returns the images, and Frames: the part of the
    marked image that each one shows.
    """
    names = [*MOVES, *CHANGES]
    weights = np.array([*MOVES.values(), *CHANGES.values()])
    out, shown = [], []
    for group in images.split(4):
        frames = whole(len(group))
        count = int(rng.choice([0, 1, 2], p=[1 / 6, 0.45, 5 / 6 - 0.45]))
        for index in rng.choice(len(names), count, replace=False, p=weights / weights.sum()):
            if index < len(MOVES):
                group, frames = list(MOVES)[index](group, frames, rng)
            else:
                group = list(CHANGES)[index - len(MOVES)](group, rng)
        out.append(group)
        shown.append(frames)
    return torch.cat(out), np.concatenate(shown)
