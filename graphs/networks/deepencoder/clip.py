"""The CLIP vision transformer (Radford et al., 2021) as DeepSeek-OCR uses it: on a map instead of on pixels."""

import torch
from torch import Tensor, nn

from graphs.networks.attention import attend, join_heads, split_heads
from graphs.networks.deepencoder.config import ClipConfig
from graphs.networks.deepencoder.sam import resized_grid


class Embeddings(nn.Module):
    """Class token, patch embeddings and learned positions.

    Args of forward: patches (B, side * side, dim). Returns (B, 1 + side * side, dim).
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(config.dim))
        # Part of the published weights, but never used: SAM's map takes the place of its output.
        self.patch_embedding = nn.Conv2d(3, config.dim, config.patch_size_px, config.patch_size_px, bias=False)
        self.position_embedding = nn.Embedding(1 + config.position_side**2, config.dim)

    def forward(self, patches: Tensor) -> Tensor:
        batch, tokens, dim = patches.shape
        first = self.class_embedding.expand(batch, 1, dim)
        return torch.cat([first, patches], dim=1) + self.positions(round(tokens**0.5))

    def positions(self, side: int) -> Tensor:
        """Return positions (1 + side * side, dim) for side x side patches: the class token first, then row by row."""
        table = self.position_embedding.weight
        learned_side = round((len(table) - 1) ** 0.5)
        if learned_side == side:
            return table
        patches = resized_grid(table[1:].reshape(1, learned_side, learned_side, -1), side)
        return torch.cat([table[:1], patches.reshape(side * side, -1)])

    def fold(self, side: int) -> None:
        """Replace the positions by those that forward computes for a grid of side x side patches."""
        self.position_embedding.weight = nn.Parameter(self.positions(side))


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values. x: (B, N, dim)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv_proj(x).chunk(3, dim=-1))
        out: Tensor = self.out_proj(join_heads(attend(q, k, v)))
        return out


class MLP(nn.Module):
    """Linear, quick GELU (x times the sigmoid of 1.702 x), Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc1(x)
        out: Tensor = self.fc2(y * torch.sigmoid(1.702 * y))
        return out


class Block(nn.Module):
    """Pre-norm transformer block. x: (B, N, dim)."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.dim, eps=1e-5)
        self.self_attn = Attention(config.dim, config.num_heads)
        self.layer_norm2 = nn.LayerNorm(config.dim, eps=1e-5)
        self.mlp = MLP(config.dim, config.mlp_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Transformer(nn.Module):
    """The blocks of the transformer, in an attribute with its published name."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Clip(nn.Module):
    """The CLIP transformer: feature map to tokens.

    Args of forward: features (B, dim, side, side) float32. Returns (B, 1 + side * side, dim), the class token first.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.dim, eps=1e-5)  # sic, in the published weights
        self.transformer = Transformer(config)

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.embeddings(features.flatten(2).transpose(1, 2))
        out: Tensor = self.transformer(self.pre_layrnorm(tokens))
        return out
