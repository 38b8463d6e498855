"""Ranges of activations: exact extremes, in any order, the same on both runtimes; and the images they are seen on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.tensor import Array
from toolkit.convert import calibration
from toolkit.convert.calibration import Calibration, generated, read_calibration
from toolkit.convert.worker.ranges import METHODS, OUTSIDE, HistogramObserver
from toolkit.models.kind import find_kind

samples = st.lists(
    arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    min_size=1,
    max_size=5,
)


def observed(values: list[Array]) -> HistogramObserver:
    seen = HistogramObserver()
    for array in values:
        seen.add(array)
    return seen


@given(samples, st.randoms(use_true_random=False))
def test_neither_order_nor_portions_matter(values: list[Array], random: object) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for method in METHODS:
        expected = observed(values).range(method)
        assert observed(shuffled).range(method) == expected
        assert observed([np.concatenate(values)]).range(method) == expected


@given(samples)
def test_no_range_passes_what_was_seen(values: list[Array]) -> None:
    everything = np.concatenate(values)
    seen = observed(values)
    assert seen.range("min-max") == (everything.min(), everything.max())
    for method in METHODS:
        low, high = seen.range(method)
        assert everything.min() <= low <= high <= everything.max()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_percentile_leaves_out_one_in_ten_thousand_on_each_side(scale: float) -> None:
    values = scale * np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    low, high = observed(list(values.reshape(10, -1))).range("percentile")
    expected = np.quantile(values, [OUTSIDE, 1 - OUTSIDE])
    np.testing.assert_allclose([low, high], expected, rtol=0.01)


def test_entropy_cuts_off_a_far_outlier_and_keeps_an_even_spread() -> None:
    random = np.random.default_rng(0)
    values = random.laplace(size=1_000_000).astype(np.float32)
    low, high = observed([values, np.float32([100.0])]).range("entropy")
    assert -20 < low < -5
    assert 5 < high < 20
    even = random.uniform(-1, 1, 1_000_000).astype(np.float32)
    assert observed([even]).range("entropy") == pytest.approx((-1, 1), abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits_cover_every_value(method: str) -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    assert observed([values]).range(method, levels=1 << 16) == (values.min(), values.max())


def test_a_tensor_of_zeros_and_one_that_is_never_seen() -> None:
    for method in METHODS:
        assert observed([np.zeros(3, np.float32)]).range(method) == (0, 0)
    with pytest.raises(ValueError, match="no values were seen"):
        HistogramObserver().range("min-max")
    with pytest.raises(ValueError, match="expected finite"):
        HistogramObserver().add(np.float32([np.nan]))
    with pytest.raises(ValueError, match="expected one of min-max"):
        observed([np.ones(1, np.float32)]).range("median")


def test_generated_images_are_the_same_every_time_and_no_two_alike() -> None:
    first, again = (np.stack(list(generated(32, 6))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (6, 3, 32, 32)
    assert first.dtype == np.float32
    assert 0 <= first.min() < 0.1
    assert 0.9 < first.max() <= 1
    assert len({image.tobytes() for image in first}) == 6
    assert not np.array_equal(first, np.stack(list(generated(32, 6, seed=1))))


def test_generated_images_fall_off_with_frequency_as_photographs_do() -> None:
    def slope(images: Array) -> float:
        """Of the logarithm of the amplitude over that of the frequency: 0 for white noise."""
        frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
        amplitude = np.abs(np.fft.fft2(images)).mean(axis=(0, 1))
        inside = (frequency > 0.05) & (frequency < 0.4)
        return float(np.polyfit(np.log(frequency[inside]), np.log(amplitude[inside]), 1)[0])

    assert -1.6 < slope(np.stack(list(generated(64, 32)))) < -0.7
    assert slope(np.random.default_rng(0).random((4, 3, 64, 64))) == pytest.approx(0, abs=0.1)


def test_a_folder_is_read_in_a_seeded_choice(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, images = tiny.find("detector", "onnx", "fp32"), tmp_path / "images"
    images.mkdir()
    for i in range(10):
        Image.new("RGB", (16, 16), (25 * i, 0, 0)).save(images / f"{i}.png")
    (images / "notes.txt").touch()

    def read() -> list[int]:
        with (tmp_path / "inputs").open("w+b") as file:
            calibrated = read_calibration(Calibration(images), find_kind("watermark").feeds, tiny, graph, lambda: file)
        assert calibrated.inputs["image"].shape == (calibrated.runs, 1, 3, 32, 32)
        return np.rint(calibrated.inputs["image"][:, 0, 0, 0, 0] * 255 / 25).astype(int).tolist()

    assert read() == list(range(10))
    monkeypatch.setattr(calibration, "MOST_IMAGES", 4)
    chosen = read()
    assert len(set(chosen)) == 4
    assert chosen == sorted(chosen) != list(range(4))
    assert read() == chosen
    monkeypatch.setattr(calibration, "MOST_BYTES", 3 * 32 * 32 * 3 * 4)
    assert read() == chosen[:3]


def test_what_cannot_calibrate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected one of min-max, percentile, entropy, got 'max'"):
        Calibration.of("generated", "max")
    assert Calibration.of("generated", "entropy").folder is None
    assert Calibration.of("./generated", "entropy").folder == Path("generated")


def test_the_pad_of_a_maximum_belongs_to_no_range() -> None:
    lowest = np.finfo(np.float32).min
    seen = observed([np.full(3, lowest, np.float32), np.array([lowest, -1.5, 2], np.float32)])
    assert seen.range("min-max") == (-1.5, 2)
