"""pocketseal: 64 bits in 128 x 128 pixels, small enough to ship with the package."""

from graphs.seal.config import ConvNeXtConfig, DetectorConfig, EmbedderConfig

BITS = 64

DETECTOR = DetectorConfig(
    bits=BITS,
    image_size_px=128,
    encoder=ConvNeXtConfig(depths=(1, 3, 3, 1), dims=(32, 80, 128, 192)),
)
# The mark is drawn at half the detector's resolution: it then survives JPEG at small image sizes, and the UNet,
# whose first layers dominate its cost, runs on a quarter of the pixels.
EMBEDDER = EmbedderConfig(
    bits=BITS,
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
