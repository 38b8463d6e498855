"""Rows that a graph finds are compared with the most similar rows of the other side, in any number and order."""

import numpy as np
import pytest

from backends.tensor import Array
from toolkit.metrics.judges import NoJudge
from toolkit.metrics.samples import Sample
from toolkit.parity.found import FoundRows
from toolkit.parity.stream import RunningComparison

_ROWS = FoundRows({"boxes": 0, "scores": 0, "labels": 0})


def _outputs(*rows: tuple[float, float, int]) -> dict[str, Array]:
    """Return boxes (N, 4), scores (N,) and labels (N,) of rows (place, score, label)."""
    return {
        "boxes": np.array([[place, place, place + 1, place + 1] for place, _, _ in rows], np.float32).reshape(-1, 4),
        "scores": np.array([score for _, score, _ in rows], np.float32),
        "labels": np.array([label for *_, label in rows], np.int64),
    }


def _errors(got: dict[str, Array], *expected: tuple[float, float, int]) -> dict[str, float]:
    total = RunningComparison("model.onnx", NoJudge(), found=_ROWS)
    total.add(Sample("one", "synthetic", {}, None), got, _outputs(*expected))
    return {name: error.max_abs for name, error in total.result().outputs.items()}


def test_rows_in_another_order_are_the_same_rows() -> None:
    got = _outputs((40, 0.7, 2), (10, 0.9, 1), (70, 0.5, 1))
    assert _errors(got, (10, 0.9, 1), (70, 0.5, 1), (40, 0.7, 2)) == {"boxes": 0, "scores": 0, "labels": 0}


@pytest.mark.parametrize(
    ("rows", "errors"),
    [
        ([(10, 0.9, 1)], {"boxes": 41, "scores": pytest.approx(0.7), "labels": 3}),  # a box is lost: (40, 0.7, 2)
        ([(10, 0.9, 1), (40, 0.7, 2), (20, 0.4, 0)], {"boxes": 21, "scores": pytest.approx(0.4), "labels": 1}),
        ([(10, 0.9, 1), (40, 0.7, 3)], {"boxes": 0, "scores": 0, "labels": 1}),
        ([(10, 0.9, 1), (42, 0.75, 2)], {"boxes": 2, "scores": pytest.approx(0.05), "labels": 0}),
    ],
)
def test_a_lost_row_a_new_row_and_another_row_count(rows: list[tuple[float, float, int]], errors: object) -> None:
    assert _errors(_outputs(*rows), (10, 0.9, 1), (40, 0.7, 2)) == errors


def test_rows_that_fill_a_file_of_fixed_sizes_do_not_count() -> None:
    got = _outputs((10, 0.9, 1), (40, 0.7, 2))
    filled = {
        "boxes": np.concatenate([got["boxes"], np.zeros((90, 4), np.float32)]),
        "scores": np.concatenate([got["scores"], np.zeros(90, np.float32)]),
        "labels": np.concatenate([got["labels"], np.full(90, -1)]),
    }
    total = RunningComparison("model.onnx", NoJudge(), found=_ROWS)
    total.add(Sample("one", "synthetic", {}, None), filled, got)
    assert {name: error.values for name, error in total.result().outputs.items()} == {
        "boxes": 8,
        "scores": 2,
        "labels": 2,
    }


def test_where_nothing_is_found_nothing_is_compared() -> None:
    total = RunningComparison("model.onnx", NoJudge(), found=_ROWS)
    total.add(Sample("one", "synthetic", {}, None), _outputs(), _outputs())
    assert total.result().outputs == {}
    total.add(Sample("two", "synthetic", {}, None), _outputs((1, 0.5, 0)), _outputs((1, 0.5, 0)))
    total.add(
        Sample("three", "synthetic", {}, None), _outputs((1, 0.5, 0), (9, 0.5, 0)), _outputs((1, 0.5, 0), (9, 0.5, 0))
    )
    labels = total.result().outputs["labels"]
    assert (labels.samples, labels.values, labels.of_variation) == (3, 3, None)
