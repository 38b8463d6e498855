"""Every registered distortion: its place in the list, and its effect on a photograph."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.images.distortions import FURTHER, MAIN, distortion

PHOTOGRAPH = Path(__file__).parent / "coffee.jpg"
# The order decides the random numbers of each sample, and so the samples of every report and record.
NAMES = [
    "none", "JPEG 75", "JPEG 50", "half size", "crop to 80%", "JPEG 95", "75% size", "crop to 90%", "crop to 70%",
    "brightness -30%", "brightness +30%", "contrast -30%", "contrast +30%", "saturation -30%", "saturation +30%",
    "noise, sigma 8", "blur, sigma 2 px", "flip", "crop to 80%, JPEG 75", "half size, JPEG 50", "flip, crop to 80%",
    "brightness +30%, JPEG 75",
]  # fmt: skip


def test_the_order_of_the_distortions_stays() -> None:
    assert list(MAIN) == NAMES[:5]
    assert list(FURTHER) == NAMES[5:]


@pytest.mark.parametrize("name", NAMES)
def test_a_distortion_gives_the_same_rgb_image_for_the_same_seed_and_is_another_image(name: str) -> None:
    image = Image.open(PHOTOGRAPH).convert("RGB")
    once, again = ((MAIN | FURTHER)[name](image, np.random.default_rng(3)) for _ in range(2))
    assert once.mode == "RGB"
    assert np.array_equal(np.asarray(once), np.asarray(again))
    share = {"half": 0.25, "75%": 0.5625}.get(name.split()[0], 1.0)
    if "crop to" in name:
        share = int(name.partition("crop to ")[2][:2]) / 100
    assert once.width * once.height == pytest.approx(share * image.width * image.height, rel=0.01)
    same = once.size == image.size and np.array_equal(np.asarray(once), np.asarray(image))
    assert same is (name == "none")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'flip' is registered already"):
        distortion("flip", MAIN)(lambda image, rng: image)
