"""The running sums against numpy over everything at once."""

import json

import numpy as np
import pytest

from toolkit.metrics.error import RunningMetrics, all_finite


def _pairs(count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    expected = (5 + rng.standard_normal((count, 3, 7))).astype(np.float32)
    return (expected + 0.01 * rng.standard_normal(expected.shape)).astype(np.float32), expected


def _running(got: np.ndarray, expected: np.ndarray) -> RunningMetrics:
    error = RunningMetrics()
    for i, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        error.add(f"sample {i}", ours, theirs)
    return error


def test_every_number_is_the_one_over_all_samples_at_once() -> None:
    got, expected = _pairs()
    result = _running(got, expected).result()
    ours, theirs = got.astype(np.float64), expected.astype(np.float64)
    error = np.abs(ours - theirs)
    assert (result.samples, result.values) == (40, error.size)
    assert result.max_abs == error.max()
    assert result.worst_sample == f"sample {error.reshape(40, -1).max(axis=1).argmax()}"
    assert result.of_range == pytest.approx(error.max() / np.ptp(theirs))
    assert result.mean_abs == pytest.approx(error.mean())
    assert result.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(theirs))
    varies = theirs - theirs.mean(axis=0)
    assert result.of_variation == pytest.approx(np.linalg.norm(error) / np.linalg.norm(varies))
    cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert result.cosine == pytest.approx(cosine)
    assert result.signal_to_noise_db == pytest.approx(20 * np.log10(1 / result.relative_l2))
    assert result.changed == np.mean(got != expected)
    assert (result.reference_low, result.reference_high) == (theirs.min(), theirs.max())


def test_the_histogram_counts_every_value_once_in_its_own_half_decade() -> None:
    expected = np.zeros((1, 6), np.float32)
    got = np.array([[0, 2e-10, 2e-3, 0.5, 5, 1e7]], np.float32)
    histogram = _running(got, expected).result().histogram
    assert histogram.exact == 1
    assert histogram.above == 1
    filled = {histogram.edges[i]: n for i, n in enumerate(histogram.counts) if n}
    assert filled == pytest.approx({1e-9: 1, 10**-2.5: 1, 1.0: 1, 10**1.5 / 10**0.5: 1} | {10.0: 1}, rel=1e-6)


def test_an_output_that_ignores_its_input_has_lost_all_of_the_variation() -> None:
    _, expected = _pairs()
    got = np.broadcast_to(expected.mean(axis=0), expected.shape).astype(np.float32)
    result = _running(got, expected).result()
    assert result.relative_l2 is not None
    assert result.relative_l2 < 0.25
    assert result.of_variation == pytest.approx(1, abs=1e-6)


def test_nan_and_infinity_are_counted_on_both_sides_and_leave_the_other_numbers_alone() -> None:
    got, expected = _pairs()
    clean = _running(got, expected).result()
    got[3, 0, 0], got[4, 1, 1], expected[5, 2, 2] = np.nan, np.inf, -np.inf
    result = _running(got, expected).result()
    assert (result.not_finite, result.reference_not_finite) == (2, 1)
    assert result.relative_l2 == pytest.approx(clean.relative_l2, rel=0.05)
    json.dumps(result.to_json(), allow_nan=False)


def test_the_same_values_have_no_error_and_a_zero_reference_gives_no_ratio() -> None:
    _, expected = _pairs()
    same = _running(expected, expected).result()
    assert (same.max_abs, same.relative_l2, same.changed, same.signal_to_noise_db) == (0, 0, 0, None)
    assert same.cosine == pytest.approx(1)
    zero = _running(expected, np.zeros_like(expected)).result()
    assert (zero.relative_l2, zero.of_range, zero.of_variation, zero.cosine) == (None, None, None, 0)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_and_booleans_are_compared_one_by_one(dtype: str) -> None:
    expected = np.arange(8).reshape(2, 4).astype(dtype)
    got = expected.copy()
    got[1, 3] = 0
    result = _running(got, expected).result()
    assert result.is_exact
    assert result.changed == 1 / 8


def test_nothing_compared_and_unlike_arrays_are_errors() -> None:
    with pytest.raises(ValueError, match="nothing was compared"):
        RunningMetrics().result()
    with pytest.raises(ValueError, match="expected float32"):
        RunningMetrics().add("a", np.zeros(3, np.float32), np.zeros(4, np.float32))


def test_every_edge_of_the_histogram_is_half_a_decade_and_belongs_to_its_bin() -> None:
    histogram = _running(np.ones((1, 2)), np.ones((1, 2))).result().histogram
    assert histogram.edges == pytest.approx([10 ** (half / 2) for half in range(-18, 12)])
    assert (histogram.exact, sum(histogram.counts), histogram.above) == (2, 0, 0)
    got = np.array([[histogram.edges[3], np.nextafter(histogram.edges[3], 1), histogram.edges[-1]]])
    counts = _running(got, np.zeros_like(got)).result().histogram.counts
    assert [index for index, count in enumerate(counts) if count] == [3, 4, len(counts) - 1]


def test_one_sample_does_not_vary_and_a_constant_reference_has_no_variation() -> None:
    got, expected = _pairs(1)
    assert _running(got, expected).result().of_variation is None
    same = np.ones((3, 4), np.float32)
    assert _running(2 * same, same).result().of_variation is None


def test_a_constant_reference_has_its_own_size_as_its_range() -> None:
    expected = np.full((2, 3), -4.0)
    assert _running(expected + 1, expected).result().of_range == 0.25


def test_two_outputs_of_zeros_point_the_same_way_and_one_does_not() -> None:
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    assert _running(zeros, zeros).result().cosine == 1
    assert _running(zeros, ones).result().cosine == 0
    assert _running(ones, zeros).result().signal_to_noise_db is None


def test_the_worst_sample_is_the_first_of_equals_and_named_even_without_an_error() -> None:
    expected = np.zeros((3, 2))
    got = np.array([[0, 0], [0, 1.0], [1, 0]])
    assert _running(got, expected).result().worst_sample == "sample 1"
    assert _running(expected, expected).result().worst_sample == "sample 0"


def test_empty_samples_are_counted_and_say_nothing() -> None:
    error = RunningMetrics()
    error.add("empty", np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="nothing was compared"):
        error.result()
    error.add("full", np.ones((1, 2)), np.ones((1, 2)))
    assert (error.result().samples, error.result().values, error.result().worst_sample) == (2, 2, "full")


def test_all_finite_looks_at_floats_alone() -> None:
    assert all_finite({"a": np.ones(2), "b": np.array([1, 2])})
    assert not all_finite({"a": np.ones(2), "b": np.array([1, np.nan])})
    assert not all_finite({"a": np.array([np.inf], np.float16)})
    assert all_finite({"a": np.array(["no number"])})


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1e-6), (1e7, 1e-3)])
def test_what_the_reference_varies_by_may_be_small_and_far_below_its_mean(mean: float, scale: float) -> None:
    varies = np.random.default_rng(0).standard_normal((40, 5)) * scale
    result = _running(mean + 1.5 * varies, mean + varies).result()
    spread = np.linalg.norm(varies - varies.mean(axis=0))
    assert result.of_variation == pytest.approx(0.5 * np.linalg.norm(varies) / spread, rel=1e-4)
