"""Labels and strings, counted by hand, and what holds for any scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidInput
from backends.tensor import TensorSpec
from toolkit.metrics.labels import LabelJudge, SequenceJudge, clear_labels
from toolkit.metrics.samples import Sample

REAL = Sample("a photograph", "real", {}, None)


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec("y", shape, dtype, None)


def count(judge: LabelJudge | SequenceJudge, got: np.ndarray, expected: np.ndarray) -> dict[str, list[int]]:
    judge.add(REAL, {"y": got}, {"y": expected})
    counted: dict[str, list[int]] = judge.details()["counted"]
    return counted


def test_a_label_that_is_another_one_is_counted() -> None:
    expected = np.eye(4, dtype=np.float32)
    judge = LabelJudge(spec(4, 4), 1)
    assert judge.numbers() == {}
    assert judge.uncounted() == {"labels_changed": "no labels were read"}
    assert count(judge, expected[[0, 1, 3, 3]], expected) == {"labels changed": [1, 4]}
    assert (judge.numbers(), judge.uncounted()) == ({"labels_changed": 0.25}, {})


@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_order_of_the_largest_scores_does_not_count_and_their_set_does(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    expected = random.permutation(np.arange(10, dtype=np.float32))[None]
    top = np.argsort(-expected[0])[:k]
    got = expected.copy()
    got[0, top] = expected[0, random.permutation(top)]
    assert count(LabelJudge(spec(1, 10), k), got, expected) == {"labels changed": [0, k]}
    lowest = int(expected.argmin())
    got[0, lowest] = 20
    assert count(LabelJudge(spec(1, 10), k), got, expected) == {"labels changed": [1, k]}


@given(st.integers(0, 1000), st.floats(0, 1e-5))
def test_scores_that_are_equal_up_to_rounding_have_no_order(seed: int, rounding: float) -> None:
    random = np.random.default_rng(seed)
    expected = random.random((6, 5)).astype(np.float32)
    expected[:, 0] = expected[:, 1] = 2  # two labels, equal
    got = expected + rounding * random.standard_normal(expected.shape).astype(np.float32)
    assert count(LabelJudge(spec(6, 5), 1), got, expected) == {"labels changed": [0, 6]}
    ours, theirs = clear_labels(got, expected)
    np.testing.assert_array_equal(ours, theirs)


def test_a_score_that_is_clearly_lower_is_another_label() -> None:
    expected = np.array([[0, 1, 1 - 2e-4]], np.float32)
    got = np.array([[0, 1, 1.1]], np.float32)
    assert count(LabelJudge(spec(1, 3), 1), got, expected) == {"labels changed": [1, 1]}
    expected[0, 2] = 1 - 5e-5
    assert count(LabelJudge(spec(1, 3), 1), got, expected) == {"labels changed": [0, 1]}


def test_axes_of_one_after_the_classes_are_left_out_and_steps_are_rows() -> None:
    expected = np.arange(10, dtype=np.float32).reshape(1, 10, 1, 1)
    assert count(LabelJudge(spec(1, 10, 1, 1), 1), expected[:, ::-1], expected) == {"labels changed": [1, 1]}
    steps = np.eye(6, dtype=np.float32).reshape(2, 3, 6)
    assert count(LabelJudge(spec(2, 3, 6), 1), steps[:, :, ::-1], steps) == {"labels changed": [6, 6]}


@pytest.mark.parametrize("wrong", [spec(1, 5), spec(2, 3, 8, 8), spec(1, 9, dtype="int64"), spec()])
def test_outputs_that_are_no_scores_of_enough_classes_are_refused(wrong: TensorSpec) -> None:
    with pytest.raises(InvalidInput, match=r"output 'y': expected float scores of more than 5 classes.*, got"):
        LabelJudge(wrong, 5)


def scores(*labels: int, classes: int = 5) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[list(labels)]


@pytest.mark.parametrize(
    ("got", "changed"),
    [
        ((0, 1, 1, 0, 1, 2), (0, 0)),  # "112"
        ((1, 0, 0, 1, 2, 2), (0, 0)),  # the same string, at other steps
        ((1, 1, 1, 1, 2, 0), (1, 1)),  # "12": one lost
        ((3, 0, 1, 0, 1, 2), (1, 1)),  # "3112": one more
        ((0, 0, 0, 0, 0, 0), (1, 3)),  # nothing
    ],
)
def test_strings_are_what_greedy_decoding_reads(got: tuple[int, ...], changed: tuple[int, int]) -> None:
    expected = scores(0, 1, 0, 1, 2, 0)[None]
    judge = SequenceJudge(spec(1, 6, 5), 0)
    counted = count(judge, scores(*got)[None], expected)
    assert counted["strings changed"] == [changed[0], 1]
    assert counted["characters changed"][0] == changed[1]
    assert judge.numbers()["strings_changed"] == changed[0]


def test_the_blank_may_be_counted_from_the_end_and_steps_may_come_first() -> None:
    steps_first = scores(4, 1, 4, 1)[:, None]
    judge = SequenceJudge(spec(4, 1, 5), -1)
    assert count(judge, steps_first, steps_first) == {"strings changed": [0, 1], "characters changed": [0, 2]}
    both = np.stack([scores(4, 1, 4, 1), scores(4, 4, 4, 4)])
    judge = SequenceJudge(spec(2, 4, 5), 4)
    assert count(judge, both[::-1], both) == {"strings changed": [2, 2], "characters changed": [4, 4]}


def test_silence_has_no_characters_to_judge() -> None:
    judge = SequenceJudge(spec(3, 5), 0)
    assert judge.uncounted().keys() == {"characters_changed", "strings_changed"}
    assert count(judge, scores(0, 0, 0), scores(0, 0, 0))["strings changed"] == [0, 1]
    assert judge.numbers() == {"strings_changed": 0}
    assert judge.uncounted() == {"characters_changed": "no characters were read"}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_characters_change_where_strings_do_and_both_ways_alike(one: list[int], other: list[int]) -> None:
    steps = max(len(one), len(other))
    pair = [scores(*labels, *[0] * (steps - len(labels))) for labels in (one, other)]
    judges = [SequenceJudge(spec(steps, 5), 0) for _ in range(2)]
    first, second = count(judges[0], *pair), count(judges[1], *pair[::-1])
    assert (first["strings changed"][0] > 0) == (first["characters changed"][0] > 0)
    assert first["characters changed"][1] == second["characters changed"][1]
    assert first["characters changed"][0] <= first["characters changed"][1]


@pytest.mark.parametrize(
    ("wrong", "blank", "said"),
    [
        (spec(5), 0, "expected float scores of at least 2 classes"),
        (spec(1, 4, 5, dtype="int64"), 0, "expected float scores"),
        (spec(1, 4, 5), 5, "expected a blank among its 5 classes, got 5"),
        (spec(1, 4, 5), -6, "expected a blank among its 5 classes, got -6"),
    ],
)
def test_outputs_without_steps_and_blanks_without_a_class_are_refused(wrong: TensorSpec, blank: int, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        SequenceJudge(wrong, blank)


def test_right_answers_are_counted_by_the_labels_that_samples_have() -> None:
    judge = LabelJudge(spec(4, 4), 1)
    expected = np.eye(4, dtype=np.float32)
    judge.add(Sample("a", "real", {}, (0, 1, 3, 3)), {"y": expected[[0, 0, 3, 3]]}, {"y": expected})
    assert judge.details()["counted"] == {
        "labels changed": [2, 4],
        "right by the labels given": [3, 4],
        "right in the reference": [3, 4],
    }
    judge.add(Sample("b", "real", {}, (-100, -100, 2, 0)), {"y": expected}, {"y": expected})
    judge.add(REAL, {"y": expected}, {"y": expected})
    assert judge.details()["counted"] == {
        "labels changed": [2, 12],
        "right by the labels given": [4, 6],
        "right in the reference": [4, 6],
    }


def test_a_label_among_the_k_largest_scores_is_right() -> None:
    judge = LabelJudge(spec(1, 10), 3)
    expected = np.arange(10, dtype=np.float32)[None]
    for label in (9, 7, 6):
        judge.add(Sample("a", "real", {}, (label,)), {"y": expected[:, ::-1]}, {"y": expected})
    assert judge.details()["counted"]["right by the labels given"] == [0, 3]
    assert judge.details()["counted"]["right in the reference"] == [2, 3]


@pytest.mark.parametrize("truth", [(0,), (0, 1, 2), (0, 4)])
def test_labels_that_do_not_fit_the_scores_are_refused(truth: tuple[int, ...]) -> None:
    scores = {"y": np.eye(4, dtype=np.float32)[:2]}
    with pytest.raises(
        InvalidInput, match="labels of a: expected one for each of 2 rows of the output 'y', from 0 to 3"
    ):
        LabelJudge(spec(2, 4), 1).add(Sample("a", "real", {}, truth), scores, scores)
