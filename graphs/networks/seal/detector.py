"""The watermark detector: an encoder, then the pixel decoder that pools its map into logits."""

from torch import Tensor, nn

from graphs.networks.seal.config import ConvNeXtConfig, DetectorConfig
from graphs.networks.seal.convnext import ConvNeXtV2, Upsample
from graphs.networks.seal.vit import ViT
from graphs.networks.spec import from_json


class PixelDecoder(nn.Module):
    """The pixel decoder: one upsample block, mean over space, Linear.

    Args of forward: feature map (B, C, H, W). Returns logits (B, 1 + bits).
    """

    def __init__(self, channels: int, bits: int) -> None:
        super().__init__()
        self.output_upscaling = nn.Sequential(Upsample(channels, channels, 1, nn.GELU()))
        self.linear = nn.Linear(channels, 1 + bits)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.output_upscaling(x).mean(dim=(2, 3)))
        return logits


class SealDetector(nn.Module):
    """The watermark detector: reads a hidden message from an image.

    Args of forward: image (B, 3, S, S) float32 in [0, 1], S = config.image_size_px.
    Returns logits (B, 1 + bits) float32: channel 0 says whether an image is marked, channel 1 + i is bit i, set when
    its logit is above 0.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        # The name of the attribute is that in checkpoints, which differs by encoder.
        if isinstance(config.encoder, ConvNeXtConfig):
            self.convnext = ConvNeXtV2(config.encoder)
        else:
            self.image_encoder = ViT(config.encoder, config.image_size_px)
        self.pixel_decoder = PixelDecoder(config.encoder_channels, config.bits)

    def forward(self, image: Tensor) -> Tensor:
        encoder = self.convnext if isinstance(self.config.encoder, ConvNeXtConfig) else self.image_encoder
        logits: Tensor = self.pixel_decoder(encoder(image * 2 - 1))
        return logits


def detector(config: object) -> nn.Module:
    """Build a SealDetector from a DetectorConfig as JSON, weights not loaded.

    Raises InvalidArtifact for a wrong config.
    """
    return SealDetector(from_json(DetectorConfig, config, "seal-detector config"))
