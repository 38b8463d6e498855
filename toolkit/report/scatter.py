"""Points with their names on two log axes, and the front that none of them is below and left of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from toolkit.report.svg import FONT_PX, Axis, Drawing, log_axis, text_width

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 24.0, 44.0
_RADIUS, _PEER_RADIUS = 5.0, 3.5
_ZERO_PX = 26.0
# Where a name may stand, from its point: beside it first, then above and below, then further away with a line.
_PLACES = [
    (sign_x * (_RADIUS + 4 + far), sign_y * far * 0.8)
    for far in (0.0, 14.0, 26.0, 40.0, 56.0, 74.0)
    for sign_x in (1, -1)
    for sign_y in ((0,) if not far else (-1, 1))
]


# The kind of what is drawn for comparison alone: no candidate for the front.
PEER = "peer"


@dataclass(frozen=True)
class Point:
    """kind: the class of its mark. tells: what its hint says beside the name."""

    name: str
    x: float
    y: float
    kind: str
    tells: str


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def scatter(
    key: str,
    size: tuple[float, float],
    titles: tuple[str, str],
    axes: tuple[str, str],
    points: Sequence[Point],
    x_label: Callable[[float], str],
    y_label: Callable[[float], str],
) -> Drawing:
    """titles: of the drawing and its description. axes: of x and y. Names that find no room are left to the hint."""
    width, height = size
    drawing = Drawing(key, width, height, *titles)
    has_zero = any(point.x <= 0 for point in points)
    start = _LEFT + (_ZERO_PX if has_zero else 0)
    x = log_axis([p.x for p in points], start, width - _RIGHT, x_label, _LEFT + 10 if has_zero else None)
    y = log_axis([p.y for p in points], height - _BOTTOM, _TOP, y_label)
    _draw_axes(drawing, x, y, axes)
    front = lower_left(points)
    steps: list[tuple[float, float]] = []
    for point in front:
        if steps:
            steps.append((x.place(point.x), steps[-1][1]))
        steps.append((x.place(point.x), y.place(point.y)))
    drawing.path("front", steps)
    taken = [
        _Box(a - _RADIUS, b - _RADIUS, a + _RADIUS, b + _RADIUS)
        for a, b in ((x.place(p.x), y.place(p.y)) for p in points)
    ]
    taken += [_along(one, two) for one, two in pairwise(steps)]
    for point in points:
        at = x.place(point.x), y.place(point.y)
        radius = _PEER_RADIUS if point.kind == PEER else _RADIUS
        drawing.circle(f"mark {point.kind}", *at, radius, f"{point.name}: {point.tells}")
        if point.kind == "failed":
            for sign in (1, -1):
                drawing.line("cross", at[0] - _RADIUS, at[1] - sign * _RADIUS, at[0] + _RADIUS, at[1] + sign * _RADIUS)
    # Files have their names first: those of peers take what room is left.
    for point in sorted(points, key=lambda p: (p.kind == PEER, y.place(p.y), x.place(p.x))):
        _draw_name(drawing, point, x.place(point.x), y.place(point.y), taken)
    return drawing


def _along(one: tuple[float, float], two: tuple[float, float]) -> _Box:
    """A step of the front, which names keep off."""
    (left, right), (top, bottom) = sorted((one[0], two[0])), sorted((one[1], two[1]))
    return _Box(left - 2, top - 2, right + 2, bottom + 2)


def lower_left(points: Sequence[Point]) -> list[Point]:
    """The files that no other is below and left of, from left to right."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, p.y)):
        if point.kind not in ("failed", PEER) and (not front or point.y < front[-1].y):
            front.append(point)
    return front


def _draw_axes(drawing: Drawing, x: Axis, y: Axis, titles: tuple[str, str]) -> None:
    bottom, right = drawing.height - _BOTTOM, drawing.width - _RIGHT
    drawing.line("axis", _LEFT, bottom, right, bottom)
    drawing.line("axis", _LEFT, _TOP, _LEFT, bottom)
    end = -1.0
    for value, label in x.ticks:
        at, half = x.place(value), text_width(label) / 2
        drawing.line("grid", at, _TOP, at, bottom)
        if at - half > end + 4:
            drawing.text("tick", at, bottom + 16, label, "middle")
            end = at + half
    for value, label in y.ticks:
        drawing.line("grid", _LEFT, y.place(value), right, y.place(value))
        drawing.text("tick", _LEFT - 6, y.place(value) + 4, label, "end")
    drawing.text("name", (_LEFT + right) / 2, drawing.height - 8, titles[0], "middle")
    drawing.text("name", 0, FONT_PX, titles[1])


def _draw_name(drawing: Drawing, point: Point, x: float, y: float, taken: list[_Box]) -> None:
    wide = text_width(point.name)
    for dx, dy in _PLACES:
        left = x + dx if dx > 0 else x + dx - wide
        box = _Box(left, y + dy - FONT_PX * 0.6, left + wide, y + dy + FONT_PX * 0.6)
        inside = (
            box.left > _LEFT
            and box.right < drawing.width
            and box.top > _TOP
            and (box.bottom < drawing.height - _BOTTOM)
        )
        if inside and not any(box.meets(other) for other in taken):
            taken.append(box)
            if abs(dy) > 0:
                drawing.line("leader", x, y, x + dx - (2 if dx > 0 else -2), y + dy)
            drawing.text(
                "label peer" if point.kind == PEER else "label",
                x + dx,
                y + dy + 4,
                point.name,
                "start" if dx > 0 else "end",
            )
            return
