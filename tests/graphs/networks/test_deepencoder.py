"""DeepEncoder reproduces the reference's stages at four sizes, has the counted sizes, and folds its positions."""

import pytest
import torch

from graphs.networks.deepencoder.config import CLIP_LARGE, LANGUAGE_DIM, MODES_PX, SAM_BASE, DeepEncoderConfig
from graphs.networks.deepencoder.encoder import DeepEncoder
from tests.deepencoder_tiny import SIZES_PX, config, state, tensors

TOLERANCE = 2e-5  # stated with the goldens


def _loaded(size_px: int) -> DeepEncoder:
    encoder = DeepEncoder(config(size_px)).eval()
    encoder.load_state_dict(state())
    return encoder


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_every_stage_is_the_references(size_px: int) -> None:
    golden, encoder = tensors(), _loaded(size_px)
    image = golden[f"inputs/image_{size_px}"]
    with torch.no_grad():
        features = encoder.sam_model(image)
        stages = {"sam": features, "clip": encoder.vision_model(features), "tokens": encoder.patch_tokens(image)}
    for stage, got in stages.items():
        expected = golden[f"outputs/{stage}_{size_px}"]
        torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0, msg=lambda m, s=stage: f"{s}: {m}")


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_folding_positions_changes_nothing(size_px: int) -> None:
    image, encoder = tensors()[f"inputs/image_{size_px}"], _loaded(size_px)
    with torch.no_grad():
        expected = encoder(image)
        encoder.fold()
        torch.testing.assert_close(encoder(image), expected, atol=0, rtol=0)
    side = size_px // 16
    assert encoder.sam_model.pos_embed.shape[1:3] == (side, side)
    assert len(encoder.vision_model.embeddings.position_embedding.weight) == 1 + (side // 4) ** 2


def test_rows_end_with_the_newline_and_the_whole_with_the_separator() -> None:
    image, encoder = tensors()["inputs/image_192"], _loaded(192)
    with torch.no_grad():
        sequence, grid = encoder(image)[0], encoder.patch_tokens(image)[0]
    assert len(sequence) == encoder.config.sequence_length == 3 * 4 + 1
    assert torch.equal(sequence[-1], encoder.view_seperator)
    rows = sequence[:-1].reshape(3, 4, -1)
    assert torch.equal(rows[:, :3].reshape(9, -1), grid)
    assert all(torch.equal(row[3], encoder.image_newline) for row in rows)


def test_the_full_size_is_the_counted_one() -> None:
    with torch.device("meta"):
        encoder = DeepEncoder(DeepEncoderConfig(1024, SAM_BASE, CLIP_LARGE, LANGUAGE_DIM))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in encoder.named_children()}
    assert counts == {"sam_model": 95_569_152, "vision_model": 303_177_728, "projector": 2_622_720}


def test_modes_give_the_published_numbers_of_tokens() -> None:
    configs = {mode: DeepEncoderConfig(px, SAM_BASE, CLIP_LARGE, LANGUAGE_DIM) for mode, px in MODES_PX.items()}
    assert {mode: config.grid_side**2 for mode, config in configs.items()} == {
        "tiny": 64,
        "small": 100,
        "base": 256,
        "large": 400,
    }
    assert [config.sequence_length for config in configs.values()] == [73, 111, 273, 421]
