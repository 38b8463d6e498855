"""DINOv3 ViT (Simeoni et al., 2025): pre-norm blocks with LayerScale, registers, rotary positions on the patches."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.attention import attend, attention_weights, join_heads, split_heads
from graphs.networks.foveated.config import DinoConfig
from graphs.networks.foveated.rope import Rotation, over_image


class Embeddings(nn.Module):
    """Token embeddings of an image: class token, registers and patches.

    Args of forward: image (B, 3, S, S). Returns (B, prefix_tokens + side * side, dim).
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.dim))  # for training alone; part of the weights
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_registers, config.dim))
        self.patch_embeddings = nn.Conv2d(3, config.dim, config.patch_size_px, config.patch_size_px)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patch_embeddings(image).flatten(2).transpose(1, 2)
        prefix = torch.cat([self.cls_token, self.register_tokens], dim=1)
        return torch.cat([prefix.expand(len(image), -1, -1), patches], dim=1)


class Attention(nn.Module):
    """Multi-head attention whose keys and values other queries can attend to as well. Keys have no bias."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.dim, config.dim)
        self.k_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.v_proj = nn.Linear(config.dim, config.dim)
        self.o_proj = nn.Linear(config.dim, config.dim)

    def keys_values(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Return the rotated keys and the values of x (B, N, dim), each (B, heads, N, d)."""
        keys = rotation(split_heads(self.k_proj(x), self.num_heads))
        return keys, split_heads(self.v_proj(x), self.num_heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, rotation: Rotation) -> Tensor:
        """Attend from x (B, N, dim) to its own keys and values, (B, heads, N, d). Returns (B, N, dim)."""
        queries = rotation(split_heads(self.q_proj(x), self.num_heads))
        out: Tensor = self.o_proj(join_heads(attend(queries, keys, values)))
        return out

    def look(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from tokens without a position, x (B, M, dim), to keys and values of other tokens.

        keys (B * heads, d, N), values (B * heads, N, d). Returns (B, M, dim), and the weights (B * heads, M, N).
        """
        queries = split_heads(self.q_proj(x), self.num_heads).flatten(0, 1)
        weights = attention_weights(queries, keys.transpose(1, 2))
        seen = (weights @ values).reshape(len(x), self.num_heads, x.shape[1], -1)
        return self.o_proj(join_heads(seen)), weights


class MLP(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(dim, hidden)
        self.down_proj = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.gelu(self.up_proj(x)))
        return out


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale on both residuals."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-5)
        self.attention = Attention(config)
        self.layer_scale1 = LayerScale(config.dim)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-5)
        self.mlp = MLP(config.dim, config.mlp_dim)
        self.layer_scale2 = LayerScale(config.dim)

    def forward(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Run the block on x (B, N, dim).

        Returns the same shape, and the keys and values of x, each (B, heads, N, d).
        """
        normed = self.norm1(x)
        keys, values = self.attention.keys_values(normed, rotation)
        return self._rest(x, self.attention(normed, keys, values, rotation)), keys, values

    def look(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Run the block on tokens without a position, x (B, M, dim), which attend only to the given keys and values.

        keys (B * heads, d, N), values (B * heads, N, d). Returns (B, M, dim), and the weights (B * heads, M, N).
        """
        y, weights = self.attention.look(self.norm1(x), keys, values)
        return self._rest(x, y), weights

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.layer_scale1(attended)
        out: Tensor = x + self.layer_scale2(self.mlp(self.norm2(x)))
        return out


class Blocks(nn.Module):
    """The blocks of the encoder, in an attribute with its published name."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(config) for _ in range(config.depth))


class Dino(nn.Module):
    """The DINOv3 encoder: image to tokens.

    Args of forward: image (B, 3, S, S) float32, normalised with ImageNet's mean and deviation.
    Returns (B, prefix_tokens + side * side, dim): class token, registers, patches row by row.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.prefix_tokens = config.prefix_tokens
        self.embeddings = Embeddings(config)
        self.model = Blocks(config)
        self.norm = nn.LayerNorm(config.dim, eps=1e-5)
        self._rotation = over_image(config)

    def forward(self, image: Tensor) -> Tensor:
        tokens, _, _ = self.encode(image)
        return tokens

    def encode(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the tokens of forward, and the keys and values of the patches in each block, as `look` takes them.

        Keys are (B * heads, d, patches), values (B * heads, patches, d).
        """
        x, first = self.embeddings(image), self.prefix_tokens
        keys, values = [], []
        for block in self.model.layer:
            x, k, v = block(x, self._rotation)
            keys.append(k[:, :, first:].transpose(2, 3).flatten(0, 1))
            values.append(v[:, :, first:].flatten(0, 1))
        return self.norm(x), tuple(keys), tuple(values)

    def look(self, queries: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Run queries (B, M, dim) through every block, against the keys and values of patches that `encode` returned.

        Patches never attend to queries. Returns normed states (B, M, dim), and the last block's attention over the
        patches, (B, M, patches), averaged over its heads.
        """
        x, weights = queries, None
        for block, k, v in zip(self.model.layer, keys, values, strict=True):
            assert isinstance(block, Block)
            x, weights = block.look(x, k, v)
        assert weights is not None
        return self.norm(x), weights.reshape(len(x), -1, *weights.shape[1:]).mean(dim=1)
