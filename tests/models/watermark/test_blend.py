"""Strips of numpy give what torch gives on the whole image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from graphs.networks.seal import embedder as reference
from graphs.networks.seal.config import EmbedderConfig
from toolkit.images.open import open_photo
from toolkit.models.watermark import embed as blend
from toolkit.models.watermark.detector import EmbedderModel
from toolkit.models.watermark.embed import HALO, jnd_1_1

TOLERANCE = 1e-5


def by_torch(image: np.ndarray, watermark: np.ndarray, model: EmbedderModel) -> np.ndarray:
    config = EmbedderConfig(
        bits=8,
        image_size_px=model.image_size_px,
        channels=3 if model.channels == 3 else 1,
        z_channels=8,
        z_channels_mults=(1, 2),
        num_blocks=1,
        message_dim=8,
        activation="relu",
        normalization="batch",
        scaling_w=model.scaling_w,
        scaling_i=model.scaling_i,
        attenuation="jnd_1_1" if model.attenuation else None,
    )
    # In float64: torch places its taps in the precision of the image, Pillow always in double.
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).double()[None]
    return reference.blend(batch, torch.from_numpy(watermark).double()[None], config)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("attenuation", ["jnd_1_1", None])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "strip_pixels", "size_px"),
    [
        (97, 61, 1, 48),
        (97, 61, 300, 48),
        (300, 211, 5_000, 48),
        (20, 33, 1 << 18, 48),
        (20, 33, 50, 48),
        (1, 1, 1, 16),
        (3, 400, 400, 48),
        (257, 2, 8, 16),
        (700, 900, 1 << 16, 256),
    ],
)
def test_blending_matches_torch_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
    attenuation: str | None,
    channels: int,
    height: int,
    width: int,
    strip_pixels: int,
    size_px: int,
) -> None:
    monkeypatch.setattr(blend, "_STRIP_PIXELS", strip_pixels)
    random = np.random.default_rng(height + channels)
    image = random.random((height, width, 3), dtype=np.float32)
    # Dark and flat parts too: the map has a branch for each.
    image[: height // 2] *= 0.2
    image[:, : width // 3] = 0.7
    stored = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    image = np.asarray(stored).astype(np.float32) / 255
    watermark = random.uniform(-1, 1, (channels, size_px, size_px)).astype(np.float32)
    model = EmbedderModel(size_px, channels, 1.0, 0.9, attenuation)
    tops, originals, marked = zip(*blend.blended_strips(open_photo(stored), watermark, model), strict=True)
    assert len(tops) == -(-height // max(1, strip_pixels // width))
    np.testing.assert_allclose(np.concatenate(originals), image, atol=1e-7)
    np.testing.assert_allclose(np.concatenate(marked), by_torch(image, watermark, model), atol=TOLERANCE)
    assert np.abs(np.concatenate(marked) - image).max() > 100 * TOLERANCE


@settings(max_examples=30)
@given(
    npst.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)), elements=st.floats(0, 1, width=32)
    )
)
def test_the_map_matches_torch_on_any_image(image: np.ndarray) -> None:
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    np.testing.assert_allclose(jnd_1_1(image, 0, 0), reference.jnd_heatmap(batch)[0, 0], atol=TOLERANCE)


def test_the_map_of_a_strip_is_a_strip_of_the_map() -> None:
    image = np.random.default_rng(0).random((40, 30, 3), dtype=np.float32)
    whole = jnd_1_1(image, 0, 0)
    np.testing.assert_allclose(jnd_1_1(image[10 - HALO : 20 + HALO], HALO, HALO), whole[10:20], atol=1e-7)
    np.testing.assert_allclose(jnd_1_1(image[: 20 + HALO], 0, HALO), whole[:20], atol=1e-7)
