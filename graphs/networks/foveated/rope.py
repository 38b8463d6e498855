"""Rotary positions: each plane of a head turns by an angle that grows with the position."""

import numpy as np
import torch
from torch import Tensor

from backends.tensor import Array
from graphs.networks.foveated.config import DinoConfig, LlamaConfig


class Rotation:
    """cos and sin for the positions of N tokens, each (N, head_dim).

    The first half of a head turns against the second one. sin carries the sign of that, so that the rotation is a swap
    of the halves, two products and a sum. Constants, not weights: no state dict has them.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos = cos
        self.sin = sin

    @classmethod
    def by(cls, angles: Array) -> "Rotation":
        """angles: (N, head_dim / 2), in radians."""
        both = np.concatenate([angles, angles], axis=-1)
        sign = np.repeat(np.array([-1.0, 1.0]), angles.shape[-1])
        # From numpy: made of real numbers even where a module is built without memory for its weights.
        return cls(
            torch.from_numpy(np.cos(both).astype(np.float32)),
            torch.from_numpy((np.sin(both) * sign).astype(np.float32)),
        )

    def first(self, length: int) -> "Rotation":
        """Of the first `length` positions."""
        return Rotation(self.cos[:length], self.sin[:length])

    def at(self, positions: Tensor) -> "Rotation":
        """Of these positions, (M,) int."""
        return Rotation(self.cos.index_select(0, positions), self.sin.index_select(0, positions))

    def __call__(self, x: Tensor) -> Tensor:
        """Turn x (..., N, head_dim)."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([second, first], dim=-1) * self.sin


def along_text(config: LlamaConfig, length: int) -> Rotation:
    """Llama: position p turns plane i by p * theta^(-2i / head_dim)."""
    positions = np.arange(length, dtype=np.float32)[:, None]
    return Rotation.by(positions * _frequencies(config.rope_theta, config.head_dim))


def over_image(config: DinoConfig) -> Rotation:
    """DINOv3: by the patch centres in [-1, 1]; half of the planes turns with the row, the other with the column.

    The class token and the registers stay as they are.
    """
    turns = 2 * np.pi * _frequencies(config.rope_theta, config.dim // config.num_heads // 2)
    centres = 2 * (np.arange(config.side, dtype=np.float32) + 0.5) / config.side - 1
    rows, columns = (axis.reshape(-1, 1) * turns for axis in np.meshgrid(centres, centres, indexing="ij"))
    angles = np.concatenate([rows, columns], axis=-1)
    return Rotation.by(np.pad(angles, ((config.prefix_tokens, 0), (0, 0))))


def _frequencies(theta: float, dim: int) -> Array:
    """theta^(-2i / dim) for i = 0 .. dim / 2 - 1, float32."""
    return np.asarray(1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim), dtype=np.float32)
