"""The ConvNeXtV2 encoder, and layers that detectors and embedders share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.networks.seal.config import ConvNeXtConfig


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
        # Written out: in float32 this is closer to the exact value than F.layer_norm between two permutations.
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred * centred).mean(dim=1, keepdim=True)
        normalized = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normalized + self.bias[:, None, None]


class ChannelRMSNorm(nn.Module):
    """RMS norm over channels: x / ||x||, times sqrt(C) and a learned gain. x: (B, C, H, W) float32."""

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


class GlobalResponseNorm(nn.Module):
    """Global response norm: gamma * (x * n) + beta + x.

    n is the L2 norm of each channel over space, divided by its mean over the channels.
    Args of forward: x (B, H, W, C) float32. Returns the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.linalg.vector_norm(x, ord=2, dim=(1, 2), keepdim=True)
        n = g / (g.mean(dim=-1, keepdim=True) + 1e-6)
        out: Tensor = self.gamma * (x * n) + self.beta + x
        return out


class Block(nn.Module):
    """Depthwise 7x7 -> LayerNorm -> Linear 4x -> GELU -> GRN -> Linear, with a residual. x: (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.pwconv2(self.grn(self.act(self.pwconv1(self.norm(y)))))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class ConvNeXtV2(nn.Module):
    """The ConvNeXtV2 encoder: image to feature map.

    Args of forward: x (B, 3, S, S) float32 in [-1, 1].
    Returns (B, dims[3], s, s): s is S / (8 * stem_stride), rounded down at each unpadded convolution.
    """

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        dims = config.dims
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=config.stem_stride), LayerNorm2d(dims[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for before, after in zip(dims[:-1], dims[1:], strict=True):
            self.downsample_layers.append(nn.Sequential(LayerNorm2d(before), nn.Conv2d(before, after, 2, stride=2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim) for _ in range(depth))) for dim, depth in zip(dims, config.depths, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return x
