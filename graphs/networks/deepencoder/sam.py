"""The SAM image encoder of DeepSeek-OCR, with learned positions that are resized to the grid of an image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.deepencoder.config import SamConfig
from graphs.networks.seal import vit
from graphs.networks.seal.convnext import LayerNorm2d


def resized_grid(table: Tensor, side: int) -> Tensor:
    """Resize positions (1, s, s, dim) to (1, side, side, dim), bicubic with antialias.

    A table that fits is returned as it is.
    """
    if table.shape[1] == side:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2), (side, side), mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)


def resized_offsets(table: Tensor, side: int) -> Tensor:
    """Resize relative positions (2s - 1, dim) to (2 side - 1, dim), linear. A table that fits is returned as it is."""
    if table.shape[0] == 2 * side - 1:
        return table
    return F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T


class Attention(vit.Attention):
    """The ViT's attention, with relative positions that may have been learned on another grid."""

    def positions(self, learned: Tensor, side: int) -> Tensor:
        return super().positions(resized_offsets(learned, side), side)


class Block(vit.Block):
    """The ViT's block, with the attention of this module."""

    ATTENTION = Attention

    def _attend_in_windows(self, x: Tensor) -> Tensor:
        """Attend within windows. Zero tokens fill the last windows, and are attended to like other tokens."""
        batch, side, _, dim = x.shape
        window = self.window
        per_side = -(-side // window)
        padded = per_side * window
        if padded != side:
            x = F.pad(x, (0, 0, 0, padded - side, 0, padded - side))
        # Rank 5 at most: the first axis joins the batch and the rows of windows.
        x = x.reshape(batch * per_side, window, per_side, window, dim).transpose(1, 2)
        x = self.attn(x.reshape(-1, window, window, dim))
        x = x.reshape(batch * per_side, per_side, window, window, dim).transpose(1, 2)
        return x.reshape(batch, padded, padded, dim)[:, :side, :side]


class Sam(nn.Module):
    """The SAM encoder: image to a compressed map, of which a cell covers 64 x 64 pixels.

    Args of forward: image (B, 3, S, S) float32 in [-1, 1], S a multiple of 64.
    Returns (B, compressor_channels[1], S / 64, S / 64) float32.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        side, neck = config.position_px // config.patch_size_px, config.neck_channels
        middle, out = config.compressor_channels
        self.patch_embed = vit.PatchEmbed(config.patch_size_px, config.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.dim))
        self.blocks = nn.ModuleList(
            Block(config.dim, config.num_heads, side, 0 if i in config.global_blocks else config.window_size)
            for i in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.dim, neck, 1, bias=False),
            LayerNorm2d(neck),
            nn.Conv2d(neck, neck, 3, padding=1, bias=False),
            LayerNorm2d(neck),
        )
        self.net_2 = nn.Conv2d(neck, middle, 3, stride=2, padding=1, bias=False)
        self.net_3 = nn.Conv2d(middle, out, 3, stride=2, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        x = x + resized_grid(self.pos_embed, x.shape[1])
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.net_3(self.net_2(self.neck(x.permute(0, 3, 1, 2))))
        return out

    def fold(self, side: int) -> None:
        """Replace the positions by those that forward computes for a grid of side x side patches."""
        self.pos_embed = nn.Parameter(resized_grid(self.pos_embed, side))
        for block in self.blocks:
            assert isinstance(block, Block) and isinstance(block.attn, Attention)
            if not block.window:
                block.attn.rel_pos_h = nn.Parameter(resized_offsets(block.attn.rel_pos_h, side))
                block.attn.rel_pos_w = nn.Parameter(resized_offsets(block.attn.rel_pos_w, side))
