"""DeepEncoder from the config that a manifest holds."""

from torch import nn

from graphs.config_json import from_json
from graphs.deepencoder.config import DeepEncoderConfig
from graphs.deepencoder.encoder import DeepEncoder


def encoder(config: object) -> nn.Module:
    """DeepEncoder of a DeepEncoderConfig as JSON, weights not loaded. Raises InvalidArtifact for a wrong config."""
    return DeepEncoder(from_json(DeepEncoderConfig, config, "deepencoder config"))
