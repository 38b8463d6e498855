"""The Seal networks from the config that a manifest holds."""

from torch import nn

from graphs.config_json import from_json
from graphs.seal.config import DetectorConfig, EmbedderConfig
from graphs.seal.detector import SealDetector
from graphs.seal.embedder import SealEmbedder


def detector(config: object) -> nn.Module:
    """SealDetector of a DetectorConfig as JSON, weights not loaded. Raises InvalidArtifact for a wrong config."""
    return SealDetector(from_json(DetectorConfig, config, "seal-detector config"))


def embedder(config: object) -> nn.Module:
    """SealEmbedder of an EmbedderConfig as JSON, weights not loaded. Raises InvalidArtifact for a wrong config."""
    return SealEmbedder(from_json(EmbedderConfig, config, "seal-embedder config"))
