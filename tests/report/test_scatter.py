"""Names beside points: every one is legible, or left to the hint."""

from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest

from toolkit.report.numbers import tick
from toolkit.report.scatter import PEER, Point, lower_left, scatter, text_width


def _drawn(points: list[Point], size: tuple[float, float] = (520, 340)) -> ElementTree.Element:
    titles = ("A title", "A description")
    return ElementTree.fromstring(scatter("key", size, titles, ("MB", "ms"), points, tick, tick).markup())


def _boxes(svg: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    boxes = []
    for text in svg.iter("text"):
        if text.get("class") == "label":
            wide = text_width(text.text or "")
            left = float(text.get("x", 0)) - (wide if text.get("text-anchor") == "end" else 0)
            boxes.append((left, left + wide, float(text.get("y", 0)) - 10, float(text.get("y", 0)) + 2))
    return boxes


@pytest.mark.parametrize("size", [(520.0, 340.0), (335.0, 300.0)])
def test_names_neither_overlap_nor_leave_the_drawing_even_where_points_coincide(size: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    points = [Point(f"int8-{i}.tflite", 1 + 0.01 * rng.random(), 3 + 0.1 * rng.random(), "best", "") for i in range(9)]
    boxes = _boxes(_drawn(points, size))
    assert len(boxes) >= 5
    for one, two in combinations(boxes, 2):
        assert one[1] <= two[0] or two[1] <= one[0] or one[3] <= two[2] or two[3] <= one[2], (one, two)
    assert all(left >= 0 and right <= size[0] for left, right, _, _ in boxes)


def test_every_point_has_a_mark_with_a_hint_and_zero_a_place_of_its_own() -> None:
    points = [Point("a", 0.0, 1.0, "best", "1 ms"), Point("b", 0.5, 2.0, "failed", "2 ms")]
    svg = _drawn(points)
    marks = list(svg.iter("circle"))
    assert [mark.findtext("title") for mark in marks] == ["a: 1 ms", "b: 2 ms"]
    assert float(marks[0].get("cx", 0)) < float(marks[1].get("cx", 0))
    ticks = [text.text for text in svg.iter("text") if text.get("class") == "tick"]
    assert "0" in ticks


def test_where_every_value_is_zero_the_axis_has_that_one_tick() -> None:
    svg = _drawn([Point("a", 0.0, 1.0, "best", ""), Point("b", 0.0, 2.0, "best", "")])
    below = [text for text in svg.iter("text") if text.get("class") == "tick" and text.get("text-anchor") == "middle"]
    assert [text.text for text in below] == ["0"]


def test_lower_is_down_and_larger_is_right_on_log_axes() -> None:
    svg = _drawn([Point(str(x), x, x, "best", "") for x in (1.0, 10.0, 100.0)])
    xs, ys = ([float(c.get(k, 0)) for c in svg.iter("circle")] for k in ("cx", "cy"))
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    assert xs[2] - xs[1] == pytest.approx(xs[1] - xs[0], abs=0.02)


def test_the_line_joins_the_points_that_none_is_below_and_left_of() -> None:
    points = [Point("a", 1, 9, "best", ""), Point("b", 2, 9, "best", ""), Point("c", 3, 1, "best", "")]
    points += [Point("d", 0.5, 0.5, "failed", ""), Point("e", 0.4, 0.4, PEER, "")]
    assert [point.name for point in lower_left(points)] == ["a", "c"]


def test_a_file_has_its_name_before_a_peer_at_the_same_place() -> None:
    points = [Point(name, 1.0, 1.0, PEER, "") for name in ("PyTorch eager", "OpenVINO, a name with no end of words")]
    svg = _drawn([*points, Point("fp32.tflite", 1.0, 1.0, "best", "")], (335.0, 300.0))
    labels = [text for text in svg.iter("text") if (text.get("class") or "").startswith("label")]
    assert labels[0].text == "fp32.tflite"
    assert [text.get("class") for text in labels[1:]] == ["label peer"] * (len(labels) - 1)
