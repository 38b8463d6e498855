"""The SAM image encoder (Kirillov et al., 2023; ViTDet) with DeepSeek-OCR's compressor behind its neck."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.deepencoder.config import SamConfig
from graphs.deepencoder.positions import resized_grid, resized_offsets
from graphs.seal import vit
from graphs.seal.layers import LayerNorm2d


class Attention(vit.Attention):
    """The ViT's, with positions that may have been learned on another grid than the one they are used on."""

    def positions(self, learned: Tensor, side: int) -> Tensor:
        return super().positions(resized_offsets(learned, side), side)

    def in_windows(self, x: Tensor, window: int) -> Tensor:
        """Attention within windows of x (B, side, side, dim). Zero tokens fill the last ones, and are attended to.

        Of a zero token queries, keys and values are the biases. One bias of all keys adds the same to all scores of a
        query, which softmax does not see; one bias of all values comes through weights whose sum is 1 as it is. So keys
        and values go without until the windows are whole again, zeros fill them up, and zero tokens need no layer. What
        their own queries see is dropped.
        """
        side, dim = x.shape[1], x.shape[3]
        bias = torch.cat([self.qkv.bias[:dim], torch.zeros(2 * dim)])
        q, k, v = (self._windows(part, window) for part in F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1))
        out = self._whole(self.attended(q, k, v), side, window)
        projected: Tensor = self.proj(out + self.qkv.bias[2 * dim :])
        return projected

    def _windows(self, x: Tensor, window: int) -> Tensor:
        """(B, side, side, dim) to (windows, heads, window * window, head_dim), with zeros where there are no tokens."""
        batch, side, _, dim = x.shape
        per_side = -(-side // window)
        empty = per_side * window - side
        if empty:
            x = F.pad(x, (0, 0, 0, empty, 0, empty))
        # Rank 6 at most: the first axis is batch and row of windows in one.
        x = x.reshape(batch * per_side, window, per_side, window, self.num_heads, dim // self.num_heads)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, self.num_heads, window**2, dim // self.num_heads)

    def _whole(self, x: Tensor, side: int, window: int) -> Tensor:
        """The tokens of _windows where they came from, (B, side, side, dim), without those that filled windows up."""
        _, heads, _, head_dim = x.shape
        per_side = -(-side // window)
        x = x.reshape(-1, per_side, heads, window, window, head_dim).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(-1, per_side * window, per_side * window, heads * head_dim)[:, :side, :side]


class Block(vit.Block):
    """The ViT's block, with the attention above."""

    ATTENTION = Attention

    def _attend_in_windows(self, x: Tensor) -> Tensor:
        out: Tensor = self.attn.in_windows(x, self.window)  # type: ignore[operator]  # ATTENTION
        return out


class Sam(nn.Module):
    """Image to a compressed map, 64 pixels a cell.

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
