"""The captioner: four networks around one latent."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.captioner.config import PADDING, TEMPERATURE, CaptionerConfig
from graphs.captioner.image import ImageDecoder, ImageEncoder
from graphs.captioner.text import TextDecoder, TextEncoder


class Captioner(nn.Module):
    """Image encoder and decoder, text decoder and encoder."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.image_decoder = ImageDecoder(config)
        self.text_decoder = TextDecoder(config)
        self.text_encoder = TextEncoder(config)

    def forward(self, image: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """The losses on images (B, 3, S, S) in [-1, 1] and their captions (B, N) int, begun, ended and padded.

        reconstruction: mean squared error of the decoded image. caption: cross entropy of each next token, padding
        aside. contrastive: images and captions of a batch find each other by the cosine of their latents, both ways.
        loss: reconstruction + 2 caption + 0.5 contrastive.
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
    """Cosine of every image latent (B, latent) with every text latent (C, latent): (B, C)."""
    return F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
