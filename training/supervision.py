"""Deep supervision of the detector in training: where each position lies in the code, and the bits that it sees there.

A message is laid out as cells, one for each bit, in a tile that repeats over the image. To read it after a crop, a
position must know which cell it sees. The published losses only say whether a bit of the whole image came out right,
and within this budget a detector never learns the cells from them. So, in training alone, small heads on the maps of
stages are taught the phase of the tile and the bits of the cells under each position (Lee et al., 2015).
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from graphs.networks.seal.config import ConvNeXtConfig, EmbedderConfig
from graphs.networks.seal.detector import SealDetector

PHASE_STAGE = 1
CELL_STAGES = (1, 2, 3)
QUIET = 0.2
_SAMPLES = 8  # per position and axis, for the share of a position that a cell covers

# (B, 4): left, top, right, bottom of the part that an image shows, in units of the marked image; right < left when
# the image is mirrored.
Frames = NDArray[np.float64]


def whole(count: int) -> Frames:
    """Return the Frames of `count` images that show all of the marked image."""
    return np.tile([0.0, 0.0, 1.0, 1.0], (count, 1))


class SupervisedDetector(nn.Module):
    """The detector with the heads that training adds.

    Args of forward: image (B, 3, S, S) float32 in [0, 1]. Returns logits (B, 1 + bits), phases (B, 4, side, side), and
    for each stage of CELL_STAGES a map of bits (B, bits, side, side).
    """

    def __init__(self, detector: SealDetector, bits: int) -> None:
        super().__init__()
        encoder = detector.config.encoder
        if not isinstance(encoder, ConvNeXtConfig):
            raise TypeError("deep supervision is written for the ConvNeXt encoder")
        self.detector = detector
        self.phase = nn.Conv2d(encoder.dims[PHASE_STAGE], 4, 1)
        self.cells = nn.ModuleList(nn.Conv2d(encoder.dims[stage], bits, 1) for stage in CELL_STAGES)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        encoder = self.detector.convnext
        x, maps = image * 2 - 1, []
        for downsample, stage in zip(encoder.downsample_layers, encoder.stages, strict=True):
            x = stage(downsample(x))
            maps.append(x)
        bits = [head(maps[stage]) for head, stage in zip(self.cells, CELL_STAGES, strict=True)]
        return self.detector.pixel_decoder(x), self.phase(maps[PHASE_STAGE]), bits


class TileLayout:
    """The places of the message tile's cells in a marked image.

    Raises ValueError unless tile^2 = bits, a cell for each bit.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        if config.message_tile**2 != config.bits:
            raise ValueError(f"a tile of {config.message_tile}^2 cells does not hold {config.bits} bits")
        self.tile = config.message_tile
        self.bits = config.bits
        # Of the image's side. Each stage of the UNet but the first halves the resolution.
        self.period = self.tile * 2 ** (len(config.z_channels_mults) - 1) / config.image_size_px

    def embedding(self, dim: int, rng: np.random.Generator) -> Tensor:
        """Return the first values of the message table, (2 * bits, dim * tile * tile).

        Half of the channels hold -1 or 1 in the bit's own cell. The others hold a pilot: a random tile that is the same
        for every message.
        """
        table = np.zeros((self.bits, 2, dim, self.tile, self.tile))
        for bit in range(self.bits):
            row, column = divmod(bit, self.tile)
            table[bit, 0, : dim // 2, row, column] = -1
            table[bit, 1, : dim // 2, row, column] = 1
        table[:, :, dim // 2 :] = rng.choice([-1.0, 1.0], (self.tile, self.tile)) / self.bits
        return torch.from_numpy(table.reshape(2 * self.bits, -1)).float()

    def _coordinates(self, frames: Frames, side: int) -> NDArray[np.float64]:
        """Return the positions of `side` samples along both axes, in tiles: (B, 2, side), x first."""
        steps = (np.arange(side) + 0.5) / side
        start, end = frames[:, :2, None], frames[:, 2:, None]
        coordinates: NDArray[np.float64] = (start + (end - start) * steps) / self.period
        return coordinates

    def phases(self, frames: Frames, side: int) -> Tensor:
        """Return cosine and sine of the tile's phase in x, then in y, at every position: (B, 4, side, side)."""
        angles = 2 * np.pi * self._coordinates(frames, side)
        x, y = np.broadcast_arrays(angles[:, 0, None, :], angles[:, 1, :, None])
        return torch.from_numpy(np.stack([np.cos(x), np.sin(x), np.cos(y), np.sin(y)], axis=1)).float()

    def cover(self, frames: Frames, side: int) -> Tensor:
        """Return how much of each position the cell of every bit covers, (B, bits, side, side); the most is 1."""
        cells = np.floor(self._coordinates(frames, side * _SAMPLES) % 1 * self.tile)
        share = (cells[..., None] == np.arange(self.tile)).reshape(len(frames), 2, side, _SAMPLES, self.tile).mean(3)
        cover = np.einsum("bxj,byi->bijyx", share[:, 0], share[:, 1]).reshape(len(frames), self.bits, side, side)
        return torch.from_numpy(cover / cover.max()).float()

    def loss(self, frames: Frames, message: Tensor, phases: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss of the phases and the loss of the cells. message (B, bits) of 0 and 1.

        The first is the mean squared error. The second is the mean over stages of the cross entropy of the bits,
        weighted by cover, plus QUIET times the mean square of logits where the cell is elsewhere.
        """
        phase_loss = F.mse_loss(phases, self.phases(frames, phases.shape[-1]).to(phases))
        cell_loss = torch.zeros((), device=message.device)
        for logits in maps:
            cover = self.cover(frames, logits.shape[-1]).to(logits)
            wanted = message[:, :, None, None].expand_as(logits)
            right = F.binary_cross_entropy_with_logits(logits, wanted, weight=cover, reduction="sum") / cover.sum()
            cell_loss = cell_loss + right + QUIET * (logits**2 * (1 - cover)).mean()
        return phase_loss, cell_loss / len(maps)
