"""The ViT encoder of VideoSeal 0.0: windowed attention with decomposed relative positions (SAM, ViTDet)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.seal.config import ViTConfig
from graphs.networks.seal.convnext import LayerNorm2d


class PatchEmbed(nn.Module):
    """Patch embedding: image (B, 3, S, S) to patch tokens (B, S/p, S/p, dim)."""

    def __init__(self, patch_size_px: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size_px, stride=patch_size_px)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x)
        return tokens.permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head attention over a square of side*side tokens, with relative positions per axis.

    Args of forward: x (B, side, side, dim) float32. Returns the same shape.
    """

    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        batch, side, _, dim = x.shape
        heads, tokens = self.num_heads, side * side
        qkv = self.qkv(x).reshape(batch, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]  # each (B, heads, tokens, head_dim)

        scores = (q * self.scale) @ k.transpose(-2, -1)
        # The position terms use the unscaled query, one per row distance and one per column distance.
        grid = q.reshape(batch, heads, side, side, dim // heads)
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, self.positions(self.rel_pos_h, side))
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, self.positions(self.rel_pos_w, side))
        bias = rows[..., :, None] + columns[..., None, :]
        weights = (scores + bias.reshape(batch, heads, tokens, tokens)).softmax(dim=-1)

        out = (weights @ v).permute(0, 2, 1, 3).reshape(batch, side, side, dim)
        projected: Tensor = self.proj(out)
        return projected

    def positions(self, learned: Tensor, side: int) -> Tensor:
        """Return the vector for each pair of places on an axis: learned (2 side - 1, d) to (side, side, d).

        Entry [q, k] is the relative position of key k as query q sees it.
        """
        offsets = torch.arange(side)[:, None] - torch.arange(side)[None, :] + side - 1
        return learned[offsets]


class MLP(nn.Module):
    """Linear 4x, GELU, Linear."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, 4 * dim)
        self.lin2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(F.gelu(self.lin1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block; attends within windows unless `window` is 0. x: (B, side, side, dim)."""

    ATTENTION: ClassVar[type[nn.Module]] = Attention

    def __init__(self, dim: int, num_heads: int, side: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = self.ATTENTION(dim, num_heads, window or side)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        y = self._attend_in_windows(y) if self.window else self.attn(y)
        x = x + y
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend_in_windows(self, x: Tensor) -> Tensor:
        batch, side, _, dim = x.shape
        window = self.window
        per_side = -(-side // window)
        pad = per_side * window - side
        x = F.pad(x, (0, 0, 0, pad, 0, pad))
        x = x.reshape(batch, per_side, window, per_side, window, dim).permute(0, 1, 3, 2, 4, 5)
        x = self.attn(x.reshape(-1, window, window, dim))
        x = x.reshape(batch, per_side, per_side, window, window, dim).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, per_side * window, per_side * window, dim)
        return x[:, :side, :side]


class ViT(nn.Module):
    """The ViT encoder: image to feature map.

    Args of forward: x (B, 3, S, S) float32 in [-1, 1]. Returns (B, out_channels, S/patch, S/patch).
    """

    def __init__(self, config: ViTConfig, image_size_px: int) -> None:
        super().__init__()
        side = image_size_px // config.patch_size_px
        dim, out = config.embed_dim, config.out_channels
        self.patch_embed = PatchEmbed(config.patch_size_px, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, dim))
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, side, window=0 if i in config.global_blocks else config.window_size)
            for i in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(dim, out, 1, bias=False),
            LayerNorm2d(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            LayerNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out
