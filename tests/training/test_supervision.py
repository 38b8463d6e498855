"""What training teaches the detector about positions must be true of the mark that the embedder draws."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphs.networks.seal.cards import POCKET_DETECTOR, POCKET_EMBEDDER
from graphs.networks.seal.detector import SealDetector
from training import attacks
from training.supervision import SupervisedDetector, TileLayout, whole

LAYOUT = TileLayout(POCKET_EMBEDDER)
SIDE = 128


def _drawn(frames: np.ndarray) -> torch.Tensor:
    """A picture (B, 3, SIDE, SIDE) whose red and green are the coordinates in the marked image."""
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).repeat(len(frames), 1, 1, 1)


@given(seed=st.integers(0, 10_000))
def test_frames_say_what_part_of_the_picture_a_crop_or_flip_shows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = whole(4)
    pictures = _drawn(frames)
    for move in rng.permutation(np.array(list(attacks.MOVES), object)):
        pictures, frames = move(pictures, frames, rng)
    for picture, (x0, y0, x1, y1) in zip(pictures, frames, strict=True):
        inner = slice(8, -8)
        steps = ((torch.arange(SIDE) + 0.5) / SIDE)[inner].double()
        assert torch.allclose(picture[0, 64, inner].double(), x0 + (x1 - x0) * steps, atol=2 / SIDE)
        assert torch.allclose(picture[1, inner, 64].double(), y0 + (y1 - y0) * steps, atol=2 / SIDE)


def test_cells_cover_every_position_once() -> None:
    cover = LAYOUT.cover(np.array([[0.0, 0.0, 1.0, 1.0], [0.9, 0.05, 0.1, 0.8]]), 16)
    assert cover.shape == (2, POCKET_EMBEDDER.bits, 16, 16)
    total = cover.sum(dim=1)
    assert torch.allclose(total, total.flatten()[0].expand_as(total))
    assert float(cover.max()) == 1.0


def test_a_bit_of_the_first_table_changes_the_mark_in_its_own_cell_alone() -> None:
    table = LAYOUT.embedding(POCKET_EMBEDDER.message_dim, np.random.default_rng(0))
    dim, tile = POCKET_EMBEDDER.message_dim, POCKET_EMBEDDER.message_tile
    message = np.zeros(POCKET_EMBEDDER.bits, int)
    rows = 2 * np.arange(POCKET_EMBEDDER.bits)
    bit = 11
    changed = message.copy()
    changed[bit] = 1
    before = table[rows + message].sum(0).reshape(dim, tile, tile)
    after = table[rows + changed].sum(0).reshape(dim, tile, tile)
    where = (before != after).any(0).nonzero().tolist()
    assert where == [list(divmod(bit, tile))]
    # The same cell that the detector is told about, in an image that shows everything.
    side = round(tile / LAYOUT.period)
    assert LAYOUT.cover(whole(1), side)[0, bit, :tile, :tile].nonzero().tolist() == where


def test_phases_follow_a_mirrored_picture() -> None:
    straight, mirrored = LAYOUT.phases(np.array([[0.1, 0.0, 0.9, 1.0], [0.9, 0.0, 0.1, 1.0]]), 32)
    assert torch.allclose(straight.flip(-1), mirrored, atol=1e-5)


def test_the_supervised_detector_says_what_the_detector_says() -> None:
    torch.manual_seed(0)
    detector = SealDetector(POCKET_DETECTOR).eval()
    image = torch.rand(2, 3, POCKET_DETECTOR.image_size_px, POCKET_DETECTOR.image_size_px)
    with torch.no_grad():
        logits, phases, maps = SupervisedDetector(detector, POCKET_EMBEDDER.bits)(image)
        assert torch.equal(logits, detector(image))
    assert phases.shape[1] == 4
    assert all(bits.shape[1] == POCKET_EMBEDDER.bits for bits in maps)


def test_right_maps_lose_less_than_wrong_ones() -> None:
    rng = np.random.default_rng(0)
    frames = np.array([[0.05, 0.0, 0.95, 0.9], [1.0, 0.0, 0.0, 1.0]])
    message = torch.from_numpy(rng.integers(0, 2, (2, POCKET_EMBEDDER.bits))).float()
    signs = (2 * message - 1)[:, :, None, None]
    phases, maps = LAYOUT.phases(frames, 16), [5 * signs * LAYOUT.cover(frames, 16)]
    phase_loss, cell_loss = LAYOUT.loss(frames, message, phases, maps)
    assert float(phase_loss) == 0.0
    wrong = [5 * signs * LAYOUT.cover(whole(2), 16)]
    assert float(cell_loss) < 0.5 * float(LAYOUT.loss(frames, message, phases, wrong)[1])


def test_a_tile_needs_a_cell_for_every_bit() -> None:
    with pytest.raises(ValueError, match="cells"):
        TileLayout(dataclasses.replace(POCKET_EMBEDDER, message_tile=1))
