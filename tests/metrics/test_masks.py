"""Masks of every form, counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidInput
from backends.tensor import TensorSpec
from toolkit.metrics.masks import MaskJudge
from toolkit.metrics.samples import Sample

REAL = Sample("a street", "real", {}, None)


def judged(got: np.ndarray, expected: np.ndarray, least: float = 0.9) -> MaskJudge:
    judge = MaskJudge(TensorSpec("y", expected.shape, expected.dtype.name, None), least)
    judge.add(REAL, {"y": got}, {"y": expected})
    return judge


def square(side: int) -> np.ndarray:
    mask = np.zeros((1, 1, 20, 20), bool)
    mask[..., :side, :10] = True
    return mask


@pytest.mark.parametrize(
    "form",
    [
        lambda mask: mask,
        lambda mask: np.where(mask, 0.8, 0.1).astype(np.float32),  # probabilities
        lambda mask: np.where(mask, 5, -5).astype(np.float32),  # logits
        lambda mask: np.concatenate([~mask, mask], axis=1).astype(np.float32),  # scores of classes
        lambda mask: np.concatenate([~mask, mask], axis=1).astype(np.float32).transpose(0, 2, 3, 1),
        lambda mask: mask.astype(np.int64)[:, 0],  # the class of each pixel
    ],
)
def test_masks_are_compared_by_their_overlap(form: object) -> None:
    assert callable(form)
    expected = form(square(10))
    assert judged(expected, expected).numbers() == {"masks_changed": 0, "mean_iou": 1}
    smaller = judged(form(square(8)), expected)
    changed, masks = smaller.details()["counted"]["masks changed"]
    # Of 100 pixels 80 are left; where the background is a class too, it has 320 pixels instead of 300.
    assert (changed, masks) == (1, masks)
    wanted = [0.8] if masks == 1 else [0.8, 300 / 320]
    assert smaller.numbers()["mean_iou"] == pytest.approx(np.mean(wanted))
    assert judged(form(square(8)), expected, 0.79).numbers()["masks_changed"] == 0


@pytest.mark.parametrize("shape", [(1, 30, 8, 8), (1, 8, 8, 30), (1, 3, 8, 12), (1, 8, 12, 3)])
def test_the_axis_of_classes_is_told_by_the_sizes(shape: tuple[int, ...]) -> None:
    classes = 30 if 30 in shape else 3
    expected = np.zeros(shape, np.float32)
    last = shape[3] == classes
    view = expected if last else np.moveaxis(expected, 1, -1)
    view[0, ..., 0] = 1
    view[0, :4, :, 2] = 2  # half of the image is of class 2, the other half of class 0
    assert judged(expected, expected).details() == {"counted": {"masks changed": [0, 2]}}


def test_empty_masks_are_left_out_and_new_ones_are_changes() -> None:
    nothing = judged(square(0), square(0))
    assert (nothing.numbers(), nothing.uncounted()) == ({}, {"masks_changed": "no masks were found"})
    assert judged(square(1), square(0)).details() == {"counted": {"masks changed": [1, 1]}}


@given(st.integers(0, 500))
def test_rounding_changes_no_pixel(seed: int) -> None:
    random = np.random.default_rng(seed)
    expected = random.standard_normal((1, 1, 6, 6)).astype(np.float32)
    expected[..., :3] *= 1e-7  # as near to the threshold as rounding
    got = expected + 1e-6 * random.standard_normal(expected.shape).astype(np.float32)
    assert judged(got, expected, 1.0).numbers().get("masks_changed", 0.0) == 0.0


@given(st.integers(0, 500))
def test_the_iou_is_the_same_both_ways_for_masks_in_several_images(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other = random.random((2, 3, 6, 6)) > 0.5
    there, back = judged(one, other), judged(other, one)
    assert there.numbers() == back.numbers()
    assert 0 <= there.numbers()["mean_iou"] <= 1


def test_a_row_of_numbers_is_no_mask() -> None:
    with pytest.raises(InvalidInput, match=r"output 'y': expected masks, .*, got float32 \[8\]"):
        MaskJudge(TensorSpec("y", (8,), "float32", None), 0.9)
