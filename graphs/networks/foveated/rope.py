"""Rotary positions: each pair of channels of a head is rotated by an angle that grows with the position."""

import numpy as np
import torch
from torch import Tensor

from backends.tensor import Array
from graphs.networks.foveated.config import DinoConfig, LlamaConfig


class Rotation:
    """Cosines and sines of the angles for N tokens, each (N, head_dim) float32.

    Channel i of the first half of a head is rotated against channel i of the second half. sin carries the sign, so that
    a rotation is a swap of the halves, two products and a sum. These are constants, not weights: no state dict has
    them.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos = cos
        self.sin = sin

    @classmethod
    def by(cls, angles: Array) -> "Rotation":
        """Return the rotation by angles (N, head_dim / 2), in radians."""
        both = np.concatenate([angles, angles], axis=-1)
        sign = np.repeat(np.array([-1.0, 1.0]), angles.shape[-1])
        # Made by numpy, so that the values exist even where torch builds the module without memory (device "meta").
        return cls(
            torch.from_numpy(np.cos(both).astype(np.float32)),
            torch.from_numpy((np.sin(both) * sign).astype(np.float32)),
        )

    def first(self, length: int) -> "Rotation":
        """Return the rotation for the first `length` positions."""
        return Rotation(self.cos[:length], self.sin[:length])

    def at(self, positions: Tensor) -> "Rotation":
        """Return the rotation for these positions, (M,) int."""
        return Rotation(self.cos.index_select(0, positions), self.sin.index_select(0, positions))

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate x (..., N, head_dim)."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([second, first], dim=-1) * self.sin


def along_text(config: LlamaConfig, length: int) -> Rotation:
    """Return Llama's rotation: at position p, pair i is rotated by p * theta^(-2i / head_dim)."""
    positions = np.arange(length, dtype=np.float32)[:, None]
    return Rotation.by(positions * _frequencies(config.rope_theta, config.head_dim))


def over_image(config: DinoConfig) -> Rotation:
    """Return DINOv3's rotation: half of the pairs rotate with the row of a patch, the other half with the column.

    Positions are the centres of patches, in [-1, 1]. The class token and the registers are not rotated.
    """
    turns = 2 * np.pi * _frequencies(config.rope_theta, config.dim // config.num_heads // 2)
    centres = 2 * (np.arange(config.side, dtype=np.float32) + 0.5) / config.side - 1
    rows, columns = (axis.reshape(-1, 1) * turns for axis in np.meshgrid(centres, centres, indexing="ij"))
    angles = np.concatenate([rows, columns], axis=-1)
    return Rotation.by(np.pad(angles, ((config.prefix_tokens, 0), (0, 0))))


def _frequencies(theta: float, dim: int) -> Array:
    """Return theta^(-2i / dim) for i = 0 .. dim / 2 - 1, float32."""
    return np.asarray(1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim), dtype=np.float32)
