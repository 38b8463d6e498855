"""Specs refuse what does not match; bindings join the caller's tensors and the file's without loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from backends.errors import InvalidArtifact, InvalidInput
from backends.tensor import Binding, TensorSpec, probe

IMAGE = TensorSpec("image", (1, 3, 4, 5), "float32", "NCHW")
IMAGE_NHWC = TensorSpec("in:0", (1, 4, 5, 3), "float32", "NHWC")
IMAGE_INT8 = TensorSpec("in:0", (1, 4, 5, 3), "int8", "NHWC")
images = npst.arrays(np.float32, IMAGE.shape, elements=st.floats(0, 1, width=32))


def test_a_matching_array_passes_without_a_copy() -> None:
    array = np.zeros(IMAGE.shape, np.float32)
    assert IMAGE.validate(array) is array


def test_a_strided_array_comes_back_contiguous_with_the_same_values() -> None:
    array = np.arange(60, dtype=np.float32).reshape(1, 4, 5, 3).transpose(0, 3, 1, 2)
    checked = IMAGE.validate(array)
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, array)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(IMAGE.shape, np.float64), "expected dtype float32, got float64"),
        (np.zeros(IMAGE.shape, ">f4"), "expected dtype float32"),
        (np.zeros((1, 4, 5, 3), np.float32), r"expected shape \(1, 3, 4, 5\), got \(1, 4, 5, 3\)"),
        (np.full(IMAGE.shape, np.nan, np.float32), "got NaN or infinity"),
        (np.full(IMAGE.shape, -np.inf, np.float32), "got NaN or infinity"),
        ([[0.0]], "expected a numpy array, got list"),
    ],
)
def test_what_does_not_match_is_refused_with_expected_and_got(array: np.ndarray, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        IMAGE.validate(array)


@given(st.integers(0, 59), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 59))
def test_one_value_that_is_not_finite_is_found_anywhere(where: int, value: float, other: int) -> None:
    array = np.full(IMAGE.shape, 3e38, np.float32)
    array.flat[other] = -np.inf
    array.flat[where] = value
    with pytest.raises(InvalidInput, match="NaN or infinity"):
        IMAGE.validate(array)


def test_finite_values_whose_sum_overflows_are_accepted() -> None:
    array = np.full(IMAGE.shape, np.finfo(np.float32).max, np.float32)
    np.testing.assert_array_equal(IMAGE.validate(array), array)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("", (1,), "float32", None), "expected a name, got an empty one"),
        (("x", (0,), "float32", None), r"expected sizes of at least 1, got \(0,\)"),
        (("x", (-1,), "float32", None), r"expected sizes of at least 1, got \(-1,\)"),
        (("x", (1,), "float128", None), "expected a dtype of float32, .* got 'float128'"),
        (("x", (1,), "float32", "NCHW"), r"layout NCHW needs 4 dimensions, got \(1,\)"),
        (("x", (1, 1, 1, 1), "float32", "HWC"), "expected layout NCHW, NHWC or none, got 'HWC'"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(fields: tuple, says: str) -> None:
    with pytest.raises(InvalidArtifact, match=says):
        TensorSpec(*fields)


@given(images)
def test_channels_last_and_back_is_the_identity(array: np.ndarray) -> None:
    there, back = Binding(IMAGE, IMAGE_NHWC), Binding(IMAGE_NHWC, IMAGE)
    stored = there.to_stored(array)
    assert stored.shape == IMAGE_NHWC.shape
    np.testing.assert_array_equal(stored[0, 1, 2], array[0, :, 1, 2])
    np.testing.assert_array_equal(there.from_stored(stored), array)
    np.testing.assert_array_equal(back.from_stored(array), stored)


@given(images, st.floats(1e-3, 0.1), st.integers(-128, 127))
def test_int8_and_back_is_within_half_a_step_where_int8_reaches(array: np.ndarray, scale: float, zero: int) -> None:
    binding = Binding(IMAGE, IMAGE_INT8, scale, zero)
    stored = binding.to_stored(array)
    assert stored.dtype == np.int8
    reachable = np.clip(array, (-128 - zero) * scale, (127 - zero) * scale)
    np.testing.assert_allclose(binding.from_stored(stored), reachable, atol=scale * 0.501)


@pytest.mark.parametrize(
    ("stored", "scale", "zero_point"),
    [
        (IMAGE_INT8, None, None),
        (IMAGE_INT8, 0.1, None),
        (IMAGE_INT8, 0.0, 0),
        (IMAGE_INT8, float("nan"), 0),
        (IMAGE_INT8, 0.1, 128),
        (IMAGE_NHWC, 0.1, 0),
        (TensorSpec("x", (1, 3, 4, 5), "float32", None), None, None),
        (TensorSpec("x", (1, 3, 4, 5), "float32", "NHWC"), None, None),
        (TensorSpec("x", (1, 3, 5, 4), "float32", "NCHW"), None, None),
    ],
)
def test_a_binding_that_cannot_be_followed_is_refused(stored: TensorSpec, scale: float, zero_point: int) -> None:
    with pytest.raises(InvalidArtifact, match="'image'"):
        Binding(IMAGE, stored, scale, zero_point)


def test_int64_may_be_held_as_int32_where_its_values_fit() -> None:
    binding = Binding(TensorSpec("ids", (3,), "int64", None), TensorSpec("ids", (3,), "int32", None))
    ids = np.array([-5, 0, 2**31 - 1])
    stored = binding.to_stored(ids)
    assert stored.dtype == np.int32
    back = binding.from_stored(stored)
    assert back.dtype == np.int64
    np.testing.assert_array_equal(back, ids)
    with pytest.raises(InvalidInput, match=r"'ids': expected values that the file's int32 holds, got -5 to 2147483648"):
        binding.to_stored(np.array([-5, 0, 2**31]))
    with pytest.raises(InvalidArtifact, match="'ids'"):
        Binding(binding.stored, binding.spec)


def test_a_scalar_may_be_held_as_one_value() -> None:
    binding = Binding(TensorSpec("x", (), "float32", None), TensorSpec("x", (1,), "float32", None))
    assert binding.to_stored(np.array(2, np.float32)).shape == (1,)
    assert binding.from_stored(np.array([2], np.float32)).shape == ()


def test_noise_is_uniform_for_images_and_random_bits_for_every_other_input() -> None:
    specs = (IMAGE, TensorSpec("rows", (1, 3, 50), "float32", None), TensorSpec("ids", (1, 2, 5, 5), "int64", None))
    noise = probe(specs)
    assert len(np.unique(noise["image"])) == noise["image"].size
    assert set(np.unique(noise["rows"])) == {0.0, 1.0}
    assert set(np.unique(noise["ids"])) == {0, 1}
    assert {name: value.dtype.name for name, value in noise.items()} == {
        "image": "float32",
        "rows": "float32",
        "ids": "int64",
    }
