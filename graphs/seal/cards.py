"""The sizes of the Seal family: our own and the published ones. Importing this imports neither torch nor onnx.

Source of the latter: the published model cards, checked against the shapes that their state dicts hold.
"""

from dataclasses import dataclass

from graphs.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig, ViTConfig, chunky_dims
from graphs.seal.pocketseal import DETECTOR as POCKET_DETECTOR
from graphs.seal.pocketseal import EMBEDDER as POCKET_EMBEDDER


@dataclass(frozen=True)
class Card:
    """One model: its two networks, and what its first logit is good for.

    detection_threshold: an image counts as marked when channel 0 is above it; None where channel 0 was never
    trained and carries no verdict.
    """

    summary: str
    detector: DetectorConfig
    embedder: EmbedderConfig
    detection_threshold: float | None = None


_TINY_CONVNEXT = ConvNeXtConfig((3, 3, 9, 3), (96, 192, 384, 768))
_CHUNKY_CONVNEXT = ConvNeXtConfig((3, 3, 27, 3), chunky_dims((128, 256, 512, 1024), 1024), stem_stride=2)
_SMALL_VIT = ViTConfig(
    embed_dim=384,
    depth=12,
    num_heads=6,
    patch_size_px=16,
    window_size=8,
    global_blocks=(2, 5, 8, 11),
    out_channels=384,
)


def _luma_unet(mults: tuple[int, ...]) -> EmbedderConfig:
    return EmbedderConfig(
        bits=256,
        image_size_px=256,
        channels=1,
        z_channels=16,
        z_channels_mults=mults,
        num_blocks=8,
        message_dim=256,
        activation="relu",
        normalization="batch",
        scaling_w=0.2,
    )


CARDS = {
    "pocketseal": Card(
        summary="pocketseal: 64 bits in 128 x 128 pixels, trained here",
        detector=POCKET_DETECTOR,
        embedder=POCKET_EMBEDDER,
        detection_threshold=0.0,
    ),
    "videoseal-1.0": Card(
        summary="VideoSeal 1.0: 256 bits, ConvNeXtV2 tiny",
        detector=DetectorConfig(256, 256, _TINY_CONVNEXT),
        embedder=_luma_unet((1, 2, 4, 8)),
    ),
    "pixelseal": Card(
        summary="PixelSeal: 256 bits, the detector of VideoSeal 1.0 with other weights",
        detector=DetectorConfig(256, 256, _TINY_CONVNEXT),
        embedder=_luma_unet((2, 4, 8, 16)),
    ),
    "chunkyseal": Card(
        summary="ChunkySeal: 1024 bits, ConvNeXtV2 with 774 million parameters",
        detector=DetectorConfig(1024, 256, _CHUNKY_CONVNEXT),
        embedder=EmbedderConfig(
            bits=1024,
            image_size_px=256,
            channels=3,
            z_channels=16,
            z_channels_mults=(4, 8, 16, 32),
            num_blocks=8,
            message_dim=2048,
            activation="relu",
            normalization="batch",
            scaling_w=0.2,
        ),
    ),
    "videoseal-0.0": Card(
        summary="VideoSeal 0.0: 96 bits, windowed ViT",
        detector=DetectorConfig(96, 256, _SMALL_VIT),
        embedder=EmbedderConfig(
            bits=96,
            image_size_px=256,
            channels=3,
            z_channels=16,
            z_channels_mults=(1, 2, 4, 8),
            num_blocks=8,
            message_dim=192,
            activation="silu",
            normalization="rms",
            scaling_w=1.0,
            attenuation=None,
        ),
    ),
}
