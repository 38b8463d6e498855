"""The models of the Seal family: pocketseal, which is trained in this project, and the published ones."""

from dataclasses import dataclass

from backends.tensor import TensorSpec
from graphs.networks.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig, ViTConfig, chunky_dims
from graphs.networks.spec import GraphSpec, KeyNames, ModelSpec

POCKET_BITS = 64

POCKET_DETECTOR = DetectorConfig(
    bits=POCKET_BITS,
    image_size_px=128,
    encoder=ConvNeXtConfig(depths=(1, 3, 3, 1), dims=(32, 80, 128, 192)),
)

# The mark is drawn at half the detector's resolution: it then survives JPEG at small image sizes, and the UNet,
# whose first layers dominate its cost, runs on a quarter of the pixels.
POCKET_EMBEDDER = EmbedderConfig(
    bits=POCKET_BITS,
    image_size_px=64,
    channels=3,
    z_channels=16,
    z_channels_mults=(1, 1),
    num_blocks=2,
    message_dim=16,
    message_tile=8,
    activation="relu",
    normalization="batch",
    scaling_w=0.61,
)


@dataclass(frozen=True)
class Card:
    """One model: its two networks, and the threshold of its detection channel.

    detection_threshold: an image counts as marked when channel 0 of the logits is above it; None where channel 0 was
    never trained and gives no verdict.
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

# Published files also hold these, which detection and embedding do not need. `embedder.msg_processor` repeats
# `embedder.unet.msg_processor`.
_KEY_NAMES = KeyNames(
    ignored=("attenuation.", "rgb2yuv.", "blender.", "augmenter.", "discriminator", "embedder.msg_processor.")
)


def seal_spec(name: str, card: Card) -> ModelSpec:
    """Return the spec of a Seal card: detector first, then embedder, with the tensor names that every backend uses."""
    detector, embedder = card.detector, card.embedder
    side, small = detector.image_size_px, embedder.image_size_px
    return ModelSpec(
        name=name,
        summary=card.summary,
        description={
            "name": name,
            "kind": "watermark",
            "bits": detector.bits,
            "image_size_px": side,
            "detection_threshold": card.detection_threshold,
            "embedder": {
                "image_size_px": small,
                "channels": embedder.channels,
                "scaling_w": embedder.scaling_w,
                "scaling_i": embedder.scaling_i,
                "attenuation": embedder.attenuation,
            },
        },
        graphs=(
            GraphSpec(
                role="detector",
                architecture="seal-detector",
                config=detector,
                inputs=(TensorSpec("image", (1, 3, side, side), "float32", "NCHW"),),
                outputs=(TensorSpec("logits", (1, 1 + detector.bits), "float32", None),),
            ),
            GraphSpec(
                role="embedder",
                architecture="seal-embedder",
                config=embedder,
                inputs=(
                    TensorSpec("image", (1, 3, small, small), "float32", "NCHW"),
                    TensorSpec("message", (1, embedder.bits), "float32", None),
                ),
                outputs=(TensorSpec("watermark", (1, embedder.channels, small, small), "float32", "NCHW"),),
            ),
        ),
        key_names=_KEY_NAMES,
    )


SPECS = tuple(seal_spec(name, card) for name, card in CARDS.items())
