"""Sizes of the Seal networks, as frozen descriptions.

Source of the figures: the published model cards of ChunkySeal, VideoSeal and PixelSeal, checked against
the shapes their state dicts hold.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ConvNeXtConfig:
    """Sizes of a ConvNeXtV2 encoder: four stages; each stage after the first halves the resolution."""

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    stem_stride: int = 4

    def __post_init__(self) -> None:
        if min(self.depths) < 1 or min(self.dims) < 1:
            raise ValueError(f"ConvNeXt needs positive depths and dims, got {self.depths} and {self.dims}")


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a windowed ViT encoder with decomposed relative positions (the SAM image encoder)."""

    embed_dim: int
    depth: int
    num_heads: int
    patch_size_px: int
    window_size: int
    global_blocks: tuple[int, ...]
    out_channels: int

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes of a watermark detector: an encoder, and the pixel decoder that makes 1 + bits logits from its map."""

    bits: int
    image_size_px: int
    encoder: ConvNeXtConfig | ViTConfig

    @property
    def encoder_channels(self) -> int:
        return self.encoder.dims[-1] if isinstance(self.encoder, ConvNeXtConfig) else self.encoder.out_channels


@dataclass(frozen=True)
class EmbedderConfig:
    """Sizes of a UNet embedder, and how its watermark is blended into an image of any size.

    scaling_w and scaling_i weigh watermark and image; attenuation names the map that multiplies the watermark. Each
    bit's embedding is a tile of message_tile x message_tile positions, repeated over the bottleneck. In the published
    cards message_tile is 1: the same vector at every position.
    """

    bits: int
    image_size_px: int
    channels: Literal[1, 3]
    z_channels: int
    z_channels_mults: tuple[int, ...]
    num_blocks: int
    message_dim: int
    activation: Literal["relu", "silu"]
    normalization: Literal["batch", "rms"]
    scaling_w: float
    scaling_i: float = 1.0
    attenuation: Literal["jnd_1_1"] | None = "jnd_1_1"
    message_tile: int = 1

    @property
    def stage_channels(self) -> tuple[int, ...]:
        return tuple(self.z_channels * m for m in self.z_channels_mults)


def chunky_dims(base: tuple[int, int, int, int], bits: int) -> tuple[int, int, int, int]:
    """Return ChunkySeal's widths: each base width times the square root of bits / 128, rounded down."""
    factor = (bits / 128) ** 0.5
    a, b, c, d = (int(dim * factor) for dim in base)
    return a, b, c, d
