"""Learned positions, resized from the grid they were learned on to the grid of an image."""

import torch.nn.functional as F
from torch import Tensor


def resized_grid(table: Tensor, side: int) -> Tensor:
    """Positions (1, s, s, dim) to (1, side, side, dim), bicubic with antialias; the same tensor if nothing changes."""
    if table.shape[1] == side:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2), (side, side), mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1)


def resized_offsets(table: Tensor, side: int) -> Tensor:
    """Relative positions (2s - 1, dim) to (2 side - 1, dim), linear; the same tensor if nothing changes."""
    if table.shape[0] == 2 * side - 1:
        return table
    return F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
