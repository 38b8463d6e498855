"""The captioner: image encoder and decoder, the whole model with its losses, and the networks that are exported."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.captioner.config import PADDING, TEMPERATURE, CaptionerConfig
from graphs.networks.captioner.text import TextDecoder, TextEncoder
from graphs.networks.spec import from_json


class ImageEncoder(nn.Module):
    """Image encoder: strided convolutions, mean over the map, Linear.

    Args of forward: image (B, 3, S, S) float32 in [-1, 1]. Returns (B, latent).
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        sizes = (3, *config.channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.to_latent = nn.Linear(sizes[-1], config.latent)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for conv in self.convs:
            x = conv(x).relu()
        latent: Tensor = self.to_latent(x.mean(dim=(2, 3)))
        return latent


class ImageDecoder(nn.Module):
    """Image decoder: Linear, transposed convolutions, tanh.

    Args of forward: latent (B, latent). Returns an image (B, 3, S, S) float32 in [-1, 1].
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        sizes = (*reversed(config.channels), 3)
        self.map_shape = (sizes[0], config.map_side, config.map_side)
        self.from_latent = nn.Linear(config.latent, sizes[0] * config.map_side**2)
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, latent: Tensor) -> Tensor:
        x: Tensor = self.from_latent(latent).reshape(-1, *self.map_shape)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = x.relu() if i < len(self.convs) - 1 else x.tanh()
        return x


class Captioner(nn.Module):
    """The whole captioner: image encoder and decoder, text decoder and encoder."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.image_decoder = ImageDecoder(config)
        self.text_decoder = TextDecoder(config)
        self.text_encoder = TextEncoder(config)

    def forward(self, image: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Return the losses on images (B, 3, S, S) in [-1, 1] and their captions (B, N) int, begun, ended and padded.

        reconstruction: mean squared error of the decoded image. caption: cross entropy of each next token that is not
        padding. contrastive: cross entropy of finding the caption of each image, and the image of each caption, in the
        batch by the cosine of their latents; the mean of both. loss: reconstruction + 2 caption + 0.5 contrastive.
        """
        latent = self.image_encoder(image)
        logits = self.text_decoder(latent, tokens[:, :-1])
        scores = similarity(latent, self.text_encoder(tokens)) / TEMPERATURE
        own = torch.arange(len(scores))
        losses = {
            "reconstruction": F.mse_loss(self.image_decoder(latent), image),
            "caption": F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten().long(), ignore_index=PADDING),
            "contrastive": (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2,
        }
        total = losses["reconstruction"] + 2 * losses["caption"] + 0.5 * losses["contrastive"]
        return {**losses, "loss": total}


def similarity(images: Tensor, texts: Tensor) -> Tensor:
    """Return the cosine of every image latent (B, latent) with every text latent (C, latent): (B, C)."""
    return F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T


class Prefill(TextDecoder):
    """Text decoder over a whole text.

    Args of forward: latent (B, latent), tokens (B, N). Returns the logits of every next token (B, N, vocabulary), all
    keys and values, each (B, depth * heads * N, d), and the memory (B, depth, embedding).
    """

    def forward(  # type: ignore[override]  # more than the logits: what Step needs
        self, latent: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        memory = self.memory(latent)
        logits, keys, values = self.prefill(tokens, memory)
        return logits, keys.flatten(1, 2), values.flatten(1, 2), memory


class Step(TextDecoder):
    """Text decoder over one more token.

    Args of forward: token (B, 1), position (1,), the keys and values before it, and the memory, as Prefill returns
    them.
    Returns logits (B, vocabulary), and the keys and values of the token, each (B, depth * heads, d).
    """

    def forward(  # type: ignore[override]  # one token at a time
        self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        apart = (len(token), self.total_heads, -1, keys.shape[-1])
        logits, new_keys, new_values = self.step(token, position, keys.reshape(apart), values.reshape(apart), memory)
        return logits.squeeze(1), new_keys.flatten(1, 2), new_values.flatten(1, 2)


def encode_image(config: object) -> nn.Module:
    """Build an ImageEncoder from a CaptionerConfig as JSON, weights not loaded.

    Raises InvalidArtifact for a wrong config.
    """
    return ImageEncoder(_config(config))


def decode_image(config: object) -> nn.Module:
    """Build an ImageDecoder, as encode_image builds an ImageEncoder."""
    return ImageDecoder(_config(config))


def encode_text(config: object) -> nn.Module:
    """Build a TextEncoder, as encode_image builds an ImageEncoder."""
    return TextEncoder(_config(config))


def decode_text_prefill(config: object) -> nn.Module:
    """Build a Prefill, as encode_image builds an ImageEncoder."""
    return Prefill(_config(config))


def decode_text_step(config: object) -> nn.Module:
    """Build a Step, as encode_image builds an ImageEncoder."""
    return Step(_config(config))


def _config(value: object) -> CaptionerConfig:
    return from_json(CaptionerConfig, value, "captioner config")
