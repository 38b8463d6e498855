"""DeepEncoder (DeepSeek-OCR, 2025): SAM sees details, convolutions compress its map, and CLIP sees the whole page."""

import torch
from torch import Tensor, nn

from graphs.networks.deepencoder.clip import Clip
from graphs.networks.deepencoder.config import DeepEncoderConfig
from graphs.networks.deepencoder.sam import Sam
from graphs.networks.spec import from_json


class Projector(nn.Module):
    """One Linear, in an attribute with its published name. x: (B, N, in_dim) to (B, N, out_dim)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.layers = nn.Linear(in_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class DeepEncoder(nn.Module):
    """The vision tower: a page to the tokens that the language model reads.

    Args of forward: image (B, 3, S, S) float32 in [-1, 1], S = config.image_size_px.
    Returns (B, sequence_length, tokens_dim) float32: the grid of side x side tokens row by row, a newline token after
    each row, and the separator token last. Both parameters keep their published names, one of which is misspelt.
    """

    def __init__(self, config: DeepEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.sam_model = Sam(config.sam)
        self.vision_model = Clip(config.clip)
        self.projector = Projector(2 * config.clip.dim, config.tokens_dim)
        self.image_newline = nn.Parameter(torch.zeros(config.tokens_dim))
        self.view_seperator = nn.Parameter(torch.zeros(config.tokens_dim))

    def forward(self, image: Tensor) -> Tensor:
        grid = self.patch_tokens(image)
        batch, side, dim = len(image), self.config.grid_side, self.config.tokens_dim
        rows = grid.reshape(batch, side, side, dim)
        rows = torch.cat([rows, self.image_newline.expand(batch, side, 1, dim)], dim=2)
        last = self.view_seperator.expand(batch, 1, dim)
        return torch.cat([rows.reshape(batch, side * (side + 1), dim), last], dim=1)

    def patch_tokens(self, image: Tensor) -> Tensor:
        """Return the tokens of the grid alone, (B, side * side, tokens_dim)."""
        features = self.sam_model(image)
        tokens = self.vision_model(features)
        out: Tensor = self.projector(torch.cat([tokens[:, 1:], features.flatten(2).transpose(1, 2)], dim=-1))
        return out

    def fold(self) -> None:
        """Replace every table of positions by the table for this image size, so that an export does not resize them.

        The positions are then no longer those of a checkpoint.
        """
        with torch.no_grad():
            self.sam_model.fold(self.config.image_size_px // self.config.sam.patch_size_px)
            self.vision_model.embeddings.fold(self.config.grid_side)


def encoder(config: object) -> nn.Module:
    """Build a DeepEncoder from a DeepEncoderConfig as JSON, weights not loaded.

    Raises InvalidArtifact for a wrong config.
    """
    return DeepEncoder(from_json(DeepEncoderConfig, config, "deepencoder config"))
