"""The graphs of the captioner, from the config that a manifest holds.

Keys and values pass between graphs as (B, depth * heads * tokens, d): no runtime takes three axes for an image.
"""

from torch import Tensor, nn

from graphs.captioner.config import CaptionerConfig
from graphs.captioner.image import ImageDecoder, ImageEncoder
from graphs.captioner.text import TextDecoder, TextEncoder
from graphs.config_json import from_json


class Prefill(TextDecoder):
    """latent (B, latent), tokens (B, N) to the logits of every next token, all keys and values, and the memory."""

    def forward(  # type: ignore[override]  # what a step needs, besides the logits
        self, latent: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        memory = self.memory(latent)
        logits, keys, values = self.prefill(tokens, memory)
        return logits, keys.flatten(1, 2), values.flatten(1, 2), memory


class Step(TextDecoder):
    """One token (B, 1) at a position (1,), with the keys and values before it and the memory."""

    def forward(  # type: ignore[override]  # one token at a time
        self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        apart = (len(token), self.total_heads, -1, keys.shape[-1])
        logits, new_keys, new_values = self.step(token, position, keys.reshape(apart), values.reshape(apart), memory)
        return logits.squeeze(1), new_keys.flatten(1, 2), new_values.flatten(1, 2)


def encode_image(config: object) -> nn.Module:
    """ImageEncoder of a CaptionerConfig as JSON, weights not loaded. Raises InvalidArtifact for a wrong config."""
    return ImageEncoder(_config(config))


def decode_image(config: object) -> nn.Module:
    """ImageDecoder of a CaptionerConfig as JSON, likewise."""
    return ImageDecoder(_config(config))


def encode_text(config: object) -> nn.Module:
    """TextEncoder of a CaptionerConfig as JSON, likewise."""
    return TextEncoder(_config(config))


def decode_text_prefill(config: object) -> nn.Module:
    """Prefill of a CaptionerConfig as JSON, likewise."""
    return Prefill(_config(config))


def decode_text_step(config: object) -> nn.Module:
    """Step of a CaptionerConfig as JSON, likewise."""
    return Step(_config(config))


def _config(value: object) -> CaptionerConfig:
    return from_json(CaptionerConfig, value, "captioner config")
