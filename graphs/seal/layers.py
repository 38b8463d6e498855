"""Layers that the detectors and the embedders share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of an NCHW map.

    Args of forward: x (B, C, H, W) float32. Returns the same shape.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Written out: on float32 it is closer to the exact value than permuting around F.layer_norm.
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred * centred).mean(dim=1, keepdim=True)
        normalized = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normalized + self.bias[:, None, None]


class ChannelRMSNorm(nn.Module):
    """x / ||x|| over channels, times sqrt(C) and a learned gain. x: (B, C, H, W) float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        scale: float = x.shape[1] ** 0.5
        return F.normalize(x, dim=1) * scale * self.gamma


class Upsample(nn.Module):
    """Bilinear upsampling, then reflection-padded 3x3 conv, LayerNorm over channels and an activation.

    Args of forward: x (B, in_channels, H, W). Returns (B, out_channels, factor*H, factor*W).
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int, activation: nn.Module) -> None:
        super().__init__()
        # A factor of 1 is the identity; the slot stays so that state-dict indices match the published files.
        resize: nn.Module = nn.Identity()
        if factor != 1:
            resize = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
        self.upsample_block = nn.Sequential(
            resize,
            nn.ReflectionPad2d(1),
            nn.Conv2d(in_channels, out_channels, 3, bias=False),
            LayerNorm2d(out_channels),
            activation,
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.upsample_block(x)
        return out
