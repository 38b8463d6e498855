"""One number for how much of a tensor is error, whatever its size."""

import numpy as np
import pytest

from backends.tensor import Array
from toolkit.metrics.error import LARGEST, rms
from toolkit.metrics.error import noise_to_signal as noise_over_samples

EXPECTED = np.random.default_rng(0).standard_normal((3, 70, 70)).astype(np.float32)


def noise_to_signal(got: Array, expected: Array, inputs_rms: float) -> float:
    """Of one sample."""
    return noise_over_samples([got], [expected], inputs_rms)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_it_is_the_error_s_share_of_the_signal_at_any_scale(scale: float) -> None:
    expected = EXPECTED.astype(np.float64) * scale
    assert noise_to_signal(expected * 1.25, expected, inputs_rms=0.0) == pytest.approx(0.25)
    assert noise_to_signal(np.zeros_like(expected), expected, inputs_rms=0.0) == pytest.approx(1.0)


def test_the_same_numbers_have_no_error_even_where_there_is_no_signal() -> None:
    assert noise_to_signal(EXPECTED, EXPECTED, inputs_rms=1.0) == 0.0
    assert noise_to_signal(np.zeros(4), np.zeros(4), inputs_rms=0.0) == 0.0
    assert noise_to_signal(np.ones(4), np.zeros(4), inputs_rms=0.0) == LARGEST


def test_the_rounding_of_a_difference_that_cancels_is_no_large_error() -> None:
    large = 1 + EXPECTED
    near = np.nextafter(large, np.float32(9))
    difference, other = large - large, near - large  # what another order of sums leaves
    assert noise_to_signal(other, difference, inputs_rms=rms(large)) < 0.01


def test_what_is_not_finite_is_the_largest_error_unless_it_is_expected() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        got = EXPECTED.copy()
        got[1, 2, 3] = bad
        assert noise_to_signal(got, EXPECTED, inputs_rms=1.0) == LARGEST
        assert noise_to_signal(got, got, inputs_rms=1.0) == 0.0


def test_values_beyond_what_is_taken_at_once_count_as_well() -> None:
    expected = np.ones(3_000_000, np.float32)
    got = expected.copy()
    got[-1] = 1 + 3_000_000**0.5
    assert noise_to_signal(got, expected, inputs_rms=0.0) == pytest.approx(1.0)


def test_integers_and_booleans_are_numbers_too() -> None:
    assert noise_to_signal(np.array([1, 3]), np.array([1, 1]), inputs_rms=0.0) == pytest.approx(2.0**0.5)
    assert noise_to_signal(np.array([True, False]), np.array([True, True]), inputs_rms=0.0) > 0


def test_samples_are_one_signal_and_one_error() -> None:
    expected = [np.full(4, 1.0), np.full(4, 7.0)]
    got = [np.full(4, 1.0), np.full(4, 8.0)]
    assert noise_over_samples(got, expected, 0.0) == pytest.approx((1 / 50) ** 0.5)
    assert noise_over_samples([got[0], np.full(4, np.nan)], expected, 0.0) == LARGEST


def test_rms_is_over_the_finite_values_of_any_dtype() -> None:
    assert rms(np.array([3.0, -4.0])) == pytest.approx(12.5**0.5)
    assert rms(np.array([3.0, np.nan, -4.0, np.inf])) == pytest.approx(12.5**0.5)
    assert rms(np.array([True, False, False, True])) == pytest.approx(0.5**0.5)
    assert rms(np.zeros((0, 3))) == 0.0
    long = np.ones(200_000, np.float32)
    long[-1] = 1 + 200_000**0.5
    assert rms(long) == pytest.approx((2 + 2 * 200_000**-0.5) ** 0.5, rel=1e-6)


def test_a_result_below_a_ten_thousandth_of_its_inputs_is_measured_against_that_share() -> None:
    expected, got = np.full(4, 1e-6), np.full(4, 3e-6)
    assert noise_to_signal(got, expected, inputs_rms=1.0) == pytest.approx(2e-2)
    assert noise_to_signal(got, expected, inputs_rms=1e-3) == pytest.approx(2.0)
    assert noise_to_signal(np.full(4, 1.0), np.zeros(4), inputs_rms=1.0) == pytest.approx(1e4)


def test_no_error_is_above_the_largest() -> None:
    assert noise_to_signal(np.full(4, 1e9), np.full(4, 1e-9), inputs_rms=0.0) == LARGEST == 1e9


def test_values_that_are_expected_to_be_infinite_are_left_out_of_both() -> None:
    expected, got = np.array([np.inf, 2.0, 2.0]), np.array([0.0, 3.0, 3.0])
    assert noise_to_signal(got, expected, inputs_rms=0.0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="shorter"):
        noise_over_samples([got], [], 0.0)


def test_arrays_of_unlike_sizes_are_an_error_wherever_they_end() -> None:
    long = np.ones((1 << 16) + 5)
    with pytest.raises(ValueError, match="shorter"):
        noise_to_signal(long, long[: 1 << 16], inputs_rms=0.0)
