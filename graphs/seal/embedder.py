"""The watermark embedder: UNet, just-noticeable-difference attenuation, and the blend at any image size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.seal.config import EmbedderConfig
from graphs.seal.unet import MessageUNet

LUMA = (0.299, 0.587, 0.114)


def luma(image: Tensor) -> Tensor:
    """Y of YUV. image (B, 3, H, W) in any range -> (B, 1, H, W) in the same range."""
    r, g, b = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def jnd_heatmap(image: Tensor) -> Tensor:
    """How much change each pixel hides (Wu et al., 2017, `jnd_1_1` of the Seal cards).

    image (B, 3, H, W) float32 in [0, 1] -> (B, 1, H, W) float32, at least 0, in the same units as the image.
    """
    y = 255 * luma(image)
    ones = image.new_ones(5, 5)
    ones[1:4, 1:4] = 2
    ones[2, 2] = 0
    background = F.conv2d(y, ones[None, None] / 32, padding=2)
    # The clamp keeps the root's gradient finite in the branch that `where` does not take.
    dark = 17 * (1 - torch.sqrt(background.clamp(0, 127) / 127 + 1e-5))
    light = 3 / 128 * (background - 127) + 3
    luminance_mask = torch.where(background <= 127, dark, light)

    sobel = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    gx = F.conv2d(y, sobel[None, None], padding=1)
    gy = F.conv2d(y, sobel.T[None, None], padding=1)
    squared = gx * gx + gy * gy
    contrast_mask = 0.117 * 16 * squared**1.2 / (squared + 26**2)

    overlap = 0.3 * torch.minimum(luminance_mask, contrast_mask)
    return (luminance_mask + contrast_mask - overlap).clamp_min(0) / 255


class SealEmbedder(nn.Module):
    """Draws the watermark of a message for one image at the network's own size.

    Args of forward: image (B, 3, S, S) float32 in [0, 1], S = config.image_size_px; message (B, bits) of 0 and 1.
    Returns the watermark (B, channels, S, S) float32 in [-1, 1], not yet attenuated or scaled.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = MessageUNet(config)

    def forward(self, image: Tensor, message: Tensor) -> Tensor:
        x = luma(image) if self.config.channels == 1 else image
        watermark: Tensor = self.unet(x * 2 - 1, message)
        return watermark


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialias and half-pixel centres. image (B, C, H, W) -> (B, C, height, width)."""
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def blend(image: Tensor, watermark: Tensor, config: EmbedderConfig) -> Tensor:
    """Add a watermark to an image of any size.

    image (B, 3, H, W) float32 in [0, 1]; watermark (B, channels, S, S) in [-1, 1], resized here to H x W.
    Returns the marked image (B, 3, H, W) float32 in [0, 1].
    """
    watermark = resize(watermark, image.shape[2], image.shape[3])
    if config.attenuation is not None:
        watermark = watermark * jnd_heatmap(image)
    return (config.scaling_i * image + config.scaling_w * watermark).clamp(0, 1)
