"""Boxes in every layout that detectors write, lost and new ones counted by hand, and what holds for any of them."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidInput
from backends.tensor import TensorSpec
from toolkit.metrics import boxes
from toolkit.metrics.boxes import Boxes, BoxJudge, iou, suppress
from toolkit.metrics.samples import Sample

REAL = Sample("a street", "real", {}, None)
CLASSES = 3
# (x1, y1, x2, y2), score, class: two objects, and one with too low a score.
FOUND = (((10, 10, 30, 40), 0.9, 0), ((50, 20, 90, 60), 0.6, 2), ((5, 60, 15, 90), 0.1, 1))
Found = tuple[tuple[tuple[float, ...], float, int], ...]
Outputs = dict[str, np.ndarray]


def _centred(corners: tuple[float, ...]) -> tuple[float, ...]:
    x1, y1, x2, y2 = corners
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _one_hot(score: float, label: int) -> list[float]:
    return [score if index == label else 0.01 for index in range(CLASSES)]


def _rows(found: Found, row: Callable[..., list[float]], least: int) -> np.ndarray:
    rows = [row(*one) for one in found]
    rows += [[0.0] * len(rows[0]) for _ in range(least - len(rows))]
    return np.array(rows, np.float32)[None]


def yolo8(found: Found) -> Outputs:
    return {"y": _rows(found, lambda box, s, c: [*_centred(box), *_one_hot(s, c)], 20).swapaxes(1, 2)}


def yolo8_masks(found: Found) -> Outputs:
    def row(box: tuple[float, ...], score: float, label: int) -> list[float]:
        return [*_centred(box), *_one_hot(score, label), 7.0, -7.0]

    return {"y": _rows(found, row, 20).swapaxes(1, 2), "protos": np.ones((1, 2, 8, 8), np.float32)}


def yolo5(found: Found) -> Outputs:
    return {"y": _rows(found, lambda box, s, c: [*_centred(box), s, *_one_hot(1.0, c)], 20)}


def final(found: Found) -> Outputs:
    return {"y": _rows(found, lambda box, s, c: [*box, s, c], 20)}


def two(found: Found) -> Outputs:
    given = _rows(found, lambda box, s, c: [*box, *_one_hot(s, c)], 20)
    return {"boxes": given[:, :, :4], "scores": given[:, :, 4:]}


def logits(found: Found) -> Outputs:
    """As DETR has it: centres and sizes as shares of the image, and logits."""
    given = _rows(found, lambda box, s, c: [*(v / 100 for v in _centred(box)), *_one_hot(s, c)], 20)
    scores = np.clip(given[:, :, 4:], 1e-3, 1 - 1e-3)
    return {"boxes": given[:, :, :4], "scores": np.log(scores / (1 - scores))}


def three(found: Found) -> Outputs:
    given = _rows(found, lambda box, s, c: [*box, s, c], 20)[0]
    return {"boxes": given[:, :4], "scores": given[:, 4], "classes": given[:, 5].astype(np.int64)}


LAYOUTS = (yolo8, yolo8_masks, yolo5, final, two, logits, three)


def judge_of(outputs: Mapping[str, np.ndarray], least: float = 0.5) -> BoxJudge:
    return BoxJudge([TensorSpec(name, v.shape, v.dtype.name, None) for name, v in outputs.items()], least)


def count(got: Outputs, expected: Outputs, least: float = 0.5) -> tuple[list[int], list[int], float]:
    judge = judge_of(expected, least)
    judge.add(REAL, got, expected)
    lost, new = judge.details()["counted"].values()
    return lost, new, judge.numbers()["boxes_changed"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_are_read_and_matched_by_class_and_overlap(layout: Callable[[Found], Outputs]) -> None:
    first, second, low = FOUND
    expected = layout(FOUND)
    assert count(expected, expected) == ([0, 2], [0, 2], 0.0)
    nudged: Found = (((11, 11, 30, 40), 0.8, 0), second, low)
    assert count(layout(nudged), expected) == ([0, 2], [0, 2], 0.0)
    moved: Found = (((31, 10, 51, 40), 0.9, 0), second, low)
    assert count(layout(moved), expected) == ([1, 2], [1, 2], 0.5)
    renamed: Found = ((first[0], 0.9, 1), second, low)
    assert count(layout(renamed), expected) == ([1, 2], [1, 2], 0.5)
    fainter: Found = ((first[0], 0.2, 0), second, low)
    assert count(layout(fainter), expected) == ([1, 2], [0, 1], pytest.approx(1 / 3))
    stronger: Found = (first, second, (low[0], 0.5, 1))
    assert count(layout(stronger), expected) == ([0, 2], [1, 3], pytest.approx(1 / 5))


@given(st.integers(0, 500))
def test_the_order_of_rows_does_not_count(seed: int) -> None:
    random = np.random.default_rng(seed)
    low = random.random((20, 2)) * 50
    rows = np.concatenate(
        [low, low + 1 + random.random((20, 2)) * 50, random.random((20, 1)), random.integers(0, 3, (20, 1))], axis=1
    )[None].astype(np.float32)
    lost, new, changed = count({"y": rows[:, random.permutation(20)]}, {"y": rows})
    assert (lost[0], new[0], changed) == (0, 0, 0)


@given(st.integers(0, 500))
def test_lost_on_one_side_is_new_on_the_other(seed: int) -> None:
    random = np.random.default_rng(seed)

    def drawn() -> Outputs:
        low = random.random((10, 2)) * 50
        return final(
            tuple(
                ((*one, *(one + 10 + random.random(2) * 30)), random.random(), int(random.integers(3))) for one in low
            )
        )

    one, other = drawn(), drawn()
    judges = [judge_of(one), judge_of(other)]
    judges[0].add(REAL, one, other)
    judges[1].add(REAL, other, one)
    (lost, new), (lost_back, new_back) = (judge.details()["counted"].values() for judge in judges)
    assert (lost[1], new[1]) == (new_back[1], lost_back[1])
    assert (lost[0], new[0]) == (new_back[0], lost_back[0])


def test_the_overlap_that_is_needed_is_the_setting() -> None:
    first, second, low = FOUND
    moved: Found = (((10, 10, 30, 28), 0.9, 0), second, low)  # 18 of 30 rows
    assert count(final(moved), final(FOUND), 0.59)[0] == [0, 2]
    assert count(final(moved), final(FOUND), 0.61)[0] == [1, 2]
    assert first[0] == (10, 10, 30, 40)


def test_rounding_moves_no_box_across_the_lowest_score() -> None:
    at: Found = (((10, 10, 30, 40), 0.25001, 0),)
    below: Found = (((10, 10, 30, 40), 0.24999, 0),)
    assert count(final(below), final(at)) == ([0, 1], [0, 0], 0.0)
    assert count(final(at), final(below)) == ([0, 0], [0, 1], 0.0)
    clearly: Found = (((10, 10, 30, 40), 0.249, 0),)
    assert count(final(clearly), final(at))[0] == [1, 1]


@pytest.mark.parametrize("layout", [final, two, three])
def test_files_may_have_as_many_rows_as_they_find(layout: Callable[[Found], Outputs]) -> None:
    def rows(found: Outputs, count: int) -> Outputs:
        axis = 0 if layout is three else 1
        return {name: value[:count] if axis == 0 else value[:, :count] for name, value in found.items()}

    all_of_them = layout(FOUND)
    judge = judge_of(all_of_them)
    for ours, theirs in ((3, 3), (2, 3), (1, 3), (0, 3), (0, 0), (3, 0)):
        judge.add(REAL, rows(all_of_them, ours), rows(all_of_them, theirs))
    assert judge.details()["counted"] == {"boxes lost": [3, 8], "boxes new": [2, 7]}


def test_without_a_box_nothing_is_counted() -> None:
    nothing = final((((0, 0, 1, 1), 0.2, 0),))
    judge = judge_of(nothing)
    judge.add(REAL, nothing, nothing)
    assert judge.numbers() == {}
    assert judge.uncounted() == {"boxes_changed": "no box has a score of 0.25"}


def test_overlapping_boxes_of_one_class_are_one_object() -> None:
    corners = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 6]], np.float64)
    kept = suppress(Boxes(corners, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 0])))
    assert kept.scores.tolist() == [0.9, 0.7, 0.6]
    assert iou(corners[0], corners).tolist() == pytest.approx([1, 0.9, 0.9, 0.6])
    assert iou(np.array([0.0, 0, 0, 5]), corners).tolist() == [0, 0, 0, 0]


def test_of_very_many_boxes_those_with_the_highest_scores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "MOST_CANDIDATES", 5)
    apart: Found = tuple(((10.0 * i, 0, 10.0 * i + 5, 5), 0.9 - 0.01 * i, 0) for i in range(12))
    assert count(final(apart), final(apart)) == ([0, 5], [0, 5], 0.0)
    assert count(final(apart[1:]), final(apart)) == ([1, 5], [0, 4], pytest.approx(1 / 9))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(1, 20, 5)], r"'a': expected boxes and scores"),
        ([(1, 4, 200)], r"'a': expected boxes and scores"),
        ([(1, 3, 80, 80)], r"'a': expected boxes and scores"),
        ([(6,)], r"'a': expected boxes and scores"),
        ([(1, 6, 200), (1, 2, 8, 8)], r"'a': expected boxes and scores"),
        ([(1, 20, 5), (1, 20, 3)], r"'a': expected boxes \(N, A, 4\), got float32 \[1, 20, 5\]"),
        ([(1, 20, 4), (1, 21, 3)], r"'b': expected scores \[1, 20\], or of several classes \[1, 20, 'classes'\]"),
        ([(1, 20, 4), (1, 20, 3), (1, 20)], r"'b': expected one value for each box, \[1, 20\]"),
        ([(1, 20, 4), (1, 20), (1,)], r"'c': expected one value for each box"),
    ],
)
def test_outputs_of_other_shapes_are_refused(shapes: list[tuple[int, ...]], said: str) -> None:
    specs = [TensorSpec(name, shape, "float32", None) for name, shape in zip("abc", shapes, strict=False)]
    with pytest.raises(InvalidInput, match=said):
        BoxJudge(specs, 0.5)
