"""The UNet embedder, which draws the watermark of a message, and the blending of the watermark into an image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.seal.config import EmbedderConfig
from graphs.networks.seal.convnext import ChannelRMSNorm, Upsample
from graphs.networks.spec import from_json

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}
_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "rms": ChannelRMSNorm}

SKIP_SCALE = 2**-0.5


class ResidualBlock(nn.Module):
    """(conv 3x3, norm, activation) twice, plus a 1x1 conv of the input."""

    def __init__(self, in_channels: int, out_channels: int, config: EmbedderConfig) -> None:
        super().__init__()
        norm, activation = _NORMS[config.normalization], _ACTIVATIONS[config.activation]
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
            activation(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
            activation(),
        )
        self.res_conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.double_conv(x) + self.res_conv(x)
        return out


class Down(nn.Module):
    """A strided convolution that halves the resolution, then a residual block."""

    def __init__(self, in_channels: int, out_channels: int, config: EmbedderConfig) -> None:
        super().__init__()
        self.down = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.conv = ResidualBlock(out_channels, out_channels, config)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.down(x))
        return out


class Up(nn.Module):
    """An upsampling that doubles the resolution, then a residual block."""

    def __init__(self, in_channels: int, out_channels: int, config: EmbedderConfig) -> None:
        super().__init__()
        self.up = Upsample(in_channels, out_channels, 2, _ACTIVATIONS[config.activation]())
        self.conv = ResidualBlock(out_channels, out_channels, config)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.up(x))
        return out


class Bottleneck(nn.Module):
    """Residual blocks at the lowest resolution."""

    def __init__(self, channels: int, config: EmbedderConfig) -> None:
        super().__init__()
        self.model = nn.Sequential(*(ResidualBlock(channels, channels, config) for _ in range(config.num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class MessageProcessor(nn.Module):
    """A table with a tile for each value of each bit; the sum of a message's tiles, repeated, joins a feature map.

    The published networks have tiles of one position. From such a constant, a network that does not know positions can
    only draw a texture that follows the image's own; a larger tile gives it a texture to start from.
    """

    def __init__(self, bits: int, dim: int, tile: int) -> None:
        super().__init__()
        self.dim, self.tile = dim, tile
        self.msg_embeddings = nn.Embedding(2 * bits, dim * tile * tile)

    def forward(self, x: Tensor, message: Tensor) -> Tensor:
        """Concatenate the message to a feature map: (B, C, H, W) to (B, C + dim, H, W).

        x (B, C, H, W) float32; message (B, bits) of 0 and 1; tile divides H and W.
        """
        rows = 2 * torch.arange(message.shape[1], device=message.device) + message.long()
        tile = self.msg_embeddings(rows).sum(dim=1).reshape(-1, self.dim, self.tile, self.tile)
        repeated = tile.repeat(1, 1, x.shape[2] // self.tile, x.shape[3] // self.tile)
        return torch.cat([x, repeated], dim=1)


class MessageUNet(nn.Module):
    """The UNet of the embedder: image and message to watermark.

    Args of forward: x (B, channels, S, S) float32 in [-1, 1]; message (B, bits) of 0 and 1.
    Returns the watermark (B, channels, S, S) float32 in [-1, 1].
    """

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        stages = config.stage_channels
        mixed = (*stages[:-1], stages[-1] + config.message_dim)
        self.msg_processor = MessageProcessor(config.bits, config.message_dim, config.message_tile)
        self.inc = ResidualBlock(config.channels, stages[0], config)
        self.downs = nn.ModuleList(Down(a, b, config) for a, b in zip(stages[:-1], stages[1:], strict=True))
        self.bottleneck = Bottleneck(mixed[-1], config)
        # Every level is concatenated with its skip connection, so an up block takes twice its channels.
        self.ups = nn.ModuleList(
            Up(2 * lower, upper, config) for upper, lower in reversed(list(zip(stages[:-1], mixed[1:], strict=True)))
        )
        self.outc = nn.Conv2d(stages[0], config.channels, 1)

    def forward(self, x: Tensor, message: Tensor) -> Tensor:
        skips = [self.inc(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        skips[-1] = self.msg_processor(skips[-1], message)
        y = self.bottleneck(skips[-1])
        for up, skip in zip(self.ups, reversed(skips), strict=False):
            y = up(torch.cat([y, skip * SKIP_SCALE], dim=1))
        return torch.tanh(self.outc(y))


LUMA = (0.299, 0.587, 0.114)


def luma(image: Tensor) -> Tensor:
    """Return Y of YUV: image (B, 3, H, W) in any range to (B, 1, H, W) in the same range."""
    r, g, b = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def jnd_heatmap(image: Tensor) -> Tensor:
    """Return the largest change that each pixel hides (Wu et al., 2017, `jnd_1_1` of the Seal cards).

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
    """The watermark embedder: draws the watermark of a message for an image at the network's own size.

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
    """Resize an image (B, C, H, W) to (B, C, height, width), bilinear with antialias and half-pixel centres."""
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


def embedder(config: object) -> nn.Module:
    """Build a SealEmbedder from an EmbedderConfig as JSON, weights not loaded.

    Raises InvalidArtifact for a wrong config.
    """
    return SealEmbedder(from_json(EmbedderConfig, config, "seal-embedder config"))
